//! Kerberos by SPNEGO (RFC 4178, RFC 4559), from a keytab.
//!
//! ```text
//! negotiate   a token for each call, and what a response says about it
//! ├ threads   one obtains tickets, before they end or on request; one makes tokens
//! ├ ticket    login and service ticket, in a credential cache of their own
//! ├ keytab    the principals of a keytab
//! ├ bindings  the TLS channel that a token is for
//! ├ challenge what the server offers, and why it may have answered 401
//! └ gssapi    the system's library: all unsafe code
//! ```
//!
//! There is no NTLM. `docs/decisions/0015-negotiate.md` has the reasons.

mod bindings;
mod challenge;
mod gssapi;
mod keytab;
mod threads;
mod ticket;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use reqwest::header::HeaderValue;
use reqwest::{Method, Request};
use tokio::sync::{OnceCell, watch};
use tokio::time::{Instant, timeout_at};

use crate::cm::classify::{AuthDecision, HttpResponse};
use crate::cm::secret::FileVersion;
use crate::cm::transport::HttpTransport;
use crate::config::KerberosSettings;
use crate::domain::{CallError, CredentialsView, Problem, UnavailableReason};
use challenge::{Challenges, Channel, TokenDescription};
use gssapi::{ContextState, SecurityContext};
use threads::{RenewalLimiter, TicketRenewer, TicketState, TokenThread, TokenTimeout};
use ticket::{ServicePrincipal, Ticket, TicketRequest};

/// Makes a token for each call to one server: CM, or a token endpoint.
///
/// For every call: [`Self::token`], whose header goes along, then [`Self::on_response`]. Nothing happens
/// before the first one; the threads end when this is dropped.
pub(in crate::cm) struct Negotiate {
    account: Arc<TicketRequest>,
    /// The server that tokens are for.
    transport: Arc<HttpTransport>,
    channel_bindings: bool,
    /// The server's last certificate, and its bindings.
    channel: Mutex<Option<ServerBinding>>,
    /// Whether the server's certificate was fetched.
    fetched: OnceCell<()>,
    threads: OnceCell<NegotiateThreads>,
    renewals_after_401: RenewalLimiter,
}

/// A security context that waits for the server's half.
pub(in crate::cm) struct PendingContext {
    context: SecurityContext,
    ticket: Arc<Ticket>,
    bindings: Option<Arc<[u8]>>,
}

struct ServerBinding {
    certificate: Vec<u8>,
    bindings: Option<Arc<[u8]>>,
}

struct NegotiateThreads {
    tokens: TokenThread,
    renewals: TicketRenewer,
}

impl Negotiate {
    pub(in crate::cm) fn new(kerberos: &KerberosSettings, transport: Arc<HttpTransport>) -> Self {
        let KerberosSettings { keytab, principal, spn, channel_bindings } = kerberos.clone();
        let host = transport.server.host_str().unwrap_or_default();
        let service = ServicePrincipal::new(spn.as_deref(), host);
        Self {
            account: Arc::new(TicketRequest { keytab, principal, service }),
            channel_bindings: channel_bindings && transport.server.scheme() == "https",
            transport,
            channel: Mutex::default(),
            fetched: OnceCell::new(),
            threads: OnceCell::new(),
            renewals_after_401: RenewalLimiter::default(),
        }
    }

    /// A token for one call. Before an error, nothing but an anonymous request was sent to the server.
    pub(in crate::cm) async fn token(
        &self,
        deadline: Instant,
    ) -> Result<(HeaderValue, PendingContext), CallError> {
        let threads = self.threads().await?;
        let ticket = self.ticket(threads, deadline).await?;
        let bindings = self.bindings(deadline).await?;
        let (from, to) = (Arc::clone(&ticket), bindings.clone());
        let asked = Instant::now();
        let initiated = threads
            .tokens
            .run(deadline, move || from.token(to))
            .await
            .map_err(|TokenTimeout| no_token("the Kerberos library does not answer".to_owned()))?
            .map_err(|problem| no_token(problem.to_string()))?;
        let elapsed_us = u64::try_from(asked.elapsed().as_micros()).unwrap_or(u64::MAX);
        tracing::trace!(elapsed_us, length = initiated.token.len(), "SPNEGO token created");
        let mut header =
            HeaderValue::try_from(format!("Negotiate {}", STANDARD.encode(&initiated.token)))
                .map_err(|error| no_token(error.to_string()))?;
        header.set_sensitive(true);
        Ok((header, PendingContext { context: initiated.context, ticket, bindings }))
    }

