//! Kerberos by SPNEGO (RFC 4178, RFC 4559), from a keytab.
//!
//! ```text
//! negotiate  a token for each call, and what an answer says about it
//! ├ renewal   a thread that gets tickets, before they end or when they are wished for
//! │ └ ticket    login and service ticket, in a cache of their own
//! ├ worker    a thread that makes tokens from the present ticket
//! ├ bindings  which TLS channel a token is for
//! ├ challenge what the server offers, and why it may have said no
//! ├ keytab    whose keys there are;  failure: why there is no ticket
//! └ gssapi    the system's library: all that is unsafe
//! ```
//!
//! NTLM is not spoken. `docs/decisions/0015-negotiate.md` has the reasons for all of this.

mod bindings;
mod challenge;
mod error;
mod gssapi;
mod keytab;
mod renewal;
mod ticket;
mod token_thread;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use reqwest::header::HeaderValue;
use reqwest::tls::TlsInfo;
use reqwest::{Method, Request, Url};
use tokio::sync::OnceCell;
use tokio::time::{Instant, timeout_at};

use super::super::http_transport::HttpTransport;
use super::super::transport_error::Phase;
use super::super::{KerberosOptions, UnavailableReason, away, http_thread};
use super::{AuthDecision, AuthResponse, RequestAuth};
use crate::domain::{CallError, CredentialsView};
use challenge::{Challenges, Channel, TokenDescription};
use error::KerberosError;
use gssapi::{ContextState, SecurityContext};
use renewal::{RenewalLimiter, TicketRenewer, TicketState};
use ticket::{ServicePrincipal, Ticket, TicketRequest};
use token_thread::{TokenThread, TokenTimeout};

/// Makes a token for each call to one server, whichever that is: CM, or a token endpoint.
///
/// For every call: [`Self::pass`], whose header goes along; the answer's status, headers and
/// certificate as a [`AuthResponse`]; [`Self::after`] with both, and what it says is done. A pass is for
/// one call only. Nothing happens before the first one; what runs beside ends when this is dropped.
pub(in crate::cm) struct Negotiate {
    account: Arc<TicketRequest>,
    server: TargetServer,
    channel_bindings: bool,
    /// The channel that tokens are for, as it was last seen.
    channel: Mutex<Option<ServerBinding>>,
    /// Whether the server's certificate was looked at.
    checked_at: OnceCell<()>,
    threads: OnceCell<NegotiateThreads>,
    refusals: RenewalLimiter,
}

/// The server that tokens are for.
pub(in crate::cm) struct TargetServer {
    /// Any URL on it: its host is in the service's name, and `https` means that tokens are bound to
    /// the channel.
    pub(in crate::cm) url: Url,
    /// What the calls go through: the server's certificate is looked at with it.
    pub(in crate::cm) outbound: Arc<HttpTransport>,
    /// `cm.connect_timeout`, for messages.
    pub(in crate::cm) connect_timeout: Duration,
}

/// A security context that waits for the server's half.
pub(in crate::cm) struct PendingContext {
    context: SecurityContext,
    ticket: Arc<Ticket>,
    bindings: Option<Arc<[u8]>>,
}

/// A certificate, and the bindings that it makes.
struct ServerBinding {
    certificate: Vec<u8>,
    bindings: Option<Arc<[u8]>>,
}

struct NegotiateThreads {
    tokens: TokenThread,
    renewals: TicketRenewer,
}

impl Negotiate {
    pub(in crate::cm) fn new(kerberos: &KerberosOptions, server: TargetServer) -> Self {
        let KerberosOptions { keytab, principal, spn, channel_bindings } = kerberos.clone();
        let host = server.url.host_str().unwrap_or_default();
        let service = ServicePrincipal::new(spn.as_deref(), host);
        Self {
            account: Arc::new(TicketRequest { keytab, principal, service }),
            channel_bindings: channel_bindings && server.url.scheme() == "https",
            server,
            channel: Mutex::default(),
            checked_at: OnceCell::new(),
            threads: OnceCell::new(),
            refusals: RenewalLimiter::default(),
        }
    }

