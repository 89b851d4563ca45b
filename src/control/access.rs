//! Who may do what on the control socket: the user at the other end, by name, groups and role.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::{Group, Uid, User};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::net::UnixStream;
use tokio::sync::{Semaphore, oneshot};

/// What a user may do; the later includes the earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    /// See the daemon, its entries and the audit trail.
    View,
    /// Retry and discard entries too.
    Operate,
}

/// The groups of each role (`control.view_group`, `control.operator_group`).
#[derive(Debug, Clone)]
pub(crate) struct Groups {
    pub(crate) view: String,
    pub(crate) operator: String,
}

/// The role of each user. Root and the user that the daemon runs as have every role.
#[derive(Debug, Clone)]
pub(crate) struct Access {
    groups: Groups,
    view: Option<u32>,
    operator: Option<u32>,
    own: u32,
}

impl Access {
    /// Looks up the groups. One that the system does not find within 2 s has no members, which is
    /// logged.
    pub(crate) async fn resolve(groups: Groups) -> Self {
        let (view, operator) = (groups.view.clone(), groups.operator.clone());
        let (view, operator) =
            within_timeout(move || (group(&view), group(&operator))).await.unwrap_or_default();
        let missing = [(view, &groups.view), (operator, &groups.operator)];
        let missing: Vec<_> =
            missing.into_iter().filter(|(gid, _)| gid.is_none()).map(|(_, name)| &**name).collect();
        if !missing.is_empty() {
            tracing::info!(
                groups = missing.join(", "),
                "Groups for the control socket were not found; they have no members until a restart"
            );
        }
        Self { groups, view, operator, own: Uid::effective().as_raw() }
    }

    fn role(&self, uid: u32, groups: &[u32]) -> Option<Role> {
        let is_in = |group: Option<u32>| group.is_some_and(|group| groups.contains(&group));
        if self.is_trusted(uid) || is_in(self.operator) {
            Some(Role::Operate)
        } else {
            is_in(self.view).then_some(Role::View)
        }
    }

    /// Whether this is root or the daemon's own user.
    pub(super) const fn is_trusted(&self, uid: u32) -> bool {
        uid == 0 || uid == self.own
    }

    /// The response to a user without a role, with its remedy.
    pub(super) fn refusal(&self, uid: u32, wanted: Role) -> String {
        let (what, group, gid) = match wanted {
            Role::View => ("view the daemon", &self.groups.view, self.view),
            Role::Operate => ("act on entries", &self.groups.operator, self.operator),
        };
        let remedy = if gid.is_some() {
            format!("add the user to the group {group} (usermod -aG {group} NAME) and log in again")
        } else {
            format!(
                "create the group {group}, add the user, log in again and restart the daemon; \
                 or run as root"
            )
        };
        format!("the user with uid {uid} may not {what}: {remedy}")
    }

    #[cfg(test)]
    pub(super) fn of(view: Option<u32>, operator: Option<u32>, own: u32) -> Self {
        let groups = Groups { view: "viewers".to_owned(), operator: "operators".to_owned() };
        Self { groups, view, operator, own }
    }
}

/// The process that connected, as the kernel knew it then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SocketPeer {
    pub(super) uid: u32,
    /// The user of the login session (`/proc/PID/loginuid`, `pam_loginuid(8)`); `sudo` and `su` do
    /// not change it.
    pub(super) login_uid: Option<u32>,
    pub(super) role: Option<Role>,
}

impl SocketPeer {
    pub(super) fn of(stream: &UnixStream, access: &Access) -> io::Result<Self> {
        let credentials = stream.peer_cred()?;
        let mut groups = supplementary_groups(stream).unwrap_or_default();
        groups.push(credentials.gid());
        let uid = credentials.uid();
        let role = access.role(uid, &groups);
        let pid = credentials.pid().filter(|_| role == Some(Role::Operate));
        let login_uid = pid.and_then(|pid| login_uid_of(stream, pid, uid));
        Ok(Self { uid, login_uid, role })
    }
}

/// Linux allows a process so many groups (`NGROUPS_MAX`).
const MAX_GROUPS: usize = 65_536;

