//! The vocabulary: readers, cards, records, requests, entries and outcomes.
//!
//! A value here exists only if it was parsed; what is stored or sent derives its one text form
//! from here. This module knows no other module and does nothing.

mod atr;
mod audit;
mod audit_chain;
mod card;
mod card_key;
mod clock;
mod cm;
mod cm_enums;
mod cm_result;
mod entry;
mod id_rule;
mod inventory;
mod metrics;
mod not_identified;
mod outcome;
mod placeholder;
mod probe_plan;
mod problem;
mod reader;
mod reader_event;
mod strength;
mod unavailable;
mod views;

pub use atr::{Atr, AtrPattern, ParseAtrError, ParseAtrPatternError};
pub use audit::{AuditKind, AuditLine, AuditRecord};
pub use audit_chain::{ChainBatch, ChainFault, ChainFaultKind, ChainPosition};
pub use card::{
    Candidate, CardId, CardIdError, CardIdentity, Family, IdTrust, Serial, UnknownEnumValue,
};
pub use card_key::CardKey;
pub use clock::{BootMoment, ClockWitness};
pub use cm::{CardRecord, CardStatus, CmRequest, RecordId, RequestId, RequestStatus, RequestType};
pub use cm_enums::{CmEnums, EnumMap};
pub use cm_result::{CallError, CompleteRequestResult, LookupResult, SetStatusResult};
pub use entry::{CardEvent, Decision, Entry, EntryId, LastSeenCard, Settlement, Stage, Trigger};
pub use id_rule::IdRule;
pub use inventory::{Inventory, InventoryNumber};
pub use metrics::{CallMetrics, CallStats, CmOperation, EngineCounters, Metrics, ProbeResult};
pub use not_identified::{NotIdentified, NotIdentifiedReason};
pub use outcome::{Outcome, ParkReason};
pub use placeholder::is_placeholder;
pub use probe_plan::{CardRule, ProbePlan, ProbeSettings};
pub use problem::Problem;
pub use reader::{
    Glob, InsertionId, ReaderAttributes, ReaderMatch, ReaderName, ReaderRule, ReaderRules,
    ReaderSettings, Removal,
};
pub use reader_event::{ApduExchange, InsertedCard, PcscdInstance, ReaderEvent};
pub use strength::Strength;
pub use unavailable::{ClientCertFault, ProxyFault, TlsFault, UnavailableReason};
pub use views::{
    CardView, CmView, CredentialsView, EntryView, OutboxView, PcscdView, ReaderView, StatusView,
};

/// Whether a stored field says no more than its absence.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
const fn is_false(value: &bool) -> bool {
    !*value
}