    /// `Retry` is for a 401 only.
    pub(in crate::cm) async fn on_response(
        &self,
        pending: PendingContext,
        response: &HttpResponse,
        deadline: Instant,
    ) -> AuthDecision {
        let Some(threads) = self.threads.get() else { return AuthDecision::Accept };
        let bindings = self.store_binding(response.certificate.clone());
        let challenges = Challenges::new(&response.challenges);
        if !response.is_unauthorized() {
            return verify_mutual_auth(threads, pending, challenges, deadline).await;
        }
        // The token was bound to another channel than the one that it came through.
        if self.channel_bindings && bindings != pending.bindings {
            return AuthDecision::Retry;
        }
        self.on_unauthorized(threads, pending, challenges, deadline).await
    }

    pub(in crate::cm) fn view(&self) -> CredentialsView {
        let state = self.threads.get().map(|threads| threads.renewals.state().borrow().clone());
        let TicketState { ticket, last_failure, .. } = state.unwrap_or_default();
        let principal = ticket.as_ref().map(|ticket| ticket.principal.clone());
        CredentialsView {
            method: "negotiate".to_owned(),
            identity: principal.or_else(|| self.account.principal.clone()),
            valid_until: ticket.map(|ticket| ticket.valid_until),
            renewal_error: last_failure.map(|failure| failure.error.to_string()),
        }
    }

    async fn threads(&self) -> Result<&NegotiateThreads, CallError> {
        let start = || async {
            let renewals = TicketRenewer::start(Arc::clone(&self.account)).map_err(|error| {
                no_token(format!("{error}; restart cardbridge once the KDC answers"))
            })?;
            let tokens = TokenThread::start("gssapi").map_err(|error| {
                no_token(format!("cannot start a thread for the Kerberos library: {error}"))
            })?;
            Ok(NegotiateThreads { tokens, renewals })
        };
        self.threads.get_or_try_init(start).await
    }

    /// The present ticket, or the next one if that has ended.
    async fn ticket(
        &self,
        threads: &NegotiateThreads,
        deadline: Instant,
    ) -> Result<Arc<Ticket>, CallError> {
        let mut state = threads.renewals.state();
        let now = Timestamp::now();
        let (seen, valid, wanted) = {
            let state = state.borrow_and_update();
            let keytab = FileVersion::of(&self.account.keytab).ok();
            let valid = state.valid(now);
            let due = valid.as_ref().is_none_or(|ticket| ticket.renew_at <= now);
            let wanted =
                (due || state.is_new(keytab)) && state.may_ask(keytab, std::time::Instant::now());
            (state.attempts, valid, wanted)
        };
        if wanted {
            threads.renewals.request_renewal(seen);
        }
        if let Some(valid) = valid {
            return Ok(valid);
        }
        if wanted {
            wait_for_attempt(&mut state, seen, deadline).await;
        }
        let state = state.borrow();
        state.valid(Timestamp::now()).ok_or_else(|| no_ticket(&state))
    }

    /// The bindings of the channel to the server, whose certificate is fetched if necessary.
    async fn bindings(&self, deadline: Instant) -> Result<Option<Arc<[u8]>>, CallError> {
        if !self.channel_bindings {
            return Ok(None);
        }
        self.fetched.get_or_try_init(|| self.fetch_server_certificate(deadline)).await?;
        let channel = self.channel.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(channel.as_ref().and_then(|seen| seen.bindings.clone()))
    }

    /// An anonymous request, to see the server's certificate.
    async fn fetch_server_certificate(&self, deadline: Instant) -> Result<(), CallError> {
        let mut url = self.transport.server.clone();
        url.set_path("/");
        let response = self.transport.execute(Request::new(Method::HEAD, url), deadline).await?;
        self.store_binding(self.transport.certificate_of(&response));
        Ok(())
    }

    /// Stores the server's certificate, and returns its bindings.
    fn store_binding(&self, certificate: Option<Vec<u8>>) -> Option<Arc<[u8]>> {
        let certificate = certificate.filter(|_| self.channel_bindings)?;
        let mut channel = self.channel.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(seen) = channel.as_ref().filter(|seen| seen.certificate == certificate) {
            return seen.bindings.clone();
        }
        let bindings = bindings::binding(&certificate)
            .inspect_err(|error| {
                tracing::warn!(%error, "Channel binding unavailable; sending unbound tokens");
            })
            .ok();
        *channel = Some(ServerBinding { certificate, bindings: bindings.clone() });
        bindings
    }

