//! Reading keys one by one: each is had, or its problem is reported, and reading goes on.

use toml::Value;

use super::keys;
use super::problem::{Origin, ProblemCollector, ReportedProblem, ValueError};
use super::tree::{Fields, MergedConfig, TableItem, ValueWithOrigin, numbered};
use super::value::{quote_value, wrong_type};

/// The keys of the whole tree, or of one table of a list.
pub(super) struct KeyReader<'a> {
    fields: &'a Fields,
    number: Option<usize>,
    /// Where a missing key would be looked for.
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

    /// A key that may stay unset.
    pub(super) fn optional<T>(
        &mut self,
        path: &str,
        parse: impl FnOnce(&Value) -> Result<T, ValueError>,
    ) -> Result<Option<T>, ReportedProblem> {
        let Some(leaf) = self.fields.get(path) else { return Ok(None) };
        parse(&leaf.value).map(Some).map_err(|fault| self.report_problem(path, fault))
    }

    /// A key that has a default, or has to be set.
    pub(super) fn required<T>(
        &mut self,
        path: &str,
        parse: impl FnOnce(&Value) -> Result<T, ValueError>,
    ) -> Result<T, ReportedProblem> {
        self.optional(path, parse)?.ok_or_else(|| self.report_missing(path))
    }

    /// A list, each bad element of it a problem of its own. It may stay unset, but not be empty:
    /// nobody can tell whether that would mean none or any.
    pub(super) fn list<T: PartialEq>(
        &mut self,
        path: &str,
        each: impl Fn(&Value) -> Result<T, ValueError>,
    ) -> Result<Option<Vec<T>>, ReportedProblem> {
        let list = self.list_or_empty(path, each)?;
        if list.as_ref().is_some_and(Vec::is_empty) {
            let fault = ValueError::new("is an empty list", "name at least one, or remove the key");
            return Err(self.report_problem(path, fault));
        }
        Ok(list)
    }

    /// A list that may be empty.
    pub(super) fn list_or_empty<T: PartialEq>(
        &mut self,
        path: &str,
        each: impl Fn(&Value) -> Result<T, ValueError>,
    ) -> Result<Option<Vec<T>>, ReportedProblem> {
        let Some(ValueWithOrigin { value, .. }) = self.fields.get(path) else { return Ok(None) };
        let Value::Array(values) = value else {
            return Err(self.report_problem(path, wrong_type(value, "a list", "put it in [ ]")));
        };
        let mut list = Vec::new();
        let mut refused = None;
        for (value, number) in values.iter().zip(1..) {
            let fault = match each(value) {
                Ok(element) if !list.contains(&element) => {
                    list.push(element);
                    continue;
                }
                Ok(_) => {
                    ValueError::new(format!("{} is there twice", quote_value(value)), "remove one")
                }
                Err(fault) => fault,
            };
            refused = Some(self.report_problem(&format!("{path}[{number}]"), fault));
        }
        refused.map_or(Ok(Some(list)), Err)
    }

    /// A list that has to be there, with something in it.
    pub(super) fn required_list<T: PartialEq>(
        &mut self,
        path: &str,
        each: impl Fn(&Value) -> Result<T, ValueError>,
    ) -> Result<Vec<T>, ReportedProblem> {
        self.list(path, each)?.ok_or_else(|| self.report_missing(path))
    }

    /// Whether somebody set the key, rightly or wrongly.
    pub(super) fn is_set(&self, path: &str) -> bool {
        self.fields.get(path).is_some_and(|leaf| leaf.origin != Origin::Default)
    }

    /// Reports what is wrong with a key.
    pub(super) fn report_problem(&mut self, path: &str, fault: ValueError) -> ReportedProblem {
        let list = path.strip_suffix(']').and_then(|path| path.rsplit_once('['));
        let key = list.map_or(path, |(key, _)| key);
        let origin = self.fields.get(key).map_or(&self.home, |leaf| &leaf.origin);
        self.report.push(origin, &self.shown(path), fault)
    }

    /// Reports that nobody set a key that has to be set.
    pub(super) fn report_missing(&mut self, path: &str) -> ReportedProblem {
        let fault = ValueError::new("is missing", keys::remedy_of_missing(path));
        self.report.push_missing(&self.home, &self.shown(path), fault)
    }

    fn shown(&self, path: &str) -> String {
        self.number.map_or_else(|| path.to_owned(), |number| numbered(path, number))
    }
}
