//! Parsers of values: each gives the value, or a problem with a remedy.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use humantime::format_duration;
use toml::Value;

use crate::domain::Problem;

/// The longest part of a wrong value in a message, in characters.
const SHOWN: usize = 60;

/// The longest name of a credential for systemd.
const MAX_BARE_NAME: usize = 255;

/// The known name that the fewest typing errors make from `word`, if that is plausible.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let folded = word.to_lowercase();
    let plausible = folded.chars().count().div_ceil(3);
    known
        .into_iter()
        .map(|known| (strsim::levenshtein(&folded, &known.to_lowercase()), known))
        .filter(|(errors, _)| *errors <= plausible)
        .min_by_key(|(errors, _)| *errors)
        .map(|(_, known)| known)
}

/// Text in a message: quoted, escaped and shortened.
pub(super) fn quote(text: &str) -> String {
    let end = text.chars().nth(SHOWN).map(|_| '…');
    format!("{:?}", text.chars().take(SHOWN).chain(end).collect::<String>())
}

pub(super) fn quote_value(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), quote)
}

pub(super) const fn type_name(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a string",
        Value::Integer(_) => "an integer",
        Value::Float(_) => "a float",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a date or time",
        Value::Array(_) => "a list",
        Value::Table(_) => "a table",
    }
}

pub(super) fn wrong_type(value: &Value, wanted: &str, remedy: impl Into<String>) -> Problem {
    Problem::new(format!("is {}, not {wanted}", type_name(value)), remedy)
}

pub(super) fn text(value: &Value) -> Result<&str, Problem> {
    value.as_str().ok_or_else(|| wrong_type(value, "a string", "put it in quotes"))
}

/// Text for one place of one line: a name, a label, a role.
pub(super) fn single_line(value: &Value) -> Result<String, Problem> {
    let text = text(value)?;
    if text.trim().is_empty() {
        Err(Problem::new("is empty", "write something there, or remove the key"))
    } else if text.trim() != text || text.contains(char::is_control) {
        let what = format!("{} has blanks around it or control characters in it", quote(text));
        Err(Problem::new(what, "remove them"))
    } else {
        Ok(text.to_owned())
    }
}

/// The name of a group of this system.
pub(super) fn group(value: &Value) -> Result<String, Problem> {
    let name = single_line(value)?;
    if name.contains([':', ',', '/', ' ']) {
        let what = format!("{} is no name of a group", quote(&name));
        return Err(Problem::new(what, "write it as /etc/group has it"));
    }
    Ok(name)
}

pub(super) fn boolean(value: &Value) -> Result<bool, Problem> {
    value.as_bool().ok_or_else(|| wrong_type(value, "true or false", "write true or false"))
}

/// An integer within bounds, in the type of the bounds.
pub(super) fn integer<T>(bounds: RangeInclusive<T>) -> impl FnOnce(&Value) -> Result<T, Problem>
where
    T: TryFrom<i64> + PartialOrd + std::fmt::Display,
{
    move |value| {
        let (min, max) = (bounds.start(), bounds.end());
        let remedy = format!("give a number from {min} to {max}");
        let number = value.as_integer().ok_or_else(|| wrong_type(value, "an integer", &*remedy))?;
        match T::try_from(number) {
            Ok(fits) if bounds.contains(&fits) => Ok(fits),
            Ok(_) | Err(_) => Err(Problem::new(format!("{number} is out of range"), remedy)),
        }
    }
}

/// A duration such as `"10s"`, within bounds.
pub(super) fn duration(
    bounds: RangeInclusive<Duration>,
) -> impl FnOnce(&Value) -> Result<Duration, Problem> {
    move |value| {
        let remedy = r#"write a number and a unit, such as "10s", "5m" or "30d""#;
        let text = value.as_str().ok_or_else(|| wrong_type(value, "a duration", remedy))?;
        let duration = parse_duration(text)
            .ok_or_else(|| Problem::new(format!("{} is no duration", quote(text)), remedy))?;
        if bounds.contains(&duration) {
            return Ok(duration);
        }
        let side = if duration < *bounds.start() { "short" } else { "long" };
        let (min, max) = (format_duration(*bounds.start()), format_duration(*bounds.end()));
        let what = format!("{} is too {side}", quote(text));
        Err(Problem::new(what, format!("give a duration from {min} to {max}")))
    }
}

fn parse_duration(text: &str) -> Option<Duration> {
    // humantime panics where a sum overflows: it gets no number that large.
    let absurd = |digits: &str| digits.len() > 9;
    if text.len() > 40 || text.split(|c: char| !c.is_ascii_digit()).any(absurd) {
        return None;
    }
    humantime::parse_duration(text).ok()
}

/// One of some known values, by its name.
pub(super) fn choice<T: Copy>(
    known: &[T],
    name: impl Fn(T) -> &'static str,
) -> impl Fn(&Value) -> Result<T, Problem> {
    move |value| {
        let text = text(value)?;
        if let Some(meant) = known.iter().find(|known| name(**known) == text) {
            return Ok(*meant);
        }
        let names = known.iter().map(|known| name(*known));
        let remedy = match nearest(text, names.clone()) {
            Some(meant) => format!("did you mean {meant:?}?"),
            None => format!("use one of {}", names.collect::<Vec<_>>().join(", ")),
        };
        Err(Problem::new(format!("{} is not known here", quote(text)), remedy))
    }
}

/// An absolute path of a file.
pub(super) fn path(value: &Value) -> Result<PathBuf, Problem> {
    let text = path_text(value)?;
    if text.starts_with('/') {
        Ok(PathBuf::from(text))
    } else {
        let what = format!("{} is not an absolute path", quote(text));
        Err(Problem::new(what, "write the whole path from / on"))
    }
}

/// The path of a file with a secret or a certificate in it: absolute, or the bare name of a
/// credential. It is not shown: it may be the secret itself.
pub(super) fn credential(value: &Value) -> Result<PathBuf, Problem> {
    let text = path_text(value)?;
    let bare = !text.contains('/') && !matches!(text, "." | "..");
    if text.starts_with('/') || (bare && text.len() <= MAX_BARE_NAME) {
        Ok(PathBuf::from(text))
    } else {
        Err(Problem::new(
            "is neither an absolute path nor the bare name of a credential",
            "write the whole path from / on, or a name without / for a file in \
             $CREDENTIALS_DIRECTORY",
        ))
    }
}

/// The path of a Unix socket.
pub(super) fn socket(value: &Value) -> Result<PathBuf, Problem> {
    /// `sockaddr_un` on Linux has 108 bytes for the path, the last of them zero (unix(7)).
    const MAX_SOCKET_PATH: usize = 107;
    let path = path(value)?;
    let length = path.as_os_str().len();
    if length > MAX_SOCKET_PATH {
        let what = format!("is {length} bytes long, too long for a socket");
        return Err(Problem::new(what, format!("use a path of {MAX_SOCKET_PATH} bytes at most")));
    }
    Ok(path)
}

fn path_text(value: &Value) -> Result<&str, Problem> {
    let text = text(value)?;
    if text.is_empty() {
        Err(Problem::new("is empty", "write the path of the file, or remove the key"))
    } else if text.contains(char::is_control) {
        Err(Problem::new("has control characters in it", "remove them"))
    } else if text.ends_with('/') {
        Err(Problem::new("is the path of a directory", "write the path of a file"))
    } else {
        Ok(text)
    }
}