/// The groups that the process had when it connected, by `SO_PEERGROUPS` (socket(7)).
#[expect(unsafe_code, reason = "no library has this option: docs/decisions/0029-access-groups.md")]
fn supplementary_groups(stream: &UnixStream) -> io::Result<Vec<u32>> {
    let mut groups: Vec<libc::gid_t> = vec![0; MAX_GROUPS];
    let bytes = size_of_val(groups.as_slice());
    let mut length = libc::socklen_t::try_from(bytes).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open for as long as `stream` is borrowed; the kernel writes at
    // most `length` bytes to the buffer, which has as many, and any bytes are a `gid_t`.
    let result = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERGROUPS,
            groups.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    groups.truncate(usize::try_from(length).unwrap_or_default() / size_of::<libc::gid_t>());
    groups.shrink_to_fit();
    Ok(groups)
}

/// The login uid of the process that connected, unless its pid may be another's by now.
fn login_uid_of(stream: &UnixStream, pid: i32, uid: u32) -> Option<u32> {
    let process = getsockopt(stream, sockopt::PeerPidfd);
    let login_uid = login_uid(&format!("/proc/{pid}"))?;
    let is_same = match process {
        // The process has not ended, so the pid is still its own.
        Ok(process) => {
            let mut ended = [PollFd::new(&process, PollFlags::IN)];
            poll(&mut ended, Some(&Timespec::default())) == Ok(0)
        }
        // Before Linux 6.5: at least a process of the same user.
        Err(_) => std::fs::metadata(format!("/proc/{pid}")).is_ok_and(|dir| dir.uid() == uid),
    };
    is_same.then_some(login_uid)
}

/// The login uid in a directory of `/proc`; the largest number means none.
fn login_uid(process: &str) -> Option<u32> {
    let text = std::fs::read_to_string(format!("{process}/loginuid")).ok()?;
    text.trim().parse().ok().filter(|uid| *uid != u32::MAX)
}

/// This process's user, for actions on the outbox of a stopped daemon. Blocks.
pub(crate) fn own_user() -> String {
    describe(Uid::effective().as_raw(), login_uid("/proc/self"))
}

/// The system may look up a name on another machine (NSS).
const NAME_TIMEOUT: Duration = Duration::from_secs(2);

/// Concurrent lookups, and so threads that a directory service can block.
const MAX_LOOKUPS: usize = 2;

/// Names of users for the audit trail.
#[derive(Debug, Clone)]
pub(super) struct AccountNames {
    permits: Arc<Semaphore>,
}

impl Default for AccountNames {
    fn default() -> Self {
        Self { permits: Arc::new(Semaphore::new(MAX_LOOKUPS)) }
    }
}

impl AccountNames {
    /// The user and the login user by name and number; by number alone if a lookup takes too long.
    pub(super) async fn describe(&self, uid: u32, login_uid: Option<u32>) -> String {
        let numbers = || text(uid, None, login_uid.map(|uid| (uid, None)));
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else { return numbers() };
        let names = within_timeout(move || {
            let names = describe(uid, login_uid);
            drop(permit);
            names
        });
        names.await.unwrap_or_else(numbers)
    }
}

/// Runs a lookup in a thread, which is abandoned after the timeout.
async fn within_timeout<T: Send + 'static>(
    lookup: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (reply, result) = oneshot::channel();
    let thread = std::thread::Builder::new().name("names".to_owned());
    if let Err(error) = thread.spawn(move || drop(reply.send(lookup()))) {
        tracing::warn!(%error, "Names of users and groups cannot be looked up");
        return None;
    }
    tokio::time::timeout(NAME_TIMEOUT, result).await.ok()?.ok()
}

/// The number of a group. Blocks.
fn group(name: &str) -> Option<u32> {
    Group::from_name(name).ok().flatten().map(|group| group.gid.as_raw())
}

/// See [`AccountNames::describe`]. Blocks.
fn describe(uid: u32, login_uid: Option<u32>) -> String {
    let name = |uid| User::from_uid(Uid::from_raw(uid)).ok().flatten().map(|user| user.name);
    text(uid, name(uid), login_uid.map(|login| (login, name(login))))
}

