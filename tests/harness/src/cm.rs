//! A simulator of MIM Certificate Management's REST API, with the quirks of
//! the web server in front of it.
//!
//! [`Cm`] runs on a thread of its own and is worked from synchronous tests:
//! what CM knows ([`Store`]), what goes wrong ([`Fault`]), what has arrived
//! ([`LogEntry`]). It answers by the documented codes only, unless a fault says
//! otherwise.

mod answer;
mod control;
mod fault;
mod http;
mod iis;
mod log;
mod model;
mod quirks;
mod routes;
mod server;
mod shared_state;
mod store;
mod tls;
mod tokens;

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tempfile::TempDir;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use uuid::Uuid;

use crate::pki::{Authority, Identity};
use crate::ports;
use server::{Order, Shared};
use shared_state::SharedState;

pub use control::HELP as CONTROL_HELP;
pub use fault::{Fault, FaultRule};
pub use log::LogEntry;
pub use model::{
    CARD_STATUS, Casing, DataItem, REQUEST_STATUS, REQUEST_TYPE, Record, Request, UNSET_TIME,
    number,
};
pub use routes::BASE_PATH;
pub use shared_state::{Held, Stage};
pub use store::Store;
pub use tls::{Certificate, ClientCertificates};
pub use tokens::{ClientProof, TOKEN_PATH, TokenRequest, Tokens};

/// How a simulator is set up.
#[derive(Clone, Debug)]
pub struct CmOptions {
    /// Where to listen; port 0 finds a free one.
    pub listen: SocketAddr,
    /// HTTPS with this certificate; plain HTTP where `None`.
    pub tls: Option<Certificate>,
    /// Whether HTTPS asks clients for a certificate.
    pub client_certificates: ClientCertificates,
    /// Where the CA's certificate goes; a temporary directory where `None`.
    pub tls_dir: Option<PathBuf>,
    /// The only token that is accepted; every caller is where `None`.
    pub bearer: Option<String>,
    /// Gives tokens out, and lets only them in.
    pub tokens: Option<Tokens>,
    /// What CM knows at the start.
    pub store: Store,
    /// Whether `/_sim/` is offered.
    pub control: bool,
}

impl Default for CmOptions {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            tls: None,
            client_certificates: ClientCertificates::NotAsked,
            tls_dir: None,
            bearer: None,
            tokens: None,
            store: Store::default(),
            control: false,
        }
    }
}

/// A running simulator; dropping it ends it.
#[derive(Debug)]
pub struct Cm {
    state: Arc<SharedState>,
    orders: UnboundedSender<Order>,
    thread: Option<JoinHandle<()>>,
    address: SocketAddr,
    ca: Option<Authority>,
    ca_file: Option<PathBuf>,
    _dir: TempDir,
    /// Bound, never listening: while CM is away no other program gets its port.
    _port: OwnedFd,
}

impl Cm {
    /// Starts a simulator.
    pub fn start(options: CmOptions) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("cm-").tempdir()?;
        let (port, address) = ports::reserve(options.listen)
            .with_context(|| format!("cannot have {}", options.listen))?;
        let listener = server::listen(address)?;
        let tls_dir = options.tls_dir.unwrap_or_else(|| dir.path().to_owned());
        let ca_file = options.tls.map(|_| tls_dir.join("ca.pem"));
        let (tls, ca) = match (options.tls, &ca_file) {
            (Some(certificate), Some(file)) => {
                let (tls, ca) = tls::acceptor(certificate, options.client_certificates, file)?;
                (Some(tls), Some(ca))
            }
            _ => (None, None),
        };
        let state = Arc::new(SharedState::default());
        state.lock().store = options.store;
        state.lock().bearer = options.bearer;
        state.lock().tokens = options.tokens;
        let (orders, inbox) = unbounded_channel();
        let shared = Shared {
            state: Arc::clone(&state),
            tls,
            connections: Arc::default(),
            control: options.control.then(|| orders.clone()),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = thread::Builder::new().name("cm-sim".to_owned());
        let thread = thread.spawn(move || {
            drop(runtime.block_on(server::run(listener, shared, inbox)));
        })?;
        Ok(Self {
            state,
            orders,
            thread: Some(thread),
            address,
            ca,
            ca_file,
            _dir: dir,
            _port: port,
        })
    }

