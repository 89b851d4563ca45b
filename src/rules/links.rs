//! Which of a request's two links to a card counts.
//!
//! A request links the card that is there before it (`OldSmartcardUuid`) and the card that is there
//! after it (`NewSmartcardUuid`). To retire or disable the card after it would end a card that
//! somebody was just given; to activate the card before it would bring back one that was replaced.
//!
//! The request's type and the status that a rule sets both decide, and where either speaks against a
//! link, nothing is set. CM's reference gives the properties and the types, not which type fills
//! which property: what is unclear counts as "not this card".

use super::Rule;
use crate::domain::{CmEnums, CmRequest, RecordId};

/// The types that act on a card that exists before the request, by CM's names.
const OF_THE_OLD_CARD: &[&str] = &[
    "Retire",
    "Disable",
    "Revoke",
    "SuspendOrReinstate",
    "Suspend",
    "Reinstate",
    "Unblock",
    "OfflineUnblock",
    "OnlineUpdate",
    "TemporaryCardDisable",
    "TemporaryCardRetire",
];

/// The types that give somebody a card, by CM's names.
const OF_TWO_CARDS: &[&str] =
    &["Enroll", "Recover", "Renew", "Duplicate", "RecoverOnBehalf", "TemporaryCardEnroll"];

/// The statuses that a card has before and while it is used. Every other one ends or interrupts that.
const IN_USE: &[&str] = &["New", "Assigned", "Active"];

/// What a request's type says about its two links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LinkKind {
    OldCard,
    TwoCards,
    /// A type that has no name, or a name that only the site knows.
    Unknown,
}

impl LinkKind {
    fn of(request: &CmRequest, numbers: &CmEnums) -> Self {
        let name = numbers.request_type.name(request.request_type.number());
        let is_one_of = |names: &[&str]| {
            name.is_some_and(|name| names.iter().any(|known| known.eq_ignore_ascii_case(name)))
        };
        if is_one_of(OF_THE_OLD_CARD) {
            Self::OldCard
        } else if is_one_of(OF_TWO_CARDS) {
            Self::TwoCards
        } else {
            Self::Unknown
        }
    }
}

/// Whether a request can be about a record at all, whatever a rule sets.
pub(super) fn concerns(request: &CmRequest, record: RecordId, numbers: &CmEnums) -> bool {
    match LinkKind::of(request, numbers) {
        LinkKind::OldCard => request.old_card == Some(record),
        LinkKind::TwoCards | LinkKind::Unknown => request.names(record),
    }
}

/// Whether a request asks for what the rule sets, of this record.
pub(super) fn calls_for(
    rule: &Rule,
    request: &CmRequest,
    record: RecordId,
    numbers: &CmEnums,
) -> bool {
    let status = rule.set_status.0.as_str();
    let in_use = IN_USE.iter().any(|known| known.eq_ignore_ascii_case(status));
    let card = match LinkKind::of(request, numbers) {
        LinkKind::OldCard => request.old_card,
        LinkKind::TwoCards | LinkKind::Unknown if !in_use => request.old_card,
        LinkKind::TwoCards => request.new_card,
        LinkKind::Unknown => request.new_card.or(request.old_card),
    };
    card == Some(record)
}

/// Why a request that names the record does not ask for what the rule sets, in words.
pub(super) fn mismatch(request: &CmRequest, record: RecordId, numbers: &CmEnums) -> String {
    let kind = numbers.request_type_text(request.request_type);
    let (link, other, counts) = if request.old_card == Some(record) {
        ("OldSmartcardUuid", request.new_card, "NewSmartcardUuid")
    } else {
        ("NewSmartcardUuid", request.old_card, "OldSmartcardUuid")
    };
    let other = other.map_or_else(|| "no card".to_owned(), |other| other.to_string());
    format!(
        "request {} ({kind}) names record {record} only as {link}; what counts is {counts}, \
         which names {other}",
        request.id
    )
}
