//! Kerberos by SPNEGO (RFC 4178, RFC 4559), from a keytab.

use reqwest::Url;
use tokio::time::Instant;

use super::super::setup::{Clients, SetupError};
use super::super::{AwayReason, Kerberos, away};
use super::{Next, Pass, Welcome};
use crate::domain::CallError;

/// Makes a token for each call.
pub(in crate::remote) struct Negotiate {}

/// A security context that waits for the server's half.
pub(in crate::remote) struct Negotiation {}

impl Negotiate {
    pub(super) fn new(
        _kerberos: &Kerberos,
        _server: &Url,
        _clients: &Clients<'_>,
    ) -> Result<Self, SetupError> {
        Ok(Self {})
    }

    pub(super) async fn pass(&self, _deadline: Instant) -> Result<Pass, CallError> {
        Err(away(AwayReason::Credentials, "negotiate is not built yet".to_owned()))
    }

    pub(super) async fn after(&self, _: Pass, _: Welcome, _deadline: Instant) -> Next {
        Next::Believe
    }
}