    /// A simulator that knows the documentation's card and its Retire request.
    pub fn seed() -> Result<Self> {
        Self::start(CmOptions { store: Store::seed(), ..CmOptions::default() })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its base URL, without the API's path.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.ca_file.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// The certificate of the CA behind its HTTPS.
    #[must_use]
    pub fn ca_pem_path(&self) -> Option<PathBuf> {
        self.ca_file.clone()
    }

    /// A client certificate that its HTTPS accepts.
    pub fn client(&self, name: &str) -> Result<Identity> {
        self.ca.as_ref().context("it speaks plain HTTP")?.client(name)
    }

    /// A client certificate of the same CA that has expired.
    pub fn expired_client(&self, name: &str) -> Result<Identity> {
        self.ca.as_ref().context("it speaks plain HTTP")?.expired_client(name)
    }

    /// The token it lets in, if it asks for one.
    #[must_use]
    pub fn bearer(&self) -> Option<String> {
        self.state.lock().bearer.clone()
    }

    /// Changes the only token let in.
    pub fn set_bearer(&self, token: Option<&str>) {
        self.state.lock().bearer = token.map(str::to_owned);
    }

    /// What CM knows now.
    #[must_use]
    pub fn state(&self) -> Store {
        self.state.lock().store.clone()
    }

    /// Changes what CM knows.
    pub fn change_state<T>(&self, change: impl FnOnce(&mut Store) -> T) -> T {
        self.state.change(|inner| change(&mut inner.store))
    }

    /// The record with this id.
    #[must_use]
    pub fn record(&self, uuid: Uuid) -> Option<Record> {
        self.state.lock().store.record(uuid).cloned()
    }

    /// The request with this id.
    #[must_use]
    pub fn request(&self, uuid: Uuid) -> Option<Request> {
        self.state.lock().store.request(uuid).cloned()
    }

    /// Adds a record, or replaces the one with its id.
    pub fn add_record(&self, record: Record) {
        self.state.add_record(record);
    }

    /// Adds a request, or replaces the one with its id.
    pub fn add_request(&self, request: Request) {
        self.state.add_request(request);
    }

    /// Sets a fault, in addition to those that are set.
    pub fn set_fault(&self, fault: impl Into<FaultRule>) {
        self.state.change(|inner| inner.rules.push(fault.into()));
    }

    /// Ends every fault; what is held remains held.
    pub fn clear_faults(&self) {
        self.state.change(|inner| inner.rules.clear());
    }

    /// Ends the sessions of [`Fault::SessionCookie`].
    pub fn forget_sessions(&self) {
        self.state.change(|inner| inner.quirks.forget_sessions());
    }

    /// Refuses connections and cuts the open ones.
    pub fn go_away(&self) -> Result<()> {
        self.order(Order::Away)
    }

    /// Listens again, on the same port.
    pub fn come_back(&self) -> Result<()> {
        self.order(Order::Back)
    }

    /// Every call so far.
    #[must_use]
    pub fn log(&self) -> Vec<LogEntry> {
        self.state.lock().log.clone()
    }

    /// The PUT calls so far.
    #[must_use]
    pub fn puts(&self) -> Vec<LogEntry> {
        let mut log = self.log();
        log.retain(|entry| entry.method == "PUT");
        log
    }

    /// The log as text, a call a line.
    #[must_use]
    pub fn story(&self) -> String {
        self.state.lock().story()
    }

    /// Waits for a condition on the log, and returns the log.
    pub fn wait_for(
        &self,
        what: &str,
        timeout: Duration,
        condition: impl Fn(&[LogEntry]) -> bool,
    ) -> Result<Vec<LogEntry>> {
        self.state.wait(what, timeout, |inner| condition(&inner.log).then(|| inner.log.clone()))
    }

    /// Waits for a call to be held by [`Fault::HoldBefore`] or
    /// [`Fault::HoldAfter`].
    pub fn wait_held(&self, timeout: Duration) -> Result<Held> {
        let take = |inner: &mut shared_state::Inner| inner.held.pop_front();
        self.state.wait("a call is held", timeout, take)
    }

    fn order(
        &self,
        order: impl FnOnce(std::sync::mpsc::Sender<std::io::Result<()>>) -> Order,
    ) -> Result<()> {
        let (done, result) = channel();
        drop(self.orders.send(order(done)));
        result.recv().context("the simulator has ended")??;
        Ok(())
    }
}

impl Drop for Cm {
    fn drop(&mut self) {
        drop(self.orders.send(Order::Stop));
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

impl SharedState {
    fn add_record(&self, record: Record) {
        self.change(|inner| {
            let records = &mut inner.store.records;
            records.retain(|known| known.uuid != record.uuid);
            records.push(record);
        });
    }

    fn add_request(&self, request: Request) {
        self.change(|inner| {
            let requests = &mut inner.store.requests;
            requests.retain(|known| known.uuid != request.uuid);
            requests.push(request);
        });
    }
}
