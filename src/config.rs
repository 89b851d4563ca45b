//! The configuration: text in, validated settings out, every problem at once.
//!
//! TOML files are merged in order, the environment overrides them, and what nobody set comes from
//! [`KEYS`], the one table of all keys. What cannot be meant, or is not supported yet, is refused
//! with a remedy; nothing is ignored and nothing is guessed. This module reads no file and no
//! environment itself, and opens none of the files that the settings name.

mod address;
mod cards;
mod effective;
mod example;
mod keys;
mod nearest;
mod problem;
mod rules;
mod scope;
mod sections;
mod settings;
mod tree;
mod value;
mod variables;

pub use example::example;
pub use keys::{Fallback, Form, KEYS, Key, Support};
pub use problem::{Origin, Problem, Problems};
pub use settings::{
    AuditSettings, Auth, CmSettings, ControlSettings, Level, LogFormat, LogSettings,
    OutboxSettings, Settings,
};

use problem::Report;
use tree::Tree;

/// The text of one file, and what messages call it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The file's path.
    pub name: String,
    /// What is in it.
    pub text: String,
}

/// Everything that a configuration is made of.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// The main file, then the others; a later file overrides an earlier one.
    pub sources: &'a [Source],
    /// Environment variables; only those that begin with `CARDBRIDGE_` are looked at.
    pub environment: &'a [(String, String)],
    /// The station's id where nothing sets one.
    pub host_name: &'a str,
}

/// A configuration without problems.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// What is meant.
    pub settings: Settings,
    /// What was said, and where: one line a key.
    pub effective: Vec<Effective>,
}

/// One key that is in force. No key holds a secret: those are in the files that `*_file` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effective {
    /// The key's path: `cm.url`, `rule[2].name`. Tables of a list are counted over all files.
    pub key: String,
    /// Its value as TOML.
    pub value: String,
    /// Who says so.
    pub origin: Origin,
}

/// Reads a configuration, or tells everything that is wrong with it.
pub fn parse(inputs: &Inputs<'_>) -> Result<Loaded, Problems> {
    let mut report = Report::new(inputs.sources);
    let tree = Tree::merge(inputs, &mut report);
    let settings = sections::read(&tree, &mut report);
    match (report.finish(), settings) {
        (None, Ok(settings)) => {
            let effective = effective::effective(&tree, &settings.rules.numbers);
            Ok(Loaded { settings, effective })
        }
        (Some(problems), _) => Err(problems),
        (None, Err(reported)) => Err(reported.into()),
    }
}

#[cfg(test)]
mod tests;
