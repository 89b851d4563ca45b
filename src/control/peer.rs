//! Who is on the other end of a connection, and what that user may do.

use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::net::UnixStream;

use super::access::{Access, Role};

mod socket;

/// The process that connected, as the kernel knew it then. Nothing of this is what the process says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SocketPeer {
    pub(super) uid: u32,
    /// The effective group and the supplementary ones.
    pub(super) groups: Vec<u32>,
    /// The user that logged in at the beginning, whatever became of it (`/proc/PID/loginuid`,
    /// `pam_loginuid(8)`); `sudo` and `su` do not change it.
    pub(super) login_uid: Option<u32>,
    /// What it may do.
    pub(super) role: Option<Role>,
}

impl SocketPeer {
    /// The other end of a connection.
    pub(super) fn of(stream: &UnixStream, access: &Access) -> std::io::Result<Self> {
        let credentials = stream.peer_cred()?;
        let mut groups = socket::groups(stream.as_fd()).unwrap_or_default();
        groups.push(credentials.gid());
        let uid = credentials.uid();
        let role = access.role(uid, &groups);
        let pid = credentials.pid().filter(|_| role == Some(Role::Operate));
        let login_uid = pid.and_then(|pid| login_uid_of(stream, pid, uid));
        Ok(Self { uid, groups, login_uid, role })
    }
}

/// The login uid of the process that connected, unless that may be another's: the number of a
/// process that ended is given to others.
fn login_uid_of(stream: &UnixStream, pid: i32, uid: u32) -> Option<u32> {
    let process = socket::process(stream.as_fd());
    let found = login_uid(&format!("/proc/{pid}"))?;
    let is_same = match process {
        // It has not ended, so that its number is still its own.
        Ok(process) => {
            let mut ended = [PollFd::new(&process, PollFlags::IN)];
            poll(&mut ended, Some(&Timespec::default())) == Ok(0)
        }
        // An older kernel: at least it is a process of the same user.
        Err(_) => std::fs::metadata(format!("/proc/{pid}")).is_ok_and(|dir| dir.uid() == uid),
    };
    is_same.then_some(found)
}

/// The login uid that a directory of `/proc` tells; the largest number stands for none.
fn login_uid(process: &str) -> Option<u32> {
    let text = std::fs::read_to_string(format!("{process}/loginuid")).ok()?;
    text.trim().parse().ok().filter(|uid| *uid != u32::MAX)
}

/// This process's user, for acts on an outbox that no daemon has. Blocks.
#[must_use]
pub(crate) fn own_user() -> String {
    super::account_names::describe(nix::unistd::Uid::effective().as_raw(), login_uid("/proc/self"))
}
