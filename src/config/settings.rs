//! The validated settings. Each field is the key of its name; [`super::KEYS`] describes them.
//!
//! The path of a file with a secret or a certificate is absolute, or a bare name in the credentials
//! directory.

#![expect(missing_docs, reason = "the table of keys describes each field")]

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use strum::{IntoStaticStr, VariantArray};

use crate::domain::{AtrPattern, ProbeSettings, ReaderRules};
use crate::rules::RuleSet;

#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    pub station: String,
    pub cm: CmSettings,
    pub probe: ProbeSettings,
    /// Cards that are shown, but never accessed.
    pub skip_atr: Vec<AtrPattern>,
    pub readers: ReaderRules,
    pub rules: RuleSet,
    pub outbox: OutboxSettings,
    pub audit: AuditSettings,
    pub control: ControlSettings,
    pub log: LogSettings,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CmSettings {
    /// Scheme, host and port; plain HTTP only to loopback. Empty only where the caller allows it.
    pub url: String,
    /// Empty, or a path with a leading slash and no trailing one.
    pub api_path: String,
    /// For one call, from the first byte out to the last one in.
    pub timeout: Duration,
    pub connect_timeout: Duration,
    pub concurrency: NonZeroUsize,
    pub ca_file: Option<PathBuf>,
    pub proxy: ProxySettings,
    pub auth: AuthSettings,
    pub client_certificate: Option<ClientCertSettings>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProxySettings {
    /// `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`.
    Environment {
        credentials_file: Option<PathBuf>,
    },
    None,
    Named {
        /// Scheme, host and port.
        url: String,
        credentials_file: Option<PathBuf>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthSettings {
    None,
    Bearer { token_file: PathBuf },
    Negotiate(KerberosSettings),
    OAuth2(OAuth2Settings),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KerberosSettings {
    pub keytab: PathBuf,
    /// The keytab's first where not set.
    pub principal: Option<String>,
    /// `HTTP/` and the server's host where not set.
    pub spn: Option<String>,
    /// Whether tokens are bound to the TLS channel (RFC 5929 `tls-server-end-point`).
    pub channel_bindings: bool,
}

/// The OAuth 2.0 client credentials grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OAuth2Settings {
    pub token_url: String,
    pub client_id: String,
    pub proof: ClientAuthSettings,
    pub resource: Option<String>,
    pub scope: Option<String>,
}

/// How the client authenticates to the token endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientAuthSettings {
    Secret {
        file: PathBuf,
    },
    /// The key of the client certificate signs an assertion (RFC 7523).
    Assertion(ClientCertSettings),
    Kerberos(KerberosSettings),
}

/// A certificate with its chain and its unencrypted key, in PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertSettings {
    pub cert_file: PathBuf,
    pub key_file: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxSettings {
    pub path: PathBuf,
    pub max_entries: usize,
    pub max_age: Duration,
    /// Never longer than `retry_max`.
    pub retry_min: Duration,
    pub retry_max: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditSettings {
    pub retention: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlSettings {
    /// The path fits into a socket address.
    pub socket: PathBuf,
    pub view_group: String,
    pub operator_group: String,
    /// A loopback address.
    pub metrics_listen: Option<SocketAddr>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogSettings {
    pub level: Level,
    pub format: LogFormat,
    pub show_ids: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "lowercase")]
pub enum Level {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "lowercase")]
pub enum LogFormat {
    Auto,
    Text,
    Json,
    Journald,
}

impl CmSettings {
    /// The paths of all files with a secret or a certificate.
    pub fn credential_paths(&mut self) -> Vec<&mut PathBuf> {
        let mut paths: Vec<_> = self.ca_file.iter_mut().collect();
        if let ProxySettings::Environment { credentials_file }
        | ProxySettings::Named { credentials_file, .. } = &mut self.proxy
        {
            paths.extend(credentials_file);
        }
        let mut pairs: Vec<_> = self.client_certificate.iter_mut().collect();
        match &mut self.auth {
            AuthSettings::None => {}
            AuthSettings::Bearer { token_file: file }
            | AuthSettings::Negotiate(KerberosSettings { keytab: file, .. })
            | AuthSettings::OAuth2(OAuth2Settings {
                proof:
                    ClientAuthSettings::Secret { file }
                    | ClientAuthSettings::Kerberos(KerberosSettings { keytab: file, .. }),
                ..
            }) => paths.push(file),
            AuthSettings::OAuth2(OAuth2Settings {
                proof: ClientAuthSettings::Assertion(pair),
                ..
            }) => pairs.push(pair),
        }
        paths.extend(pairs.into_iter().flat_map(|pair| [&mut pair.cert_file, &mut pair.key_file]));
        paths
    }
}
