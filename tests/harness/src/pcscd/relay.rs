//! A relay between clients and the real pcscd, for what no pcscd does when a test needs it:
//! connections that are cut, requests that are refused or hang, waits that end without a reason.

mod trouble;
mod wire;

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

pub use trouble::Trouble;
use trouble::What;
pub use wire::Request;
use wire::{Body, STATES, Version, at, end_message, readers, set_counts};

/// Codes of PC/SC.
pub mod code {
    #![expect(missing_docs, reason = "they are PC/SC's, and documented there")]
    pub const SUCCESS: u32 = 0;
    pub const CANCELLED: u32 = 0x8010_0002;
    pub const PROTO_MISMATCH: u32 = 0x8010_000F;
    pub const SERVICE_STOPPED: u32 = 0x8010_001E;
    pub const SECURITY_VIOLATION: u32 = 0x8010_006A;
}

/// The handle on it; clones are the same relay.
#[derive(Clone, Debug)]
pub struct Relay {
    shared: Arc<Shared>,
    socket: PathBuf,
    listener: Arc<Mutex<Option<JoinHandle<()>>>>,
}

/// How a client sees pcscd's counts of insertions and removals.
#[derive(Clone, Copy, Debug, Default)]
pub enum Counts {
    /// As they are.
    #[default]
    Real,
    /// Nothing is counted.
    Zero,
    /// So many more, modulo 65536.
    Ahead(u32),
}

#[derive(Debug, Default)]
struct Shared {
    /// The real pcscd's socket.
    pcscd: PathBuf,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    clients: BTreeMap<u32, Client>,
    troubles: Vec<Trouble>,
    log: Vec<Request>,
    counts: Counts,
    /// What hangs waits for this to grow.
    releases: u32,
    alive: bool,
    /// The number of the last client.
    last: u32,
}

/// A connection.
#[derive(Debug)]
struct Client {
    stream: UnixStream,
    pcscd: UnixStream,
    /// What pcscd sent and the client has not.
    received: Vec<u8>,
    /// The request whose answer is due, if it is one of those that are not answered with a body.
    due: Option<Request>,
    waits: bool,
    /// What the client gets when its wait ends, in place of pcscd's own message.
    end_of_wait: Option<Vec<u8>>,
    version: Version,
    /// Whether it has asked for the count of readers in this call; one call may wait several times.
    has_events: bool,
    readers: usize,
}

impl Relay {
    /// A relay before the pcscd of this socket; not alive yet.
    pub(super) fn prepare(dir: &Path, pcscd: PathBuf) -> Result<Self> {
        let dir = dir.join("relay");
        fs::create_dir(&dir)?;
        let shared = Arc::new(Shared { pcscd, ..Shared::default() });
        Ok(Self { shared, socket: dir.join("pcscd.comm"), listener: Arc::default() })
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.socket.clone()
    }

    /// It ends as pcscd did, with or without its socket's file; every client is cut off.
    pub(super) fn die(&self, tidily: bool) -> Result<()> {
        let listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(listener) = listener else { return Ok(()) };
        self.shared.change(|state| {
            state.alive = false;
            state.clients.values().for_each(Client::close);
        });
        drop(UnixStream::connect(&self.socket));
        drop(listener.join());
        if tidily {
            fs::remove_file(&self.socket)?;
            fs::remove_file(self.pid_file())?;
        }
        Ok(())
    }

    fn pid_file(&self) -> PathBuf {
        self.socket.with_file_name("pcscd.pid")
    }

    pub(super) fn come_back(&self) -> Result<()> {
        if self.socket.exists() {
            fs::remove_file(&self.socket)?;
        }
        let listener = UnixListener::bind(&self.socket)?;
        // It is written again by each pcscd, before the first connection.
        fs::write(self.pid_file(), format!("{}\n\0", std::process::id()))?;
        // For every user, as pcscd's own.
        fs::set_permissions(&self.socket, Permissions::from_mode(0o777))?;
        self.shared.change(|state| state.alive = true);
        let shared = Arc::clone(&self.shared);
        let thread = thread::Builder::new().name("relay".to_owned());
        let thread = thread.spawn(move || accept(&listener, &shared))?;
        *self.listener.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        Ok(())
    }