    /// A rejected ticket may be for an old key of the server: one renewal is tried.
    async fn on_unauthorized(
        &self,
        threads: &NegotiateThreads,
        pending: PendingContext,
        mut challenges: Challenges,
        deadline: Instant,
    ) -> AuthDecision {
        let PendingContext { mut context, ticket, bindings } = pending;
        if challenges.offers_negotiate() && self.renewed(threads, &ticket, deadline).await {
            return AuthDecision::Retry;
        }
        let error = match challenges.token() {
            Some(Ok(token)) => {
                threads.tokens.run(deadline, move || context.step(&token)).await.ok()
            }
            Some(Err(_)) | None => None,
        };
        let error = error.and_then(Result::err).map(|error| error.to_string());
        let channel = match bindings {
            Some(_) => Channel::Bound,
            None if self.channel_bindings || self.transport.server.scheme() != "https" => {
                Channel::Unbound
            }
            None => Channel::Disabled,
        };
        let (principal, service) = (&ticket.principal, self.account.service.as_str());
        let token = TokenDescription { principal, service, channel };
        let detail = challenges.rejection(error.as_deref(), &token);
        AuthDecision::Reject(CallError::unavailable(UnavailableReason::Unauthorized, detail))
    }

    /// Whether there is another ticket than this one by now.
    async fn renewed(
        &self,
        threads: &NegotiateThreads,
        old: &Arc<Ticket>,
        deadline: Instant,
    ) -> bool {
        let mut state = threads.renewals.state();
        let is_other = |state: &TicketState| {
            state.valid(Timestamp::now()).is_some_and(|ticket| !Arc::ptr_eq(&ticket, old))
        };
        let seen = {
            let state = state.borrow_and_update();
            if is_other(&state) {
                return true;
            }
            let keytab = FileVersion::of(&self.account.keytab).ok();
            if !self.renewals_after_401.may_renew(&state, keytab, std::time::Instant::now()) {
                return false;
            }
            state.attempts
        };
        threads.renewals.request_renewal(seen);
        wait_for_attempt(&mut state, seen, deadline).await;
        is_other(&state.borrow())
    }
}

/// Waits until an attempt has ended, or until the deadline.
async fn wait_for_attempt(state: &mut watch::Receiver<TicketState>, seen: u64, deadline: Instant) {
    let ended = state.wait_for(|state| state.attempts > seen);
    if timeout_at(deadline, ended).await.is_err() {
        tracing::debug!("Stopped waiting for the KDC");
    }
}

/// A server that offers to prove its identity must succeed.
async fn verify_mutual_auth(
    threads: &NegotiateThreads,
    pending: PendingContext,
    mut challenges: Challenges,
    deadline: Instant,
) -> AuthDecision {
    let unproven = |reason: String| {
        let detail = format!("the server does not prove its identity: {reason}");
        AuthDecision::Reject(CallError::unavailable(UnavailableReason::NotCm, detail))
    };
    let token = match challenges.token() {
        None => return AuthDecision::Accept,
        Some(Err(error)) => return unproven(error.to_string()),
        Some(Ok(token)) => token,
    };
    let PendingContext { mut context, .. } = pending;
    match threads.tokens.run(deadline, move || context.step(&token)).await {
        Ok(Ok(ContextState::Established)) => AuthDecision::Accept,
        Ok(Ok(ContextState::ContinueNeeded)) => {
            unproven("its token is only half of a proof".to_owned())
        }
        Ok(Err(error)) => unproven(error.to_string()),
        Err(TokenTimeout) => unproven("the Kerberos library does not answer".to_owned()),
    }
}

/// Why a file is no keytab.
pub(in crate::cm) fn check_keytab(path: &Path) -> Result<(), Problem> {
    keytab::principal(path, None).map(drop)
}

const fn no_token(detail: String) -> CallError {
    CallError::unavailable(UnavailableReason::Credentials, detail)
}

/// Why there is no valid ticket.
fn no_ticket(state: &TicketState) -> CallError {
    let silent = state.since.map(|since| {
        let seconds = since.elapsed().as_secs();
        format!(
            "no Kerberos ticket: the KDC has been silent for {seconds} s; check the network and the \
             KDC that krb5.conf or DNS names"
        )
    });
    let failure = state.last_failure.as_ref().map(|failure| failure.error.to_string());
    no_token(silent.or(failure).unwrap_or_else(|| "the Kerberos ticket has just ended".to_owned()))
}
