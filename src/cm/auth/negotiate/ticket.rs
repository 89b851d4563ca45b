//! A ticket for the service, and why there is none: the only code that asks the KDC.

use std::path::PathBuf;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::gssapi::{
    Credential, CredentialCache, GssError, GssName, Gssapi, InitiatedContext, Mechanism,
    SecurityContext,
};
use super::keytab;
use crate::domain::Problem;

/// The part of a ticket's life after which it is renewed: the rest is for an unavailable KDC.
const RENEW_AT_PERCENT: i32 = 80;

/// The account, and the service that it logs in to.
#[derive(Debug, Clone)]
pub(super) struct TicketRequest {
    pub(super) keytab: PathBuf,
    /// The keytab's first where not set.
    pub(super) principal: Option<String>,
    pub(super) service: ServicePrincipal,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ServicePrincipal(String);

/// A ticket for the service, in a credential cache of its own.
pub(super) struct Ticket {
    credential: Arc<Credential>,
    service: Arc<GssName>,
    /// The full name of the account.
    pub(super) principal: String,
    pub(super) valid_until: Timestamp,
    pub(super) renew_at: Timestamp,
}

impl ServicePrincipal {
    /// The given name, or the web service on this host. The host is not looked up in DNS, which must
    /// not decide whom to trust.
    pub(super) fn new(spn: Option<&str>, host: &str) -> Self {
        Self(spn.map_or_else(|| format!("HTTP/{host}"), str::to_owned))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// For Kerberos: without a realm after the `@`, the KDC decides which one it is.
    fn in_full(&self) -> String {
        let Self(name) = self;
        if name.contains('@') { name.clone() } else { format!("{name}@") }
    }
}

impl Ticket {
    /// Logs in and obtains a ticket for the service. Blocks while the KDC is silent.
    pub(super) fn obtain(account: &TicketRequest) -> Result<Self, KerberosError> {
        let principal = keytab::principal(&account.keytab, account.principal.as_deref())
            .map_err(KerberosError::transient)?;
        let gssapi = Gssapi::load().map_err(|error| KerberosError::library(&error))?;
        let login = |error: GssError| KerberosError::login(&principal, &error);
        let name = GssName::new(gssapi, &principal).map_err(login)?;
        let cache = Arc::new(CredentialCache::new(gssapi).map_err(login)?);
        // Kerberos itself first, because its errors are precise; SPNEGO finds the tickets in the cache.
        let plain = Credential::from_keytab(&name, &account.keytab, &cache).map_err(login)?;
        let login_ends = ends(plain.life());
        let plain = Arc::new(plain);
        let no_ticket = format!("no Kerberos ticket for {}", account.service.as_str());
        let service = |error: GssError| KerberosError::gss(&no_ticket, &error);
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

    /// A token, bound to a channel or not. No call to the KDC: the cache has the ticket.
    pub(super) fn token(
        &self,
        bindings: Option<Arc<[u8]>>,
    ) -> Result<InitiatedContext, KerberosError> {
        SecurityContext::start(&self.credential, &self.service, Mechanism::Spnego, bindings)
            .map_err(|error| KerberosError::token(&error))
    }

    pub(super) fn is_valid(&self, now: Timestamp) -> bool {
        now < self.valid_until
    }
}

/// The end of a lifetime of so many seconds. To be called at once: the next call to the KDC may take
/// half a minute.
fn ends(life: u32) -> Timestamp {
    after(Timestamp::now(), SignedDuration::from_secs(life.into()))
}

/// Kerberos' times end in 2106 at the latest, Jiff's later.
fn after(now: Timestamp, life: SignedDuration) -> Timestamp {
    now.saturating_add(life).unwrap_or(Timestamp::MAX)
}

/// Why there is no ticket.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub(super) struct KerberosError {
    problem: Problem,
    pub(super) retryability: Retryability,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Retryability {
    Transient,
    /// The KDC denied this account and key. More attempts lock the account.
    Denied,
}

/// Numbers of libkrb5's error table (`krb5_err.et`), counted from its base.
const BASE: i32 = -1_765_328_384;
const CLIENT_EXPIRED: i32 = BASE + 1;
const NO_SUCH_CLIENT: i32 = BASE + 6;
const NO_SUCH_SERVICE: i32 = BASE + 7;
const POLICY: i32 = BASE + 12;
const NO_SUCH_KEY_TYPE: i32 = BASE + 14;
const CLIENT_REVOKED: i32 = BASE + 18;
const SERVICE_REVOKED: i32 = BASE + 19;
const KEY_EXPIRED: i32 = BASE + 23;
const WRONG_KEY: i32 = BASE + 24;
const NOT_DECRYPTED: i32 = BASE + 31;
const CLOCK_SKEW: i32 = BASE + 37;
const CLOCK_SKEW_IN_REPLY: i32 = BASE + 148;
const UNKNOWN_KEY_TYPE: i32 = BASE + 150;
const KDC_NOT_RESOLVED: i32 = BASE + 153;
const NO_KDC_KNOWN: i32 = BASE + 154;
const NO_KDC_ANSWERS: i32 = BASE + 156;
const NO_SUITABLE_KEY: i32 = BASE + 181;

impl KerberosError {
    fn transient(problem: Problem) -> Self {
        Self { problem, retryability: Retryability::Transient }
    }

