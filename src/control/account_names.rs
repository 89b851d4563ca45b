//! Names of users and groups, which the system may ask of another machine (NSS): in a thread of
//! its own, so long and no longer.

use std::sync::Arc;
use std::time::Duration;

use nix::unistd::{Group, Uid, User};
use tokio::sync::{Semaphore, oneshot};

/// How long a name may take.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Look-ups at a time, and so threads that a directory service can hold.
const MAX_LOOKUPS: usize = 2;

/// Finds users' names for the audit trail.
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
    /// The user by name and number, and who logged in as another one; by number alone where the
    /// name is not to be had in time.
    pub(super) async fn describe(&self, uid: u32, login_uid: Option<u32>) -> String {
        let numbers = || text(uid, None, login_uid.map(|uid| (uid, None)));
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else { return numbers() };
        let found = within(move || {
            let found = describe(uid, login_uid);
            drop(permit);
            found
        });
        found.await.unwrap_or_else(numbers)
    }
}

/// What comes of a question to NSS, unless it takes too long. Its thread is left alone then.
pub(super) async fn within<T: Send + 'static>(
    question: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (reply, answer) = oneshot::channel();
    let asked = std::thread::Builder::new().name("names".to_owned()).spawn(move || {
        drop(reply.send(question()));
    });
    if let Err(error) = asked {
        tracing::warn!(%error, "Names of users and groups cannot be looked up");
        return None;
    }
    tokio::time::timeout(TIMEOUT, answer).await.ok()?.ok()
}

/// The number of a group. Blocks.
pub(super) fn group(name: &str) -> Option<u32> {
    Group::from_name(name).ok().flatten().map(|group| group.gid.as_raw())
}

/// See [`AccountNames::describe`]. Blocks.
pub(super) fn describe(uid: u32, login_uid: Option<u32>) -> String {
    text(uid, user(uid), login_uid.map(|login| (login, user(login))))
}

fn user(uid: u32) -> Option<String> {
    User::from_uid(Uid::from_raw(uid)).ok().flatten().map(|user| user.name)
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

/// A name as it can stand in a line: with nothing in it that could pass for the rest of the text.
fn plain(name: &str) -> String {
    let fits = |c: char| c.is_alphanumeric() || "._-+$@\\".contains(c);
    name.chars().take(64).map(|c| if fits(c) { c } else { '?' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(uid: u32, name: &str, login: Option<(u32, &str)>) -> String {
        let login = login.map(|(uid, name)| (uid, Some(name.to_owned())));
        text(uid, Some(name.to_owned()), login)
    }

    #[test]
    fn user_is_told_by_name_and_number_and_by_who_logged_in() {
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
    fn name_cannot_pass_for_the_rest_of_the_text() {
        let hostile = "root (uid 0) for bob\n\u{202e}\u{1b}[2J";
        assert_eq!(of(7, hostile, None), "root??uid?0??for?bob????2J (uid 7)");
    }

    #[test]
    fn names_are_those_of_the_system() {
        assert_eq!(describe(0, None), "root (uid 0)");
        assert_eq!(group("root"), Some(0));
    }

    #[tokio::test(start_paused = true)]
    async fn name_service_that_hangs_costs_two_threads_and_no_answer() {
        let names = AccountNames::default();
        let (hang, hung) = std::sync::mpsc::channel::<()>();
        let held = within(move || hung.recv().is_ok());
        assert_eq!(held.await, None);
        drop(hang);
        let _permits = names.permits.try_acquire_many(2).unwrap();
        assert_eq!(names.describe(0, Some(1000)).await, "uid 0 for login uid 1000");
    }
}
