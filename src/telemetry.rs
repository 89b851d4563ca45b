//! Logs: set-up, error chains, escaping of text from outside, and redacted ids; and systemd's
//! notifications.

use std::borrow::Cow;
use std::error::Error;
use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal};

use tracing::Subscriber;
use tracing::field::Field;
use tracing_subscriber::Layer;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

pub(crate) use tracing::level_filters::LevelFilter;

mod journal;
mod sd_notify;

pub(crate) use sd_notify::{Notifier, NotifyState};

use journal::Journal;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogOutput {
    /// Text, with colour on a terminal.
    Text,
    /// One JSON object a line.
    Json,
    /// The journal, with every value as a field.
    Journal,
}

impl LogOutput {
    /// The journal if standard error is connected to it, else text.
    pub(crate) fn suitable() -> Self {
        if journal::is_on_stderr() { Self::Journal } else { Self::Text }
    }
}

/// Sets up logging. Libraries log warnings at most. Without a journal, logs go to standard error.
/// A second call has no effect.
pub(crate) fn init(level: LevelFilter, output: LogOutput, ids: IdRedaction) {
    let library = level.min(LevelFilter::WARN);
    // A card's bytes contain its id, and cannot be shortened.
    let bytes = if ids.show_full { level } else { level.min(LevelFilter::DEBUG) };
    let targets = Targets::new()
        .with_default(library)
        .with_target("cardbridge", level)
        .with_target("cardbridge::readers::transport", bytes);
    let registry = tracing_subscriber::registry().with(targets);
    let (no_journal, initialised) = match output {
        LogOutput::Text => (None, registry.with(text()).try_init()),
        LogOutput::Json => {
            let json = tracing_subscriber::fmt::layer().with_writer(|| JsonStderr).json();
            (None, registry.with(json).try_init())
        }
        LogOutput::Journal => match Journal::connect() {
            Ok(journal) => (None, registry.with(journal).try_init()),
            Err(error) => (Some(error), registry.with(text()).try_init()),
        },
    };
    if initialised.is_err() {
        tracing::debug!("Logging already initialised");
    } else if let Some(error) = no_journal {
        tracing::warn!(%error, "Journal unavailable; logging to standard error");
    }
}

fn text<S: Subscriber + for<'a> LookupSpan<'a>>() -> impl Layer<S> {
    let fields = debug_fn(|to, field, value| write_field(to, field, value)).delimited(" ");
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let colour = io::stderr().is_terminal() && !no_color;
    let layer = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    layer.with_ansi(colour).fmt_fields(fields)
}

/// Text from outside must not start a line of its own.
fn write_field(to: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    let text = format!("{value:?}");
    match field.name() {
        "message" => write!(to, "{}", escape_control_chars(&text)),
        name => write!(to, "{name}={}", escape_control_chars(&text)),
    }
}

/// Escapes every character that is invisible or changes how others appear.
pub(crate) fn escape_control_chars(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_hidden(c) {
            escaped.extend(c.escape_unicode());
        } else {
            escaped.push(c);
        }
    }
    Cow::Owned(escaped)
}

/// Control and format characters, line separators, private and unassigned ones (general categories
/// C*, Zl, Zp), and blank letters (`Default_Ignorable_Code_Point`).
fn is_hidden(c: char) -> bool {
    use unicode_properties::{GeneralCategoryGroup as Group, UnicodeGeneralCategory as _};
    if c.is_ascii() {
        return c.is_ascii_control();
    }
    c.general_category_group() == Group::Other
        || matches!(c,
            '\u{2028}' | '\u{2029}' | '\u{34f}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{2800}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{ffa0}'
            | '\u{e0000}'..='\u{e0fff}')
}

/// Escapes the same characters in a JSON text, by JSON's own escapes.
pub(crate) fn clean_json(json: &str) -> Cow<'_, str> {
    // ASCII control characters stand between values only: in strings, JSON escapes them.
    let is_hidden = |c: char| c >= ' ' && is_hidden(c);
    if !json.chars().any(is_hidden) {
        return Cow::Borrowed(json);
    }
    let mut escaped = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if is_hidden(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _infallible = write!(escaped, "\\u{unit:04x}");
            }
        } else {
            escaped.push(c);
        }
    }
    Cow::Owned(escaped)
}

/// Standard error for lines of JSON: each write is one line.
struct JsonStderr;

