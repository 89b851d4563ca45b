//! Text for people: what does not belong on a terminal escaped, columns aligned.

use std::borrow::Cow;

use jiff::Timestamp;

/// A text with everything escaped that moves the cursor, turns the direction of writing or
/// cannot be seen: names of readers and words of servers come from outside.
pub(super) fn clean(text: &str) -> Cow<'_, str> {
    if !text.chars().any(hidden) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if hidden(c) {
            escaped.extend(c.escape_unicode());
        } else {
            escaped.push(c);
        }
    }
    Cow::Owned(escaped)
}

fn hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// Rows with their columns aligned; the last column is as long as it likes.
pub(super) fn table(rows: &[Vec<String>]) -> Vec<String> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| clean(cell).chars().count()).max()
    };
    let widths: Vec<_> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    rows.iter()
        .map(|row| {
            let cells = row.iter().zip(&widths);
            let cells: Vec<_> =
                cells.map(|(cell, width)| format!("{:width$}", clean(cell))).collect();
            cells.join("  ").trim_end().to_owned()
        })
        .collect()
}

/// A moment, to the second.
pub(super) fn time(at: Timestamp) -> String {
    format!("{at:.0}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_belong_on_a_terminal_is_escaped() {
        let hostile = "Reader\u{1b}[2J\u{202e}x\u{200b}\r\n";
        assert_eq!(clean(hostile), "Reader\\u{1b}[2J\\u{202e}x\\u{200b}\\u{d}\\u{a}");
        assert_eq!(clean("Lesegerät [CCID] 00"), "Lesegerät [CCID] 00");
    }

    #[test]
    fn columns_are_aligned() {
        let rows = [vec!["a".to_owned(), "b".to_owned()], vec!["long".to_owned(), "c".to_owned()]];
        assert_eq!(table(&rows), ["a     b", "long  c"]);
    }
}