    /// Every request so far.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.shared.lock().log.clone()
    }

    /// Waits until a condition on the requests holds.
    pub fn wait_for(
        &self,
        what: &str,
        timeout: Duration,
        condition: impl Fn(&[Request]) -> bool,
    ) -> Result<()> {
        self.wait(what, timeout, |state| condition(&state.log))
    }

    /// Waits until a client waits for a change, and so will see it.
    pub fn wait_for_waiter(&self, timeout: Duration) -> Result<()> {
        let waits = |state: &State| state.clients.values().any(Client::listens);
        self.wait("a client that waits", timeout, waits)
    }

    fn wait(
        &self,
        what: &str,
        timeout: Duration,
        condition: impl Fn(&State) -> bool,
    ) -> Result<()> {
        let deadline = Instant::now() + timeout;
        let mut state = self.shared.lock();
        while !condition(&state) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("not within {timeout:?}: {what}; requests: {:?}", state.log);
            }
            let woken = self.shared.changed.wait_timeout(state, left);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }

    /// Makes trouble from here on.
    pub fn make(&self, trouble: Trouble) {
        self.shared.change(|state| state.troubles.push(trouble));
    }

    /// Makes no more trouble, and lets go of what hangs.
    pub fn clear_troubles(&self) {
        self.shared.change(|state| state.troubles.clear());
        self.release();
    }

    /// Passes on what hangs.
    pub fn release(&self) {
        self.shared.change(|state| state.releases += 1);
    }

    /// Sets what clients see of pcscd's counts from here on.
    pub fn set_counts(&self, counts: Counts) {
        self.shared.change(|state| state.counts = counts);
    }

    /// Ends every wait as a cancel does.
    pub fn cancel_waits(&self) {
        self.end_waits(&end_message(code::CANCELLED));
    }

    /// Ends every wait with an error, after which clients ask for nothing to wait for, too.
    pub fn break_waits(&self, code: u32) {
        self.end_waits(&[end_message(code), end_message(code::SUCCESS)].concat());
    }

    fn end_waits(&self, end: &[u8]) {
        self.shared.change(|state| {
            let waits = |client: &&mut Client| client.waits && client.end_of_wait.is_none();
            for client in state.clients.values_mut().filter(waits) {
                client.end_of_wait = Some(end.to_vec());
                // pcscd answers with the message that ends the wait.
                drop(client.pcscd.write_all(&Request::Unwait.head()));
            }
        });
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.lock());
        self.changed.notify_all();
        result
    }
}

/// Takes clients until pcscd dies.
fn accept(listener: &UnixListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        if !shared.lock().alive {
            break;
        }
        let Ok(stream) = stream else { continue };
        let shared = Arc::clone(shared);
        thread::spawn(move || drop(serve(&stream, &shared)));
    }
}

fn serve(stream: &UnixStream, shared: &Shared) -> Result<()> {
    let pcscd = UnixStream::connect(&shared.pcscd)?;
    let own = Client::new(stream.try_clone()?, pcscd.try_clone()?);
    let client = shared.change(|state| {
        state.last += 1;
        state.clients.insert(state.last, own);
        state.last
    });
    thread::scope(|scope| {
        scope.spawn(|| receive(client, &pcscd, shared));
        while pass_on(client, stream, shared).is_ok_and(|goes_on| goes_on) {}
        // The stream is closed by the last who has it, so that what is unread resets it.
        shared.change(|state| state.clients.remove(&client));
        pcscd.shutdown(Shutdown::Both)
    })?;
    Ok(())
}

/// Passes answers on until pcscd ends the connection.
fn receive(client: u32, mut pcscd: &UnixStream, shared: &Shared) {
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = pcscd.read(&mut buffer) {
        shared.change(|state| {
            let counts = state.counts;
            let bytes = buffer.get(..count).unwrap_or_default();
            if let Some(client) = state.clients.get_mut(&client) {
                client.received.extend(bytes);
                client.answer(counts);
            }
        });
    }
    shared.change(|state| state.clients.get(&client).map(Client::close));
}

