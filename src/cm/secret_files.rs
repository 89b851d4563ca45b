//! The files that keys name, looked at before anybody uses them: what is wrong inside, and who else may
//! read or write them.

use std::error::Error;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::auth::{keytab, secret_in, token_in};
use super::{client_cert, proxy, reloading_file, tls};

/// Something about a file, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileFinding {
    /// What it is, without anything of the file's content.
    pub message: String,
    /// The next step.
    pub remedy: String,
}

/// The longest secret that is looked at for what surrounds it.
const PADDED_LIMIT: u64 = 4 << 10;

/// The keys whose files hold a secret.
const SECRETS: [&str; 5] = [
    "cm.auth.client_key_file",
    "cm.auth.client_secret_file",
    "cm.auth.keytab",
    "cm.auth.token_file",
    "cm.proxy_credentials_file",
];

/// Why the file of a key cannot be used; in the same words as when it is used. Nothing of it is kept.
#[must_use]
pub fn unusable(key: &str, path: &Path) -> Option<FileFinding> {
    match key {
        "cm.ca_file" => tls::certificates(path).err().map(|error| of(&error, error.remedy())),
        "cm.auth.client_cert_file" => {
            client_cert::chain(path).err().map(|error| of(&error, error.remedy()))
        }
        "cm.auth.client_key_file" => {
            client_cert::signing(path).err().map(|error| of(&error, error.remedy()))
        }
        "cm.auth.keytab" => keytab(path).err().map(|what| named(key, path, &what)),
        "cm.auth.token_file" => token_in(path).err().map(|what| named(key, path, &what)),
        "cm.auth.client_secret_file" => secret_in(path).err().map(|what| named(key, path, &what)),
        "cm.proxy_credentials_file" => {
            proxy::credentials(path).err().map(|error| named(key, path, &error.to_string()))
        }
        _ => None,
    }
}

/// Who may read a secret, or write any of these files, that should not. What a service manager hands
/// over is its own business.
#[must_use]
pub fn exposed(key: &str, path: &Path) -> Option<FileFinding> {
    // Of a link the file counts that it leads to.
    let metadata = path.metadata().ok()?;
    let mode = metadata.mode();
    let secret = SECRETS.contains(&key);
    let by_group = !expected_groups().contains(&metadata.gid());
    let who = if secret && mode & 0o004 != 0 {
        "every user of this machine may read it".to_owned()
    } else if mode & 0o002 != 0 {
        "every user of this machine may write it".to_owned()
    } else if secret && by_group && mode & 0o040 != 0 {
        format!("the group {} may read it", group(metadata.gid()))
    } else if by_group && mode & 0o020 != 0 {
        format!("the group {} may write it", group(metadata.gid()))
    } else {
        return None;
    };
    let shown = path.display();
    let what = format!("{shown} has the mode {:04o}: {who}", mode & 0o7777);
    let mode = if secret { "0640" } else { "0644" };
    let remedy = format!("chown root:cardbridge {shown} && chmod {mode} {shown}");
    Some(FileFinding { message: what, remedy })
}

/// What is sent with a secret and is hardly part of it: blanks around it, and characters that cannot be
/// seen.
#[must_use]
pub fn padded(key: &str, path: &Path) -> Option<FileFinding> {
    if !["cm.auth.client_secret_file", "cm.proxy_credentials_file"].contains(&key) {
        return None;
    }
    let text = reloading_file::bare_secret(path, PADDED_LIMIT).ok()?;
    let line = text.expose().trim_end_matches(['\r', '\n']);
    let what = if line.trim() != line {
        "its line begins or ends with a blank, which is sent as part of it"
    } else if line.chars().any(is_unseen) {
        "it has a character in it that cannot be seen, which is sent as part of it"
    } else {
        return None;
    };
    let what = format!("{}: {what}", path.display());
    let remedy = "write it again without that, unless it belongs there".to_owned();
    Some(FileFinding { message: what, remedy })
}

/// Blanks of other widths, and characters without one.
const fn is_unseen(c: char) -> bool {
    matches!(c,
        '\u{a0}' | '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{2000}'..='\u{200f}'
        | '\u{2028}'..='\u{202f}' | '\u{2060}'..='\u{206f}' | '\u{3000}' | '\u{feff}')
}

/// Root's, the service's, and that of whoever looks.
fn expected_groups() -> Vec<u32> {
    let own = Path::new("/proc/self").metadata().map(|metadata| metadata.gid());
    let service = groups().into_iter().find(|(name, _)| name == "cardbridge").map(|(_, id)| id);
    [Some(0), own.ok(), service].into_iter().flatten().collect()
}

/// The name of a group, or its number where it has none here.
fn group(id: u32) -> String {
    let known = groups().into_iter().find(|(_, known)| *known == id);
    known.map_or_else(|| id.to_string(), |(name, _)| name)
}

/// The groups of this machine (group(5)).
fn groups() -> Vec<(String, u32)> {
    let text = std::fs::read_to_string("/etc/group").unwrap_or_default();
    let group = |line: &str| {
        let mut fields = line.split(':');
        Some((fields.next()?.to_owned(), fields.nth(1)?.parse().ok()?))
    };
    text.lines().filter_map(group).collect()
}

fn of(error: &dyn Error, remedy: &str) -> FileFinding {
    let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
    FileFinding { message: format!("{error}{cause}"), remedy: remedy.to_owned() }
}

fn named(key: &str, path: &Path, what: &str) -> FileFinding {
    let (what, remedy) = what.split_once("; ").unwrap_or((what, ""));
    let remedy = if remedy.is_empty() {
        format!("write what {key} is for into it")
    } else {
        remedy.to_owned()
    };
    let what =
        if what.contains('/') { what.to_owned() } else { format!("{}: {what}", path.display()) };
    FileFinding { message: what, remedy }
}

#[cfg(test)]
mod tests;
