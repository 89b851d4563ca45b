//! The agent's configuration file.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::Result;

use crate::cm::Cm;

/// Keys by section, and free text after them.
#[derive(Debug, Default)]
pub(super) struct Config {
    sections: BTreeMap<String, BTreeMap<String, String>>,
    extra: String,
}

impl Config {
    /// Sets `section.key`; the section may have dots of its own.
    pub(super) fn set(&mut self, key: &str, value: &str) {
        let (section, key) = key.rsplit_once('.').unwrap_or(("", key));
        let section = self.sections.entry(section.to_owned()).or_default();
        section.insert(key.to_owned(), value.to_owned());
    }

    /// Every value that is a string, without its quotes.
    pub(super) fn texts(&self) -> impl Iterator<Item = OsString> {
        let values = self.sections.values().flat_map(BTreeMap::values);
        values.filter_map(|value| Some(serde_json::from_str::<String>(value).ok()?.into()))
    }

    pub(super) fn append(&mut self, toml: &str) {
        self.extra.push_str(toml);
        self.extra.push('\n');
    }

    /// Adds what every world needs, where the scenario has not said otherwise.
    pub(super) fn complete(&mut self, dir: &Path, cm: &Cm) -> Result<()> {
        let file = |name: &str| quoted(&dir.join(name).display().to_string());
        self.set_default("station.id", &quoted("harness"));
        self.set_default("cm.url", &quoted(&cm.url()));
        if let Some(ca) = cm.ca_pem_path() {
            self.set_default("cm.ca_file", &quoted(&ca.display().to_string()));
        }
        if let Some(token) = cm.bearer() {
            fs::write(dir.join("token"), token)?;
            self.set_default("cm.auth.method", &quoted("bearer"));
            self.set_default("cm.auth.token_file", &file("token"));
        }
        self.set_default("cm.auth.method", &quoted("none"));
        self.set_default("outbox.path", &file("outbox.db"));
        self.set_default("outbox.retry_min", &quoted("50ms"));
        self.set_default("outbox.retry_max", &quoted("500ms"));
        self.set_default("control.socket", &file("control.sock"));
        self.set_default("log.level", &quoted("debug"));
        self.set_default("log.format", &quoted("text"));
        Ok(())
    }

    fn set_default(&mut self, key: &str, value: &str) {
        let (section, name) = key.rsplit_once('.').unwrap_or(("", key));
        let known = self.sections.get(section);
        if known.is_none_or(|section| !section.contains_key(name)) {
            self.set(key, value);
        }
    }
}

impl fmt::Display for Config {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (section, keys) in &self.sections {
            writeln!(out, "[{section}]")?;
            for (key, value) in keys {
                writeln!(out, "{key} = {value}")?;
            }
        }
        out.write_str(&self.extra)
    }
}

/// A TOML string.
pub(super) fn quoted(text: &str) -> String {
    // JSON's escapes are TOML's.
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scenario_settings_override_defaults() {
        let mut config = Config::default();
        config.set("outbox.retry_min", "\"1s\"");
        config.append("[[rule]]\nname = \"x\"");
        let cm = Cm::seed().unwrap();
        config.complete(Path::new("/w"), &cm).unwrap();
        let text = config.to_string();
        assert!(text.contains("retry_min = \"1s\"\n"), "{text}");
        assert!(text.contains("[cm.auth]\nmethod = \"none\"\n"), "{text}");
        assert!(text.contains(&format!("url = \"{}\"", cm.url())), "{text}");
        assert!(text.ends_with("[[rule]]\nname = \"x\"\n"), "{text}");
    }
}
