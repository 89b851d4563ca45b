//! `[cards]`, `[[card]]`, `[cm.numbers]`, `[[reader]]` and `[[rule]]`, checked against each other.

use std::ops::RangeInclusive;
use std::time::Duration;

use toml::Value;

use super::problem::{ProblemCollector, ReportedProblem};
use super::tree::{KeyReader, MergedConfig, TableItem, ValueWithOrigin, numbered};
use super::value::{boolean, choice, duration, integer, nearest, quote, single_line, text};
use crate::domain::{
    AtrPattern, CardRule, CardStatus, CmEnums, EnumMap, Family, IdRule, Problem, ReaderMatch,
    ReaderRule, ReaderRules, RequestType, Trigger,
};
use crate::rules::{Pick, Rule};

pub(super) fn family(value: &Value) -> Result<Family, Problem> {
    choice(&Family::ALL, Family::as_str)(value)
}

pub(super) fn atr_pattern(value: &Value) -> Result<AtrPattern, Problem> {
    let text = text(value)?;
    text.parse().map_err(|error| {
        let remedy = "write the ATR as hex digits without blanks, ? for any one digit";
        Problem::new(format!("{} is no ATR: {error}", quote(text)), remedy)
    })
}

/// Every `[[card]]`.
pub(super) fn cards(
    tree: &MergedConfig,
    report: &mut ProblemCollector,
) -> Result<Vec<CardRule>, ReportedProblem> {
    let items = tree.items("card[]");
    let rules: Vec<_> = items.iter().map(|item| card(item, report)).collect();
    reject_duplicates(items, "card[].match", "only the first of them ever matches", report)?;
    rules.into_iter().collect()
}

fn card(item: &TableItem, report: &mut ProblemCollector) -> Result<CardRule, ReportedProblem> {
    let mut scope = KeyReader::item(item, report);
    let matches = scope.required("card[].match", atr_pattern);
    let families = scope.list("card[].families", family);
    let id_rule = scope.optional("card[].id_rule", choice(IdRule::ALL, IdRule::as_str));
    let id_rule = fitting(&mut scope, id_rule, &families);
    Ok(CardRule { matches: matches?, families: families?, id_rule: id_rule? })
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
    Err(scope.report_problem("card[].id_rule", Problem::new(what, remedy)))
}

/// An enumeration of CM.
#[derive(Clone, Copy)]
struct CmEnumKind {
    section: &'static str,
    /// One value of it, in messages.
    noun: &'static str,
}

/// A card that is absent for longer was removed.
const REMOVAL_DEBOUNCE: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(5);

const REQUEST_TYPE: CmEnumKind =
    CmEnumKind { section: "cm.numbers.request_type", noun: "request type" };
const CARD_STATUS: CmEnumKind =
    CmEnumKind { section: "cm.numbers.card_status", noun: "card status" };
const REQUEST_STATUS: CmEnumKind =
    CmEnumKind { section: "cm.numbers.request_status", noun: "request status" };

/// CM's numbers, as the site extends or corrects them. A wrong one is reported and left out, so that
/// the rules are checked against the others.
pub(super) fn numbers(tree: &MergedConfig, report: &mut ProblemCollector) -> CmEnums {
    let mut numbers = CmEnums::default();
    add_numbers(REQUEST_TYPE, &mut numbers.request_type, tree, report);
    add_numbers(CARD_STATUS, &mut numbers.card_status, tree, report);
    add_numbers(REQUEST_STATUS, &mut numbers.request_status, tree, report);
    numbers
}

fn add_numbers(
    kind: CmEnumKind,
    map: &mut EnumMap,
    tree: &MergedConfig,
    report: &mut ProblemCollector,
) {
    let mut given: Vec<(&str, i64)> = Vec::new();
    for (path, ValueWithOrigin { value, origin }) in &tree.fields {
        let name = path.strip_prefix(kind.section).and_then(|rest| rest.strip_prefix('.'));
        let Some(name) = name else { continue };
        match number(name, value, &given) {
            Ok(number) => given.push((name, number)),
            Err(problem) => {
                report.push(origin, &path.escape_debug().to_string(), problem);
            }
        }
    }
    for (name, number) in given {
        let spelt = map.iter().map(|(known, _)| known).find(|k| k.eq_ignore_ascii_case(name));
        let name = spelt.unwrap_or(name).to_owned();
        map.set(&name, number);
    }
}

fn number(name: &str, value: &Value, given: &[(&str, i64)]) -> Result<i64, Problem> {
    if !name.starts_with(|c: char| c.is_ascii_alphabetic())
        || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    {
        let what = "is not a name that CM could have";
        return Err(Problem::new(what, "use letters, digits and _ only, a letter first"));
    }
    // CM's enumerations are .NET's: 32 bits with a sign.
    let number = integer(i32::MIN..=i32::MAX)(value).map(i64::from)?;
    let taken = given.iter().find(|(n, v)| n.eq_ignore_ascii_case(name) || *v == number);
    taken.map_or(Ok(number), |(other, value)| {
        Err(Problem::new(format!("contradicts {other} = {value}"), "remove one of the two"))
    })
}

/// Every `[[reader]]`.
pub(super) fn readers(
    tree: &MergedConfig,
    report: &mut ProblemCollector,
) -> Result<ReaderRules, ReportedProblem> {
    let items = tree.items("reader[]");
    let readers: Vec<_> = items.iter().map(|item| reader(item, report)).collect();
    reject_duplicates(items, "reader[].match", "only the first of them ever matches", report)?;
    readers.into_iter().collect::<Result<_, _>>().map(ReaderRules)
}

