//! The vocabulary: readers, cards, records, requests, entries and outcomes.
//!
//! A value here exists only if it was parsed; what is stored or sent derives its one text form
//! from here. This module knows no other module and does nothing.

/// Gives enums the names of strum's `IntoStaticStr` in configuration, output and storage.
macro_rules! enum_names {
    ($($name:ident),+) => {$(
        impl $name {
            pub const fn as_str(self) -> &'static str {
                self.into_str()
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    )+};
}

mod atr;
mod audit;
mod card;
mod cm;
mod entry;
mod placeholder;
mod probe;
mod reader;
mod reader_event;
mod unavailable;
mod views;

pub use atr::{Atr, AtrPattern, ParseAtrError, ParseAtrPatternError};
pub use audit::{
    AuditKind, AuditLine, AuditRecord, ChainBatch, ChainFault, ChainFaultKind, ChainPosition,
};
pub use card::{
    Candidate, CardId, CardIdError, CardIdentity, CardKey, Family, IdRule, IdTrust, Inventory,
    InventoryNumber, Serial, Strength,
};
pub use cm::{
    CallError, CardRecord, CardStatus, CmEnums, CmRequest, CompleteRequestResult, EnumMap,
    LookupResult, RecordId, RequestId, RequestStatus, RequestType, SetStatusResult,
};
pub use entry::{
    BootMoment, CardEvent, ClockWitness, Decision, Entry, EntryId, LastSeenCard, Outcome,
    ParkReason, Settlement, Stage, Trigger,
};
pub use placeholder::is_placeholder;
pub use probe::{CardRule, NotIdentified, NotIdentifiedReason, ProbePlan, ProbeSettings};
pub use reader::{
    Glob, InsertionId, ReaderAttributes, ReaderMatch, ReaderName, ReaderRule, ReaderRules,
    ReaderSettings, Removal,
};
pub use reader_event::{ApduExchange, InsertedCard, PcscdInstance, ReaderEvent};
pub use unavailable::{ClientCertFault, Problem, ProxyFault, TlsFault, UnavailableReason};
pub use views::{
    CallMetrics, CallStats, CardView, CmOperation, CmView, CredentialsView, EngineCounters,
    EntryView, Metrics, OutboxView, PcscdView, ProbeResult, ReaderView, StatusView,
};
