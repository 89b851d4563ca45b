//! The merged text: which key has which value, and who says so.
//!
//! Whether a key exists is decided here; whether its value makes sense is not.

use std::collections::BTreeMap;

use toml::{Table, Value};

use super::ConfigInputs;
use super::environment::{self, EnvSetting};
use super::keys::{self, DEFAULT_RULES, DefaultValue, KEYS, KeyMatch};
use super::problem::{Origin, ProblemCollector, ValueError};
use super::value::type_name;

/// A value, and who says so.
#[derive(Debug, Clone)]
pub(super) struct ValueWithOrigin {
    pub(super) value: Value,
    pub(super) origin: Origin,
}

/// Values by the paths of their keys.
pub(super) type Fields = BTreeMap<String, ValueWithOrigin>;

/// One `[[reader]]` or `[[rule]]`.
#[derive(Debug)]
pub(super) struct TableItem {
    pub(super) origin: Origin,
    /// Counted from 1 within its file.
    pub(super) number: usize,
    /// By the paths in [`KEYS`], as `rule[].name`.
    pub(super) fields: Fields,
}

/// Everything that is set, defaults included.
#[derive(Debug, Default)]
pub(super) struct MergedConfig {
    pub(super) fields: Fields,
    items: BTreeMap<String, Vec<TableItem>>,
}

impl MergedConfig {
    /// Files in order, then the environment, then what nobody set.
    pub(super) fn merge(inputs: &ConfigInputs<'_>, report: &mut ProblemCollector) -> Self {
        let mut tree = Self::default();
        for source in inputs.sources {
            tree.add_text(&Origin::File(source.name.clone()), &source.text, report);
        }
        for (name, value) in inputs.environment {
            tree.add_variable(name, value, report);
        }
        if tree.items("rule[]").is_empty() {
            tree.add_text(&Origin::Default, DEFAULT_RULES, report);
        }
        add_defaults(&mut tree.fields, "", inputs.host_name);
        for (section, items) in &mut tree.items {
            for item in items {
                add_defaults(&mut item.fields, section, inputs.host_name);
            }
        }
        tree
    }

    /// The tables of a list such as `rule[]`, over all files.
    pub(super) fn items(&self, section: &str) -> &[TableItem] {
        self.items.get(section).map_or(&[], Vec::as_slice)
    }

