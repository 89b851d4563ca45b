//! OAuth 2.0 client credentials (RFC 6749 section 4.4), as ADFS and others issue tokens.

use reqwest::header::HeaderValue;
use tokio::time::Instant;

use super::super::setup::{Clients, SetupError};
use super::super::{AwayReason, OAuth2, away};
use super::{Next, Pass, Welcome};
use crate::domain::CallError;

/// Asks for tokens, and keeps the last one.
pub(in crate::remote) struct TokenSource {}

impl TokenSource {
    pub(super) fn new(_client: &OAuth2, _clients: &Clients<'_>) -> Result<Self, SetupError> {
        Ok(Self {})
    }

    pub(super) async fn token(&self, _deadline: Instant) -> Result<HeaderValue, CallError> {
        Err(away(AwayReason::Credentials, "oauth2 is not built yet".to_owned()))
    }

    pub(super) fn after(&self, _: &Pass, _: &Welcome) -> Next {
        Next::Believe
    }
}