fn text(uid: u32, name: Option<String>, login: Option<(u32, Option<String>)>) -> String {
    let of = |name: Option<String>, what: &str, uid: u32| match name {
        Some(name) => format!("{} ({what} {uid})", plain(&name)),
        None => format!("{what} {uid}"),
    };
    let user = of(name, "uid", uid);
    match login {
        Some((login, name)) if login != uid => {
            format!("{user} for {}", of(name, "login uid", login))
        }
        Some(_) | None => user,
    }
}

/// A name without characters that could pass for the rest of the text.
fn plain(name: &str) -> String {
    let fits = |c: char| c.is_alphanumeric() || "._-+$@\\".contains(c);
    name.chars().take(64).map(|c| if fits(c) { c } else { '?' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn role_follows_from_groups_alone() {
        let access = Access::of(Some(50), Some(60), 900);
        let cases: [(u32, &[u32], Option<Role>); 10] = [
            (0, &[], Some(Role::Operate)),
            (900, &[], Some(Role::Operate)),
            (1000, &[], None),
            (1000, &[900, 0, 1000], None),
            (50, &[60 + 50], None),
            (1000, &[50], Some(Role::View)),
            (1000, &[7, 8, 50], Some(Role::View)),
            (1000, &[60], Some(Role::Operate)),
            (1000, &[50, 60], Some(Role::Operate)),
            (1000, &[60, 50], Some(Role::Operate)),
        ];
        for (uid, groups, role) in cases {
            assert_eq!(access.role(uid, groups), role, "uid {uid} in {groups:?}");
        }
    }

    #[test]
    fn missing_group_has_no_members() {
        let access = Access::of(None, None, 900);
        assert_eq!(access.role(1000, &[0, 50, 60, u32::MAX]), None);
        assert!(access.refusal(1000, Role::View).contains("create the group viewers"));
    }

    #[tokio::test]
    async fn groups_are_found_by_name() {
        let groups = Groups { view: "root".to_owned(), operator: "no-such-group-here".to_owned() };
        let access = Access::resolve(groups).await;
        assert_eq!((access.view, access.operator), (Some(0), None));
    }

    fn of(uid: u32, name: &str, login: Option<(u32, &str)>) -> String {
        let login = login.map(|(uid, name)| (uid, Some(name.to_owned())));
        text(uid, Some(name.to_owned()), login)
    }

    #[test]
    fn user_is_described_by_name_number_and_login() {
        assert_eq!(of(1000, "alice", None), "alice (uid 1000)");
        assert_eq!(of(1000, "alice", Some((1000, "alice"))), "alice (uid 1000)");
        assert_eq!(
            of(0, "root", Some((1000, "EXAMPLE\\alice"))),
            "root (uid 0) for EXAMPLE\\alice (login uid 1000)"
        );
        assert_eq!(text(1000, None, None), "uid 1000");
        assert_eq!(text(0, None, Some((1000, None))), "uid 0 for login uid 1000");
    }

    #[test]
    fn name_cannot_imitate_the_rest_of_the_text() {
        let hostile = "root (uid 0) for bob\n\u{202e}\u{1b}[2J";
        assert_eq!(of(7, hostile, None), "root??uid?0??for?bob????2J (uid 7)");
    }

    #[test]
    fn names_come_from_the_system() {
        assert_eq!(describe(0, None), "root (uid 0)");
        assert_eq!(group("root"), Some(0));
    }

    #[tokio::test(start_paused = true)]
    async fn hanging_name_service_blocks_two_threads_at_most() {
        let names = AccountNames::default();
        let (hang, hung) = std::sync::mpsc::channel::<()>();
        let held = within_timeout(move || hung.recv().is_ok());
        assert_eq!(held.await, None);
        drop(hang);
        let _permits = names.permits.try_acquire_many(2).unwrap();
        assert_eq!(names.describe(0, Some(1000)).await, "uid 0 for login uid 1000");
    }
}
