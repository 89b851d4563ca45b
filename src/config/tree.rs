//! The merged text: each key's value and origin, and reading it key by key.
//!
//! [`MergedConfig::merge`] decides which keys exist. A [`KeyReader`] reads their values; it reports
//! each problem and goes on.

use std::collections::BTreeMap;

use toml::{Table, Value};

use super::keys::{self, DEFAULT_RULES, DefaultValue, EnvSetting, KEYS, KeyMatch};
use super::problem::{Origin, ProblemCollector, ReportedProblem};
use super::value::{quote_value, type_name, wrong_type};
use crate::domain::Problem;

/// The text of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigText {
    /// The file's path, for messages.
    pub name: String,
    /// Its content.
    pub text: String,
}

/// A file that is missing or unreadable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnreadableFile {
    /// The file's path, for messages.
    pub name: String,
    /// The cause.
    pub problem: Problem,
}

/// Everything that a configuration is made of.
#[derive(Debug, Clone, Copy, Default)]
pub struct ConfigInputs<'a> {
    /// The main file, then the others; a later file overrides an earlier one.
    pub sources: &'a [ConfigText],
    /// Files that belong among them.
    pub unread: &'a [UnreadableFile],
    /// Whether `cm.url` is optional.
    pub without_cm: bool,
    /// Environment variables; those without the prefix `CARDBRIDGE_` are ignored.
    pub environment: &'a [(String, String)],
    /// The default of `station.id`.
    pub host_name: &'a str,
}

#[derive(Debug, Clone)]
pub(super) struct ValueWithOrigin {
    pub(super) value: Value,
    pub(super) origin: Origin,
}

/// Values by the paths of their keys.
pub(super) type Fields = BTreeMap<String, ValueWithOrigin>;

/// One `[[card]]`, `[[reader]]` or `[[rule]]`.
#[derive(Debug)]
pub(super) struct TableItem {
    pub(super) origin: Origin,
    /// Counted from 1 within its file.
    pub(super) number: usize,
    /// By the paths in [`KEYS`], as `rule[].name`.
    pub(super) fields: Fields,
}

/// Everything that is set, with defaults.
#[derive(Debug, Default)]
pub(super) struct MergedConfig {
    pub(super) fields: Fields,
    items: BTreeMap<String, Vec<TableItem>>,
}

impl ConfigInputs<'_> {
    pub(super) fn collector(&self) -> ProblemCollector {
        let read = self.sources.iter().map(|source| source.name.clone());
        ProblemCollector::new(
            read.chain(self.unread.iter().map(|file| file.name.clone())).collect(),
        )
    }
}

impl MergedConfig {
    /// Files in order, then the environment, then the defaults.
    pub(super) fn merge(inputs: &ConfigInputs<'_>, report: &mut ProblemCollector) -> Self {
        let mut tree = Self::default();
        for UnreadableFile { name, problem } in inputs.unread {
            report.push_unread(&Origin::File(name.clone()), problem.clone());
        }
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

    /// The tables of a list such as `rule[]`, of all files.
    pub(super) fn items(&self, section: &str) -> &[TableItem] {
        self.items.get(section).map_or(&[], Vec::as_slice)
    }

    fn add_text(&mut self, origin: &Origin, text: &str, report: &mut ProblemCollector) {
        // Some editors begin a file with a byte order mark.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        match text.parse() {
            Ok(table) => self.add_table(origin, "", table, report),
            Err(error) => report.push_unread(origin, syntax_problem(text, &error)),
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
            let (wanted, remedy) = match (keys::find(section, &name), value) {
                (KeyMatch::Key, value) => {
                    let leaf = ValueWithOrigin { value, origin: origin.clone() };
                    self.fields.insert(path, leaf);
                    continue;
                }
                (KeyMatch::Section, Value::Table(table)) => {
                    self.add_table(origin, &path, table, report);
                    continue;
                }
                (KeyMatch::Tables, Value::Array(tables)) => {
                    self.add_items(origin, &path, tables, report);
                    continue;
                }
                (KeyMatch::Nothing, value) => {
                    report_unknown(section, &name, &value, |path, problem| {
                        report.push(origin, path, problem);
                    });
                    continue;
                }
                (KeyMatch::Section, value) => {
                    (format!("is {}, not a section", type_name(&value)), format!("write [{path}]"))
                }
                (KeyMatch::Tables, value) => (
                    format!("is {}, not a list of tables", type_name(&value)),
                    format!("write [[{path}]]"),
                ),
            };
            report.push(origin, &path, Problem::new(wanted, remedy));
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
            let problem = Problem::new("is an empty list", "remove it, or give at least one table");
            report.push(origin, list, problem);
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
                let problem = Problem::new(what, format!("write [[{list}]] and its keys below"));
                report.push(origin, &numbered(&section, number), problem);
            }
        }
    }

    fn add_variable(&mut self, name: &str, value: &str, report: &mut ProblemCollector) {
        let origin = Origin::Variable(name.to_owned());
        match keys::read_variable(name, value) {
            Ok(None) => {}
            Ok(Some(EnvSetting { path, value })) => {
                // Variables are upper case by custom: their spelling does not count.
                let spelt = self.fields.keys().find(|known| known.eq_ignore_ascii_case(&path));
                let path = spelt.cloned().unwrap_or(path);
                self.fields.insert(path, ValueWithOrigin { value, origin });
            }
            Err((path, problem)) => {
                report.push(&origin, &path, problem);
            }
        }
    }
}

