//! BER-TLV. The input is a row of data objects.

use cardbridge::card::fuzzing::{DerObject, all, before_padding, only, value};

/// How deep data objects lie in each other in whatever a probe reads, and some more.
const DEPTH: usize = 8;

/// Reads the input with every parser, and then what is in it.
pub fn check(data: &[u8]) {
    row(data, DEPTH);
}

fn row(input: &[u8], depth: usize) {
    let front = before_padding(input);
    assert!(length(&front) <= input.len(), "{front:02x?}");
    match all(input) {
        Some(objects) => {
            assert!(objects.starts_with(&front));
            // The shortest form of a length is two bytes less than the longest.
            assert!(length(&objects) <= input.len());
            assert!(length(&objects) + 2 * objects.len() >= input.len(), "bytes were passed over");
            if let [(tag, content)] = objects.as_slice() {
                assert_eq!(value(input, *tag), Some(*content));
                assert_eq!(value(input, tag ^ 1), None, "another tag");
            } else if let Some((tag, _)) = objects.first() {
                assert_eq!(value(input, *tag), None, "more than one object");
            }
        }
        None => assert!(front.iter().all(|(tag, _)| value(input, *tag).is_none())),
    }
    for (tag, content) in &front {
        let twins = front.iter().filter(|(other, _)| other == tag).count();
        assert_eq!(only(input, *tag), (twins == 1).then_some(*content));
        if depth > 0 {
            row(content, depth - 1);
        }
    }
}

/// How many bytes these objects take, with lengths as short as can be.
fn length(objects: &[DerObject<'_>]) -> usize {
    objects.iter().map(|(tag, content)| tag_length(*tag) + 1 + content.len()).sum()
}

const fn tag_length(tag: u32) -> usize {
    match tag {
        ..=0xFF => 1,
        0x100..=0xFFFF => 2,
        0x1_0000.. => 3,
    }
}
