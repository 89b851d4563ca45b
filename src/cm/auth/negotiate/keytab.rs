//! Whose keys a keytab holds; of the keys nothing is kept.
//!
//! libkrb5 says of every keytab that does not do that there is no credential cache. So the file is
//! looked into first, in the format that MIT and Windows write (`0x0502`): for each key its length,
//! the principal, a time, the key's number and type, and the key.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use zeroize::Zeroizing;

/// The most that is read; a key has about a hundred bytes.
const LIMIT: usize = 1 << 20;
const FORMAT: [u8; 2] = [5, 2];
/// What a keytab of the last century begins with.
const OLD_FORMAT: [u8; 2] = [5, 1];

/// Why a keytab does not do.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeytabError {
    /// It cannot be read.
    #[error("cannot read keytab {path}: {source}")]
    Unreadable {
        /// The file.
        path: String,
        /// What the system says.
        source: io::Error,
    },
    /// It is another kind of file, or damaged.
    #[error("{path} is not a valid keytab: {reason}")]
    InvalidFormat {
        /// The file.
        path: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// The principal has no key in it.
    #[error("keytab {path} has no key for {principal}; it has keys for {present}")]
    PrincipalMissing {
        /// The file.
        path: String,
        /// Whose key is wanted.
        principal: String,
        /// Whose keys are there.
        present: String,
    },
}

impl KeytabError {
    /// What somebody can do about it.
    pub(super) const fn remedy(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => {
                "check cm.auth.keytab, and that the user cardbridge may read the file"
            }
            Self::InvalidFormat { .. } => "create the keytab again with ktpass, adcli or ktutil",
            Self::PrincipalMissing { .. } => "correct cm.auth.principal, or make a keytab for it",
        }
    }
}

/// The principal that is to be logged in, in full: the wanted one, or the keytab's first.
pub(super) fn principal(path: &Path, wanted: Option<&str>) -> Result<String, KeytabError> {
    let shown = || path.display().to_string();
    let bytes = read(path).map_err(|source| KeytabError::Unreadable { path: shown(), source })?;
    let principals = principals(&bytes)
        .and_then(|names| if names.is_empty() { Err("it holds no key") } else { Ok(names) })
        .map_err(|why| KeytabError::InvalidFormat { path: shown(), reason: why })?;
    let found = match wanted {
        Some(wanted) => principals.iter().find(|name| is(name, wanted)),
        None => principals.first(),
    };
    found.cloned().ok_or_else(|| KeytabError::PrincipalMissing {
        path: shown(),
        principal: wanted.unwrap_or_default().to_owned(),
        present: principals.join(", "),
    })
}

/// A regular file's content; it is wiped when it is let go of.
fn read(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    // Opening a pipe would wait for its writer.
    if !path.metadata()?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    let file = File::open(path)?;
    let announced = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    // With room for all of it, so that nothing is left where it was while it grew.
    let mut bytes = Zeroizing::new(vec![0; announced.min(LIMIT) + 1]);
    let mut length = 0;
    let mut file = file;
    while let Some(room) = bytes.get_mut(length..).filter(|room| !room.is_empty()) {
        match file.read(room)? {
            0 => break,
            more => length += more,
        }
    }
    if length > LIMIT {
        return Err(io::Error::other(format!("it has more than {LIMIT} bytes")));
    }
    bytes.truncate(length);
    Ok(bytes)
}

/// Each principal once, in the file's order.
fn principals(bytes: &[u8]) -> Result<Vec<String>, &'static str> {
    let mut rest = match bytes.split_first_chunk() {
        Some((&FORMAT, rest)) => rest,
        Some((&OLD_FORMAT, _)) => return Err("its format, 0x0501, is out of use"),
        _ if bytes.is_empty() => return Err("it is empty"),
        _ if bytes.is_ascii() => {
            return Err("it is text, perhaps base64, and does not begin with 0x0502");
        }
        _ => return Err("it does not begin with 0x0502"),
    };
    let mut names: Vec<String> = Vec::new();
    while !rest.is_empty() {
        let length = i32::from_be_bytes(take(&mut rest)?);
        if length == 0 {
            // MIT reads no further either.
            break;
        }
        let size = usize::try_from(length.unsigned_abs()).map_err(|_| CUT)?;
        let (entry, after) = rest.split_at_checked(size).ok_or(CUT)?;
        rest = after;
        // A negative length is that of a hole that a key left.
        if length > 0 {
            let name = name(entry)?;
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    Ok(names)
}

const CUT: &str = "it ends in the middle of a key";

/// The principal of one key, as Kerberos writes it.
fn name(mut entry: &[u8]) -> Result<String, &'static str> {
    let count = u16::from_be_bytes(take(&mut entry)?);
    let realm = component(&mut entry)?;
    let mut parts = Vec::new();
    for _ in 0..count {
        parts.push(component(&mut entry)?);
    }
    Ok(format!("{}@{realm}", parts.join("/")))
}

fn component(entry: &mut &[u8]) -> Result<String, &'static str> {
    let length = u16::from_be_bytes(take(entry)?);
    let (bytes, rest) = entry.split_at_checked(length.into()).ok_or(CUT)?;
    *entry = rest;
    let text = str::from_utf8(bytes).map_err(|_| "a name in it is no text in UTF-8")?;
    if text.chars().any(char::is_control) {
        return Err("a name in it holds control characters");
    }
    Ok(escaped(text))
}

/// Separators that belong to a name are written with a backslash.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '/' | '@' | '\\') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], &'static str> {
    let (taken, after) = rest.split_first_chunk().ok_or(CUT)?;
    *rest = after;
    Ok(*taken)
}

/// Whether a principal is the wanted one, which may be written without its realm.
fn is(principal: &str, wanted: &str) -> bool {
    principal == wanted
        || principal.strip_prefix(wanted).is_some_and(|realm| realm.starts_with('@'))
}

#[cfg(test)]
mod tests;
