//! The principals of a keytab; no key is kept.
//!
//! libkrb5 reports "no credential cache" for every unusable keytab. So the file is examined first, in the
//! format of MIT and Windows (`0x0502`): for each key its length, the principal, a time, the key's number
//! and type, and the key.

use std::path::Path;

use crate::cm::secret::secret_bytes;
use crate::domain::Problem;

/// The longest keytab; a key has about a hundred bytes.
const LIMIT: u64 = 1 << 20;
const FORMAT: [u8; 2] = [5, 2];
const OLD_FORMAT: [u8; 2] = [5, 1];

/// The full name of the principal to log in: the wanted one, or the keytab's first.
pub(super) fn principal(path: &Path, wanted: Option<&str>) -> Result<String, Problem> {
    let shown = path.display();
    let bytes = secret_bytes(path, LIMIT).map_err(|error| {
        Problem::new(
            format!("cannot read keytab {shown}: {error}"),
            "check cm.auth.keytab, and that the user cardbridge may read the file",
        )
    })?;
    let principals = principals(&bytes)
        .and_then(|names| if names.is_empty() { Err("it holds no key") } else { Ok(names) })
        .map_err(|reason| {
            Problem::new(
                format!("{shown} is not a valid keytab: {reason}"),
                "create the keytab again with ktpass, adcli or ktutil",
            )
        })?;
    let found = match wanted {
        Some(wanted) => principals.iter().find(|name| is(name, wanted)),
        None => principals.first(),
    };
    found.cloned().ok_or_else(|| {
        let (wanted, present) = (wanted.unwrap_or_default(), principals.join(", "));
        Problem::new(
            format!("keytab {shown} has no key for {wanted}; it has keys for {present}"),
            "correct cm.auth.principal, or make a keytab for it",
        )
    })
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
            // MIT stops here too.
            break;
        }
        let size = usize::try_from(length.unsigned_abs()).map_err(|_| CUT)?;
        let (entry, after) = rest.split_at_checked(size).ok_or(CUT)?;
        rest = after;
        // A negative length is that of a hole left by a removed key.
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

/// The principal of one key, in the notation of Kerberos.
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

/// Whether a principal is the wanted one, which may lack its realm.
fn is(principal: &str, wanted: &str) -> bool {
    principal == wanted
        || principal.strip_prefix(wanted).is_some_and(|realm| realm.starts_with('@'))
}

#[cfg(test)]
mod tests;
