//! The JSON that crosses a border: tolerant in, exact out.
//!
//! Conversions to and from [`crate::domain`], and nothing else: no sockets, no decisions. What is
//! read here came from outside, so every byte sequence ends in a value or in a typed error.

pub mod cm;
pub mod control;
mod error_text;
mod json;
