//! Decoded views of a text. Each byte of a view has its place in the text.
//!
//! The encodings are percent-encoding (RFC 3986 section 2.1), forms (WHATWG URL), escapes of JSON (RFC
//! 8259 section 7), character references of HTML, base64 and base64url at each alignment (RFC 4648), and
//! hex; nested up to three deep.

use std::ops::Range;

use zeroize::Zeroizing;

/// The most nested encodings.
const DEPTH: usize = 3;

/// The most decoded bytes: so many times the text, and this many.
const BUDGET: (usize, usize) = (24, 64 << 10);

/// The fewest digits of base64 and hex: they make four bytes, the shortest secret.
const MIN_BASE64: usize = 6;
const MIN_HEX: usize = 8;

/// The most digits of a character reference, with leading zeros.
const MAX_DIGITS: usize = 32;

/// The shortest run of text in decoded base64 or hex that is decoded further.
const MIN_TEXT: usize = 8;

/// The character references for ASCII without white space (HTML section 13.5), in pairs.
const NAMED: &str = r#"
    amp & lt < gt > quot " apos ' plus + sol / bsol \ equals = lowbar _ hyphen - dash - period .
    comma , colon : semi ; commat @ percnt % num # dollar $ excl ! quest ? ast * lpar ( rpar )
    lsqb [ rsqb ] lcub { rcub } verbar | Hat ^ grave `
"#;

pub(super) struct DecodedView {
    bytes: Zeroizing<Vec<u8>>,
    places: Vec<(usize, usize)>,
}

/// `None` if nothing is encoded in that way.
type Decode = fn(&DecodedView) -> Option<DecodedView>;

const ESCAPES: [Decode; 4] =
    [|view| percent(view, false), |view| percent(view, true), backslash, references];

/// The places that `search` finds in any view of the text; `None` if there are too many views.
pub(super) fn of(
    text: &str,
    mut search: impl FnMut(&DecodedView, &mut Vec<Range<usize>>),
) -> Option<Vec<Range<usize>>> {
    let mut found = Vec::new();
    let mut left = BUDGET.0.saturating_mul(text.len()).saturating_add(BUDGET.1);
    let mut views = vec![(DecodedView::of(text), DEPTH)];
    while let Some((view, depth)) = views.pop() {
        left = left.checked_sub(view.bytes.len())?;
        search(&view, &mut found);
        if depth == 0 {
            continue;
        }
        views.extend(
            ESCAPES.iter().filter_map(|decode| decode(&view)).map(|view| (view, depth - 1)),
        );
        for view in dense(&view) {
            let further = if view.has_text() { depth - 1 } else { 0 };
            views.push((view, further));
        }
    }
    Some(found)
}

/// Base64 and hex at each alignment.
fn dense(view: &DecodedView) -> impl Iterator<Item = DecodedView> {
    let base64 = (0..4).filter_map(|offset| base64(view, offset));
    let hex = (0..2).filter_map(|offset| hex(view, offset));
    base64.chain(hex)
}

impl DecodedView {
    fn of(text: &str) -> Self {
        let places = (0..text.len()).map(|at| (at, at + 1)).collect();
        Self { bytes: Zeroizing::new(text.as_bytes().to_vec()), places }
    }

    fn with_room(bytes: usize) -> Self {
        Self { bytes: Zeroizing::new(Vec::with_capacity(bytes)), places: Vec::with_capacity(bytes) }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes for a comparison.
    pub(super) fn folded(&self) -> Self {
        let mut folded = Self::with_room(self.bytes.len());
        let mut at = 0;
        while let Some(byte) = self.bytes.get(at) {
            let invisible = self.bytes.get(at..).map_or(0, invisible);
            if let Some(byte) = folded_byte(*byte).filter(|_| invisible == 0) {
                folded.push(byte, self.place(at..at + 1));
            }
            at += invisible.max(1);
        }
        folded
    }

    /// The place of a run in the text.
    pub(super) fn place(&self, run: Range<usize>) -> Option<Range<usize>> {
        let (start, _) = self.places.get(run.start)?;
        let (_, end) = self.places.get(run.end.checked_sub(1)?)?;
        Some(*start..*end)
    }

    fn push(&mut self, byte: u8, place: Option<Range<usize>>) {
        // With room for every byte, this never moves, and leaves no copy of a secret.
        if let Some(place) = place {
            self.bytes.push(byte);
            self.places.push((place.start, place.end));
        }
    }

    fn has_text(&self) -> bool {
        let mut runs = self.bytes.split(|byte| !byte.is_ascii_graphic());
        runs.any(|run| run.len() >= MIN_TEXT)
    }
}

/// The length of an invisible character of Unicode in UTF-8: soft hyphen, zero-width ones, word joiner,
/// byte order mark.
fn invisible(bytes: &[u8]) -> usize {
    match bytes {
        [0xC2, 0xAD, ..] => 2,
        [0xE2, 0x80, 0x8B..=0x8F, ..] | [0xE2, 0x81, 0xA0, ..] | [0xEF, 0xBB, 0xBF, ..] => 3,
        _ => 0,
    }
}

/// A copy of a view with the characters that `read` decodes at a place, and how many bytes they took.
fn rewritten(
    view: &DecodedView,
    read: impl Fn(&[u8]) -> Option<(char, usize)>,
) -> Option<DecodedView> {
    let mut out = DecodedView::with_room(view.bytes.len());
    let (mut at, mut changed) = (0, false);
    while let Some(rest) = view.bytes.get(at..).filter(|rest| !rest.is_empty()) {
        if let Some((c, length)) = read(rest) {
            for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                out.push(byte, view.place(at..at + length));
            }
            (at, changed) = (at + length, true);
        } else {
            out.push(rest.first().copied().unwrap_or_default(), view.place(at..at + 1));
            at += 1;
        }
    }
    changed.then_some(out)
}

/// `%2B`, and `%u002B` as old pages write it; in forms `+` is a space.
fn percent(view: &DecodedView, form: bool) -> Option<DecodedView> {
    // Without a `+`, both variants are the same.
    if form && !view.bytes.contains(&b'+') {
        return None;
    }
    let mut out = DecodedView::with_room(view.bytes.len());
    let (mut at, mut changed) = (0, false);
    while let Some(byte) = view.bytes.get(at) {
        let decoded = match view.bytes.get(at..).unwrap_or_default() {
            [b'%', b'u' | b'U', digits @ ..] => number(digits, 16, 4, 4).map(|(code, _)| (code, 6)),
            [b'%', digits @ ..] => number(digits, 16, 2, 2).map(|(code, _)| (code, 3)),
            [b'+', ..] if form => Some((u32::from(b' '), 1)),
            _ => None,
        };
        let decoded = decoded.and_then(|(code, length)| Some((u8::try_from(code).ok()?, length)));
        changed |= decoded.is_some();
        let (byte, length) = decoded.unwrap_or((*byte, 1));
        out.push(byte, view.place(at..at + length));
        at += length;
    }
    changed.then_some(out)
}

/// `\u002B`, `\u{2b}`, `\x2B`, `\/` and the like.
fn backslash(view: &DecodedView) -> Option<DecodedView> {
    rewritten(view, |rest| match rest {
        [b'\\', b'u' | b'U', b'{', digits @ ..] => {
            let (code, length) = number(digits, 16, 1, 8)?;
            let end = digits.get(length) == Some(&b'}');
            Some((char::from_u32(code).filter(|_| end)?, 4 + length))
        }
        [b'\\', b'u' | b'U', digits @ ..] => {
            let (first, _) = number(digits, 16, 4, 4)?;
            if let Some(c) = char::from_u32(first) {
                return Some((c, 6));
            }
            // A pair of surrogates (RFC 8259 section 7).
            let [b'\\', b'u' | b'U', second @ ..] = digits.get(4..)? else { return None };
            let (second, _) = number(second, 16, 4, 4)?;
            let code = 0x1_0000 + ((first & 0x3FF) << 10) + (second & 0x3FF);
            Some((char::from_u32(code)?, 12))
        }
        [b'\\', b'x' | b'X', digits @ ..] => {
            let (code, _) = number(digits, 16, 2, 2)?;
            Some((char::from_u32(code)?, 4))
        }
        [b'\\', b'n' | b'r' | b't' | b'b' | b'f', ..] => Some((' ', 2)),
        [b'\\', byte, ..] if byte.is_ascii_punctuation() => Some((char::from(*byte), 2)),
        _ => None,
    })
}

/// `&#43;`, `&#x2B;` and `&plus;`, the numbers also without the end.
fn references(view: &DecodedView) -> Option<DecodedView> {
    rewritten(view, |rest| {
        let after = rest.strip_prefix(b"&")?;
        let (code, length) = match after {
            [b'#', b'x' | b'X', digits @ ..] => {
                let (code, length) = number(digits, 16, 1, MAX_DIGITS)?;
                (code, 3 + length)
            }
            [b'#', digits @ ..] => {
                let (code, length) = number(digits, 10, 1, MAX_DIGITS)?;
                (code, 2 + length)
            }
            _ => {
                let (name, c) = named(after)?;
                (u32::from(c), 1 + name.len())
            }
        };
        let end = usize::from(rest.get(length) == Some(&b';'));
        Some((char::from_u32(code)?, length + end))
    })
}