    pub(super) fn library(error: &str) -> Self {
        Self::transient(Problem::new(
            format!("the Kerberos library cannot be loaded: {error}"),
            "install libgssapi-krb5-2 (Debian) or krb5-libs (Red Hat)",
        ))
    }

    fn gss(what: &str, error: &GssError) -> Self {
        Self::transient(Problem::new(format!("{what}: {error}"), remedy(error.code())))
    }

    fn login(principal: &str, error: &GssError) -> Self {
        let retryability = match error.code() {
            CLIENT_EXPIRED | NO_SUCH_CLIENT | POLICY | CLIENT_REVOKED | KEY_EXPIRED | WRONG_KEY
            | NOT_DECRYPTED => Retryability::Denied,
            _ => Retryability::Transient,
        };
        Self { retryability, ..Self::gss(&format!("no Kerberos login of {principal}"), error) }
    }

    /// There is a ticket, but no token.
    fn token(error: &GssError) -> Self {
        Self::gss("no token can be made of the Kerberos ticket", error)
    }
}

const fn remedy(code: i32) -> &'static str {
    match code {
        CLIENT_EXPIRED => "the account has expired; extend it in Active Directory",
        NO_SUCH_CLIENT => "correct cm.auth.principal, or create the account",
        NO_SUCH_SERVICE => {
            "no account has this SPN; register it with setspn -S, or correct cm.auth.spn"
        }
        POLICY => "check the account's logon hours and logon workstations",
        NO_SUCH_KEY_TYPE | UNKNOWN_KEY_TYPE | NO_SUITABLE_KEY => {
            "create a keytab with AES keys and enable AES for the account"
        }
        CLIENT_REVOKED => "the account is disabled or locked: enable it in the directory",
        SERVICE_REVOKED => "the web site's account is disabled: enable it in the directory",
        KEY_EXPIRED => "the password has expired; set a new password and create a new keytab",
        WRONG_KEY | NOT_DECRYPTED => {
            "the password changed after the keytab was created; create a new keytab"
        }
        CLOCK_SKEW | CLOCK_SKEW_IN_REPLY => "correct this machine's clock; enable NTP",
        KDC_NOT_RESOLVED | NO_KDC_KNOWN => {
            "configure the realm's KDC in krb5.conf or DNS, and check the realm name"
        }
        NO_KDC_ANSWERS => "check the network and the KDC that krb5.conf or DNS names",
        _ => "see the KDC's log, or the event log of the domain controller",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spn_defaults_to_host_and_realm_to_kdc() {
        let of_host = ServicePrincipal::new(None, "cm.example.com");
        assert_eq!(
            (of_host.as_str(), of_host.in_full().as_str()),
            ("HTTP/cm.example.com", "HTTP/cm.example.com@")
        );
        let given = ServicePrincipal::new(Some("HTTP/cm@EXAMPLE.COM"), "alias.example.com");
        assert_eq!(given.in_full(), "HTTP/cm@EXAMPLE.COM");
    }

    #[test]
    fn missing_library_is_transient_with_remedy() {
        let failure = KerberosError::library("libgssapi_krb5.so.2: cannot open shared object file");
        assert_eq!(
            failure.to_string(),
            "the Kerberos library cannot be loaded: libgssapi_krb5.so.2: cannot open shared object \
             file; install libgssapi-krb5-2 (Debian) or krb5-libs (Red Hat)"
        );
        assert_eq!(failure.retryability, Retryability::Transient);
    }
}
