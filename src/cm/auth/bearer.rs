//! The bearer token: from a file, never in a log.

use std::io;
use std::path::{Path, PathBuf};

use reqwest::header::HeaderValue;

use super::super::away;
use super::super::file_contents::FileContents;
use super::super::reloading_file::{self, ReloadingFile};
use super::super::secret::Secret;
use super::{AuthDecision, AuthResponse, RequestAuth};
use crate::domain::{CallError, UnavailableReason};

/// The longest token file that is read; of a longer one nothing is sent. Servers refuse headers of a
/// quarter of that.
const TOKEN_LIMIT: u64 = 64 << 10;

/// A token file, and the header made of what it last held.
pub(in crate::cm) struct BearerTokenFile(ReloadingFile<HeaderValue>);

impl BearerTokenFile {
    pub(super) const fn new(path: PathBuf) -> Self {
        Self(ReloadingFile::new(path))
    }

    /// The header for the next call; the file is looked at each time, and read when it changed.
    pub(super) fn authorization(&self) -> Result<HeaderValue, CallError> {
        self.header().map_err(|error| {
            let path = self.0.path().display();
            away(UnavailableReason::Credentials, format!("no token from {path}: {error}"))
        })
    }

    /// A token that was not taken may have been replaced meanwhile.
    pub(super) fn after(&self, pass: &RequestAuth, welcome: &AuthResponse) -> AuthDecision {
        let fresh = self.header().ok();
        if welcome.is_unauthorized() && fresh.is_some() && fresh != pass.header {
            AuthDecision::Retry
        } else {
            AuthDecision::Accept
        }
    }

    fn header(&self) -> io::Result<HeaderValue> {
        self.0.get(read)
    }
}

/// The header of the token in a file.
pub(super) fn read(path: &Path) -> io::Result<HeaderValue> {
    let text = reloading_file::bare_secret(path, TOKEN_LIMIT)?;
    let token = text.expose().trim();
    if token.is_empty() {
        return Err(io::Error::other("it is empty; write the token into it"));
    }
    if token.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("Bearer ")) {
        return Err(io::Error::other(FileContents::Scheme.description()));
    }
    // Quotes, a name or a form around it: a token has `=` at its end alone (RFC 6750 section 2.1).
    let wrapped = token.trim_end_matches('=').contains(['=', '"', '\'', '{', '}']);
    let header = Some(Secret::new(token.to_owned())).filter(|_| !wrapped);
    header.and_then(|token| token.bearer()).ok_or_else(|| {
        io::Error::other("it holds something else than one token; write the token alone")
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn bearer(path: &Path) -> BearerTokenFile {
        BearerTokenFile::new(path.to_owned())
    }

    fn header(file: &BearerTokenFile) -> String {
        file.authorization().unwrap().to_str().unwrap().to_owned()
    }

    #[track_caller]
    fn assert_missing(file: &BearerTokenFile, words: &str) {
        match file.authorization() {
            Err(CallError::Unavailable {
                reason: UnavailableReason::Credentials, detail, ..
            }) => {
                assert!(detail.contains(words), "{detail}");
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_token_is_trimmed_and_kept_out_of_debug_output() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        fs::write(&path, "\n s3cret \r\n").unwrap();
        let credentials = bearer(&path);
        assert_eq!(header(&credentials), "Bearer s3cret");
        assert!(!format!("{:?}", credentials.authorization()).contains("s3cret"));
    }

    #[test]
    fn a_token_is_read_again_when_its_file_is_written_or_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        fs::write(&path, "one").unwrap();
        let credentials = bearer(&path);
        assert_eq!(header(&credentials), "Bearer one");
        fs::write(&path, "three").unwrap();
        assert_eq!(header(&credentials), "Bearer three");
        fs::write(dir.path().join("new"), "fours").unwrap();
        fs::rename(dir.path().join("new"), &path).unwrap();
        assert_eq!(header(&credentials), "Bearer fours");
        fs::remove_file(&path).unwrap();
        assert_missing(&credentials, "No such file");
    }

    #[test]
    fn a_file_without_one_token_gives_no_header_and_is_not_quoted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        fs::write(&path, " \n").unwrap();
        assert_missing(&bearer(&path), "empty");
        for text in
            ["to\r\nken: x", "TOKEN=s3cret", "'s3cret'", "access_token=s3cret&x=y", "s3cr}t"]
        {
            fs::write(&path, text).unwrap();
            assert_missing(&bearer(&path), "something else");
        }
        fs::write(&path, "s3cr-_.~+/t==").unwrap();
        assert_eq!(header(&bearer(&path)), "Bearer s3cr-_.~+/t==");
        fs::write(&path, b"\xff\xff").unwrap();
        assert_missing(&bearer(&path), "UTF-8");
        assert_missing(&bearer(dir.path()), "not a file");
    }

    #[test]
    fn a_file_that_is_too_long_for_a_token_is_refused_and_not_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        fs::write(&path, "x".repeat(65_536)).unwrap();
        assert_eq!(header(&bearer(&path)).len(), "Bearer ".len() + 65_536);
        fs::write(&path, "x".repeat(65_537)).unwrap();
        assert_missing(&bearer(&path), "more than 65536 bytes");
    }
}
