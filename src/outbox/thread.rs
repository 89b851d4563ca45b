//! The thread `outbox`: SQLite blocks, the daemon's loop must not.
//!
//! Commands run one after the other in the order in which they were submitted. Each runs to its
//! end even when its result is no longer awaited.

use std::error::Error;
use std::io;
use std::pin::Pin;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};

use super::database;
use super::error::{OpenError, StoreError};
use super::limits::SizeLimits;
use super::read_only;
use super::store::{DamagePolicy, Store};
use super::{OutboxContents, OutboxOptions};

/// How many commands may wait. 16 readers with a card a second each fill it in a minute: a disk
/// that blocks for longer does not recover by waiting. About 2 MB.
pub(super) const QUEUE_CAPACITY: usize = 1024;

/// How long there is nothing to do before the log is emptied: longer than the steps of one card are
/// apart, and short, because a log that is damaged costs more than a file that is.
const IDLE_TIMEOUT: Duration = Duration::from_secs(1);

/// The same, where another program prevented it.
const BUSY_IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// A command: takes the store, or why there is none, and sends the result.
type StoreCommand = Box<dyn FnOnce(Result<&mut Store, StoreError>) + Send>;

/// The result of a command, to be awaited.
#[derive(Debug)]
#[must_use]
pub struct StoreReply<T>(oneshot::Receiver<Result<T, StoreError>>);

impl<T> Future for StoreReply<T> {
    type Output = Result<T, StoreError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let reply = Pin::new(&mut self.0).poll(context);
        reply.map(|reply| reply.unwrap_or(Err(StoreError::Closed)))
    }
}

/// The thread, and what is shared with it.
#[derive(Debug)]
pub(super) struct OutboxThread {
    /// `None` ends the thread.
    commands: SyncSender<Option<StoreCommand>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Notified once a command has found the file to be lost.
    pub(super) lost: Arc<Notify>,
    /// Why the file cannot be opened for writing.
    write_error: Arc<Mutex<Option<String>>>,
}

impl OutboxThread {
    /// Starts the thread, which owns the store from then on.
    pub(super) fn start(store: LazyStore, write_error: Option<String>) -> io::Result<Self> {
        let (commands, submitted) = sync_channel(QUEUE_CAPACITY);
        let write_error = Arc::new(Mutex::new(write_error));
        let shared = Arc::clone(&write_error);
        let thread = thread::Builder::new()
            .name("outbox".into())
            .spawn(move || run(store, &submitted, &shared))?;
        Ok(Self { commands, thread: Mutex::new(Some(thread)), lost: Arc::default(), write_error })
    }

    /// Queues a command, now; never blocks.
    pub(super) fn submit<T: Send + 'static>(
        &self,
        command: impl FnOnce(&mut Store) -> Result<T, StoreError> + Send + 'static,
    ) -> StoreReply<T> {
        let (reply, result) = oneshot::channel();
        let lost = Arc::clone(&self.lost);
        let command: StoreCommand = Box::new(move |store| {
            let result = store.and_then(command);
            if let Err(error @ StoreError::Lost(_)) = &result {
                let error: &dyn Error = error;
                tracing::error!(error, "Outbox file lost; stopping");
                lost.notify_one();
            }
            // The command is done even where its result is no longer awaited.
            drop(reply.send(result));
        });
        match self.commands.try_send(Some(command)) {
            Ok(()) | Err(TrySendError::Full(None) | TrySendError::Disconnected(None)) => {}
            Err(TrySendError::Full(Some(command))) => command(Err(StoreError::Busy)),
            Err(TrySendError::Disconnected(Some(command))) => command(Err(StoreError::Closed)),
        }
        StoreReply(result)
    }

    pub(super) fn write_error(&self) -> Option<String> {
        self.write_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Finishes what was submitted so far and ends the thread. Blocks; a second time does nothing.
    pub(super) fn close(&self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // Either fails only where the thread has ended already.
            drop(self.commands.send(None));
            drop(thread.join());
        }
    }
}

impl Drop for OutboxThread {
    fn drop(&mut self) {
        self.close();
    }
}

fn run(
    mut lazy: LazyStore,
    submitted: &Receiver<Option<StoreCommand>>,
    write_error: &Mutex<Option<String>>,
) {
    // How long until the log is emptied; `None` where it is empty.
    let mut idle_timeout = None;
    loop {
        let next = match idle_timeout {
            Some(timeout) => submitted.recv_timeout(timeout),
            None => submitted.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match (next, &mut lazy) {
            (Ok(Some(command)), lazy) => {
                let store = lazy.open();
                if store.is_ok() {
                    *write_error.lock().unwrap_or_else(PoisonError::into_inner) = None;
                }
                command(store);
                idle_timeout = Some(IDLE_TIMEOUT);
            }
            (Err(RecvTimeoutError::Timeout), LazyStore::Open(store)) => {
                let is_busy = database::empty_wal(store.conn());
                idle_timeout = is_busy.then_some(BUSY_IDLE_TIMEOUT);
            }
            (Err(RecvTimeoutError::Timeout), LazyStore::Closed(_)) => idle_timeout = None,
            (Ok(None) | Err(RecvTimeoutError::Disconnected), _) => break,
        }
    }
    if let LazyStore::Open(store) = lazy {
        store.close();
    }
}

/// The store, or what it takes to open it once the disk takes writes.
///
/// A disk that is full or read-only at the start does not prevent that cards are read. What is in
/// the file is read as far as that is possible without writing; every command tries to open it.
#[derive(Debug)]
pub(super) enum LazyStore {
    Open(Box<Store>),
    Closed(Box<ClosedStore>),
}

/// What it takes to open the store later.
#[derive(Debug)]
pub(super) struct ClosedStore {
    options: OutboxOptions,
    limits: SizeLimits,
    /// What the file held at the start: the engine works with this.
    known: OutboxContents,
}

impl LazyStore {
    /// Opens the store and returns its content, and why it cannot be written where it cannot.
    pub(super) fn new(
        options: OutboxOptions,
        limits: SizeLimits,
        on_damage: DamagePolicy,
    ) -> Result<(Self, OutboxContents, Option<OpenError>), OpenError> {
        match Store::open(&options, limits, on_damage) {
            Ok((store, contents)) => Ok((Self::Open(Box::new(store)), contents, None)),
            Err(error) if error.may_pass() && on_damage == DamagePolicy::Repair => {
                let known = read_only::read_contents(&options.path);
                let closed = ClosedStore { options, limits, known: known.clone() };
                Ok((Self::Closed(Box::new(closed)), known, Some(error)))
            }
            Err(error) => Err(error),
        }
    }

    fn open(&mut self) -> Result<&mut Store, StoreError> {
        if let Self::Closed(closed) = self {
            let opened = Store::open(&closed.options, closed.limits, DamagePolicy::Repair);
            let (store, contents) = opened.map_err(|error| StoreError::Io(Box::new(error)))?;
            if let Some(report) = &contents.repaired {
                tracing::error!(%report, "Damaged outbox file set aside");
            }
            // The next start continues with this content; the engine of this one does not know it.
            if contents != closed.known {
                let cause = "the outbox contents changed while it was not writable";
                return Err(StoreError::Lost(cause.into()));
            }
            tracing::info!("Outbox is writable again");
            *self = Self::Open(Box::new(store));
        }
        match self {
            Self::Open(store) => Ok(store),
            Self::Closed(_) => Err(StoreError::Busy),
        }
    }
}
