//! The environment: `CARDBRIDGE_<SECTION>__<KEY>` sets the key of that section.

use toml::Value;

use super::keys::{KEYS, KeySpec, PREFIX, ValueKind, WILDCARD};
use super::problem::ValueError;
use super::suggest::nearest;
use super::value::quote;

/// The variable that names the main file. It is the command line's, not ours.
const MAIN_FILE: &str = "CARDBRIDGE_CONFIG";

/// What a variable sets.
pub(super) struct EnvSetting {
    pub(super) path: String,
    pub(super) value: Value,
}

/// What a variable sets; `None` where it is not ours. A fault comes with the path of the key,
/// where there is one.
pub(super) fn read(name: &str, text: &str) -> Result<Option<EnvSetting>, (String, ValueError)> {
    if !name.starts_with(PREFIX) || name == MAIN_FILE {
        return Ok(None);
    }
    let (key, path) = key_of(name).ok_or_else(|| (String::new(), unknown(name)))?;
    let value = match (key.form, text.parse()) {
        (ValueKind::Text, _) => Value::String(text.to_owned()),
        (ValueKind::Toml(_), Ok(value)) => value,
        (ValueKind::Toml(wanted), Err(_)) => {
            let what = format!("{} is not {wanted}", quote(text));
            let path = path.escape_debug().to_string();
            return Err((path, ValueError::new(what, "correct the variable, or unset it")));
        }
    };
    Ok(Some(EnvSetting { path, value }))
}

fn key_of(name: &str) -> Option<(&'static KeySpec, String)> {
    KEYS.iter().find_map(|key| {
        let variable = key.variable()?;
        if let Some(section) = variable.strip_suffix(WILDCARD) {
            let chosen = name.strip_prefix(section).filter(|chosen| !chosen.is_empty())?;
            return Some((key, format!("{}.{chosen}", key.section())));
        }
        (variable == name).then(|| (key, key.path.to_owned()))
    })
}

fn unknown(name: &str) -> ValueError {
    let lists = KEYS.iter().map(KeySpec::list).filter(|list| !list.is_empty());
    for list in lists.map(|list| list.trim_end_matches("[]")) {
        if name.starts_with(&format!("{PREFIX}{}", list.to_ascii_uppercase())) {
            return ValueError::new(
                format!("no variable sets the keys of a {list}"),
                format!("unset it, and write [[{list}]] in a file"),
            );
        }
    }
    let short = |variable: &str| variable.strip_prefix(PREFIX).unwrap_or(variable).to_owned();
    let known: Vec<_> =
        KEYS.iter().filter_map(KeySpec::variable).map(|name| short(&name)).collect();
    let remedy = match nearest(&short(name), known.iter().map(String::as_str)) {
        Some(meant) => format!("did you mean {PREFIX}{meant}?"),
        None => format!("unset it, or write {PREFIX}<SECTION>__<KEY>, such as {PREFIX}CM__URL"),
    };
    ValueError::new("names no key of the configuration", remedy)
}
