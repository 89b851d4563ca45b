//! What is meant by a configuration: the validated twin of its text.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use crate::domain::{AtrPattern, ProbeSettings, ReaderRules};
use crate::rules::RuleSet;

/// A configuration that can be worked with as it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// What the audit trail calls this station.
    pub station: String,
    /// How to reach CM.
    pub cm: CmSettings,
    /// What cards are asked.
    pub probe: ProbeSettings,
    /// Cards that are seen, but never touched.
    pub skip_atr: Vec<AtrPattern>,
    /// What people call the readers.
    pub readers: ReaderRules,
    /// What an insertion sets.
    pub rules: RuleSet,
    /// The durable queue.
    pub outbox: OutboxSettings,
    /// The audit trail.
    pub audit: AuditSettings,
    /// The control interface.
    pub control: ControlSettings,
    /// The log.
    pub log: LogSettings,
}

/// How to reach CM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CmSettings {
    /// Scheme, host and port, and nothing after them; plain HTTP leads to loopback only. Empty where
    /// CM is not named, which only those settings allow that were asked for without it.
    pub url: String,
    /// Where the API begins: empty, or a path with a slash in front and none at the end.
    pub api_path: String,
    /// How long one call may take.
    pub timeout: Duration,
    /// How long connecting may take, within `timeout`.
    pub connect_timeout: Duration,
    /// How many cards are worked on at a time.
    pub concurrency: NonZeroUsize,
    /// Certificates that are trusted in addition to the system's. A bare name is looked up in
    /// the credentials directory.
    pub ca_file: Option<PathBuf>,
    /// Who stands in between.
    pub proxy: ProxySettings,
    /// What the station shows to be let in.
    pub auth: AuthSettings,
    /// The certificate that the station shows where a server asks for one in the TLS handshake.
    pub client_certificate: Option<ClientCertSettings>,
}

/// Who stands between the station and CM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProxySettings {
    /// Whoever the environment names.
    Environment {
        /// The file with `user:password`. A bare name is looked up in the credentials directory.
        credentials_file: Option<PathBuf>,
    },
    /// Nobody.
    None,
    /// This one.
    Named {
        /// Scheme, host and port, and nothing after them.
        url: String,
        /// The file with `user:password`. A bare name is looked up in the credentials directory.
        credentials_file: Option<PathBuf>,
    },
}

/// What the station shows to be let in. Every path may be a bare name, which is looked up in the
/// credentials directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthSettings {
    /// Nothing.
    None,
    /// A bearer token.
    Bearer {
        /// The file that holds it.
        token_file: PathBuf,
    },
    /// A Kerberos ticket.
    Negotiate {
        /// Whose ticket.
        account: KerberosAccount,
        /// The service principal name of CM's web server, where it is not the usual one.
        spn: Option<String>,
        /// Whether the ticket is bound to the TLS channel.
        channel_bindings: bool,
    },
    /// A token from a token endpoint.
    OAuth2(OAuth2Settings),
}

/// Whose tickets the station asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KerberosAccount {
    /// The keytab.
    pub keytab: PathBuf,
    /// The principal; the keytab's first where not set.
    pub principal: Option<String>,
}

/// The OAuth 2.0 client credentials grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OAuth2Settings {
    /// The token endpoint; plain HTTP leads to loopback only.
    pub token_url: String,
    /// The station's name there.
    pub client_id: String,
    /// How the station shows there that it is the one.
    pub proof: ClientAuthSettings,
    /// What the token is for, in ADFS's words.
    pub resource: Option<String>,
    /// What the token allows, in everybody's.
    pub scope: Option<String>,
}

/// How a client shows a token endpoint that it is the one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientAuthSettings {
    /// By a secret in a file.
    Secret {
        /// The file.
        file: PathBuf,
    },
    /// By an assertion that the key of the client certificate signs.
    Assertion(ClientCertSettings),
    /// By Kerberos.
    Kerberos {
        /// Whose ticket.
        account: KerberosAccount,
        /// Whether the ticket is bound to the TLS channel.
        channel_bindings: bool,
    },
}

/// A certificate and its key, in PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertSettings {
    /// The certificate, perhaps with its chain.
    pub cert_file: PathBuf,
    /// The key.
    pub key_file: PathBuf,
}

/// The durable queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxSettings {
    /// Its file.
    pub path: PathBuf,
    /// How many entries it holds before it refuses more.
    pub max_entries: usize,
    /// The age at which a waiting entry is parked.
    pub max_age: Duration,
    /// The shortest wait between two tries, never longer than `retry_max`.
    pub retry_min: Duration,
    /// The longest wait between two tries.
    pub retry_max: Duration,
}

/// The audit trail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditSettings {
    /// How long a line is kept.
    pub retention: Duration,
}

/// The control interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlSettings {
    /// Its Unix socket; the path fits into a socket address.
    pub socket: PathBuf,
    /// The group whose members may look.
    pub view_group: String,
    /// The group whose members may look and act.
    pub operator_group: String,
    /// An address of this machine's own at which monitoring may ask what was counted.
    pub metrics_listen: Option<SocketAddr>,
}

/// The log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogSettings {
    /// What is worth a line.
    pub level: Level,
    /// How a line looks.
    pub format: LogFormat,
    /// Whether ids of cards and people are written in full.
    pub show_ids: bool,
}

/// What is worth a line in the log: this and everything graver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// A person has to act.
    Error,
    /// A person may have to act.
    Warn,
    /// What the station did.
    Info,
    /// How it did it.
    Debug,
    /// Every byte.
    Trace,
}

/// How a line of the log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Whatever suits where it goes.
    Auto,
    /// For people.
    Text,
    /// One JSON object.
    Json,
    /// An entry of the journal, each value a field.
    Journald,
}
