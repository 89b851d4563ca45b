//! Why there is no ticket: the step that failed, what was said, and what somebody can do.

use std::fmt;

use super::gssapi::GssError;
use super::keytab::KeytabError;

/// Why there is no ticket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KerberosError {
    message: String,
    remedy: &'static str,
    /// Whether asking again soon is of use.
    pub(super) outlook: Retryability,
}

/// What asking again is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Retryability {
    /// It may go well the next time.
    Transient,
    /// The KDC said no to this account and this key. Asked too often it locks the account.
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
    /// The library is not there.
    pub(super) fn library(error: &str) -> Self {
        let what = format!("the Kerberos library cannot be loaded: {error}");
        Self::open(what, "install libgssapi-krb5-2 (Debian) or krb5-libs (Red Hat)")
    }

    /// The keytab does not do.
    pub(super) fn keytab(error: &KeytabError) -> Self {
        Self::open(error.to_string(), error.remedy())
    }

    /// The account was not logged in.
    pub(super) fn login(principal: &str, error: &GssError) -> Self {
        let what = format!("no Kerberos login of {principal}: {error}");
        let outlook = match error.code() {
            CLIENT_EXPIRED | NO_SUCH_CLIENT | POLICY | CLIENT_REVOKED | KEY_EXPIRED | WRONG_KEY
            | NOT_DECRYPTED => Retryability::Denied,
            _ => Retryability::Transient,
        };
        Self { message: what, remedy: remedy(error.code()), outlook }
    }

    /// The account was logged in, but there is no ticket for the service.
    pub(super) fn service(service: &str, error: &GssError) -> Self {
        let what = format!("no Kerberos ticket for {service}: {error}");
        Self::open(what, remedy(error.code()))
    }

    /// There is a ticket, but no token can be made of it.
    pub(super) fn token(error: &GssError) -> Self {
        let what = format!("no token can be made of the Kerberos ticket: {error}");
        Self::open(what, remedy(error.code()))
    }

    /// This machine does not do.
    pub(super) const fn here(what: String, remedy: &'static str) -> Self {
        Self::open(what, remedy)
    }

    const fn open(what: String, remedy: &'static str) -> Self {
        Self { message: what, remedy, outlook: Retryability::Transient }
    }
}

impl fmt::Display for KerberosError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { message: what, remedy, .. } = self;
        write!(f, "{what}; {remedy}")
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
    fn a_failure_tells_what_happened_and_what_to_do() {
        let failure = KerberosError::library("libgssapi_krb5.so.2: cannot open shared object file");
        assert_eq!(
            failure.to_string(),
            "the Kerberos library cannot be loaded: libgssapi_krb5.so.2: cannot open shared object \
             file; install libgssapi-krb5-2 (Debian) or krb5-libs (Red Hat)"
        );
        assert_eq!(failure.outlook, Retryability::Transient);
    }
}
