//! Names from the list that Debian's package pcsc-tools installs, for display only.
//!
//! An entry is a pattern at the beginning of a line, then descriptions, each after a tab. The
//! pattern is a regular expression over the whole ATR in hex with spaces between bytes. Of that
//! syntax only hex digits, `.`, sets such as `[1-5]`, and `*` occur; a pattern with anything else
//! matches nothing. The file is not ours: what it holds may be damaged, and is escaped when shown.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use crate::domain::Atr;

/// Where the package puts it.
const PATH: &str = "/usr/share/pcsc/smartcard_list.txt";

/// The list has half a MiB; this is room for it to grow, and a bound for what is not the list.
const MAX_FILE: u64 = 4 << 20;

/// The longest ATR has 98 characters in that form; sets make a pattern somewhat longer.
const MAX_PATTERN: usize = 512;

/// The longest entry of the list has 24 descriptions.
const MAX_NAMES: usize = 32;

/// Letters of a description that are shown; the longest of the list has 276.
const MAX_NAME: usize = 300;

/// What the list says about an ATR; nothing where there is no list.
pub(in super::super) fn names(atr: &Atr) -> Vec<String> {
    read(Path::new(PATH)).map_or_else(Vec::new, |list| names_in(&list, atr))
}

/// The beginning of a file, as far as it can be had.
fn read(path: &Path) -> Option<Vec<u8>> {
    if !fs::metadata(path).ok()?.is_file() {
        return None;
    }
    let mut list = Vec::new();
    File::open(path).ok()?.take(MAX_FILE).read_to_end(&mut list).ok()?;
    Some(list)
}

/// The descriptions of all entries whose pattern matches.
fn names_in(list: &[u8], atr: &Atr) -> Vec<String> {
    let atr = spaced(atr);
    let mut names = Vec::new();
    let mut in_match = false;
    for line in list.split(|byte| *byte == b'\n') {
        if let [b'\t', description @ ..] = line {
            if in_match {
                names.extend(name(description));
            }
        } else {
            in_match = pattern(line).is_some_and(|pattern| matches(&pattern, &atr));
        }
        if names.len() == MAX_NAMES {
            break;
        }
    }
    names
}

/// The ATR as the patterns have it: upper-case hex, a space between bytes.
fn spaced(atr: &Atr) -> Vec<u8> {
    let bytes: Vec<_> = atr.as_bytes().iter().map(|byte| format!("{byte:02X}")).collect();
    bytes.join(" ").into_bytes()
}

fn name(description: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(description);
    let text = text.trim();
    let cut = text.chars().take(MAX_NAME).collect();
    (!text.is_empty()).then_some(cut)
}

/// One place of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
struct PatternElement {
    what: PatternChar,
    /// Whether it stands for any number of characters.
    repeated: bool,
}

/// What may stand in a place.
#[derive(Debug, Clone, PartialEq, Eq)]
enum PatternChar {
    Any,
    One(u8),
    /// One of these, each range with both its ends.
    OneOf(Vec<(u8, u8)>),
}

impl PatternChar {
    fn allows(&self, byte: u8) -> bool {
        match self {
            Self::Any => true,
            Self::One(one) => *one == byte,
            Self::OneOf(ranges) => ranges.iter().any(|(from, to)| (*from..=*to).contains(&byte)),
        }
    }
}

/// A line as a pattern; `None` where it is none, or one of a syntax that does not occur.
fn pattern(line: &[u8]) -> Option<Vec<PatternElement>> {
    let mut rest = line.trim_ascii_end();
    if rest.is_empty() || rest.len() > MAX_PATTERN {
        return None;
    }
    let mut places = Vec::new();
    while let [first, after @ ..] = rest {
        let (what, after) = match first.to_ascii_uppercase() {
            b'.' => (PatternChar::Any, after),
            b'[' => set(after)?,
            literal if literal == b' ' || literal.is_ascii_hexdigit() => {
                (PatternChar::One(literal), after)
            }
            _ => return None,
        };
        let unstarred = after.strip_prefix(b"*");
        places.push(PatternElement { what, repeated: unstarred.is_some() });
        rest = unstarred.unwrap_or(after);
    }
    Some(places)
}

/// A set, after its opening bracket: digits and ranges of them. A comma is a member like another.
fn set(text: &[u8]) -> Option<(PatternChar, &[u8])> {
    let end = text.iter().position(|byte| *byte == b']')?;
    let (mut members, after) = text.split_at_checked(end)?;
    let mut ranges = Vec::new();
    while let [from, rest @ ..] = members {
        let (to, rest) = match rest {
            [b'-', to, rest @ ..] => (to, rest),
            _ => (from, rest),
        };
        if [from, to].iter().any(|end| !end.is_ascii_hexdigit() && **end != b',') {
            return None;
        }
        ranges.push((from.to_ascii_uppercase(), to.to_ascii_uppercase()));
        members = rest;
    }
    Some((PatternChar::OneOf(ranges), after.get(1..)?))
}

/// Whether the pattern stands for the whole text. Goes along the pattern with all the lengths of
/// text that it may stand for so far, so that no pattern takes long.
fn matches(pattern: &[PatternElement], text: &[u8]) -> bool {
    let mut reached = vec![false; text.len() + 1];
    if let Some(start) = reached.first_mut() {
        *start = true;
    }
    for place in pattern {
        reached = place.matches_rest(&reached, text);
        if !reached.contains(&true) {
            return false;
        }
    }
    reached.last().copied().unwrap_or(false)
}

