//! Content codings (RFC 9110 section 8.4): every call asks for `identity`, and nothing is decoded.
//!
//! A proxy that compresses all the same is named, so that its administrator can switch that off.

use reqwest::header::{CONTENT_ENCODING, HeaderMap};

/// The longest name of a coding that a message shows, in characters.
const MAX_NAME: usize = 40;

/// The first bytes of compressed data: RFC 1952, RFC 8878, bzip2, xz, LZ4, and compress(1). Brotli has
/// none.
const MAGIC: &[(&[u8], &str)] = &[
    (&[0x1F, 0x8B], "gzip"),
    (&[0x28, 0xB5, 0x2F, 0xFD], "zstd"),
    (b"BZh", "bzip2"),
    (&[0xFD, b'7', b'z', b'X', b'Z', 0], "xz"),
    (&[0x04, 0x22, 0x4D, 0x18], "lz4"),
    (&[0x1F, 0x9D], "compress"),
];

/// The coding that the header fields name; `None` for `identity` and where they name none.
pub(super) fn announced(headers: &HeaderMap) -> Option<String> {
    let values = headers.get_all(CONTENT_ENCODING).iter();
    let names = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let names = names.map(|name| name.trim_ascii().to_ascii_lowercase());
    let mut codings: Vec<_> = names
        .filter(|name| !name.is_empty() && name != b"identity")
        .map(|name| shown(&name))
        .collect();
    codings.dedup();
    (!codings.is_empty()).then(|| codings.join(", ").chars().take(MAX_NAME).collect())
}

/// The coding that a body begins with, whatever its header fields say.
pub(super) fn found(body: &[u8]) -> Option<&'static str> {
    let known = MAGIC.iter().find(|(magic, _)| body.starts_with(magic)).map(|(_, name)| *name);
    known.or_else(|| is_zlib(body).then_some("deflate"))
}

/// Whether it begins as RFC 1950 section 2.2 says, and goes on as no text does: `x^` is text, too.
fn is_zlib(body: &[u8]) -> bool {
    let [method, flags, rest @ ..] = body else { return false };
    let header = u16::from_be_bytes([*method, *flags]);
    let start = rest.get(..rest.len().min(64)).unwrap_or_default();
    let is_odd = |byte: &u8| !byte.is_ascii_graphic() && !byte.is_ascii_whitespace();
    method & 0x8F == 8 && header.is_multiple_of(31) && start.iter().any(is_odd)
}

/// What somebody can do about a compressed answer.
pub(super) const REMEDY: &str =
    "switch compression off for this server in the proxy or web server on the way";

/// What a message says about a compressed answer.
pub(super) fn complaint(coding: &str) -> String {
    format!("{}: {REMEDY}", compressed(coding))
}

/// The same without what to do.
pub(super) fn compressed(coding: &str) -> String {
    format!("the answer is compressed ({coding}), although the call asks for identity")
}

/// A name as RFC 9110 section 5.6.2 lets tokens be written; anything else is `unknown`.
fn shown(name: &[u8]) -> String {
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.+".contains(byte);
    if name.len() <= MAX_NAME && name.iter().all(is_token) {
        String::from_utf8_lossy(name).into_owned()
    } else {
        "unknown".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(lines: &[&str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(CONTENT_ENCODING, line.parse().unwrap());
        }
        announced(&headers)
    }

    #[test]
    fn each_coding_but_identity_is_named() {
        for (lines, name) in [
            (&["gzip"][..], "gzip"),
            (&["GZip"], "gzip"),
            (&[" x-gzip "], "x-gzip"),
            (&["br"], "br"),
            (&["deflate", "gzip"], "deflate, gzip"),
            (&["identity, zstd"], "zstd"),
            (&["aws-chunked"], "aws-chunked"),
            (&["<script>"], "unknown"),
        ] {
            assert_eq!(named(lines).as_deref(), Some(name), "{lines:?}");
        }
        for none in [&[][..], &["identity"], &["Identity, "], &[""]] {
            assert_eq!(named(none), None, "{none:?}");
        }
        assert_eq!(named(&["x".repeat(500).as_str()]).as_deref(), Some("unknown"));
    }

    #[test]
    fn compressed_data_is_known_by_its_first_bytes_and_text_is_none() {
        assert_eq!(found(&[0x1F, 0x8B, 8, 0]), Some("gzip"));
        for flags in [0x01, 0x5E, 0x9C, 0xDA] {
            assert_eq!(found(&[0x78, flags, 0xAB, 0x56]), Some("deflate"));
        }
        assert_eq!(found(&[0x58, 0x85, 0xAB, 0x56]), Some("deflate"));
        assert_eq!(found(&[0x28, 0xB5, 0x2F, 0xFD, 0]), Some("zstd"));
        for text in [&b""[..], b"x", b"x^2", b"x^2 and more of it\r\n", b"{}", b"(abc)", b"BZ"] {
            assert_eq!(found(text), None, "{text:?}");
        }
    }
}
