//! OAuth 2.0 client credentials (RFC 6749 section 4.4), as AD FS and others issue tokens.
//!
//! ```text
//! oauth2      what a call sees: a token, and what a 401 says about it
//! ├ source    one request at a time, for whoever waits; renewed ahead of its end
//! ├ cache     the last token and the last trouble, as a function of the time
//! ├ endpoint  the request: form, proof, client-request-id
//! ├ answer    a token, or the endpoint's own words and what to do about them
//! └ assertion private_key_jwt;  signer  the key that signs it
//! ```
//!
//! Nothing is done without a call that needs it: an idle station asks for no tokens.
//! `docs/decisions/0016-oauth2.md` tells why this is no library's.

mod assertion;
mod signer;
mod token_cache;
mod token_endpoint;
mod token_provider;
mod token_response;

use reqwest::header::HeaderValue;
use tokio::time::Instant;

use super::super::redact::Redactor;
use super::super::setup::{SetupError, TransportBuilder};
use super::super::{CmOptions, OAuth2Options, UnavailableReason, away};
use super::{AuthDecision, AuthResponse, RequestAuth};
use crate::domain::{CallError, CredentialsView};
use crate::wire::cm;
use token_cache::RejectionAction;
use token_endpoint::TokenEndpoint;
use token_provider::TokenProvider;

pub(super) use token_endpoint::secret as secret_in;

/// Asks for tokens, and keeps the last one.
pub(in crate::cm) struct OAuth2Client {
    source: TokenProvider<TokenEndpoint>,
}

impl OAuth2Client {
    pub(super) fn new(
        client: &OAuth2Options,
        options: &CmOptions,
        clients: &TransportBuilder<'_>,
    ) -> Result<Self, SetupError> {
        Ok(Self { source: TokenProvider::new(TokenEndpoint::new(client, options, clients)?) })
    }

    /// A token for one call, waited for no longer than until `deadline`.
    pub(super) async fn token(&self, deadline: Instant) -> Result<HeaderValue, CallError> {
        self.source.token(deadline).await
    }

    /// Has what the files hold known as secret, as far as they can be read.
    pub(super) fn learn(&self) {
        self.source.issuer().learn();
    }

    /// The next call asks for a token, whatever the endpoint said of waiting.
    pub(super) fn expedite(&self) {
        self.source.expedite();
    }

    /// A token that CM refuses may have been taken back; a fresh one that it refuses was issued for
    /// somebody or something else.
    pub(super) fn after(&self, pass: &RequestAuth, welcome: &AuthResponse) -> AuthDecision {
        let refused = pass.header.as_ref().filter(|_| welcome.is_unauthorized());
        match refused.map(|header| (header, self.source.refused(header))) {
            None => AuthDecision::Accept,
            Some((_, RejectionAction::Renew)) => AuthDecision::Retry,
            Some((_, RejectionAction::GiveUp)) => {
                AuthDecision::Reject(new_token_rejected(self.source.issuer().redactor(), welcome))
            }
        }
    }

    /// How it stands with the token, for people.
    pub(super) fn view(&self) -> CredentialsView {
        let (valid_until, trouble) = self.source.view();
        let identity = Some(self.source.issuer().client_id().to_owned());
        CredentialsView {
            method: "oauth2".to_owned(),
            identity,
            valid_until,
            renewal_error: trouble,
        }
    }
}

/// What CM says to a fresh token, and what somebody can do about it.
fn new_token_rejected(redactor: &Redactor, welcome: &AuthResponse) -> CallError {
    let said = welcome.challenges.iter().filter_map(|line| line.to_str().ok());
    let said = redactor.redact(&said.collect::<Vec<_>>().join(", "));
    let said =
        if said.is_empty() { String::new() } else { format!(" ({})", cm::single_line(&said)) };
    let detail = format!(
        "CM refuses a fresh token{said}: check cm.auth.resource and cm.auth.scope, and on the server the Relying Party or Web API and the account that the client stands for"
    );
    away(UnavailableReason::Unauthorized, detail)
}

#[cfg(test)]
mod tests;
