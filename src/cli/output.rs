//! Standard output: text for people, or JSON for programs.

use std::io::{self, StdoutLock, Write};

use serde::Serialize;

use super::exit::{CommandError, Exit};
use super::text::{clean_json, escape_control_chars};

/// Where a command's data goes.
pub(super) struct Output {
    to: StdoutLock<'static>,
    json: bool,
}

impl Output {
    pub(super) fn stdout(json: bool) -> Self {
        Self { to: io::stdout().lock(), json }
    }

    pub(super) const fn is_json(&self) -> bool {
        self.json
    }

    /// One line for people; what does not belong on a terminal is escaped.
    pub(super) fn line(&mut self, line: &str) -> Result<(), CommandError> {
        writeln!(self.to, "{}", escape_control_chars(line))?;
        Ok(self.to.flush()?)
    }

    /// One object on one line.
    pub(super) fn object(&mut self, value: &impl Serialize) -> Result<(), CommandError> {
        let json = serde_json::to_string(value).map_err(io::Error::from)?;
        writeln!(self.to, "{}", clean_json(&json))?;
        Ok(self.to.flush()?)
    }

    /// One value, laid out for reading.
    pub(super) fn value(&mut self, value: &impl Serialize) -> Result<Exit, CommandError> {
        let json = serde_json::to_string_pretty(value).map_err(io::Error::from)?;
        writeln!(self.to, "{}", clean_json(&json))?;
        self.to.flush()?;
        Ok(Exit::Done)
    }

    /// A text of our own, as it is.
    pub(super) fn text(&mut self, text: &str) -> Result<Exit, CommandError> {
        self.bytes(text.as_bytes())
    }

    /// The same, where it comes as bytes.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Result<Exit, CommandError> {
        self.to.write_all(bytes)?;
        self.to.flush()?;
        Ok(Exit::Done)
    }
}
