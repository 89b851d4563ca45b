//! The vocabulary: readers, cards, records, requests, entries and outcomes.
//!
//! A value here exists only if it was parsed; what is stored or sent derives its one text form
//! from here. This module knows no other module and does nothing.

mod atr;
mod audit;
mod away;
mod call;
mod card;
mod card_key;
mod chain;
mod clock;
mod cm;
mod entry;
mod id_rule;
mod instance;
mod inventory;
mod metrics;
mod not_identified;
mod numbers;
mod outcome;
mod placeholder;
mod probing;
mod reader;
mod snapshot;
mod strength;

pub use atr::{Atr, AtrPattern, ParseAtrError, ParseAtrPatternError};
pub use audit::{AuditKind, AuditLine, AuditRecord};
pub use away::{AwayReason, CertificateFault, ProxyFault, TlsFault};
pub use call::{CallError, CompleteAnswer, Found, PutAnswer};
pub use card::{Candidate, CardId, CardIdError, Family, Identity, Serial, Trust, UnknownName};
pub use card_key::CardKey;
pub use chain::{ChainFault, ChainFaultKind, ChainMark, ChainPiece};
pub use clock::{BootMoment, ClockWitness};
pub use cm::{CardStatus, Record, RecordId, Request, RequestId, RequestStatus, RequestType};
pub use entry::{Decision, Draft, Entry, EntryId, Settlement, Stage, Stay, Trigger};
pub use id_rule::IdRule;
pub use instance::PcscdInstance;
pub use inventory::{Inventory, Number};
pub use metrics::{Call, CallTally, Calls, Metrics, Probed, Tally};
pub use not_identified::{NotIdentified, NotIdentifiedReason};
pub use numbers::{NumberMap, Numbers};
pub use outcome::{Outcome, ParkReason};
pub use placeholder::is_placeholder;
pub use probing::{CardRule, Plan, Probing};
pub use reader::{
    Departure, Glob, InsertionId, Place, ReaderAttributes, ReaderMatch, ReaderName, ReaderRule,
    ReaderRules,
};
pub use snapshot::{
    CardView, CredentialsView, EntryView, LinkView, OutboxView, ReaderView, ServiceView, Snapshot,
};
pub use strength::Strength;

/// Whether a stored field says no more than its absence.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
const fn is_false(value: &bool) -> bool {
    !*value
}
