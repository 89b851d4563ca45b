//! What the module has to be told: where CM is, what is on the way, how to be let in.

use std::path::PathBuf;
use std::time::Duration;

use crate::domain::CmEnums;

/// Where CM is, how long to wait for it, and how to be let in.
#[derive(Debug, Clone)]
pub struct CmOptions {
    /// `cm.url`: scheme, host, port, perhaps a path.
    pub url: String,
    /// `cm.api_path`: what comes after that.
    pub api_path: String,
    /// `cm.timeout`: for one call, from the first byte out to the last one in.
    pub timeout: Duration,
    /// `cm.connect_timeout`: for name, connection and TLS.
    pub connect_timeout: Duration,
    /// `cm.ca_file`: PEM certificates that are trusted besides the system's.
    pub ca_file: Option<PathBuf>,
    /// `cm.proxy`: who is in between.
    pub proxy: ProxyOptions,
    /// `[cm.auth]`.
    pub auth: AuthOptions,
    /// What is shown where a server asks for a certificate in the TLS handshake.
    pub client_certificate: Option<ClientCertFiles>,
    /// `[cm.numbers]`: tells which requests are open.
    pub numbers: CmEnums,
}

/// Who stands between here and CM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProxyOptions {
    /// Whoever `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` name.
    Environment {
        /// The file with `user:password`; an absolute path.
        credentials_file: Option<PathBuf>,
    },
    /// Nobody.
    None,
    /// This one.
    Named {
        /// `http://host:port` or `https://host:port`.
        url: String,
        /// The file with `user:password`; an absolute path.
        credentials_file: Option<PathBuf>,
    },
}

/// A certificate and its key, in PEM files; absolute paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertFiles {
    /// The certificate, perhaps with its chain.
    pub cert_file: PathBuf,
    /// The key, not encrypted.
    pub key_file: PathBuf,
}

/// How the agent says who it is. Every path is an absolute one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthOptions {
    /// It does not.
    None,
    /// With a token from a file, which is read again whenever it changes.
    Bearer {
        /// The file.
        token_file: PathBuf,
    },
    /// With a Kerberos ticket.
    Negotiate(KerberosOptions),
    /// With a token from a token endpoint.
    OAuth2(OAuth2Options),
}

/// A Kerberos account, and the service that it is to be let in by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KerberosOptions {
    /// The keytab.
    pub keytab: PathBuf,
    /// The principal; the keytab's first where not set.
    pub principal: Option<String>,
    /// The service principal name; `HTTP/` and the server's host where not set.
    pub spn: Option<String>,
    /// Whether tokens are bound to the TLS channel (RFC 5929 `tls-server-end-point`).
    pub channel_bindings: bool,
}

/// A client of a token endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OAuth2Options {
    /// The token endpoint.
    pub token_url: String,
    /// The client's id there.
    pub client_id: String,
    /// How the client shows that it is the one.
    pub proof: ClientAuthentication,
    /// The `resource` parameter, which ADFS wants.
    pub resource: Option<String>,
    /// The `scope` parameter.
    pub scope: Option<String>,
}

/// How a client shows a token endpoint that it is the one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientAuthentication {
    /// By a secret.
    Secret {
        /// The file that holds it.
        file: PathBuf,
    },
    /// By an assertion that this certificate's key signs (RFC 7523).
    Assertion(ClientCertFiles),
    /// By Kerberos, at the token endpoint.
    Kerberos(KerberosOptions),
}
