//! What the server's tasks and the tests share: state, log, faults and the
//! calls that are held.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Result, bail};
use tokio::sync::oneshot;

use super::answer::Answer;
use super::fault::{Fault, FaultRule, unauthorized};
use super::http::Call;
use super::log::LogEntry;
use super::quirks::Quirks;
use super::routes::{Done, perform};
use super::store::Store;
use super::tokens::Tokens;

/// At which point a call is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// CM has not looked at it yet.
    BeforeApply,
    /// CM has done it; the answer is not sent.
    AfterApply,
}

/// A call that waits for its release; dropping it releases it too.
#[derive(Debug)]
pub struct Held {
    /// The call.
    pub call: LogEntry,
    /// Where it waits.
    pub stage: Stage,
    release: oneshot::Sender<()>,
}

impl Held {
    /// Lets the call go on.
    pub fn release(self) {
        // The call may have been cut off meanwhile.
        self.release.send(()).ok();
    }
}

#[derive(Debug, Default)]
pub(super) struct SharedState {
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Debug, Default)]
pub(super) struct Inner {
    pub(super) store: Store,
    pub(super) log: Vec<LogEntry>,
    pub(super) rules: Vec<FaultRule>,
    pub(super) held: VecDeque<Held>,
    pub(super) bearer: Option<String>,
    pub(super) tokens: Option<Tokens>,
    pub(super) quirks: Quirks,
}

impl SharedState {
    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        let result = change(&mut self.lock());
        self.changed.notify_all();
        result
    }

    /// Waits until `take` finds what it wants.
    pub(super) fn wait<T>(
        &self,
        what: &str,
        timeout: Duration,
        mut take: impl FnMut(&mut Inner) -> Option<T>,
    ) -> Result<T> {
        let deadline = Instant::now() + timeout;
        let mut inner = self.lock();
        loop {
            if let Some(found) = take(&mut inner) {
                return Ok(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("not within {timeout:?}: {what}; the simulator's log:\n{}", inner.story());
            }
            let result = self.changed.wait_timeout(inner, left);
            inner = result.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Writes a call into the log and finds the faults it meets.
    pub(super) fn arrive(&self, call: &Call) -> (Attendance<'_>, Vec<Fault>) {
        let body = String::from_utf8_lossy(&call.body);
        let (id, faults) = self.change(|inner| {
            let meets = |rule: &mut FaultRule| {
                let met = rule.meets(&call.method, &call.target, &body);
                met.then(|| rule.fault.clone())
            };
            let faults: Vec<Fault> = inner.rules.iter_mut().filter_map(meets).collect();
            inner.rules.retain(|rule| rule.times != Some(0));
            let id = inner.log.len();
            inner.log.push(LogEntry {
                id,
                at: SystemTime::now(),
                connection: call.connection,
                client_certificate: call.client_certificate.clone(),
                method: call.method.clone(),
                target: call.target.clone(),
                headers: call.headers.clone(),
                body: body.clone().into_owned(),
                status: None,
                applied: false,
                finished: false,
                performed_at: None,
                finished_at: None,
                faults: faults.iter().map(|fault| format!("{fault:?}")).collect(),
            });
            (id, faults)
        });
        let attendance = Attendance { state: self, id, status: None };
        (attendance, faults)
    }

    /// A 401 for a caller that a fault keeps out.
    pub(super) fn refuse_unknown(&self, call: &Call, faults: &[Fault]) -> Option<Answer> {
        self.change(|inner| faults.iter().find_map(|fault| inner.quirks.refuse(fault, call)))
    }

    /// The answer with what the web server adds to it.
    pub(super) fn change_answer(&self, call: &Call, faults: &[Fault], answer: Answer) -> Answer {
        self.change(|inner| {
            let change = |answer, fault| inner.quirks.change(fault, call, answer);
            faults.iter().fold(answer, change)
        })
    }

    /// A 401 for a caller without the expected token.
    pub(super) fn refuse_stranger(&self, call: &Call) -> Option<Answer> {
        let tokens = self.lock().tokens.clone();
        if let Some(tokens) = tokens {
            return tokens.refuse_stranger(call);
        }
        let expected = format!("Bearer {}", self.lock().bearer.as_ref()?);
        let known = call.header("authorization") == Some(&expected);
        (!known).then(|| unauthorized("Bearer"))
    }
}

impl Inner {
    pub(super) fn story(&self) -> String {
        let lines = self.log.iter().map(|entry| format!("  {entry}\n"));
        lines.collect()
    }
}

/// A call being answered. However it ends, and be it that its connection is cut
/// from outside, the log says so.
pub(super) struct Attendance<'a> {
    state: &'a SharedState,
    id: usize,
    status: Option<u16>,
}

impl Attendance<'_> {
    pub(super) async fn hold(&self, stage: Stage) {
        let (release, released) = oneshot::channel();
        self.state.change(|inner| {
            if let Some(call) = inner.log.get(self.id).cloned() {
                inner.held.push_back(Held { call, stage, release });
            }
        });
        drop(released.await);
    }

    pub(super) fn perform(&self, call: &Call) -> Answer {
        self.state.change(|inner| {
            let token = inner.tokens.as_ref().and_then(|tokens| tokens.answer(call));
            let done = match token {
                Some(answer) => Done { answer, applied: false },
                None => perform(&mut inner.store, call),
            };
            if let Some(entry) = inner.log.get_mut(self.id) {
                entry.applied = done.applied;
                entry.performed_at = Some(SystemTime::now());
            }
            done.answer
        })
    }

    /// The call ends with an answer, which is about to be sent.
    pub(super) fn answer(mut self, answer: Answer) -> Answer {
        self.status = Some(answer.status);
        answer
    }
}

impl Drop for Attendance<'_> {
    fn drop(&mut self) {
        self.state.change(|inner| {
            if let Some(entry) = inner.log.get_mut(self.id) {
                entry.status = self.status;
                entry.finished = true;
                entry.finished_at = Some(SystemTime::now());
            }
        });
    }
}
