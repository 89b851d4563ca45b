//! Secrets: not shown, and cleared from memory when they are dropped.
//!
//! A [`Secret`] has neither `Debug` nor `Display`. What the HTTP client is given of one shares its
//! memory, which is cleared with the last of them. Beyond reach are the client's and TLS's own
//! buffers, through which it goes to the connection.

use std::fmt::Write as _;

use hyper::body::Bytes;
use reqwest::header::HeaderValue;
use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

/// A secret, as text.
pub(super) struct Secret(Zeroizing<String>);

impl Secret {
    pub(super) fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// An empty one that does not move, and so leaves nothing behind, before it is this long.
    pub(super) fn with_room(bytes: usize) -> Self {
        Self::new(String::with_capacity(bytes))
    }

    /// The text: for what is sent, and for nothing else.
    pub(super) fn expose(&self) -> &str {
        &self.0
    }

    /// The text, to be added to.
    pub(super) fn expose_mut(&mut self) -> &mut String {
        &mut self.0
    }

    /// The same memory, for the HTTP client.
    pub(super) fn into_bytes(self) -> Bytes {
        Bytes::from_owner(self.0)
    }

    /// `Bearer` and this token, as a header that shows nothing; `None` where it is no token.
    pub(super) fn bearer(&self) -> Option<HeaderValue> {
        const SCHEME: &str = "Bearer ";
        let token = self.expose();
        // A token has neither spaces nor line breaks inside (RFC 6750 section 2.1).
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return None;
        }
        let mut line = Self::with_room(SCHEME.len() + token.len());
        line.expose_mut().push_str(SCHEME);
        line.expose_mut().push_str(token);
        let mut header = HeaderValue::from_maybe_shared(line.into_bytes()).ok()?;
        header.set_sensitive(true);
        Some(header)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

/// Adds `text` to `out` as `application/x-www-form-urlencoded` writes it (WHATWG URL): at most
/// three bytes for one.
pub(super) fn form_encode(text: &str, out: &mut String) {
    for byte in text.bytes() {
        match byte {
            b' ' => out.push('+'),
            byte if byte.is_ascii_alphanumeric() || b"*-._".contains(&byte) => {
                out.push(char::from(byte));
            }
            // Writing to a string does not fail.
            byte => write!(out, "%{byte:02X}").unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NASTY: &str = "p&q=r+s/t%u \"v\"<w>'x'\\yß";

    #[test]
    fn a_form_reads_back_as_what_was_put_in() {
        let mut form = "value=".to_owned();
        form_encode(NASTY, &mut form);
        // The judge is the URL parser's own reader of forms.
        let url = reqwest::Url::parse(&format!("http://host/?{form}")).unwrap();
        let pairs: Vec<_> = url.query_pairs().into_owned().collect();
        assert_eq!(pairs, [("value".to_owned(), NASTY.to_owned())]);
    }

    #[test]
    fn a_token_makes_a_header_that_does_not_show_it() {
        let header = Secret::new("s3cret".to_owned()).bearer().unwrap();
        assert_eq!(header, "Bearer s3cret");
        assert_eq!(format!("{header:?}"), "Sensitive");
        for none in ["", "two words", "line\nbreak", "ümlaut"] {
            assert!(Secret::new(none.to_owned()).bearer().is_none(), "{none:?}");
        }
    }

    #[test]
    fn what_the_client_is_given_shares_the_memory_that_is_cleared() {
        let secret = Secret::new("s3cret".to_owned());
        let at = secret.expose().as_ptr();
        let bytes = secret.into_bytes();
        assert_eq!((bytes.as_ptr(), bytes.clone().as_ptr()), (at, at));
    }
}
