//! What the web server remembers of its callers, where a fault makes it: whose
//! connection has logged in, which sessions it opened.

use std::collections::HashSet;
use std::time::Duration;

use uuid::Uuid;

use super::answer::Answer;
use super::fault::{Fault, unauthorized};
use super::http::Call;

const COOKIE: &str = "ASP.NET_SessionId";

#[derive(Debug, Default)]
pub(super) struct Quirks {
    /// Connections that have shown a token.
    known: HashSet<u64>,
    /// The sessions' ids; `None` until the first one.
    sessions: Option<HashSet<String>>,
}

impl Quirks {
    /// The 401 of a caller that the server does not remember.
    pub(super) fn refuse(&mut self, fault: &Fault, call: &Call) -> Option<Answer> {
        if let Fault::AnyTicket { persist_ms } = fault {
            self.without_ticket(*persist_ms, call)
        } else if matches!(fault, Fault::SessionCookie) {
            self.without_session(call)
        } else {
            None
        }
    }

    /// Changes an answer accordingly.
    pub(super) fn change(&mut self, fault: &Fault, call: &Call, answer: Answer) -> Answer {
        if let Fault::AnyTicket { persist_ms } = fault {
            answer.with_header("Persistent-Auth", persist_ms.is_some().to_string())
        } else if matches!(fault, Fault::SessionCookie) && !self.in_session(call) {
            answer.with_header("Set-Cookie", self.new_session())
        } else {
            answer
        }
    }

    /// Ends every session.
    pub(super) fn forget_sessions(&mut self) {
        self.sessions = Some(HashSet::new());
    }

    fn without_ticket(&mut self, persist_ms: Option<u64>, call: &Call) -> Option<Answer> {
        let header = call.header("authorization").unwrap_or_default();
        let token = header.strip_prefix("Negotiate ").unwrap_or_default();
        if !token.is_empty() {
            self.known.insert(call.connection);
            return None;
        }
        let limit = persist_ms.map(Duration::from_millis);
        let fresh = limit.is_some_and(|limit| call.idle.is_some_and(|idle| idle < limit));
        if !fresh {
            self.known.remove(&call.connection);
        }
        let known = self.known.contains(&call.connection);
        (!known).then(|| unauthorized("Negotiate"))
    }

    fn without_session(&mut self, call: &Call) -> Option<Answer> {
        let lost = self.sessions.is_some() && !self.in_session(call);
        lost.then(|| unauthorized("Negotiate").with_header("Set-Cookie", self.new_session()))
    }

    fn in_session(&self, call: &Call) -> bool {
        let sessions = self.sessions.as_ref();
        sessions.is_some_and(|known| session(call).is_some_and(|id| known.contains(id)))
    }

    fn new_session(&mut self) -> String {
        let id = Uuid::new_v4().simple().to_string();
        let cookie = format!("{COOKIE}={id}; path=/; HttpOnly; SameSite=Lax");
        self.sessions.get_or_insert_default().insert(id);
        cookie
    }
}

/// The id of the session that the caller believes to be in.
fn session(call: &Call) -> Option<&str> {
    let pairs = call.header("cookie")?.split(';').filter_map(|pair| pair.trim().split_once('='));
    let mut ids = pairs.filter(|(name, _)| *name == COOKIE).map(|(_, id)| id);
    ids.next()
}
