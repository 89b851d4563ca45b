//! What a value has to be, and what is wrong with one that is not.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use humantime::format_duration;
use toml::Value;

use super::problem::ValueError;
use super::suggest::nearest;

/// How much of a wrong value a message shows.
const SHOWN: usize = 60;

/// The longest bare name that systemd takes for a credential.
const MAX_BARE_NAME: usize = 255;

/// Some text as messages show it: quoted, escaped, and not endless.
pub(super) fn quote(text: &str) -> String {
    if text.chars().nth(SHOWN).is_none() {
        format!("{text:?}")
    } else {
        format!("{:?}", text.chars().take(SHOWN).chain(['…']).collect::<String>())
    }
}

/// A value as messages show it.
pub(super) fn quote_value(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), quote)
}

/// What kind of value it is, in words.
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

/// A value of the wrong kind.
pub(super) fn wrong_type(value: &Value, wanted: &str, remedy: impl Into<String>) -> ValueError {
    ValueError::new(format!("is {}, not {wanted}", type_name(value)), remedy)
}

/// Any text.
pub(super) fn text(value: &Value) -> Result<&str, ValueError> {
    value.as_str().ok_or_else(|| wrong_type(value, "a string", "put it in quotes"))
}

/// Text that stands in one place of one line: a name, a label, a role.
pub(super) fn single_line(value: &Value) -> Result<String, ValueError> {
    let text = text(value)?;
    if text.trim().is_empty() {
        Err(ValueError::new("is empty", "write something there, or remove the key"))
    } else if text.trim() != text || text.contains(char::is_control) {
        let what = format!("{} has blanks around it or control characters in it", quote(text));
        Err(ValueError::new(what, "remove them"))
    } else {
        Ok(text.to_owned())
    }
}

/// The name of a group of this system.
pub(super) fn group(value: &Value) -> Result<String, ValueError> {
    let name = single_line(value)?;
    if name.contains([':', ',', '/', ' ']) {
        let what = format!("{} is no name of a group", quote(&name));
        return Err(ValueError::new(what, "write it as /etc/group has it"));
    }
    Ok(name)
}

/// `true` or `false`.
pub(super) fn boolean(value: &Value) -> Result<bool, ValueError> {
    value.as_bool().ok_or_else(|| wrong_type(value, "true or false", "write true or false"))
}

/// An integer within bounds, in whatever type holds those bounds.
pub(super) fn integer<T>(bounds: RangeInclusive<T>) -> impl FnOnce(&Value) -> Result<T, ValueError>
where
    T: TryFrom<i64> + PartialOrd + std::fmt::Display,
{
    move |value| {
        let (min, max) = (bounds.start(), bounds.end());
        let remedy = format!("give a number from {min} to {max}");
        let number = value.as_integer().ok_or_else(|| wrong_type(value, "an integer", &*remedy))?;
        match T::try_from(number) {
            Ok(fits) if bounds.contains(&fits) => Ok(fits),
            Ok(_) | Err(_) => Err(ValueError::new(format!("{number} is out of range"), remedy)),
        }
    }
}

/// A duration such as `"10s"`, within bounds.
pub(super) fn duration(
    bounds: RangeInclusive<Duration>,
) -> impl FnOnce(&Value) -> Result<Duration, ValueError> {
    move |value| {
        let remedy = r#"write a number and a unit, such as "10s", "5m" or "30d""#;
        let text = value.as_str().ok_or_else(|| wrong_type(value, "a duration", remedy))?;
        let duration = parse_duration(text)
            .ok_or_else(|| ValueError::new(format!("{} is no duration", quote(text)), remedy))?;
        if bounds.contains(&duration) {
            return Ok(duration);
        }
        let side = if duration < *bounds.start() { "short" } else { "long" };
        let (min, max) = (format_duration(*bounds.start()), format_duration(*bounds.end()));
        let what = format!("{} is too {side}", quote(text));
        Err(ValueError::new(what, format!("give a duration from {min} to {max}")))
    }
}

fn parse_duration(text: &str) -> Option<Duration> {
    // humantime panics where a sum of absurd numbers overflows: let it see no absurd number.
    let absurd = |digits: &str| digits.len() > 9;
    if text.len() > 40 || text.split(|c: char| !c.is_ascii_digit()).any(absurd) {
        return None;
    }
    humantime::parse_duration(text).ok()
}

/// One of some known words.
pub(super) fn choice<T: Copy>(known: &[(&str, T)]) -> impl FnOnce(&Value) -> Result<T, ValueError> {
    move |value| {
        let text = text(value)?;
        let names = known.iter().map(|(name, _)| *name);
        if let Some((_, meant)) = known.iter().find(|(name, _)| *name == text) {
            return Ok(*meant);
        }
        let remedy = match nearest(text, names.clone()) {
            Some(meant) => format!("did you mean {meant:?}?"),
            None => format!("use one of {}", names.collect::<Vec<_>>().join(", ")),
        };
        Err(ValueError::new(format!("{} is not known here", quote(text)), remedy))
    }
}

/// An absolute path of a file.
pub(super) fn path(value: &Value) -> Result<PathBuf, ValueError> {
    let text = path_text(value)?;
    if text.starts_with('/') {
        Ok(PathBuf::from(text))
    } else {
        let what = format!("{} is not an absolute path", quote(text));
        Err(ValueError::new(what, "write the whole path from / on"))
    }
}

/// The path of a file with a secret or a certificate in it: absolute, or the bare name of a
/// credential. It is not told: it may be the secret itself.
pub(super) fn credential(value: &Value) -> Result<PathBuf, ValueError> {
    let text = path_text(value)?;
    let bare = !text.contains('/') && !matches!(text, "." | "..");
    if text.starts_with('/') || (bare && text.len() <= MAX_BARE_NAME) {
        Ok(PathBuf::from(text))
    } else {
        Err(ValueError::new(
            "is neither an absolute path nor the bare name of a credential",
            "write the whole path from / on, or a name without / for a file in \
             $CREDENTIALS_DIRECTORY",
        ))
    }
}

/// The path of a Unix socket.
pub(super) fn socket(value: &Value) -> Result<PathBuf, ValueError> {
    /// `sockaddr_un` on Linux has 108 bytes for the path, the last of them zero (unix(7)).
    const MAX_SOCKET_PATH: usize = 107;
    let path = path(value)?;
    let length = path.as_os_str().len();
    if length > MAX_SOCKET_PATH {
        let what = format!("is {length} bytes long, too long for a socket");
        return Err(ValueError::new(
            what,
            format!("use a path of {MAX_SOCKET_PATH} bytes at most"),
        ));
    }
    Ok(path)
}

fn path_text(value: &Value) -> Result<&str, ValueError> {
    let text = text(value)?;
    if text.is_empty() {
        Err(ValueError::new("is empty", "write the path of the file, or remove the key"))
    } else if text.contains(char::is_control) {
        Err(ValueError::new("has control characters in it", "remove them"))
    } else if text.ends_with('/') {
        Err(ValueError::new("is the path of a directory", "write the path of a file"))
    } else {
        Ok(text)
    }
}