    /// A token for one call. An error is why there is none; nothing but an anonymous look at the
    /// server was sent then.
    pub(in crate::cm) async fn pass(&self, deadline: Instant) -> Result<RequestAuth, CallError> {
        let threads = self.threads().await?;
        let ticket = self.ticket(threads, deadline).await?;
        let bindings = self.bindings(deadline).await?;
        let (from, to) = (Arc::clone(&ticket), bindings.clone());
        let asked = Instant::now();
        let started = threads
            .tokens
            .run(deadline, move || from.token(to))
            .await
            .map_err(|TokenTimeout| no_token("the Kerberos library does not answer".to_owned()))?
            .map_err(|failure| no_token(failure.to_string()))?;
        let elapsed_us = u64::try_from(asked.elapsed().as_micros()).unwrap_or(u64::MAX);
        tracing::trace!(elapsed_us, length = started.token.len(), "SPNEGO token created");
        let header = authorization(&started.token)?;
        let negotiation = PendingContext { context: started.context, ticket, bindings };
        Ok(RequestAuth { header: Some(header), negotiation: Some(negotiation) })
    }

    /// What to make of the answer. `Again` comes for a 401 only.
    pub(in crate::cm) async fn after(
        &self,
        pass: RequestAuth,
        welcome: AuthResponse,
        deadline: Instant,
    ) -> AuthDecision {
        let (Some(negotiation), Some(threads)) = (pass.negotiation, self.threads.get()) else {
            return AuthDecision::Accept;
        };
        let bindings = self.store_binding(welcome.certificate.clone());
        let offers = Challenges::new(&welcome.challenges);
        if !welcome.is_unauthorized() {
            return verify_mutual_auth(threads, negotiation, offers, deadline).await;
        }
        // Bound to another channel than the one that it came through.
        if self.channel_bindings && bindings != negotiation.bindings {
            return AuthDecision::Retry;
        }
        self.on_unauthorized(threads, negotiation, offers, deadline).await
    }

    /// How it stands with the ticket, for people.
    pub(in crate::cm) fn view(&self) -> CredentialsView {
        let standing = self.threads.get().map(|threads| threads.renewals.state());
        let standing = standing.map(|standing| standing.borrow().clone()).unwrap_or_default();
        let ticket = standing.ticket;
        let principal = ticket.as_ref().map(|ticket| ticket.principal.clone());
        CredentialsView {
            method: "negotiate".to_owned(),
            identity: principal.or_else(|| self.account.principal.clone()),
            valid_until: ticket.map(|ticket| ticket.valid_until),
            renewal_error: standing.last_failure.map(|trouble| trouble.failure.to_string()),
        }
    }

    async fn threads(&self) -> Result<&NegotiateThreads, CallError> {
        let start = || async {
            let renewals = TicketRenewer::start(Arc::clone(&self.account)).map_err(|error| {
                let remedy = "restart cardbridge once the KDC answers";
                no_token(KerberosError::here(error.to_string(), remedy).to_string())
            })?;
            let tokens = TokenThread::start("gssapi").map_err(|error| {
                no_token(format!("no thread can be started for the Kerberos library: {error}"))
            })?;
            Ok(NegotiateThreads { tokens, renewals })
        };
        self.threads.get_or_try_init(start).await
    }

