//! cardbridge: PC/SC readers in, MIM Certificate Management (CM) out.
//!
//! Three layers, held by `tests/layers`: pure modules that read no clock, file or socket
//! ([`domain`], [`card`], [`engine`], [`rules`], [`wire`], [`config`]), edges that each own one
//! thing outside ([`readers`], [`outbox`], [`cm`], `control`, `telemetry`), and the shell
//! that joins them (`app`, `diagnostics`, [`cli`]). `docs/architecture.md` draws the picture.

mod app;
pub mod card;
pub mod cli;
pub mod cm;
pub mod config;
mod control;
mod diagnostics;
pub mod domain;
pub mod engine;
pub mod outbox;
pub mod readers;
pub mod rules;
mod telemetry;
pub mod wire;
