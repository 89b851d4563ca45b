//! The configuration: text in, validated settings out, every problem at once.
//!
//! Later files override earlier ones, the environment overrides the files, and [`KEYS`] has the
//! defaults. Nothing is ignored and nothing is guessed: each problem comes with a remedy. This module
//! reads no file and no environment itself, and opens none of the files that the settings name.

mod address;
mod auth;
mod keys;
mod lists;
mod problem;
mod sections;
mod settings;
mod show;
mod tree;
mod value;

pub use keys::{DefaultValue, KEYS, KeySpec, ValueKind};
pub use problem::{ConfigProblem, ConfigProblems, Origin};
pub use settings::{
    AuditSettings, AuthSettings, ClientAuthSettings, ClientCertSettings, CmSettings,
    ControlSettings, KerberosSettings, Level, LogFormat, LogSettings, OAuth2Settings,
    OutboxSettings, ProxySettings, Settings,
};
pub use show::{EffectiveKey, example};
pub use tree::{ConfigInputs, ConfigText, UnreadableFile};

use tree::MergedConfig;

/// A configuration without problems.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadedConfig {
    /// The validated settings.
    pub settings: Settings,
    /// Each key in force.
    pub effective: Vec<EffectiveKey>,
}

/// A file that a key names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedFile {
    /// Where the key is set.
    pub origin: Origin,
    /// The key.
    pub key: &'static str,
    /// The path, or a bare name in the credentials directory.
    pub path: String,
}

/// Reads a configuration, or reports all its problems.
pub fn parse(inputs: &ConfigInputs<'_>) -> Result<LoadedConfig, ConfigProblems> {
    let mut report = inputs.collector();
    let tree = MergedConfig::merge(inputs, &mut report);
    let settings = sections::read(&tree, inputs.without_cm, &mut report);
    match (report.finish(), settings) {
        (None, Ok(settings)) => {
            let effective = show::effective(&tree, &settings.rules.numbers);
            Ok(LoadedConfig { settings, effective })
        }
        (Some(problems), _) => Err(problems),
        (None, Err(reported)) => Err(reported.into()),
    }
}

/// The files that keys name, also where the configuration has other problems.
#[must_use]
pub fn named_files(inputs: &ConfigInputs<'_>) -> Vec<NamedFile> {
    let tree = MergedConfig::merge(inputs, &mut inputs.collector());
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
