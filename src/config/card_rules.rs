//! `[cards]` and `[[card]]`: which cards are asked what.

use toml::Value;

use super::key_reader::KeyReader;
use super::problem::{ProblemCollector, ReportedProblem, ValueError};
use super::rules::reject_duplicates;
use super::tree::{MergedConfig, TableItem};
use super::value::{choice, quote, text};
use crate::domain::{AtrPattern, CardRule, Family, IdRule};

/// A card family, by name.
pub(super) fn family(value: &Value) -> Result<Family, ValueError> {
    let known: Vec<_> = Family::ALL.iter().map(|family| (family.as_str(), *family)).collect();
    choice(&known)(value)
}

/// A pattern over ATRs.
pub(super) fn atr_pattern(value: &Value) -> Result<AtrPattern, ValueError> {
    let text = text(value)?;
    text.parse().map_err(|error| {
        let remedy = "write the ATR as hex digits without blanks, ? for any one digit";
        ValueError::new(format!("{} is no ATR: {error}", quote(text)), remedy)
    })
}

/// Every `[[card]]`.
pub(super) fn rules(
    tree: &MergedConfig,
    report: &mut ProblemCollector,
) -> Result<Vec<CardRule>, ReportedProblem> {
    let items = tree.items("card[]");
    let rules: Vec<_> = items.iter().map(|item| rule(item, report)).collect();
    reject_duplicates(items, "card[].match", "only the first of them ever matches", report)?;
    rules.into_iter().collect()
}

fn rule(item: &TableItem, report: &mut ProblemCollector) -> Result<CardRule, ReportedProblem> {
    let mut scope = KeyReader::item(item, report);
    let matches = scope.required("card[].match", atr_pattern);
    let families = scope.list("card[].families", family);
    let id_rule = scope.optional("card[].id_rule", id_rule);
    let id_rule = fitting(&mut scope, id_rule, &families);
    Ok(CardRule { matches: matches?, families: families?, id_rule: id_rule? })
}

fn id_rule(value: &Value) -> Result<IdRule, ValueError> {
    let known: Vec<_> = IdRule::ALL.iter().map(|rule| (rule.as_str(), *rule)).collect();
    choice(&known)(value)
}

/// The pinned rule, if a card that is asked for these families can give such an id.
fn fitting(
    scope: &mut KeyReader<'_>,
    id_rule: Result<Option<IdRule>, ReportedProblem>,
    families: &Result<Option<Vec<Family>>, ReportedProblem>,
) -> Result<Option<IdRule>, ReportedProblem> {
    let id_rule = id_rule?;
    let (Some(rule), Ok(Some(families))) = (id_rule, families) else { return Ok(id_rule) };
    if families.contains(&rule.family()) {
        return Ok(id_rule);
    }
    let what = format!("{} makes ids of {} cards, which families leaves out", rule, rule.family());
    let remedy = format!("add {:?} to families, or remove families", rule.family().as_str());
    Err(scope.report_problem("card[].id_rule", ValueError::new(what, remedy)))
}
