//! The message of an error response, and the id under which the server logged it.
//!
//! The form of CM's errors is not documented, and what stands in front of CM responds in HTML. So this
//! searches where messages usually are, and never hands on a body as it came.

use uuid::Uuid;

use super::json::{self, Aliases, JsonItem};

/// The longest text that is taken over from a server, in characters.
const MAX_CHARS: usize = 200;

/// The longest text in which secrets are looked for, in characters.
const MAX_SEARCHED: usize = 4096;

/// The length of a GUID as text.
const GUID_LEN: usize = 36;

/// The properties of a JSON error that hold a message, the likeliest first: ASP.NET's, then OAuth's
/// and those of RFC 9457.
const TEXT_FIELDS: Aliases =
    &["Message", "ExceptionMessage", "error_description", "error", "detail", "title", "Reason"];

/// What a server says about its own failure.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ErrorText {
    /// One line of at most 200 characters, perhaps none.
    pub message: String,
    /// The id of the entry in the server's event log.
    pub correlation_id: Option<String>,
}

/// Finds message and correlation id in a body of any form.
pub fn error_text(body: &[u8]) -> ErrorText {
    complaint_without(body, str::to_owned)
}

/// The same, with `hide` removing secrets from the message before it is cut to a length.
pub fn complaint_without(body: &[u8], hide: impl Fn(&str) -> String) -> ErrorText {
    let text = String::from_utf8_lossy(body);
    let text = text.trim_start_matches('\u{feff}').trim();
    if is_binary(text) {
        return ErrorText::default();
    }
    let message = match json::item(text, TEXT_FIELDS) {
        Ok(json) => text_of(json).unwrap_or_else(|| text.to_owned()),
        Err(_) if text.starts_with('<') => title(text).unwrap_or_else(|| without_tags(text)),
        Err(_) => text.to_owned(),
    };
    let correlation_id = correlation_id(&message).or_else(|| correlation_id(text));
    ErrorText { message: single_line(&hide(&line(&message, MAX_SEARCHED))), correlation_id }
}

/// Whether one in eight of the first characters is none of a text's: compressed data, a picture.
fn is_binary(text: &str) -> bool {
    let odd =
        |c: &char| *c == char::REPLACEMENT_CHARACTER || (c.is_control() && !c.is_whitespace());
    let (mut seen, mut strange) = (0_usize, 0_usize);
    for c in text.chars().take(MAX_CHARS) {
        seen += 1;
        strange += usize::from(odd(&c));
    }
    strange * 8 > seen
}

/// One line of at most 200 characters, with runs of white space and control characters made one
/// space.
pub fn single_line(text: &str) -> String {
    line(text, MAX_CHARS)
}

fn line(text: &str, max: usize) -> String {
    let words = text.split(|c: char| c.is_whitespace() || c.is_control());
    let mut line = String::new();
    // A word is a character at least, and more than these are not shown.
    for word in words.filter(|word| !word.is_empty()).take(max) {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    match line.char_indices().nth(max) {
        Some((end, _)) => line.get(..end).map_or_else(String::new, |start| format!("{start}…")),
        None => line,
    }
}

fn text_of(json: JsonItem) -> Option<String> {
    match json {
        JsonItem::Text(text) => Some(text),
        JsonItem::Object(object) => {
            TEXT_FIELDS.iter().find_map(|name| object.text(name)).map(str::to_owned)
        }
        JsonItem::Null | JsonItem::Integer(_) | JsonItem::Other(_) => None,
    }
}

/// The title of an HTML page, unless it is empty.
fn title(html: &str) -> Option<String> {
    // Lowering ASCII only keeps every offset.
    let lower = html.to_ascii_lowercase();
    let open = lower.find("<title")?;
    let start = open + lower.get(open..)?.find('>')? + 1;
    let end = start + lower.get(start..)?.find('<')?;
    html.get(start..end).map(str::trim).filter(|title| !title.is_empty()).map(str::to_owned)
}

fn without_tags(html: &str) -> String {
    let mut text = String::new();
    for piece in html.split('<') {
        // A piece is the rest of a tag, then text; only the first may have no tag.
        let (_, after) = piece.split_once('>').unwrap_or(("", ""));
        text.push_str(after);
        text.push(' ');
        if text.len() > 8 * MAX_CHARS {
            break;
        }
    }
    text
}

/// The GUID that follows the word "correlation", else the first one. The stem is the same in the
/// languages that CM speaks.
fn correlation_id(text: &str) -> Option<String> {
    let named = text.to_ascii_lowercase().find("correlat").and_then(|at| text.get(at..));
    named.and_then(first_guid).or_else(|| first_guid(text))
}

/// The first hyphenated GUID that stands by itself.
fn first_guid(text: &str) -> Option<String> {
    text.split(|c: char| !c.is_ascii_hexdigit() && c != '-')
        .filter(|word| word.len() == GUID_LEN)
        .find_map(|word| Uuid::try_parse(word).ok())
        .map(|guid| guid.to_string())
}
