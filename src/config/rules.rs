//! `[cm.numbers]`, `[[reader]]` and `[[rule]]`: the words of a site, checked against each other.

use std::ops::RangeInclusive;
use std::time::Duration;

use toml::Value;

use super::key_reader::KeyReader;
use super::problem::{ProblemCollector, ReportedProblem, ValueError};
use super::suggest::nearest;
use super::tree::{MergedConfig, TableItem, ValueWithOrigin};
use super::value::{boolean, choice, duration, integer, quote, single_line, text};
use crate::domain::{
    CardStatus, CmEnums, EnumMap, ReaderMatch, ReaderRule, ReaderRules, RequestType, Trigger,
};
use crate::rules::{Pick, Rule};

/// An enumeration of CM's: where its numbers are set, and what one of its values is called.
#[derive(Clone, Copy)]
struct CmEnumKind {
    section: &'static str,
    noun: &'static str,
}

/// A card that is away for longer than a few seconds was taken out.
const REMOVAL_DEBOUNCE: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(5);

const REQUEST_TYPE: CmEnumKind =
    CmEnumKind { section: "cm.numbers.request_type", noun: "request type" };
const CARD_STATUS: CmEnumKind =
    CmEnumKind { section: "cm.numbers.card_status", noun: "card status" };
const REQUEST_STATUS: CmEnumKind =
    CmEnumKind { section: "cm.numbers.request_status", noun: "request status" };

/// CM's numbers, as the site extends or corrects them. Those that are wrong are reported and left
/// out, so that the rules can be checked against the rest.
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
            Err(fault) => {
                report.push(origin, &path.escape_debug().to_string(), fault);
            }
        }
    }
    for (name, number) in given {
        let spelt = map.iter().map(|(known, _)| known).find(|k| k.eq_ignore_ascii_case(name));
        let name = spelt.unwrap_or(name).to_owned();
        map.set(&name, number);
    }
}

fn number(name: &str, value: &Value, given: &[(&str, i64)]) -> Result<i64, ValueError> {
    if !name.starts_with(|c: char| c.is_ascii_alphabetic())
        || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    {
        let what = "is not a name that CM could have";
        return Err(ValueError::new(what, "use letters, digits and _ only, a letter first"));
    }
    // CM's enumerations are .NET's: 32 bits with a sign.
    let number = integer(i32::MIN..=i32::MAX)(value).map(i64::from)?;
    let taken = given.iter().find(|(n, v)| n.eq_ignore_ascii_case(name) || *v == number);
    taken.map_or(Ok(number), |(other, value)| {
        Err(ValueError::new(format!("contradicts {other} = {value}"), "remove one of the two"))
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
    reject_duplicates(items, "rule[].name", "the audit trail could not tell them apart", report)?;
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
    let on = scope.required("rule[].on", choice(&TRIGGERS));
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
    let pick = scope.required("rule[].pick", choice(&PICKS));
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

/// What may set a rule off, by name.
const TRIGGERS: [(&str, Trigger); 2] = [
    (Trigger::Inserted.as_str(), Trigger::Inserted),
    (Trigger::Removed.as_str(), Trigger::Removed),
];

/// How a rule may pick among several requests, by name.
const PICKS: [(&str, Pick); 3] = [
    (Pick::Oldest.as_str(), Pick::Oldest),
    (Pick::Newest.as_str(), Pick::Newest),
    (Pick::Refuse.as_str(), Pick::Refuse),
];

/// Whether a request is completed cannot be seen without CM's number for it.
fn completion(value: &Value, numbers: &CmEnums) -> Result<bool, ValueError> {
    let wanted = boolean(value)?;
    if wanted && numbers.request_status.number("Completed").is_none() {
        let what = "needs CM's number of the request status Completed, which is not known";
        return Err(ValueError::new(what, format!("add it to [{}]", REQUEST_STATUS.section)));
    }
    Ok(wanted)
}

/// CM's spelling and number of a name.
fn resolve_name(
    value: &Value,
    kind: CmEnumKind,
    map: &EnumMap,
) -> Result<(String, i64), ValueError> {
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
    Err(ValueError::new(
        format!("{} is not a known {noun}", quote(name)),
        format!("{meant} If CM has it, add its number to [{section}]"),
    ))
}

/// Reports every table whose value of `path` an earlier one has.
pub(super) fn reject_duplicates(
    items: &[TableItem],
    path: &str,
    why: &str,
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
        if let Some(twin) = twin {
            let what =
                format!("{} is already {} in {}", quote(&value), twin.shown(path), twin.origin);
            let fault = ValueError::new(what, format!("change one, {why}"));
            outcome = Err(KeyReader::item(item, report).report_problem(path, fault));
        }
    }
    outcome
}