    /// The present ticket, or the next one where that is not good any more.
    async fn ticket(
        &self,
        threads: &NegotiateThreads,
        deadline: Instant,
    ) -> Result<Arc<Ticket>, CallError> {
        let mut standing = threads.renewals.state();
        let now = Timestamp::now();
        let (seen, good, wanted) = {
            let standing = standing.borrow_and_update();
            let keytab = renewal::stamp(&self.account.keytab);
            let good = standing.valid(now);
            let due = good.as_ref().is_none_or(|ticket| ticket.renew_at <= now);
            let wanted = (due || standing.is_new(keytab))
                && standing.may_ask(keytab, std::time::Instant::now());
            (standing.attempts, good, wanted)
        };
        if wanted {
            threads.renewals.request_renewal(seen);
        }
        if let Some(good) = good {
            return Ok(good);
        }
        if wanted {
            self.attempt(&mut standing, seen, deadline).await;
        }
        let standing = standing.borrow();
        standing.valid(Timestamp::now()).ok_or_else(|| no_ticket(&standing))
    }

    /// Waits until an attempt has ended, or the deadline is over.
    async fn attempt(
        &self,
        standing: &mut tokio::sync::watch::Receiver<TicketState>,
        seen: u64,
        deadline: Instant,
    ) {
        let ended = standing.wait_for(|standing| standing.attempts > seen);
        if timeout_at(deadline, ended).await.is_err() {
            tracing::debug!("Stopped waiting for the KDC");
        }
    }

    /// The bindings of the channel to the server, which is looked at where it was never seen.
    async fn bindings(&self, deadline: Instant) -> Result<Option<Arc<[u8]>>, CallError> {
        if !self.channel_bindings {
            return Ok(None);
        }
        self.checked_at.get_or_try_init(|| self.fetch_server_certificate(deadline)).await?;
        let channel = self.channel.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(channel.as_ref().and_then(|seen| seen.bindings.clone()))
    }

    /// Asks the server for nothing, without saying who asks, to see its certificate.
    async fn fetch_server_certificate(&self, deadline: Instant) -> Result<(), CallError> {
        let mut url = self.server.url.clone();
        url.set_path("/");
        let outbound = &self.server.outbound;
        let peer = outbound.peer(&url, self.server.connect_timeout);
        let asked =
            http_thread::run(outbound.client()?.execute(Request::new(Method::HEAD, url.clone())));
        let answer = match timeout_at(deadline, asked).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                let error = peer.error(&error, Phase::Head);
                return Err(outbound.with_proxy_detail(error, &url, deadline).await);
            }
            Err(_) => {
                let words = "the server does not answer in time".to_owned();
                return Err(away(UnavailableReason::Timeout, words));
            }
        };
        let certificate = answer.extensions().get::<TlsInfo>().and_then(TlsInfo::peer_certificate);
        // Through a proxy the client does not tell.
        self.store_binding(certificate.map(<[u8]>::to_vec).or_else(|| outbound.certificate()));
        Ok(())
    }

    /// Takes in which certificate the server showed, and says what bindings that makes.
    fn store_binding(&self, certificate: Option<Vec<u8>>) -> Option<Arc<[u8]>> {
        let certificate = certificate.filter(|_| self.channel_bindings)?;
        let mut channel = self.channel.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(seen) = channel.as_ref().filter(|seen| seen.certificate == certificate) {
            return seen.bindings.clone();
        }
        let bindings = match bindings::binding(&certificate) {
            Ok(bindings) => Some(bindings),
            Err(error) => {
                tracing::warn!(%error, "Channel binding unavailable; sending unbound tokens");
                None
            }
        };
        *channel = Some(ServerBinding { certificate, bindings: bindings.clone() });
        bindings
    }

    /// A ticket that is not taken may be of a key that the server has no more: one new one is tried.
    async fn on_unauthorized(
        &self,
        threads: &NegotiateThreads,
        negotiation: PendingContext,
        mut offers: Challenges,
        deadline: Instant,
    ) -> AuthDecision {
        let PendingContext { mut context, ticket, bindings } = negotiation;
        let renewed = offers.negotiate() && self.renewed(threads, &ticket, deadline).await;
        if renewed {
            return AuthDecision::Retry;
        }
        let error = match offers.token() {
            Some(Ok(token)) => {
                threads.tokens.run(deadline, move || context.step(&token)).await.ok()
            }
            Some(Err(_)) | None => None,
        };
        let error = error.and_then(Result::err).map(|error| error.to_string());
        let channel = match bindings {
            Some(_) => Channel::Bound,
            None if self.channel_bindings || self.server.url.scheme() != "https" => {
                Channel::Unbound
            }
            None => Channel::Disabled,
        };
        let (principal, service) = (&ticket.principal, self.account.service.as_str());
        let shown = TokenDescription { principal, service, channel };
        let words = offers.refusal(error.as_deref(), &shown);
        AuthDecision::Reject(away(UnavailableReason::Unauthorized, words))
    }

    /// Whether there is another ticket than this one by now.
    async fn renewed(
        &self,
        threads: &NegotiateThreads,
        old: &Arc<Ticket>,
        deadline: Instant,
    ) -> bool {
        let mut standing = threads.renewals.state();
        let is_other = |standing: &TicketState| {
            let good = standing.valid(Timestamp::now());
            good.is_some_and(|ticket| !Arc::ptr_eq(&ticket, old))
        };
        let seen = {
            let standing = standing.borrow_and_update();
            if is_other(&standing) {
                return true;
            }
            let keytab = renewal::stamp(&self.account.keytab);
            if !self.refusals.may_renew(&standing, keytab, std::time::Instant::now()) {
                return false;
            }
            standing.attempts
        };
        threads.renewals.request_renewal(seen);
        self.attempt(&mut standing, seen, deadline).await;
        let standing = standing.borrow();
        is_other(&standing)
    }
}