    fn add_text(&mut self, origin: &Origin, text: &str, report: &mut ProblemCollector) {
        // Some editors begin a file with a byte order mark.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        match text.parse() {
            Ok(table) => self.add_table(origin, "", table, report),
            Err(error) => report.push_unread(origin, syntax_fault(text, &error)),
        }
    }

    fn add_table(
        &mut self,
        origin: &Origin,
        section: &str,
        table: Table,
        report: &mut ProblemCollector,
    ) {
        for (name, value) in table {
            let path = keys::join(section, &name);
            match (keys::find(section, &name), value) {
                (KeyMatch::Key(_), value) => {
                    let leaf = ValueWithOrigin { value, origin: origin.clone() };
                    self.fields.insert(path, leaf);
                }
                (KeyMatch::Section, Value::Table(table)) => {
                    self.add_table(origin, &path, table, report);
                }
                (KeyMatch::Tables, Value::Array(tables)) => {
                    self.add_items(origin, &path, tables, report);
                }
                (KeyMatch::Section, value) => {
                    let what = format!("is {}, not a section", type_name(&value));
                    report.push(origin, &path, ValueError::new(what, format!("write [{path}]")));
                }
                (KeyMatch::Tables, value) => {
                    let what = format!("is {}, not a list of tables", type_name(&value));
                    report.push(origin, &path, ValueError::new(what, format!("write [[{path}]]")));
                }
                (KeyMatch::Nothing, value) => {
                    let path = keys::join(section, &name.escape_debug().to_string());
                    report.push(origin, &path, unknown(section, &name, &value));
                }
            }
        }
    }

    fn add_items(
        &mut self,
        origin: &Origin,
        list: &str,
        tables: Vec<Value>,
        report: &mut ProblemCollector,
    ) {
        if tables.is_empty() {
            // For rules it could mean the default ones, or none at all.
            let fault =
                ValueError::new("is an empty list", "remove it, or give at least one table");
            report.push(origin, list, fault);
        }
        let section = format!("{list}[]");
        let items = self.items.entry(section.clone()).or_default();
        for (value, number) in tables.into_iter().zip(1..) {
            let mut item = TableItem { origin: origin.clone(), number, fields: Fields::new() };
            if let Value::Table(table) = value {
                item.add_table(&section, table, report);
                items.push(item);
            } else {
                let what = format!("is {}, not a table", type_name(&value));
                let fault = ValueError::new(what, format!("write [[{list}]] and its keys below"));
                report.push(origin, &item.shown(&section), fault);
            }
        }
    }

    fn add_variable(&mut self, name: &str, value: &str, report: &mut ProblemCollector) {
        let origin = Origin::Variable(name.to_owned());
        match environment::read(name, value) {
            Ok(None) => {}
            Ok(Some(EnvSetting { path, value })) => {
                // Variables are upper case by custom: theirs is not the spelling that counts.
                let spelt = self.fields.keys().find(|known| known.eq_ignore_ascii_case(&path));
                let path = spelt.cloned().unwrap_or(path);
                self.fields.insert(path, ValueWithOrigin { value, origin });
            }
            Err((path, fault)) => {
                report.push(&origin, &path, fault);
            }
        }
    }
}

impl TableItem {
    /// The path of one of its keys for people: `rule[2].name`.
    pub(super) fn shown(&self, path: &str) -> String {
        numbered(path, self.number)
    }

    fn add_table(&mut self, section: &str, table: Table, report: &mut ProblemCollector) {
        for (name, value) in table {
            match keys::find(section, &name) {
                KeyMatch::Key(_) => {
                    let leaf = ValueWithOrigin { value, origin: self.origin.clone() };
                    self.fields.insert(keys::join(section, &name), leaf);
                }
                KeyMatch::Section | KeyMatch::Tables | KeyMatch::Nothing => {
                    let path = keys::join(section, &name.escape_debug().to_string());
                    let fault = unknown(section, &name, &value);
                    report.push(&self.origin, &self.shown(&path), fault);
                }
            }
        }
    }
}

/// `rule[].name` as key of one rule: `rule[2].name`.
pub(super) fn numbered(path: &str, number: usize) -> String {
    path.replacen("[]", &format!("[{number}]"), 1)
}

fn add_defaults(fields: &mut Fields, list: &str, host_name: &str) {
    for key in KEYS.iter().filter(|key| key.list() == list) {
        let value = match key.fallback {
            DefaultValue::Required | DefaultValue::Unset => None,
            DefaultValue::HostName => Some(Value::String(host_name.to_owned())),
            DefaultValue::Value(text) => text.parse().ok(),
        };
        if let Some(value) = value {
            let leaf = ValueWithOrigin { value, origin: Origin::Default };
            fields.entry(key.path.to_owned()).or_insert(leaf);
        }
    }
}

/// A name that stands for nothing. Its value is not told: it may be a secret.
fn unknown(section: &str, name: &str, value: &Value) -> ValueError {
    let what = if value.is_table() { "is not a known section" } else { "is not a known key" };
    ValueError::new(what, keys::remedy_of_unknown(section, name))
}

/// A file that is no TOML. The line itself is not told: it may hold a secret.
fn syntax_fault(text: &str, error: &toml::de::Error) -> ValueError {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    let message = error.message().replace('\n', ", ");
    ValueError::new(
        format!("line {line}, column {column}: {message}"),
        "correct the line; the rest of this file is not checked before it can be read",
    )
}
