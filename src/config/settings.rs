//! What is meant by a configuration: the validated twin of its text.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use crate::domain::{AtrPattern, Probing, ReaderRules};
use crate::rules::RuleSet;

/// A configuration that can be worked with as it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// What the audit trail calls this station.
    pub station: String,
    /// How to reach CM.
    pub cm: CmSettings,
    /// What cards are asked.
    pub probing: Probing,
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
    /// What the station shows to be let in.
    pub auth: Auth,
}

/// What the station shows to be let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Auth {
    /// Nothing.
    None,
    /// A bearer token.
    Bearer {
        /// The file that holds it. A bare name is looked up in the credentials directory.
        token_file: PathBuf,
    },
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
    pub keep: Duration,
}

/// The control interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlSettings {
    /// Its Unix socket; the path fits into a socket address.
    pub socket: PathBuf,
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
}
