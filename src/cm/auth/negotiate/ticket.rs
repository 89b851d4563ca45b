//! A ticket for the service, and how it is had: the two things that ask the KDC.

use std::path::PathBuf;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::error::KerberosError;
use super::gssapi::{
    Credential, CredentialCache, GssError, GssName, Gssapi, InitiatedContext, Mechanism,
    SecurityContext,
};
use super::keytab;

/// How much of a ticket's life may pass before the next one is asked for, in hundredths: what is
/// left is the time for a KDC to come back in.
const RENEW_AT_PERCENT: i32 = 80;

/// Who is to be let in, and by which service.
#[derive(Debug, Clone)]
pub(super) struct TicketRequest {
    pub(super) keytab: PathBuf,
    /// The keytab's first where not set.
    pub(super) principal: Option<String>,
    pub(super) service: ServicePrincipal,
}

/// The name of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ServicePrincipal(String);

/// A ticket for the service, with the account's own in a cache of their own.
pub(super) struct Ticket {
    credential: Arc<Credential>,
    service: Arc<GssName>,
    /// The account, in full.
    pub(super) principal: String,
    pub(super) valid_until: Timestamp,
    /// When the next one is to be asked for.
    pub(super) renew_at: Timestamp,
}

impl ServicePrincipal {
    /// The wished name, or the web service on this host. The host is taken as it is written: DNS
    /// has no say in who is to be believed.
    pub(super) fn new(wished: Option<&str>, host: &str) -> Self {
        Self(wished.map_or_else(|| format!("HTTP/{host}"), str::to_owned))
    }

    /// As people write it.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// As Kerberos wants it: with no realm after the `@` the KDC says which one it is.
    fn in_full(&self) -> String {
        let Self(name) = self;
        if name.contains('@') { name.clone() } else { format!("{name}@") }
    }
}

impl Ticket {
    /// Logs in and gets a ticket for the service. Blocks for as long as the KDC is silent.
    pub(super) fn obtain(account: &TicketRequest) -> Result<Self, KerberosError> {
        let principal = keytab::principal(&account.keytab, account.principal.as_deref())
            .map_err(|error| KerberosError::keytab(&error))?;
        let gssapi = Gssapi::load().map_err(|error| KerberosError::library(&error))?;
        let login = |error: GssError| KerberosError::login(&principal, &error);
        let name = GssName::new(gssapi, &principal).map_err(login)?;
        let cache = Arc::new(CredentialCache::new(gssapi).map_err(login)?);
        // Kerberos itself first, for it says what is wrong; SPNEGO finds the tickets in the cache.
        let plain = Credential::from_keytab(&name, &account.keytab, &cache).map_err(login)?;
        let login_ends = ends(plain.life());
        let plain = Arc::new(plain);
        let service = |error: GssError| KerberosError::service(account.service.as_str(), &error);
        let target = Arc::new(GssName::new(gssapi, &account.service.in_full()).map_err(service)?);
        let started =
            SecurityContext::start(&plain, &target, Mechanism::Kerberos, None).map_err(service)?;
        let negotiated = Credential::from_cache(&name, Mechanism::Spnego, &cache)
            .map_err(|error| KerberosError::token(&error))?;
        let (now, valid_until) = (Timestamp::now(), login_ends.min(ends(started.lifetime)));
        Ok(Self {
            credential: Arc::new(negotiated),
            service: target,
            principal,
            valid_until,
            renew_at: after(now, valid_until.duration_since(now) * RENEW_AT_PERCENT / 100),
        })
    }

    /// A token, bound to a channel or not. Nobody is asked: the cache has the ticket.
    pub(super) fn token(
        &self,
        bindings: Option<Arc<[u8]>>,
    ) -> Result<InitiatedContext, KerberosError> {
        SecurityContext::start(&self.credential, &self.service, Mechanism::Spnego, bindings)
            .map_err(|error| KerberosError::token(&error))
    }

    /// Whether it can be used.
    pub(super) fn is_valid(&self, now: Timestamp) -> bool {
        now < self.valid_until
    }
}

/// When something ends that lives for so many seconds from here on. To be asked at once: the next word
/// with the KDC may take half a minute.
fn ends(life: u32) -> Timestamp {
    after(Timestamp::now(), SignedDuration::from_secs(life.into()))
}

/// Kerberos' times end in 2106 at the latest, Jiff's later.
fn after(now: Timestamp, life: SignedDuration) -> Timestamp {
    now.saturating_add(life).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_the_servers_host_or_what_is_wished_and_the_realm_is_the_kdcs_matter() {
        let of_host = ServicePrincipal::new(None, "cm.example.com");
        assert_eq!(
            (of_host.as_str(), of_host.in_full().as_str()),
            ("HTTP/cm.example.com", "HTTP/cm.example.com@")
        );
        let wished = ServicePrincipal::new(Some("HTTP/cm@EXAMPLE.COM"), "alias.example.com");
        assert_eq!(wished.in_full(), "HTTP/cm@EXAMPLE.COM");
    }
}
