//! BER-TLV of cards (ISO 7816-4:2005 section 5.2.2): tags of up to three bytes, lengths in the short
//! form or after 81 or 82. Trailing bytes are an error, never padding.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tlv<'a> {
    /// The tag's bytes as a number.
    pub(super) tag: u32,
    pub(super) value: &'a [u8],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum TlvError {
    #[error("data object is truncated")]
    Truncated,
    #[error("tag has more than three bytes")]
    LongTag,
    #[error("unsupported length encoding {0:02X}")]
    UnsupportedLength(u8),
    #[error("{0} trailing bytes after the data object")]
    TrailingBytes(usize),
    #[error("unexpected tag {found:X}, expected {wanted:X}")]
    OtherTag { wanted: u32, found: u32 },
}

/// The value of the only data object of the input, which has this tag.
pub(super) fn value(input: &[u8], wanted: u32) -> Result<&[u8], TlvError> {
    let (Tlv { tag, value }, rest) = split(input)?;
    if tag != wanted {
        return Err(TlvError::OtherTag { wanted, found: tag });
    }
    if rest.is_empty() { Ok(value) } else { Err(TlvError::TrailingBytes(rest.len())) }
}

/// All data objects of the input, in order.
pub(super) fn all(mut input: &[u8]) -> Result<Vec<Tlv<'_>>, TlvError> {
    let mut objects = Vec::new();
    while !input.is_empty() {
        let (object, rest) = split(input)?;
        objects.push(object);
        input = rest;
    }
    Ok(objects)
}

/// The data objects at the front of the input, up to padding (00 or FF in place of a tag) or to
/// anything else that is no data object.
pub(super) fn before_padding(mut input: &[u8]) -> Vec<Tlv<'_>> {
    let mut objects = Vec::new();
    while !matches!(input, [] | [0x00 | 0xFF, ..])
        && let Ok((object, rest)) = split(input)
    {
        objects.push(object);
        input = rest;
    }
    objects
}

/// The value of the only object with this tag; `None` where there is none, or more than one.
pub(super) fn only<'a>(objects: &[Tlv<'a>], tag: u32) -> Option<&'a [u8]> {
    let mut values = objects.iter().filter(|object| object.tag == tag);
    match (values.next(), values.next()) {
        (Some(object), None) => Some(object.value),
        _ => None,
    }
}

pub(super) fn split(input: &[u8]) -> Result<(Tlv<'_>, &[u8]), TlvError> {
    let (tag, rest) = split_tag(input)?;
    let (length, rest) = split_length(rest)?;
    let (value, rest) = rest.split_at_checked(length).ok_or(TlvError::Truncated)?;
    Ok((Tlv { tag, value }, rest))
}

/// ISO 7816-4 section 5.2.2.1: the tag goes on after five set low bits, and then after a set top bit.
fn split_tag(input: &[u8]) -> Result<(u32, &[u8]), TlvError> {
    let (&first, mut rest) = input.split_first().ok_or(TlvError::Truncated)?;
    let mut tag = u32::from(first);
    let mut goes_on = first & 0x1F == 0x1F;
    while goes_on {
        let (&next, after) = rest.split_first().ok_or(TlvError::Truncated)?;
        if tag > 0xFFFF {
            return Err(TlvError::LongTag);
        }
        tag = tag << 8 | u32::from(next);
        goes_on = next & 0x80 != 0;
        rest = after;
    }
    Ok((tag, rest))
}

/// ISO 7816-4 section 5.2.2.2.
fn split_length(input: &[u8]) -> Result<(usize, &[u8]), TlvError> {
    match *input {
        [] | [0x81 | 0x82] | [0x82, _] => Err(TlvError::Truncated),
        [length @ ..=0x7F, ref rest @ ..] | [0x81, length, ref rest @ ..] => {
            Ok((usize::from(length), rest))
        }
        [0x82, high, low, ref rest @ ..] => {
            Ok((usize::from(u16::from_be_bytes([high, low])), rest))
        }
        [form, ..] => Err(TlvError::UnsupportedLength(form)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(text: &str) -> Vec<u8> {
        hex::decode(text).unwrap()
    }

    #[test]
    fn length_forms_are_read() {
        assert_eq!(value(&bytes("4f03010203"), 0x4F), Ok([1, 2, 3].as_slice()));
        assert_eq!(value(&bytes("4f8103010203"), 0x4F), Ok([1, 2, 3].as_slice()));
        assert_eq!(value(&bytes("4f820003010203"), 0x4F), Ok([1, 2, 3].as_slice()));
        assert_eq!(value(&bytes("4f00"), 0x4F), Ok([].as_slice()));
        let long = bytes(&format!("df1f820119{}", "00".repeat(281)));
        assert_eq!(value(&long, 0xDF1F).unwrap().len(), 281);
    }

    #[test]
    fn tag_forms_are_read() {
        assert_eq!(value(&bytes("5fc10201aa"), 0x005F_C102), Ok([0xAA].as_slice()));
        assert_eq!(value(&bytes("df2001aa"), 0xDF20), Ok([0xAA].as_slice()));
        assert_eq!(value(&bytes("dfffffff2000"), 0xDF20), Err(TlvError::LongTag));
    }

    #[test]
    fn truncated_object_is_error() {
        for text in ["", "df", "4f", "4f03", "4f030102", "4f81", "4f82", "4f8201", "4f82010001"] {
            assert_eq!(value(&bytes(text), 0x4F), Err(TlvError::Truncated), "{text}");
        }
    }

    #[test]
    fn trailing_bytes_are_error() {
        assert_eq!(value(&bytes("4f010200"), 0x4F), Err(TlvError::TrailingBytes(1)));
        assert_eq!(all(&bytes("4f01024f")), Err(TlvError::Truncated));
    }

    #[test]
    fn unsupported_length_forms_are_errors() {
        for form in [0x80, 0x83, 0x84, 0xFF] {
            let input = [0x4F, form, 0, 0, 0, 0];
            assert_eq!(value(&input, 0x4F), Err(TlvError::UnsupportedLength(form)));
        }
    }

    #[test]
    fn unexpected_tag_is_error() {
        let input = bytes("df2100");
        assert_eq!(
            value(&input, 0xDF20),
            Err(TlvError::OtherTag { wanted: 0xDF20, found: 0xDF21 })
        );
    }

    #[test]
    fn objects_are_in_order() {
        let input = bytes("4f0102730103");
        let tags: Vec<u32> = all(&input).unwrap().iter().map(|object| object.tag).collect();
        assert_eq!(tags, [0x4F, 0x73]);
    }

    #[test]
    fn padding_ends_objects_and_duplicates_are_ignored() {
        let input = bytes("34010130010234020304ff00");
        let objects = before_padding(&input);
        assert_eq!(objects.len(), 3);
        assert_eq!(only(&objects, 0x30), Some([2].as_slice()));
        assert_eq!(only(&objects, 0x34), None);
        assert_eq!(only(&objects, 0x35), None);
        assert_eq!(before_padding(&bytes("3401013009")).len(), 1);
    }

    proptest! {
        #[test]
        fn objects_fit_in_input(input in prop::collection::vec(any::<u8>(), 0..600)) {
            if let Ok(objects) = all(&input) {
                let inside: usize = objects.iter().map(|object| object.value.len()).sum();
                prop_assert!(inside <= input.len());
            }
        }
    }
}