impl TableItem {
    fn add_table(&mut self, section: &str, table: Table, report: &mut ProblemCollector) {
        for (name, value) in table {
            if keys::find(section, &name) == KeyMatch::Key {
                let leaf = ValueWithOrigin { value, origin: self.origin.clone() };
                self.fields.insert(keys::join(section, &name), leaf);
            } else {
                report_unknown(section, &name, &value, |path, problem| {
                    report.push(&self.origin, &numbered(path, self.number), problem);
                });
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

/// A name that is no key. Its value is not shown: it may be a secret.
fn report_unknown(section: &str, name: &str, value: &Value, push: impl FnOnce(&str, Problem)) {
    let what = if value.is_table() { "is not a known section" } else { "is not a known key" };
    let path = keys::join(section, &name.escape_debug().to_string());
    push(&path, Problem::new(what, keys::remedy_of_unknown(section, name)));
}

/// A file that is no TOML. The line itself is not shown: it may hold a secret.
fn syntax_problem(text: &str, error: &toml::de::Error) -> Problem {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    let message = error.message().replace('\n', ", ");
    Problem::new(
        format!("line {line}, column {column}: {message}"),
        "correct the line; the rest of this file is not checked before it can be read",
    )
}

/// Reads the keys of the whole tree, or of one table of a list.
pub(super) struct KeyReader<'a> {
    fields: &'a Fields,
    number: Option<usize>,
    /// The origin of a missing key.
    home: Origin,
    report: &'a mut ProblemCollector,
}

impl<'a> KeyReader<'a> {
    pub(super) fn top(tree: &'a MergedConfig, report: &'a mut ProblemCollector) -> Self {
        Self { fields: &tree.fields, number: None, home: report.main_file(), report }
    }

    pub(super) fn item(item: &'a TableItem, report: &'a mut ProblemCollector) -> Self {
        let home = item.origin.clone();
        Self { fields: &item.fields, number: Some(item.number), home, report }
    }

    pub(super) fn optional<T>(
        &mut self,
        path: &str,
        parse: impl FnOnce(&Value) -> Result<T, Problem>,
    ) -> Result<Option<T>, ReportedProblem> {
        let Some(leaf) = self.fields.get(path) else { return Ok(None) };
        parse(&leaf.value).map(Some).map_err(|problem| self.report_problem(path, problem))
    }

    /// A key that has a default, or must be set.
    pub(super) fn required<T>(
        &mut self,
        path: &str,
        parse: impl FnOnce(&Value) -> Result<T, Problem>,
    ) -> Result<T, ReportedProblem> {
        self.optional(path, parse)?.ok_or_else(|| self.report_missing(path))
    }

    /// An optional list, each bad element a problem of its own. An empty list is a problem: it could
    /// mean none or any.
    pub(super) fn list<T: PartialEq>(
        &mut self,
        path: &str,
        each: impl Fn(&Value) -> Result<T, Problem>,
    ) -> Result<Option<Vec<T>>, ReportedProblem> {
        let list = self.list_or_empty(path, each)?;
        if list.as_ref().is_some_and(Vec::is_empty) {
            let problem = Problem::new("is an empty list", "name at least one, or remove the key");
            return Err(self.report_problem(path, problem));
        }
        Ok(list)
    }

    /// An optional list that may be empty.
    pub(super) fn list_or_empty<T: PartialEq>(
        &mut self,
        path: &str,
        each: impl Fn(&Value) -> Result<T, Problem>,
    ) -> Result<Option<Vec<T>>, ReportedProblem> {
        let Some(ValueWithOrigin { value, .. }) = self.fields.get(path) else { return Ok(None) };
        let Value::Array(values) = value else {
            return Err(self.report_problem(path, wrong_type(value, "a list", "put it in [ ]")));
        };
        let mut list = Vec::new();
        let mut refused = None;
        for (value, number) in values.iter().zip(1..) {
            let problem = match each(value) {
                Ok(element) if !list.contains(&element) => {
                    list.push(element);
                    continue;
                }
                Ok(_) => {
                    Problem::new(format!("{} is there twice", quote_value(value)), "remove one")
                }
                Err(problem) => problem,
            };
            refused = Some(self.report_problem(&format!("{path}[{number}]"), problem));
        }
        refused.map_or(Ok(Some(list)), Err)
    }

    /// A list with at least one element.
    pub(super) fn required_list<T: PartialEq>(
        &mut self,
        path: &str,
        each: impl Fn(&Value) -> Result<T, Problem>,
    ) -> Result<Vec<T>, ReportedProblem> {
        self.list(path, each)?.ok_or_else(|| self.report_missing(path))
    }

    /// Whether the configuration sets the key, to any value.
    pub(super) fn is_set(&self, path: &str) -> bool {
        self.fields.get(path).is_some_and(|leaf| leaf.origin != Origin::Default)
    }

    pub(super) fn report_problem(&mut self, path: &str, problem: Problem) -> ReportedProblem {
        let list = path.strip_suffix(']').and_then(|path| path.rsplit_once('['));
        let key = list.map_or(path, |(key, _)| key);
        let origin = self.fields.get(key).map_or(&self.home, |leaf| &leaf.origin);
        self.report.push(origin, &self.shown(path), problem)
    }

    pub(super) fn report_missing(&mut self, path: &str) -> ReportedProblem {
        let problem = Problem::new("is missing", keys::remedy_of_missing(path));
        self.report.push_missing(&self.home, &self.shown(path), problem)
    }

    fn shown(&self, path: &str) -> String {
        self.number.map_or_else(|| path.to_owned(), |number| numbered(path, number))
    }
}
