//! The word that was probably meant.

/// The candidate that the fewest slips of the keyboard make from `word`, if that is believable.
pub(super) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let folded = word.to_lowercase();
    let believable = folded.chars().count().div_ceil(3);
    candidates
        .into_iter()
        .map(|candidate| (distance(&folded, &candidate.to_lowercase()), candidate))
        .filter(|(slips, _)| *slips <= believable)
        .min_by_key(|(slips, _)| *slips)
        .map(|(_, candidate)| candidate)
}

/// Characters to insert, delete or replace on the way from `a` to `b` (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut left = i + 1;
        let mut next = vec![left];
        for (to, above) in b.chars().zip(row.windows(2)) {
            let [diagonal, above] = *above else { continue };
            left = (diagonal + usize::from(from != to)).min(above + 1).min(left + 1);
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_those_of_the_textbook() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", ""), 3);
        assert_eq!(distance("same", "same"), 0);
    }

    #[test]
    fn a_word_that_is_near_nothing_has_no_neighbour() {
        assert_eq!(nearest("Retierd", ["New", "Retired"]), Some("Retired"));
        assert_eq!(nearest("api-path", ["url", "api_path"]), Some("api_path"));
        assert_eq!(nearest("password", ["url", "api_path"]), None);
    }
}
