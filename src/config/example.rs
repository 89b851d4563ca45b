//! A file that shows every key.

use super::keys::{DEFAULT_RULES, DefaultValue, KEYS, KeySpec, WILDCARD};

/// How a file begins.
const HEAD: &str = "\
# The configuration of cardbridge; docs/configure.md says more.
#
# Every key is here. A line that begins with # and no blank shows how a key is set; whatever is not
# set has its default. `cardbridge config check` tells everything that is wrong at once.";

/// A commented example of every key. As it stands, everything but `cm.url` has its default.
#[must_use]
pub fn example() -> String {
    let sections = KEYS.chunk_by(|a, b| a.section() == b.section());
    let lines = std::iter::once(HEAD.to_owned()).chain(sections.flat_map(section));
    lines.collect::<Vec<_>>().join("\n") + "\n"
}

fn section(keys: &[KeySpec]) -> Vec<String> {
    let Some(first) = keys.first() else { return Vec::new() };
    let mut lines = vec![String::new()];
    if first.section() == "rule[]" {
        lines.push("# The first rule that matches wins. Without any, these two hold:\n#".into());
        lines.extend(DEFAULT_RULES.lines().map(|line| format!("#     {line}").trim().to_owned()));
        lines.push("#\n# A rule with every key:".into());
    }
    let hash = if first.list().is_empty() { "" } else { "#" };
    lines.push(format!("{hash}{}", first.heading()));

    lines.extend(keys.iter().flat_map(explained));
    lines
}

/// A key's meaning, and how it is set.
fn explained(key: &KeySpec) -> [String; 2] {
    let name = if key.name() == WILDCARD { a_name_of(key.section()) } else { key.name() };
    let hash = match key.fallback {
        DefaultValue::Required if key.list().is_empty() => "",
        DefaultValue::Required
        | DefaultValue::Unset
        | DefaultValue::HostName
        | DefaultValue::Value(_) => "#",
    };
    let default = match key.fallback {
        DefaultValue::Required | DefaultValue::Unset => String::new(),
        DefaultValue::HostName | DefaultValue::Value(_) => {
            format!(" Default: {}.", key.default_text())
        }
    };
    [format!("# {}{default}", key.meaning), format!("{hash}{name} = {}", key.example)]
}

/// A name that shows how a number of CM's is set. The statuses are known ones with their right
/// numbers: nobody should copy a wrong one from here.
fn a_name_of(section: &str) -> &'static str {
    match section {
        "cm.numbers.card_status" => "Retired",
        "cm.numbers.request_status" => "Executing",
        _ => "OfflineUnblock",
    }
}