fn named(text: &[u8]) -> Option<(&'static str, char)> {
    let is_here =
        |name: &str| text.strip_prefix(name.as_bytes()).is_some_and(|end| end.starts_with(b";"));
    if let Some(blank) = ["nbsp", "Tab", "NewLine"].into_iter().find(|name| is_here(name)) {
        return Some((blank, ' '));
    }
    let (names, chars) = (NAMED.split_whitespace(), NAMED.split_whitespace().skip(1));
    let mut pairs = names.zip(chars).step_by(2);
    pairs.find(|(name, _)| is_here(name)).and_then(|(name, c)| Some((name, c.chars().next()?)))
}

/// A number of `least` to `most` digits, and how many it has.
fn number(bytes: &[u8], base: u32, least: usize, most: usize) -> Option<(u32, usize)> {
    let digits = bytes.iter().take(most).map_while(|byte| char::from(*byte).to_digit(base));
    let (mut value, mut length) = (0_u32, 0);
    for digit in digits {
        value = value.checked_mul(base)?.checked_add(digit)?;
        length += 1;
    }
    (length >= least).then_some((value, length))
}

/// Runs of base64 digits from their digit `offset` on, without white space.
fn base64(view: &DecodedView, offset: usize) -> Option<DecodedView> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' | b'-' => Some(62),
        b'/' | b'_' => Some(63),
        _ => None,
    };
    let blank = |byte: u8| byte.is_ascii_whitespace();
    decoded(view, (digit, blank), (MIN_BASE64, 6), offset)
}

