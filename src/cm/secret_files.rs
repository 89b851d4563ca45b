//! The files that keys name, examined before they are used: unusable content, and permissions that
//! are too wide.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::{auth, client_cert, proxy, secret, tls};
use crate::domain::Problem;

/// The longest secret that is checked for blanks.
const PADDED_LIMIT: u64 = 4 << 10;

/// The keys whose files hold a secret.
const SECRETS: [&str; 5] = [
    "cm.auth.client_key_file",
    "cm.auth.client_secret_file",
    "cm.auth.keytab",
    "cm.auth.token_file",
    "cm.proxy_credentials_file",
];

/// Why the file of a key is unusable, as a call would report it. Nothing of its content is kept.
pub(crate) fn unusable(key: &str, path: &Path) -> Option<Problem> {
    let in_file = |Problem { what, remedy }: Problem| {
        Problem::new(format!("{}: {what}", path.display()), remedy)
    };
    match key {
        "cm.ca_file" => tls::certificates(path).err(),
        "cm.auth.client_cert_file" => client_cert::chain(path).err(),
        "cm.auth.client_key_file" => client_cert::signing_key(path).err(),
        "cm.auth.keytab" => auth::check_keytab(path).err(),
        "cm.auth.token_file" => auth::bearer_header(path).err().map(in_file),
        "cm.auth.client_secret_file" => auth::client_secret(path).err(),
        "cm.proxy_credentials_file" => proxy::credentials(path).err().map(in_file),
        _ => None,
    }
}

/// Permissions that let others read a secret, or write any of these files. Those of a file that the
/// service manager provides are not cardbridge's concern.
pub(crate) fn exposed(key: &str, path: &Path) -> Option<Problem> {
    // Follows links.
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
    Some(Problem::new(what, format!("chown root:cardbridge {shown} && chmod {mode} {shown}")))
}

/// Probably no part of a secret, but sent with it: blanks around it, and invisible characters.
pub(crate) fn padded(key: &str, path: &Path) -> Option<Problem> {
    if !["cm.auth.client_secret_file", "cm.proxy_credentials_file"].contains(&key) {
        return None;
    }
    let text = secret::bare_secret(path, PADDED_LIMIT).ok()?;
    let line = text.expose().trim_end_matches(['\r', '\n']);
    let what = if line.trim() != line {
        "its line begins or ends with a blank, which is sent as part of it"
    } else if line.chars().any(is_invisible) {
        "it has an invisible character in it, which is sent as part of it"
    } else {
        return None;
    };
    let what = format!("{}: {what}", path.display());
    Some(Problem::new(what, "write it again without that, unless it belongs there"))
}

/// Blanks of other widths, and characters without one.
const fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{a0}' | '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{2000}'..='\u{200f}'
        | '\u{2028}'..='\u{202f}' | '\u{2060}'..='\u{206f}' | '\u{3000}' | '\u{feff}')
}

/// The groups of root, of the service and of this process.
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

/// group(5).
fn groups() -> Vec<(String, u32)> {
    let text = std::fs::read_to_string("/etc/group").unwrap_or_default();
    let group = |line: &str| {
        let mut fields = line.split(':');
        Some((fields.next()?.to_owned(), fields.nth(1)?.parse().ok()?))
    };
    text.lines().filter_map(group).collect()
}

#[cfg(test)]
mod tests;