/// One request, and whether there can be another.
fn pass_on(client: u32, stream: &UnixStream, shared: &Shared) -> Result<bool> {
    let (request, length) = Request::read(stream)?;
    // What hangs can be released from the moment on at which it can be seen to hang.
    let (trouble, releases) = shared.change(|state| (state.meet(request), state.releases));
    if trouble == Some(What::CutUnread) {
        // The body is there, and a byte of it remains unread.
        Body::read(stream, length.saturating_sub(1))?;
        return Ok(false);
    }
    let mut body = Body::read(stream, length)?;
    let bytes = Body::read(stream, usize::try_from(request.bytes_after(&body))?)?;
    match trouble {
        Some(What::Cut) => return Ok(false),
        Some(What::Answer(code)) => {
            (&*stream).write_all(&body.with_code(code))?;
            return Ok(true);
        }
        Some(What::Speak((major, minor))) => {
            body.set(at::MAJOR, major);
            body.set(at::MINOR, minor);
            (&*stream).write_all(&body.with_code(code::SERVICE_STOPPED))?;
            return Ok(true);
        }
        Some(What::Hang) => {
            let hangs = |state: &mut State| state.releases == releases && state.alive;
            drop(shared.changed.wait_while(shared.lock(), hangs));
        }
        Some(What::CutUnread) | None => {}
    }
    let request_bytes = [request.head().as_slice(), &body.0, &bytes.0].concat();
    shared.change(|state| {
        let Some(client) = state.clients.get_mut(&client) else { return Ok(false) };
        client.note(request, &body);
        client.pcscd.write_all(&request_bytes)?;
        Ok(true)
    })
}

impl State {
    /// Logs a request, and returns what is wrong with its answer.
    fn meet(&mut self, request: Request) -> Option<What> {
        self.log.push(request);
        self.troubles.iter_mut().find_map(|trouble| trouble.meet(request))
    }
}

impl Client {
    fn new(stream: UnixStream, pcscd: UnixStream) -> Self {
        Self {
            stream,
            pcscd,
            received: Vec::new(),
            due: None,
            waits: false,
            end_of_wait: None,
            version: (0, 0),
            has_events: false,
            readers: 0,
        }
    }

    fn close(&self) {
        drop(self.stream.shutdown(Shutdown::Both));
    }

    /// Notes a request that goes to pcscd.
    fn note(&mut self, request: Request, body: &Body) {
        if request == Request::Version {
            self.version = (body.number(at::MAJOR), body.number(at::MINOR));
        }
        if matches!(request, Request::Events | Request::Unwait) {
            self.has_events = request == Request::Events;
        }
        let has_no_body = matches!(request, Request::States | Request::Wait | Request::Events);
        self.due = has_no_body.then_some(request);
    }

    /// Passes on what pcscd has sent, as far as it is whole.
    fn answer(&mut self, counts: Counts) {
        while !self.received.is_empty() {
            let states = matches!(self.due, Some(Request::States | Request::Wait));
            let length = match self.due {
                Some(_) if states => STATES,
                None if !self.waits => self.received.len(),
                _ => end_message(0).len(),
            };
            if self.received.len() < length {
                return;
            }
            let mut bytes: Vec<u8> = self.received.drain(..length).collect();
            match self.due.take() {
                Some(request) if states => {
                    set_counts(&mut bytes, counts);
                    self.readers = readers(&bytes);
                    self.waits = request == Request::Wait;
                }
                None if self.waits => {
                    self.waits = false;
                    bytes = self.end_of_wait.take().unwrap_or(bytes);
                    // Any code but success ends the call.
                    self.has_events &= bytes == end_message(code::SUCCESS);
                }
                Some(_) | None => {}
            }
            drop(self.stream.write_all(&bytes));
        }
    }

    /// Whether a client takes the next message for what it waits for, and not for another answer.
    ///
    /// From 4:5 on, a library that waits for readers too asks for their events first. One that
    /// waits for as many readers as there may be has no place left for that.
    fn listens(&self) -> bool {
        let asks_for_events = self.version >= (4, 5) && self.readers < wire::SLOTS;
        let goes_on = self.waits && self.end_of_wait.is_none();
        goes_on && (self.has_events || !asks_for_events)
    }
}