/// Whether a server that offers a proof of who it is proves it.
async fn verify_mutual_auth(
    threads: &NegotiateThreads,
    negotiation: PendingContext,
    mut offers: Challenges,
    deadline: Instant,
) -> AuthDecision {
    let doubt = |why: String| {
        let words = format!("the server does not prove that it is the one: {why}");
        AuthDecision::Reject(away(UnavailableReason::NotCm, words))
    };
    let token = match offers.token() {
        None => return AuthDecision::Accept,
        Some(Err(error)) => return doubt(error.to_string()),
        Some(Ok(token)) => token,
    };
    let PendingContext { mut context, .. } = negotiation;
    match threads.tokens.run(deadline, move || context.step(&token)).await {
        Ok(Ok(ContextState::Established)) => AuthDecision::Accept,
        Ok(Ok(ContextState::ContinueNeeded)) => {
            doubt("its token is only half of a proof".to_owned())
        }
        Ok(Err(error)) => doubt(error.to_string()),
        Err(TokenTimeout) => doubt("the Kerberos library does not answer".to_owned()),
    }
}

/// Why a file is no keytab.
pub(in crate::cm) fn keytab(path: &Path) -> Result<(), String> {
    let principal = keytab::principal(path, None);
    principal.map(drop).map_err(|error| format!("{error}; {}", error.remedy()))
}

fn authorization(token: &[u8]) -> Result<HeaderValue, CallError> {
    let mut header = HeaderValue::try_from(format!("Negotiate {}", STANDARD.encode(token)))
        .map_err(|error| no_token(error.to_string()))?;
    header.set_sensitive(true);
    Ok(header)
}

const fn no_token(detail: String) -> CallError {
    away(UnavailableReason::Credentials, detail)
}

/// Why there is no ticket that is good.
fn no_ticket(standing: &TicketState) -> CallError {
    let silent = standing.since.map(|since| {
        let seconds = since.elapsed().as_secs();
        format!(
            "no Kerberos ticket: the KDC has been silent for {seconds} s; check the network and the \
             KDC that krb5.conf or DNS names"
        )
    });
    let trouble = standing.last_failure.as_ref().map(|trouble| trouble.failure.to_string());
    no_token(silent.or(trouble).unwrap_or_else(|| "the Kerberos ticket has just ended".to_owned()))
}
