//! Logs: set-up, chains of causes, and ids that are shortened where the site wants that.

use std::error::Error;
use std::fmt;
use std::io::IsTerminal;

use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

pub use tracing::level_filters::LevelFilter;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people, with colour on a terminal.
    Text,
    /// One JSON object a line.
    Json,
}

/// Sends logs to standard error from here on. What libraries log is kept to warnings.
///
/// A second call in one process changes nothing.
pub fn init(level: LevelFilter, format: Format) {
    let library = level.min(LevelFilter::WARN);
    let targets = Targets::new().with_default(library).with_target("cardbridge", level);
    let registry = tracing_subscriber::registry().with(targets);
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let done = match format {
        Format::Text => registry.with(layer.with_ansi(colour())).try_init(),
        Format::Json => registry.with(layer.json()).try_init(),
    };
    if done.is_err() {
        tracing::debug!("Logs were set up before");
    }
}

fn colour() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}

/// An error with its causes, `error: cause: cause of the cause`.
#[derive(Clone, Copy)]
pub struct Chain<'a>(pub &'a (dyn Error + 'a));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl fmt::Debug for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How ids of cards and people appear in logs (`log.show_ids`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ids {
    /// Whether they appear whole.
    pub whole: bool,
}

impl Ids {
    /// The id, whole or as its first eight characters.
    pub fn show(self, id: impl fmt::Display) -> String {
        let text = id.to_string();
        if self.whole { text } else { text.chars().take(8).chain(['…']).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the outer")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn a_chain_is_printed_once_from_the_outside_in() {
        let error = Outer(std::io::Error::other("the inner"));
        assert_eq!(Chain(&error).to_string(), "the outer: the inner");
    }

    #[test]
    fn ids_are_shortened_where_the_site_wants_that() {
        let id = "bc88f13f-83ba-4037-8262-46eba1291c6e";
        assert_eq!(Ids { whole: false }.show(id), "bc88f13f…");
        assert_eq!(Ids { whole: true }.show(id), id);
    }
}
