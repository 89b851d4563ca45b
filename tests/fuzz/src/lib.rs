//! What must hold of cardbridge's parsers, whatever they are given: one module a kind of input, each
//! with a `check` that panics where something does not hold.
//!
//! `tests/corpus.rs` includes the modules that need no access of their own, and replays the corpus
//! without a fuzzer.

pub mod atr;
pub mod card;
pub mod cm_json;
pub mod config;
#[cfg(fuzzing)]
pub mod exchange;
pub mod hostile;
#[cfg(fuzzing)]
pub mod tlv;
