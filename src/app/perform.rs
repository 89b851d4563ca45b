//! Effects: what the engine wants done, done by the edges.

use std::future::Future;

use super::{App, report};
use crate::engine::{Effect, Event, StoreFailure};
use crate::outbox::{Append, StoreError};
use crate::telemetry::Chain;

impl App {
    pub(super) fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Probe { reader, insertion, atr } => {
                self.readers.probe(&reader, insertion, &atr);
            }
            Effect::AbandonProbe { reader } => self.readers.abandon(&reader),
            Effect::Append { .. }
            | Effect::EndStay { .. }
            | Effect::Save { .. }
            | Effect::Settle { .. }
            | Effect::Unpark { .. }
            | Effect::Note(_) => self.store(effect),
            Effect::Lookup { .. } | Effect::ReadBack { .. } | Effect::Push { .. } => {
                self.call(effect);
            }
            Effect::Tell(notice) => report::notice(&notice, self.ids),
        }
    }

    /// The outbox takes its orders in the order in which they are given here.
    fn store(&mut self, effect: Effect) {
        let outbox = &self.outbox;
        match effect {
            Effect::Append { insertion, entry } => {
                let append =
                    Append { draft: entry.draft, stage: entry.stage, supersedes: entry.supersedes };
                let done = outbox.append(append);
                self.later(async move {
                    let result = done.await.map(|done| (done.entry, done.lines));
                    Some(Event::Appended { insertion, result: result.map_err(failure) })
                });
            }
            Effect::Save { entry, stage } => {
                let done = outbox.save(entry, stage);
                self.later(async move {
                    Some(Event::Saved { entry, result: done.await.map_err(failure) })
                });
            }
            Effect::Settle { entry, end } => {
                let done = outbox.settle(entry, end);
                self.later(async move {
                    Some(Event::Settled { entry, result: done.await.map_err(failure) })
                });
            }
            Effect::Note(line) => {
                let done = outbox.note(line.clone());
                self.later(async move { noted(&done.await).then_some(Event::Noted(line)) });
            }
            Effect::Unpark { entry, act } => {
                let done = outbox.unpark(entry, act.clone());
                self.later(async move {
                    let result = done.await.map(|()| act).map_err(failure);
                    Some(Event::Unparked { entry, result })
                });
            }
            Effect::EndStay { reader } => {
                let done = outbox.end_stay(reader);
                self.later(async move {
                    noted(&done.await);
                    None
                });
            }
            Effect::Probe { .. }
            | Effect::AbandonProbe { .. }
            | Effect::Lookup { .. }
            | Effect::ReadBack { .. }
            | Effect::Push { .. }
            | Effect::Tell(_) => {}
        }
    }

    fn call(&mut self, effect: Effect) {
        let remote = self.remote.clone();
        match effect {
            Effect::Lookup { entry, identity } => self.later(async move {
                Some(Event::LookedUp { entry, result: remote.lookup(&identity).await })
            }),
            Effect::ReadBack { entry, record } => self.later(async move {
                Some(Event::ReadBack { entry, result: remote.record(record).await })
            }),
            Effect::Push { entry, decision } => self.later(async move {
                Some(Event::Pushed { entry, result: remote.set_status(&decision).await })
            }),
            Effect::Probe { .. }
            | Effect::AbandonProbe { .. }
            | Effect::Append { .. }
            | Effect::EndStay { .. }
            | Effect::Save { .. }
            | Effect::Settle { .. }
            | Effect::Unpark { .. }
            | Effect::Note(_)
            | Effect::Tell(_) => {}
        }
    }

    /// Runs beside the loop; what comes of it comes back as an event.
    fn later(&self, work: impl Future<Output = Option<Event>> + Send + 'static) {
        let events = self.events.clone();
        tokio::spawn(async move {
            if let Some(event) = work.await
                && events.send(event).is_err()
            {
                tracing::debug!("The loop has ended; the answer is dropped");
            }
        });
    }
}

/// Whether something that nothing else waits for is on disk; told where it is not.
fn noted(result: &Result<(), StoreError>) -> bool {
    if let Err(error) = result {
        tracing::error!(error = %Chain(error), "Outbox did not take a note");
    }
    result.is_ok()
}

/// What a failure of the outbox means for the entry it is about.
#[expect(clippy::needless_pass_by_value, reason = "an adapter for map_err")]
fn failure(error: StoreError) -> StoreFailure {
    let detail = Chain(&error).to_string();
    match error {
        StoreError::Gone(_) | StoreError::Conflict(_) | StoreError::Damaged(..) => {
            StoreFailure::EntryLost(detail)
        }
        StoreError::Full(_)
        | StoreError::Busy
        | StoreError::Unwritable(_)
        | StoreError::Lost(_)
        | StoreError::Closed => StoreFailure::Later(detail),
    }
}