impl PatternElement {
    /// The lengths after this place, given those before it.
    fn matches_rest(&self, reached: &[bool], text: &[u8]) -> Vec<bool> {
        let mut last = self.repeated && reached.first().copied().unwrap_or(false);
        let mut next = vec![last];
        for ((shorter, same), byte) in reached.iter().zip(reached.iter().skip(1)).zip(text) {
            let before = if self.repeated { last } else { *shorter };
            last = (before && self.what.allows(*byte)) || (self.repeated && *same);
            next.push(last);
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cli::text::escape_control_chars;

    const LIST: &str = "# a comment\n\
        \n\
        3B 02 14 50\n\
        \tSchlumberger Multiflex 3k\n\
        \thttps://example.com/\n\
        \n\
        3b 02 1. 5[0,1]\n\
        \tany such card\n\
        3F 02 14 50\n\
        \tof inverse convention\n";

    fn named(list: &str, atr: &str) -> Vec<String> {
        names_in(list.as_bytes(), &atr.parse().unwrap())
    }

    fn is_match(text: &str, atr: &str) -> bool {
        pattern(text.as_bytes()).is_some_and(|it| matches(&it, &spaced(&atr.parse().unwrap())))
    }

    #[test]
    fn every_entry_that_matches_gives_all_its_lines() {
        let meant = ["Schlumberger Multiflex 3k", "https://example.com/", "any such card"];
        assert_eq!(named(LIST, "3b021450"), meant);
        assert_eq!(named(LIST, "3b021551"), ["any such card"]);
        assert_eq!(named(LIST, "3f021450"), ["of inverse convention"]);
        assert_eq!(named(LIST, "3b021460"), [""; 0]);
    }

    #[test]
    fn a_pattern_stands_for_the_whole_atr() {
        assert!(is_match("3B 02 14 50", "3b021450"));
        assert!(!is_match("3B 02 14", "3b021450"));
        assert!(!is_match("3B 02 14 50 00", "3b021450"));
    }

    #[test]
    fn the_syntax_that_occurs_in_the_list_is_understood() {
        let long = "3bef00ff8131424501020338";
        assert!(is_match("3B EF 00 FF 81 31 42 45 .* 38", long));
        assert!(!is_match("3B EF 00 FF 81 31 42 45 .* 39", long));
        assert!(is_match("3B EF 00 FF .*", long) && is_match("3B EF 00 FF.*", long));
        assert!(is_match("3B 6F 0[1-5]", "3b6f03") && !is_match("3B 6F 0[1-5]", "3b6f06"));
        assert!(is_match("3B 6F [6,E]C", "3b6fec") && is_match("3B 6. A[fe]", "3b6faf"));
        assert!(is_match("3B 6F 01\r", "3b6f01"));
    }

    #[test]
    fn a_pattern_of_another_syntax_matches_nothing() {
        for text in ["3B (02|03)", "3B 0[^2]", "3B 0[2", "3B 02+", "*3B 02", "3B 0[2-]", "", " x"] {
            assert!(!is_match(text, "3b02"), "{text}");
        }
    }

    #[test]
    fn a_damaged_list_gives_what_can_be_read_and_is_escaped_when_shown() {
        let mut list = b"\tno pattern before it\n\xff\xfe\x00\n3B 02\n\t\xff\x1b[31mred".to_vec();
        list.extend([b'x'; 1000]);
        let names = names_in(&list, &"3b02".parse().unwrap());
        let [name] = names.as_slice() else { panic!("{names:?}") };
        assert_eq!(name.chars().count(), MAX_NAME);
        assert!(escape_control_chars(name).starts_with("\u{fffd}\\u{1b}[31mred"));
    }

    #[test]
    fn an_endless_entry_is_cut() {
        let list = format!("3B 02\n{}", "\tname\n".repeat(1000));
        assert_eq!(named(&list, "3b02").len(), MAX_NAMES);
    }

    #[test]
    fn a_list_that_is_missing_or_no_file_names_nothing_and_a_huge_one_is_read_in_part() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(read(directory.path()), None);
        let path = directory.path().join("smartcard_list.txt");
        assert_eq!(read(&path), None);
        File::create(&path).unwrap().set_len(3 * MAX_FILE).unwrap();
        assert_eq!(read(&path).unwrap().len() as u64, MAX_FILE);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_list(
            list in prop::collection::vec(any::<u8>(), 0..300),
            atr in prop::collection::vec(any::<u8>(), 2..=33),
        ) {
            let names = names_in(&list, &Atr::try_from(atr.as_slice()).unwrap());
            prop_assert!(names.len() <= MAX_NAMES);
        }

        #[test]
        fn any_text_of_the_syntax_is_a_pattern_or_none(
            text in "[0-9A-F .*,\\[\\]\\-]{0,60}",
            atr in prop::collection::vec(any::<u8>(), 2..=33),
        ) {
            let atr = Atr::try_from(atr.as_slice()).unwrap();
            let _is = pattern(text.as_bytes()).map(|it| matches(&it, &spaced(&atr)));
        }

        #[test]
        fn every_atr_matches_itself_and_itself_with_wildcards(
            atr in prop::collection::vec(any::<u8>(), 2..=33),
            wild in prop::collection::vec(any::<bool>(), 33),
        ) {
            let atr = Atr::try_from(atr.as_slice()).unwrap();
            let text = String::from_utf8(spaced(&atr)).unwrap();
            let masked = text.split(' ').zip(&wild);
            let masked: Vec<_> = masked.map(|(byte, wild)| if *wild { ".." } else { byte }).collect();
            for text in [text.clone(), masked.join(" "), ".*".to_owned()] {
                prop_assert!(is_match(&text, &atr.to_string()));
            }
        }
    }
}
