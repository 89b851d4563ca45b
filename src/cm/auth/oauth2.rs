//! OAuth 2.0 client credentials (RFC 6749 section 4.4), as AD FS and others issue tokens.
//!
//! ```text
//! oauth2      the token of a call, and what a 401 says about it
//! ├ token_provider  the cache: one request at a time, renewal, back-off
//! ├ token_endpoint  the request: form, client authentication, client-request-id
//! ├ token_response  a token, or the endpoint's error with a remedy
//! └ assertion       private_key_jwt, and the key that signs it
//! ```
//!
//! Only calls obtain tokens: an idle station requests none. `docs/decisions/0016-oauth2.md` has the
//! reasons for own code.

mod assertion;
mod token_endpoint;
mod token_provider;
mod token_response;

use std::sync::Arc;

use reqwest::header::HeaderValue;
use tokio::time::Instant;

use crate::cm::classify::{AuthDecision, HttpResponse};
use crate::cm::redact::Redactor;
use crate::config::{CmSettings, OAuth2Settings};
use crate::domain::{CallError, CredentialsView, Problem, UnavailableReason};
use crate::wire::cm;
use token_endpoint::TokenEndpoint;
use token_provider::{RejectionAction, TokenProvider};

pub(in crate::cm) use token_endpoint::client_secret;

/// A client of a token endpoint.
pub(in crate::cm) struct OAuth2Client {
    provider: TokenProvider<TokenEndpoint>,
}

impl OAuth2Client {
    pub(super) fn new(
        client: &OAuth2Settings,
        settings: &CmSettings,
        redactor: &Arc<Redactor>,
    ) -> Result<Self, Problem> {
        Ok(Self { provider: TokenProvider::new(TokenEndpoint::new(client, settings, redactor)?) })
    }

    /// The header for one call.
    pub(super) async fn token(&self, deadline: Instant) -> Result<HeaderValue, CallError> {
        self.provider.token(deadline).await
    }

    pub(super) fn learn_secrets(&self) {
        self.provider.issuer().learn_secret();
    }

    pub(super) fn expedite(&self) {
        self.provider.expedite();
    }

    /// CM may have revoked a rejected token; a fresh one that it rejects has the wrong resource, scope or
    /// client.
    pub(super) fn on_response(&self, sent: &HeaderValue, response: &HttpResponse) -> AuthDecision {
        if !response.is_unauthorized() {
            return AuthDecision::Accept;
        }
        match self.provider.on_rejected(sent) {
            RejectionAction::Renew => AuthDecision::Retry,
            RejectionAction::GiveUp => AuthDecision::Reject(new_token_rejected(response)),
        }
    }

    pub(super) fn view(&self) -> CredentialsView {
        let (valid_until, renewal_error) = self.provider.view();
        let identity = Some(self.provider.issuer().client_id().to_owned());
        CredentialsView { method: "oauth2".to_owned(), identity, valid_until, renewal_error }
    }
}

fn new_token_rejected(response: &HttpResponse) -> CallError {
    let challenges = response.challenges.iter().filter_map(|line| line.to_str().ok());
    let challenges = response.redactor.redact(&challenges.collect::<Vec<_>>().join(", "));
    let challenges = match challenges.as_str() {
        "" => String::new(),
        challenges => format!(" ({})", cm::single_line(challenges)),
    };
    let detail = format!(
        "CM rejects a fresh token{challenges}: check cm.auth.resource and cm.auth.scope, and on the server the Relying Party or Web API and the account of the client"
    );
    CallError::unavailable(UnavailableReason::Unauthorized, detail)
}

#[cfg(test)]
mod tests;
