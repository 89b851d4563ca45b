//! The user that the agent runs as: not root, where the harness is.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rustix::process::geteuid;

/// A user that owns nothing on this machine, and needs no name.
const UNPRIVILEGED: u32 = 64_321;

/// A user without any privilege, with a group of its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct User(u32);

impl User {
    /// The user for an agent. None where the harness is not root itself.
    pub(super) fn for_agent() -> Option<Self> {
        geteuid().is_root().then_some(Self(UNPRIVILEGED))
    }

    /// The arguments for `setpriv`.
    pub(super) fn arguments(self) -> Vec<String> {
        let Self(id) = self;
        let (user, group) = (format!("--reuid={id}"), format!("--regid={id}"));
        let rest = ["--clear-groups", "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all"];
        [user, group].into_iter().chain(rest.map(str::to_owned)).collect()
    }

    /// Gives a directory of the world to the user.
    pub(super) fn own(self, directory: &Path) -> Result<()> {
        let Self(id) = self;
        chown(directory, Some(id), Some(id)).context("cannot give the world to the agent")
    }
}

/// The path of a program that every user reaches: its own, or one in this directory where only root
/// may go to its own.
pub(super) fn reachable(program: &Path, directory: &Path) -> Result<PathBuf> {
    if program.ancestors().all(is_open) {
        return Ok(program.to_owned());
    }
    let near = directory.join("cardbridge");
    if !is_open(program) || fs::hard_link(program, &near).is_err() {
        fs::copy(program, &near).context("cannot copy the agent")?;
        fs::set_permissions(&near, Permissions::from_mode(0o755))?;
    }
    Ok(near)
}

/// Whether others may pass, or read and run.
fn is_open(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.mode() & 0o001 != 0)
}

/// Lets others read what a text names by its whole path, as far as it lies
/// among the temporary files.
pub(super) fn open_up(text: &OsStr) -> Result<()> {
    let path = PathBuf::from(text);
    let temporary = std::env::temp_dir();
    if !path.starts_with(&temporary) || path == temporary {
        return Ok(());
    }
    for part in path.ancestors().take_while(|part| *part != temporary) {
        let Ok(meta) = fs::metadata(part) else { continue };
        let more = if meta.is_dir() { 0o055 } else { 0o044 };
        if meta.is_dir() || meta.is_file() {
            fs::set_permissions(part, Permissions::from_mode(meta.mode() | more))?;
        }
    }
    Ok(())
}
