//! The bearer token: from a file, never in a log.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use reqwest::header::HeaderValue;

use super::super::away;
use super::stamp::Stamp;
use super::{Next, Pass, Welcome};
use crate::domain::{AwayReason, CallError};

/// The longest token file that is read; of a longer one nothing is sent. Servers refuse headers of a quarter of that.
const TOKEN_LIMIT: u64 = 64 << 10;

/// A token file, and the header made of what it last held.
pub(in crate::remote) struct TokenFile {
    path: PathBuf,
    last: Mutex<Option<(Stamp, HeaderValue)>>,
}

impl TokenFile {
    pub(super) const fn new(path: PathBuf) -> Self {
        Self { path, last: Mutex::new(None) }
    }

    /// The header for the next call; the file is looked at each time, and read when it changed.
    pub(super) fn authorization(&self) -> Result<HeaderValue, CallError> {
        self.header().map_err(|error| {
            let path = self.path.display();
            away(AwayReason::Credentials, format!("no token from {path}: {error}"))
        })
    }

    /// A token that was not taken may have been replaced meanwhile.
    pub(super) fn after(&self, pass: &Pass, welcome: &Welcome) -> Next {
        let fresh = self.header().ok();
        if welcome.refused() && fresh.is_some() && fresh != pass.header {
            Next::Again
        } else {
            Next::Believe
        }
    }

    fn header(&self) -> io::Result<HeaderValue> {
        let stamp = Stamp::of_file(&self.path)?;
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, header)) = last.as_ref().filter(|(known, _)| *known == stamp) {
            return Ok(header.clone());
        }
        let header = read(&self.path)?;
        *last = Some((stamp, header.clone()));
        Ok(header)
    }
}

fn read(path: &Path) -> io::Result<HeaderValue> {
    let mut text = String::new();
    // One byte more than allowed, so that a longer file is seen to be longer.
    File::open(path)?.take(TOKEN_LIMIT + 1).read_to_string(&mut text)?;
    if text.len() as u64 > TOKEN_LIMIT {
        return Err(io::Error::other(format!("it has more than {TOKEN_LIMIT} bytes")));
    }
    let token = text.trim();
    if token.is_empty() {
        return Err(io::Error::other("it is empty"));
    }
    // A token has neither spaces nor line breaks inside (RFC 6750 section 2.1).
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(io::Error::other("it holds something else than one token"));
    }
    let mut header = HeaderValue::try_from(format!("Bearer {token}")).map_err(io::Error::other)?;
    header.set_sensitive(true);
    Ok(header)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn bearer(path: &Path) -> TokenFile {
        TokenFile::new(path.to_owned())
    }

    fn header(file: &TokenFile) -> String {
        file.authorization().unwrap().to_str().unwrap().to_owned()
    }

    #[track_caller]
    fn assert_missing(file: &TokenFile, words: &str) {
        match file.authorization() {
            Err(CallError::Away { reason: AwayReason::Credentials, detail, .. }) => {
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
        fs::write(&path, "to\r\nken: x").unwrap();
        assert_missing(&bearer(&path), "something else");
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
