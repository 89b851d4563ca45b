//! Command APDUs, their answers and the TLV objects in them, as a card sees
//! them.

pub(super) const OK: u16 = 0x9000;
pub(super) const END_OF_FILE: u16 = 0x6282;
pub(super) const TERMINATED: u16 = 0x6285;
pub(super) const WRONG_LENGTH: u16 = 0x6700;
pub(super) const NOT_ALLOWED: u16 = 0x6982;
pub(super) const BLOCKED: u16 = 0x6983;
pub(super) const NO_FILE_SELECTED: u16 = 0x6986;
pub(super) const WRONG_DATA: u16 = 0x6A80;
pub(super) const NOT_FOUND: u16 = 0x6A82;
pub(super) const RECORD_NOT_FOUND: u16 = 0x6A83;
pub(super) const WRONG_PARAMETERS: u16 = 0x6A86;
pub(super) const DATA_NOT_FOUND: u16 = 0x6A88;
pub(super) const WRONG_OFFSET: u16 = 0x6B00;
pub(super) const NO_SUCH_COMMAND: u16 = 0x6D00;
pub(super) const NO_SUCH_CLASS: u16 = 0x6E00;

/// A command APDU taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Command<'a> {
    pub(super) class: u8,
    pub(super) instruction: u8,
    pub(super) p1: u8,
    pub(super) p2: u8,
    pub(super) data: &'a [u8],
    /// `None` without Le; 256 or 65536 for zeros.
    pub(super) le: Option<usize>,
    pub(super) extended: bool,
}

impl<'a> Command<'a> {
    /// Takes an APDU apart; `None` where its lengths do not fit.
    pub(super) fn parse(apdu: &'a [u8]) -> Option<Self> {
        let [class, instruction, p1, p2, body @ ..] = apdu else { return None };
        let (data, le, extended) = match body {
            [0, _, _, ..] => extended(body)?,
            _ => short(body)?,
        };
        let (class, instruction, p1, p2) = (*class, *instruction, *p1, *p2);
        Some(Self { class, instruction, p1, p2, data, le, extended })
    }

    /// P1 and P2 as one number.
    pub(super) fn p1_p2(&self) -> u16 {
        u16::from_be_bytes([self.p1, self.p2])
    }
}

type Body<'a> = (&'a [u8], Option<usize>, bool);

fn short(body: &[u8]) -> Option<Body<'_>> {
    let le = |byte: u8| Some(if byte == 0 { 256 } else { usize::from(byte) });
    match body {
        [] => Some((&[], None, false)),
        [byte] => Some((&[], le(*byte), false)),
        [count, rest @ ..] => {
            let (data, rest) = rest.split_at_checked(usize::from(*count))?;
            match rest {
                [] => Some((data, None, false)),
                [byte] => Some((data, le(*byte), false)),
                _ => None,
            }
        }
    }
}

fn extended(body: &[u8]) -> Option<Body<'_>> {
    let number = |high: u8, low: u8| usize::from(u16::from_be_bytes([high, low]));
    let le = |high, low| Some(if (high, low) == (0, 0) { 65536 } else { number(high, low) });
    match body {
        [0, high, low] => Some((&[], le(*high, *low), true)),
        [0, high, low, rest @ ..] => {
            let (data, rest) = rest.split_at_checked(number(*high, *low))?;
            match rest {
                [] => Some((data, None, true)),
                [high, low] => Some((data, le(*high, *low), true)),
                _ => None,
            }
        }
        _ => None,
    }
}

/// What a card answers: data and a status word.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) data: Vec<u8>,
    pub(super) status: u16,
}

impl Answer {
    /// Data and 9000.
    pub(super) fn data(data: impl Into<Vec<u8>>) -> Self {
        Self { data: data.into(), status: OK }
    }

    /// A status word alone.
    pub(super) const fn status(status: u16) -> Self {
        Self { data: Vec::new(), status }
    }
}

/// A TLV object; the tag has one to four bytes.
pub(super) fn object(tag: u32, content: &[u8]) -> Vec<u8> {
    let mut bytes: Vec<u8> = tag.to_be_bytes().into_iter().skip_while(|byte| *byte == 0).collect();
    bytes.extend(length(content.len()));
    bytes.extend(content);
    bytes
}

fn length(count: usize) -> Vec<u8> {
    let [.., high, low] = count.to_be_bytes();
    match count {
        0..0x80 => vec![low],
        0x80..0x100 => vec![0x81, low],
        _ => vec![0x82, high, low],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(apdu: &[u8]) -> Option<(Vec<u8>, Option<usize>, bool)> {
        Command::parse(apdu).map(|it| (it.data.to_vec(), it.le, it.extended))
    }

    #[test]
    fn seven_apdu_cases_are_parsed() {
        assert_eq!(parts(&[0, 1, 2, 3]), Some((vec![], None, false)));
        assert_eq!(parts(&[0, 1, 2, 3, 0]), Some((vec![], Some(256), false)));
        assert_eq!(parts(&[0, 1, 2, 3, 1, 7]), Some((vec![7], None, false)));
        assert_eq!(parts(&[0, 1, 2, 3, 1, 7, 9]), Some((vec![7], Some(9), false)));
        assert_eq!(parts(&[0, 1, 2, 3, 0, 1, 2]), Some((vec![], Some(258), true)));
        assert_eq!(parts(&[0, 1, 2, 3, 0, 0, 1, 7]), Some((vec![7], None, true)));
        assert_eq!(parts(&[0, 1, 2, 3, 0, 0, 1, 7, 0, 0]), Some((vec![7], Some(65536), true)));
    }

    #[test]
    fn apdu_with_wrong_length_is_invalid() {
        for apdu in [&[0, 1, 2][..], &[0, 1, 2, 3, 2, 7], &[0, 1, 2, 3, 1, 7, 0, 0]] {
            assert_eq!(Command::parse(apdu), None, "{apdu:02X?}");
        }
    }

    #[test]
    fn tlv_tags_and_lengths_have_minimal_size() {
        assert_eq!(object(0x4F, &[1]), [0x4F, 1, 1]);
        assert_eq!(object(0x005F_2F40, &[]), [0x5F, 0x2F, 0x40, 0]);
        assert_eq!(object(0x53, &[0; 0x80])[..3], [0x53, 0x81, 0x80]);
        assert_eq!(object(0x53, &[0; 0x123])[..4], [0x53, 0x82, 1, 0x23]);
    }
}
