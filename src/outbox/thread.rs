//! The thread `outbox`: SQLite blocks, the daemon's loop must not.
//!
//! Commands run one after the other in the order in which they were submitted. Each runs to its
//! end even when nobody waits for its answer any more.

use std::error::Error;
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};

use super::error::StoreError;
use super::lazy_store::LazyStore;
use super::store::Store;

/// How many commands may wait. 16 readers with a card a second each fill it in a minute: a disk
/// that holds its breath for longer is not coming back by waiting. About 2 MB.
pub(super) const QUEUE_CAPACITY: usize = 1024;

/// Takes the store, or why there is none, and answers.
type StoreJob = dyn FnOnce(Result<&mut Store, StoreError>) + Send;

/// How long there is nothing to do before the log is emptied: longer than the steps of one card are
/// apart, and short, because a log that is damaged costs more than a file that is.
const IDLE_TIMEOUT: Duration = Duration::from_secs(1);

/// The same, where another program kept it from that.
const IDLE_TIMEOUT_CLEAN: Duration = Duration::from_secs(10);

enum StoreCommand {
    Run(Box<StoreJob>),
    Close,
}

/// What comes of a submitted command, or why it was not submitted.
pub(super) type Submitted<T> = Result<oneshot::Receiver<Result<T, StoreError>>, StoreError>;

/// The thread and the way to it.
#[derive(Debug)]
pub(super) struct OutboxThread {
    commands: SyncSender<StoreCommand>,
    thread: Mutex<Option<JoinHandle<()>>>,
    lost: Arc<Notify>,
    /// Why there is no file to write to, in words.
    trouble: Arc<Mutex<Option<String>>>,
}

impl OutboxThread {
    /// Starts the thread, which owns the store from then on.
    pub(super) fn start(slot: LazyStore, trouble: Option<String>) -> io::Result<Self> {
        let (commands, submitted) = sync_channel(QUEUE_CAPACITY);
        let trouble = Arc::new(Mutex::new(trouble));
        let told = Arc::clone(&trouble);
        let thread = thread::Builder::new()
            .name("outbox".into())
            .spawn(move || run(slot, &submitted, &told))?;
        Ok(Self { commands, thread: Mutex::new(Some(thread)), lost: Arc::default(), trouble })
    }

    /// Queues a command, now; never blocks.
    pub(super) fn submit<T: Send + 'static>(
        &self,
        command: impl FnOnce(&mut Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Submitted<T> {
        let (reply, answer) = oneshot::channel();
        let lost = Arc::clone(&self.lost);
        let run = StoreCommand::Run(Box::new(move |store| {
            let result = store.and_then(command);
            if let Err(error @ StoreError::Lost(_)) = &result {
                let error: &dyn Error = error;
                tracing::error!(error, "Outbox file lost; stopping");
                lost.notify_one();
            }
            // Whoever asked may be gone; the command is done all the same.
            drop(reply.send(result));
        }));
        match self.commands.try_send(run) {
            Ok(()) => Ok(answer),
            Err(TrySendError::Full(_)) => Err(StoreError::Busy),
            Err(TrySendError::Disconnected(_)) => Err(StoreError::Closed),
        }
    }

    /// Why there is no file to write to, in words.
    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Comes back once a command has found the file to be lost.
    pub(super) async fn lost(&self) {
        self.lost.notified().await;
    }

    /// Finishes what was submitted so far and ends the thread. Blocks; a second time does nothing.
    pub(super) fn close(&self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // Either fails only where the thread has ended already, which is what is wanted.
            drop(self.commands.send(StoreCommand::Close));
            drop(thread.join());
        }
    }
}

impl Drop for OutboxThread {
    fn drop(&mut self) {
        self.close();
    }
}

/// Waits for what comes of a command.
pub(super) async fn answer<T>(submitted: Submitted<T>) -> Result<T, StoreError> {
    submitted?.await.unwrap_or(Err(StoreError::Closed))
}

fn run(mut slot: LazyStore, submitted: &Receiver<StoreCommand>, trouble: &Mutex<Option<String>>) {
    // How long until the log is emptied; nothing where it is empty.
    let mut rest = None;
    loop {
        let next = match rest {
            Some(rest) => submitted.recv_timeout(rest),
            None => submitted.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match next {
            Ok(StoreCommand::Run(command)) => {
                let store = slot.store();
                if store.is_ok() {
                    *trouble.lock().unwrap_or_else(PoisonError::into_inner) = None;
                }
                command(store);
                rest = Some(IDLE_TIMEOUT);
            }
            Err(RecvTimeoutError::Timeout) => rest = slot.tidy().then_some(IDLE_TIMEOUT_CLEAN),
            Ok(StoreCommand::Close) | Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    slot.close();
}