/// Runs of hex digits from their digit `offset` on, without separators.
fn hex(view: &DecodedView, offset: usize) -> Option<DecodedView> {
    let digit = |byte: u8| {
        let digit = char::from(byte).to_digit(16)?;
        u8::try_from(digit).ok()
    };
    let between = |byte: u8| byte.is_ascii_whitespace() || b":-".contains(&byte);
    decoded(view, (digit, between), (MIN_HEX, 4), offset)
}

/// The bytes of runs of at least `least` digits of so many bits.
fn decoded(
    view: &DecodedView,
    (digit, skip): (impl Fn(u8) -> Option<u8>, impl Fn(u8) -> bool),
    (least, bits): (usize, u32),
    offset: usize,
) -> Option<DecodedView> {
    let mut out = DecodedView::with_room(view.bytes.len());
    let mut run: Vec<(u8, usize)> = Vec::new();
    for at in 0..=view.bytes.len() {
        match view.bytes.get(at) {
            Some(byte) if skip(*byte) && digit(*byte).is_none() => {}
            byte => {
                if let Some(value) = byte.and_then(|byte| digit(*byte)) {
                    run.push((value, at));
                    continue;
                }
                if run.len() >= least {
                    join(view, run.get(offset..).unwrap_or_default(), bits, &mut out);
                }
                run.clear();
            }
        }
    }
    (!out.bytes.is_empty()).then_some(out)
}

/// Makes bytes of digits; a byte's place is that of all digits with a bit of it.
fn join(view: &DecodedView, digits: &[(u8, usize)], bits: u32, out: &mut DecodedView) {
    let (mut held, mut count, mut first) = (0_u32, 0, 0);
    for (value, at) in digits {
        if count == 0 {
            first = *at;
        }
        held = (held << bits | u32::from(*value)) & 0xFFFF;
        count += bits;
        if count >= 8 {
            count -= 8;
            let byte = u8::try_from((held >> count) & 0xFF).unwrap_or_default();
            out.push(byte, view.place(first..at + 1));
            first = *at;
        }
    }
}

/// White space and control characters do not count, nor does upper and lower case. Base64 and base64url
/// (RFC 4648 sections 4 and 5) are alike.
pub(super) const fn folded_byte(byte: u8) -> Option<u8> {
    match byte {
        0..=b' ' | 0x7F => None,
        b'+' => Some(b'-'),
        b'/' => Some(b'_'),
        byte => Some(byte.to_ascii_lowercase()),
    }
}