impl io::Write for JsonStderr {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        io::stderr().write_all(clean_json(&text).as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// Displays an error with its causes: `error: cause: cause of the cause`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ErrorChain<'a>(pub(crate) &'a (dyn Error + 'a));

impl fmt::Display for ErrorChain<'_> {
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

/// A run of so many hex digits is an id.
const MIN_ID_DIGITS: usize = 12;

/// How ids appear in logs (`log.show_ids`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IdRedaction {
    pub(crate) show_full: bool,
}

impl IdRedaction {
    /// The full id, or its first eight characters.
    pub(crate) fn show(self, id: impl fmt::Display) -> String {
        let text = id.to_string();
        if self.show_full { text } else { text.chars().take(8).chain(['…']).collect() }
    }

    /// The text with every id in it shown so: GUIDs, and other long runs of hex digits.
    pub(crate) fn in_text(self, text: &str) -> String {
        if self.show_full {
            return text.to_owned();
        }
        let of_id = |c: char| c.is_ascii_hexdigit() || c == '-';
        let mut shown = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(start) = rest.find(of_id) {
            let (before, run) = rest.split_at(start);
            let (run, after) = run.split_at(run.find(|c| !of_id(c)).unwrap_or(run.len()));
            shown.push_str(before);
            if run.chars().filter(char::is_ascii_hexdigit).count() >= MIN_ID_DIGITS {
                shown.push_str(&self.show(run));
            } else {
                shown.push_str(run);
            }
            rest = after;
        }
        shown.push_str(rest);
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the outer")]
    struct Outer(#[source] io::Error);

    #[test]
    fn error_chain_prints_each_cause_once() {
        let error = Outer(io::Error::other("the inner"));
        assert_eq!(ErrorChain(&error).to_string(), "the outer: the inner");
    }

    #[test]
    fn control_characters_are_escaped() {
        let hostile = "Reader\u{1b}[2J\u{202e}x\u{200b}\r\n";
        assert_eq!(
            escape_control_chars(hostile),
            "Reader\\u{1b}[2J\\u{202e}x\\u{200b}\\u{d}\\u{a}"
        );
        assert_eq!(escape_control_chars("Lesegerät [CCID] 00"), "Lesegerät [CCID] 00");
    }

    #[test]
    fn hidden_characters_are_escaped_and_scripts_are_not() {
        let ranges = [
            (0, 0x1f),
            (0x7f, 0x9f),
            (0xad, 0xad),
            (0x61c, 0x61c),
            (0x180e, 0x180e),
            (0x200b, 0x200f),
            (0x2028, 0x202e),
            (0x2060, 0x206f),
            (0xfeff, 0xfeff),
            (0xfff9, 0xfffb),
            (0xe000, 0xe000),
            (0xe0000, 0xe007f),
            (0x1d173, 0x1d17a),
            (0x34f, 0x34f),
            (0x3164, 0x3164),
            (0xe0100, 0xe01ef),
        ];
        for c in
            ranges.into_iter().flat_map(|(first, last)| first..=last).filter_map(char::from_u32)
        {
            let text = format!("a{c}b");
            assert!(!escape_control_chars(&text).contains(c), "{c:?}");
            let json = serde_json::to_string(&text).unwrap();
            let cleaned = clean_json(&json);
            assert!(!cleaned.contains(c), "{c:?}");
            assert_eq!(
                serde_json::from_str::<String>(&cleaned).unwrap(),
                text,
                "it means the same"
            );
        }
        for text in ["Příliš", "नमस्ते", "قارئ", "読取装置", "e\u{301}", "🪪", "a\u{a0}b", "„x“ – €"]
        {
            assert_eq!((&*escape_control_chars(text), &*clean_json(text)), (text, text));
        }
        let pretty = "{\n  \"a\": 1\n}";
        assert_eq!(clean_json(pretty), pretty);
    }

    #[test]
    fn ids_in_text_are_shortened() {
        let text = "no open request names record 17cf063d-e337-4aa9-a822-346554ddd3c9, decade 2026";
        let short = "no open request names record 17cf063d…, decade 2026";
        assert_eq!(IdRedaction { show_full: false }.in_text(text), short);
        assert_eq!(IdRedaction { show_full: true }.in_text(text), text);
    }

    #[test]
    fn ids_are_shortened_unless_shown_full() {
        let id = "bc88f13f-83ba-4037-8262-46eba1291c6e";
        assert_eq!(IdRedaction { show_full: false }.show(id), "bc88f13f…");
        assert_eq!(IdRedaction { show_full: true }.show(id), id);
    }
}
