//! Access tokens as AD FS gives them out, and the CM that lets them in.
//!
//! One [`Tokens`] is shared by the simulators that need it. Every simulator that
//! has one gives tokens at [`TOKEN_PATH`], and lets only them into the API. A CM
//! whose AD FS is another machine is two simulators with one [`Tokens`].

mod assertion;
mod endpoint;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;

use super::answer::Answer;
use super::fault::unauthorized;
use super::http::Call;
use crate::pki::Identity;
use assertion::Registered;

/// Where tokens are given.
pub const TOKEN_PATH: &str = "/adfs/oauth2/token";

/// How a client proved who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientProof {
    /// It did not.
    None,
    /// By `client_secret`.
    Secret,
    /// By a signed `client_assertion`.
    Assertion,
    /// By the login of its Windows account.
    Windows,
}

/// A call for a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRequest {
    /// The client that it names.
    pub client_id: String,
    /// How it proved to be that, or tried to.
    pub proof: ClientProof,
    /// What the token was to be for.
    pub resource: Option<String>,
    /// The scope asked for.
    pub scope: Option<String>,
    /// Why it got none, for the test; the client gets less detail.
    pub refused: Option<String>,
}

/// Clients, tokens and calls for them; clones share them.
#[derive(Clone, Debug)]
pub struct Tokens {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    resource: String,
    clients: Vec<(String, Proof)>,
    life: Duration,
    issued: HashMap<String, Issued>,
    /// Ids of assertions that were used.
    used: HashSet<String>,
    requests: Vec<TokenRequest>,
}

#[derive(Debug)]
enum Proof {
    Secret(String),
    Certificate(Registered),
    User(String),
}

#[derive(Debug)]
struct Issued {
    until: Instant,
    for_cm: bool,
}

impl Tokens {
    /// No tokens yet, for a CM that is registered by this identifier. They
    /// live an hour.
    #[must_use]
    pub fn new(resource: &str) -> Self {
        let inner = Inner {
            resource: resource.to_owned(),
            clients: Vec::new(),
            life: Duration::from_hours(1),
            issued: HashMap::new(),
            used: HashSet::new(),
            requests: Vec::new(),
        };
        Self { inner: Arc::new(Mutex::new(inner)) }
    }

    /// Registers a client with a secret.
    pub fn register_secret(&self, client_id: &str, secret: &str) {
        self.register(client_id, Proof::Secret(secret.to_owned()));
    }

    /// Registers a client with the certificate that its assertions are signed
    /// for.
    pub fn register_certificate(&self, client_id: &str, identity: &Identity) {
        self.register(client_id, Proof::Certificate(Registered::of(identity)));
    }

    /// Registers a client by its Windows account, as the server in front names
    /// it in `X-Remote-User`: only such a server may reach the simulator.
    pub fn register_user(&self, client_id: &str, user: &str) {
        self.register(client_id, Proof::User(user.to_owned()));
    }

    /// Forgets every client: the application was removed. Tokens remain valid.
    pub fn remove_clients(&self) {
        self.lock().clients.clear();
    }

    /// Sets how long the tokens live that are given from here on.
    pub fn set_life(&self, life: Duration) {
        self.lock().life = life;
    }

    /// Ends every token before its time.
    pub fn revoke_all(&self) {
        self.lock().issued.clear();
    }

    /// The calls for tokens so far that came this far: those that met a fault
    /// are in the simulator's log alone.
    #[must_use]
    pub fn requests(&self) -> Vec<TokenRequest> {
        self.lock().requests.clone()
    }

    /// How many tokens were given.
    #[must_use]
    pub fn issued(&self) -> usize {
        let inner = self.lock();
        inner.requests.iter().filter(|request| request.refused.is_none()).count()
    }

    /// Answers a call for a token; `None` for any other call.
    pub(super) fn answer(&self, call: &Call) -> Option<Answer> {
        is_for_token(call).then(|| endpoint::answer(&mut self.lock(), call))
    }

    /// A 401 for a caller of the API without a good token.
    pub(super) fn refuse_stranger(&self, call: &Call) -> Option<Answer> {
        if is_for_token(call) {
            return None;
        }
        let token = call.header("authorization").and_then(|text| text.strip_prefix("Bearer "));
        let Some(token) = token else { return Some(unauthorized("Bearer")) };
        let inner = self.lock();
        let issued = inner.issued.get(token);
        let good = issued.is_some_and(|issued| issued.for_cm && Instant::now() < issued.until);
        (!good).then(|| unauthorized("Bearer error=\"invalid_token\""))
    }

    fn register(&self, client_id: &str, proof: Proof) {
        self.lock().clients.push((client_id.to_owned(), proof));
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An error that no rule of the endpoint asked for.
pub(super) fn oauth_error(error: &str) -> Answer {
    endpoint::refused(error, "MSIS9321: Received invalid OAuth request.")
}

fn is_for_token(call: &Call) -> bool {
    let path = call.target.split('?').next().unwrap_or_default();
    path.trim_end_matches('/').eq_ignore_ascii_case(TOKEN_PATH)
}

/// What a client sends and gets nothing for.
struct Refusal {
    /// OAuth's error code.
    error: &'static str,
    /// What AD FS says to it.
    description: &'static str,
    /// The detail for the test.
    reason: String,
}

type Verdict<T> = Result<T, Refusal>;
