//! The configuration: text in, validated settings out, every problem at once.
//!
//! TOML files are merged in order, the environment overrides them, and what nobody set comes from
//! [`KEYS`], the one table of all keys. What cannot be meant is refused with a remedy; nothing is
//! ignored and nothing is guessed. This module reads no file and no environment itself, and opens
//! none of the files that the settings name.

mod address;
mod auth;
mod card_rules;
mod effective;
mod environment;
mod example;
mod key_reader;
mod keys;
mod problem;
mod rules;
mod sections;
mod settings;
mod suggest;
mod tree;
mod value;

pub use example::example;
pub use keys::{DefaultValue, KEYS, KeySpec, ValueKind};
pub use problem::{ConfigProblem, ConfigProblems, Origin};
pub use settings::{
    AuditSettings, AuthSettings, ClientAuthSettings, ClientCertSettings, CmSettings,
    ControlSettings, KerberosAccount, Level, LogFormat, LogSettings, OAuth2Settings,
    OutboxSettings, ProxySettings, Settings,
};

use problem::ProblemCollector;
use tree::MergedConfig;

/// The text of one file, and what messages call it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigText {
    /// The file's path.
    pub name: String,
    /// What is in it.
    pub text: String,
}

/// A file of the configuration that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnreadableFile {
    /// The file's path.
    pub name: String,
    /// What the system says, or what it is in place of text.
    pub error: String,
    /// The next step, where it is another than to see whether it can be read.
    pub remedy: Option<&'static str>,
}

/// Everything that a configuration is made of.
#[derive(Debug, Clone, Copy, Default)]
pub struct ConfigInputs<'a> {
    /// The main file, then the others; a later file overrides an earlier one.
    pub sources: &'a [ConfigText],
    /// Files that should be among them.
    pub unread: &'a [UnreadableFile],
    /// Whether it may leave out where CM is: some commands do without.
    pub without_cm: bool,
    /// Environment variables; only those that begin with `CARDBRIDGE_` are looked at.
    pub environment: &'a [(String, String)],
    /// The station's id where nothing sets one.
    pub host_name: &'a str,
}

/// A configuration without problems.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadedConfig {
    /// What is meant.
    pub settings: Settings,
    /// What was said, and where: one line a key.
    pub effective: Vec<EffectiveKey>,
}

/// One key that is in force. No key holds a secret: those are in the files that `*_file` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EffectiveKey {
    /// The key's path: `cm.url`, `rule[2].name`. Tables of a list are counted over all files.
    pub key: String,
    /// Its value as TOML.
    pub value: String,
    /// Who says so.
    pub origin: Origin,
}

/// Reads a configuration, or tells everything that is wrong with it.
pub fn parse(inputs: &ConfigInputs<'_>) -> Result<LoadedConfig, ConfigProblems> {
    let mut report = ProblemCollector::new(inputs);
    let tree = MergedConfig::merge(inputs, &mut report);
    let settings = sections::read(&tree, inputs.without_cm, &mut report);
    match (report.finish(), settings) {
        (None, Ok(settings)) => {
            let effective = effective::effective(&tree, &settings.rules.numbers);
            Ok(LoadedConfig { settings, effective })
        }
        (Some(problems), _) => Err(problems),
        (None, Err(reported)) => Err(reported.into()),
    }
}

/// A file that a key names, and that has to be there when the settings are used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedFile {
    /// Who names it.
    pub origin: Origin,
    /// The key.
    pub key: &'static str,
    /// The path, or a bare name in the credentials directory.
    pub path: String,
}

/// The files that keys name, also where something else is wrong with the configuration.
#[must_use]
pub fn named_files(inputs: &ConfigInputs<'_>) -> Vec<NamedFile> {
    let tree = MergedConfig::merge(inputs, &mut ProblemCollector::new(inputs));
    let file_keys = KEYS.iter().filter(|key| {
        (key.path.ends_with("_file") || key.path == "cm.auth.keytab") && key.list().is_empty()
    });
    let named = file_keys.filter_map(|key| {
        let leaf = tree.fields.get(key.path)?;
        let path = leaf.value.as_str()?.to_owned();
        Some(NamedFile { origin: leaf.origin.clone(), key: key.path, path })
    });
    named.collect()
}

#[cfg(test)]
mod tests;