fn reader(item: &TableItem, report: &mut ProblemCollector) -> Result<ReaderRule, ReportedProblem> {
    let mut scope = KeyReader::item(item, report);
    let matches = scope
        .required("reader[].match", |value| single_line(value).map(|text| ReaderMatch::new(&text)));
    let label = scope.optional("reader[].label", single_line);
    let role = scope.required("reader[].role", single_line);
    let enabled = scope.required("reader[].enabled", boolean);
    let removal_debounce = scope.required("reader[].removal_debounce", duration(REMOVAL_DEBOUNCE));
    Ok(ReaderRule {
        matches: matches?,
        label: label?,
        role: role?,
        enabled: enabled?,
        removal_debounce: removal_debounce?,
    })
}

/// Every `[[rule]]`.
pub(super) fn rules(
    tree: &MergedConfig,
    numbers: &CmEnums,
    report: &mut ProblemCollector,
) -> Result<Vec<Rule>, ReportedProblem> {
    let items = tree.items("rule[]");
    let rules: Vec<_> = items.iter().map(|item| rule(item, numbers, report)).collect();
    reject_duplicates(items, "rule[].name", "the audit trail could not distinguish them", report)?;
    rules.into_iter().collect()
}

fn rule(
    item: &TableItem,
    numbers: &CmEnums,
    report: &mut ProblemCollector,
) -> Result<Rule, ReportedProblem> {
    let status = |value: &Value| resolve_name(value, CARD_STATUS, &numbers.card_status);
    let request_type = |value: &Value| resolve_name(value, REQUEST_TYPE, &numbers.request_type);

    let mut scope = KeyReader::item(item, report);
    let name = scope.required("rule[].name", single_line);
    let on = scope
        .required("rule[].on", choice(&[Trigger::Inserted, Trigger::Removed], Trigger::as_str));
    let request_types = scope.required_list("rule[].request_type", |value| {
        request_type(value).map(|(_, number)| RequestType::new(number))
    });
    let set_status = scope.required("rule[].set_status", |value| {
        status(value).map(|(name, number)| (name, CardStatus::new(number)))
    });
    let complete_request =
        scope.required("rule[].complete_request", |value| completion(value, numbers));
    let card_status = scope.list("rule[].card_status", |value| {
        status(value).map(|(_, number)| CardStatus::new(number))
    });
    let reader_role = scope.list("rule[].reader_role", single_line);
    let pick = scope
        .required("rule[].pick", choice(&[Pick::Oldest, Pick::Newest, Pick::Refuse], Pick::as_str));
    Ok(Rule {
        name: name?,
        on: on?,
        request_types: request_types?,
        set_status: set_status?,
        card_status: card_status?.unwrap_or_default(),
        reader_role: reader_role?.unwrap_or_default(),
        complete_request: complete_request?,
        pick: pick?,
    })
}

/// Without CM's number for Completed, cardbridge could not verify a completion.
fn completion(value: &Value, numbers: &CmEnums) -> Result<bool, Problem> {
    let wanted = boolean(value)?;
    if wanted && numbers.request_status.number("Completed").is_none() {
        let what = "needs CM's number of the request status Completed, which is not known";
        return Err(Problem::new(what, format!("add it to [{}]", REQUEST_STATUS.section)));
    }
    Ok(wanted)
}

/// CM's spelling and number of a name.
fn resolve_name(value: &Value, kind: CmEnumKind, map: &EnumMap) -> Result<(String, i64), Problem> {
    let name = text(value)?;
    let CmEnumKind { section, noun } = kind;
    if let Some(number) = map.number(name) {
        return Ok((map.name(number).unwrap_or(name).to_owned(), number));
    }
    let names = || map.iter().map(|(name, _)| name);
    let meant = match nearest(name, names()) {
        Some(meant) => format!("did you mean {meant:?}?"),
        None => format!("use one of {}", names().collect::<Vec<_>>().join(", ")),
    };
    Err(Problem::new(
        format!("{} is not a known {noun}", quote(name)),
        format!("{meant} If CM has it, add its number to [{section}]"),
    ))
}

/// Reports every table whose value of `path` an earlier one has.
fn reject_duplicates(
    items: &[TableItem],
    path: &str,
    reason: &str,
    report: &mut ProblemCollector,
) -> Result<(), ReportedProblem> {
    let text = |item: &TableItem| {
        item.fields.get(path).and_then(|leaf| leaf.value.as_str()).map(str::to_owned)
    };
    // Globs and ATRs mean the same in upper and lower case; names of rules do not.
    let folded = |item: &TableItem| {
        text(item).map(|text| if path == "rule[].name" { text } else { text.to_lowercase() })
    };
    let mut outcome = Ok(());
    for (index, item) in items.iter().enumerate() {
        let Some(value) = text(item) else { continue };
        let twin = items.iter().take(index).find(|other| folded(other) == folded(item));
        if let Some(TableItem { origin, number, .. }) = twin {
            let first = numbered(path, *number);
            let what = format!("{} is already {first} in {origin}", quote(&value));
            let problem = Problem::new(what, format!("change one, {reason}"));
            outcome = Err(KeyReader::item(item, report).report_problem(path, problem));
        }
    }
    outcome
}
