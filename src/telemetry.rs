//! Logs: set-up, chains of causes, and ids that are shortened where the site wants that. And word to
//! the service manager.

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

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogOutput {
    /// For people, with colour on a terminal.
    Text,
    /// One JSON object a line.
    Json,
    /// For the journal, with every value as a field.
    Journal,
}

impl LogOutput {
    /// What suits where standard error goes.
    #[must_use]
    pub(crate) fn suitable() -> Self {
        if journal::is_on_stderr() { Self::Journal } else { Self::Text }
    }
}

/// Sends logs to standard error, or to the journal, from here on. What libraries log is kept to
/// warnings. Where there is no journal, standard error has to do, and that is told.
///
/// A second call in one process changes nothing.
pub(crate) fn init(level: LevelFilter, format: LogOutput, ids: IdRedaction) {
    let library = level.min(LevelFilter::WARN);
    // The bytes of a card are its id: they cannot be shortened, only left out.
    let bytes = if ids.show_full { level } else { level.min(LevelFilter::DEBUG) };
    let targets = Targets::new()
        .with_default(library)
        .with_target("cardbridge", level)
        .with_target("cardbridge::readers::transport", bytes);
    let registry = tracing_subscriber::registry().with(targets);
    let (no_journal, done) = match format {
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
    if done.is_err() {
        tracing::debug!("Logging already initialised");
    } else if let Some(error) = no_journal {
        tracing::warn!(%error, "Journal unavailable; logging to standard error");
    }
}

/// Lines for people, on standard error.
fn text<S>() -> impl Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let fields = debug_fn(|to, field, value| write_field(to, field, value)).delimited(" ");
    let layer = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    layer.with_ansi(colour()).fmt_fields(fields)
}

/// One field of a line: names of readers and words of servers come from outside, and must not
/// make lines of their own.
fn write_field(to: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    let text = format!("{value:?}");
    match field.name() {
        "message" => write!(to, "{}", escape_control_chars(&text)),
        name => write!(to, "{name}={}", escape_control_chars(&text)),
    }
}

/// A text with everything escaped that moves the cursor, turns the direction of writing or
/// cannot be seen.
#[must_use]
pub(crate) fn escape_control_chars(text: &str) -> Cow<'_, str> {
    if !text.chars().any(hidden) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if hidden(c) {
            escaped.extend(c.escape_unicode());
        } else {
            escaped.push(c);
        }
    }
    Cow::Owned(escaped)
}

/// Whether a character cannot be seen, or changes how others are shown: controls, format characters
/// (directions, joiners, tags), separators of lines, what is private or not assigned (Unicode's
/// general categories C*, Zl, Zp), and letters that are blank (`Default_Ignorable_Code_Point`).
fn hidden(c: char) -> bool {
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

/// A JSON text with everything escaped that [`escape_control_chars`] escapes. It means the same to every program.
#[must_use]
pub(crate) fn clean_json(json: &str) -> Cow<'_, str> {
    // Blanks between values are ASCII; in strings, those are escaped already.
    let shown = |c: char| c < ' ' || !hidden(c);
    if json.chars().all(shown) {
        return Cow::Borrowed(json);
    }
    let mut escaped = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if shown(c) {
            escaped.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _infallible = write!(escaped, "\\u{unit:04x}");
            }
        }
    }
    Cow::Owned(escaped)
}

/// Standard error for lines of JSON, each of which comes whole.
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

fn colour() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}

/// An error with its causes, `error: cause: cause of the cause`.
#[derive(Clone, Copy)]
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

impl fmt::Debug for ErrorChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// So many hex digits in a row are an id, not a word or a number.
const LONG_RUN: usize = 12;

/// How ids of cards and people appear in logs (`log.show_ids`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IdRedaction {
    /// Whether they appear whole.
    pub(crate) show_full: bool,
}

impl IdRedaction {
    /// The id, whole or as its first eight characters.
    pub(crate) fn show(self, id: impl fmt::Display) -> String {
        let text = id.to_string();
        if self.show_full { text } else { text.chars().take(8).chain(['…']).collect() }
    }

    /// A text with the ids in it, whole or each shortened: GUIDs, and other long runs of hex.
    #[must_use]
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
            if run.chars().filter(char::is_ascii_hexdigit).count() >= LONG_RUN {
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
    fn a_chain_is_printed_once_from_the_outside_in() {
        let error = Outer(io::Error::other("the inner"));
        assert_eq!(ErrorChain(&error).to_string(), "the outer: the inner");
    }

    #[test]
    fn what_does_not_belong_on_a_terminal_is_escaped() {
        let hostile = "Reader\u{1b}[2J\u{202e}x\u{200b}\r\n";
        assert_eq!(
            escape_control_chars(hostile),
            "Reader\\u{1b}[2J\\u{202e}x\\u{200b}\\u{d}\\u{a}"
        );
        assert_eq!(escape_control_chars("Lesegerät [CCID] 00"), "Lesegerät [CCID] 00");
    }

    #[test]
    fn nothing_that_hides_or_turns_text_is_shown_and_every_script_is() {
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
    fn ids_in_words_are_shortened_too_and_words_are_not() {
        let text = "no open request names record 17cf063d-e337-4aa9-a822-346554ddd3c9, decade 2026";
        let short = "no open request names record 17cf063d…, decade 2026";
        assert_eq!(IdRedaction { show_full: false }.in_text(text), short);
        assert_eq!(IdRedaction { show_full: true }.in_text(text), text);
    }

    #[test]
    fn ids_are_shortened_where_the_site_wants_that() {
        let id = "bc88f13f-83ba-4037-8262-46eba1291c6e";
        assert_eq!(IdRedaction { show_full: false }.show(id), "bc88f13f…");
        assert_eq!(IdRedaction { show_full: true }.show(id), id);
    }
}
