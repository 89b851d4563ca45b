//! `[cards]` and `[[card]]`: which cards are asked what.

use toml::Value;

use super::problem::{Fault, Report, Reported};
use super::rules::refuse_twins;
use super::scope::Scope;
use super::tree::{Item, Tree};
use super::value::{choice, quote, text};
use crate::domain::{AtrPattern, CardRule, Family, IdRule};

/// A card family, by name.
pub(super) fn family(value: &Value) -> Result<Family, Fault> {
    let known: Vec<_> = Family::ALL.iter().map(|family| (family.as_str(), *family)).collect();
    choice(&known)(value)
}

/// A pattern over ATRs.
pub(super) fn atr_pattern(value: &Value) -> Result<AtrPattern, Fault> {
    let text = text(value)?;
    text.parse().map_err(|error| {
        let remedy = "write the ATR as hex digits without blanks, ? for any one digit";
        Fault::new(format!("{} is no ATR: {error}", quote(text)), remedy)
    })
}

/// Every `[[card]]`.
pub(super) fn rules(tree: &Tree, report: &mut Report) -> Result<Vec<CardRule>, Reported> {
    let items = tree.items("card[]");
    let rules: Vec<_> = items.iter().map(|item| rule(item, report)).collect();
    refuse_twins(items, "card[].match", "only the first of them ever matches", report)?;
    rules.into_iter().collect()
}

fn rule(item: &Item, report: &mut Report) -> Result<CardRule, Reported> {
    let mut scope = Scope::item(item, report);
    let matches = scope.required("card[].match", atr_pattern);
    let families = scope.list("card[].families", family);
    let id_rule = scope.optional("card[].id_rule", id_rule);
    let id_rule = fitting(&mut scope, id_rule, &families);
    Ok(CardRule { matches: matches?, families: families?, id_rule: id_rule? })
}

fn id_rule(value: &Value) -> Result<IdRule, Fault> {
    let known: Vec<_> = IdRule::ALL.iter().map(|rule| (rule.as_str(), *rule)).collect();
    choice(&known)(value)
}

/// The pinned rule, if a card that is asked for these families can give such an id.
fn fitting(
    scope: &mut Scope<'_>,
    id_rule: Result<Option<IdRule>, Reported>,
    families: &Result<Option<Vec<Family>>, Reported>,
) -> Result<Option<IdRule>, Reported> {
    let id_rule = id_rule?;
    let (Some(rule), Ok(Some(families))) = (id_rule, families) else { return Ok(id_rule) };
    if families.contains(&rule.family()) {
        return Ok(id_rule);
    }
    let what = format!("{} makes ids of {} cards, which families leaves out", rule, rule.family());
    let remedy = format!("add {:?} to families, or remove families", rule.family().as_str());
    Err(scope.refuse("card[].id_rule", Fault::new(what, remedy)))
}
