//! The configuration. The input is text in parts with NUL between them: one that begins with
//! `CARDBRIDGE_` is an environment variable, as `NAME=VALUE`, any other a file.

use std::collections::BTreeSet;

use cardbridge::config::{
    CmSettings, ConfigInputs, ConfigProblems, ConfigText, LoadedConfig, Settings, parse,
};

/// Reads the input as a whole configuration.
pub fn check(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let (variables, files): (Vec<_>, Vec<_>) =
        text.split('\0').partition(|part| part.starts_with("CARDBRIDGE_"));
    let sources: Vec<_> =
        files.into_iter().zip(1..).map(|(text, number)| file(number, text)).collect();
    let environment: Vec<_> = variables.into_iter().filter_map(variable).collect();
    match load(&sources, &environment) {
        Ok(loaded) => is_meant(&loaded),
        Err(problems) => have_texts(&problems),
    }
}

fn file(number: usize, text: &str) -> ConfigText {
    ConfigText { name: format!("/etc/cardbridge/{number}.toml"), text: text.to_owned() }
}

fn variable(part: &str) -> Option<(String, String)> {
    let (name, value) = part.split_once('=')?;
    Some((name.to_owned(), value.to_owned()))
}

fn load(
    sources: &[ConfigText],
    environment: &[(String, String)],
) -> Result<LoadedConfig, ConfigProblems> {
    parse(&ConfigInputs { sources, environment, host_name: "desk-3", ..ConfigInputs::default() })
}

/// Settings come without a problem, and hold what they promise.
fn is_meant(loaded: &LoadedConfig) {
    let Settings { cm, outbox, control, rules, probe: probing, .. } = &loaded.settings;
    let CmSettings { url, api_path, timeout, connect_timeout, concurrency, .. } = cm;
    let encrypted = url.starts_with("https://");
    let loopback = ["http://127.", "http://[", "http://localhost"];
    let here = |start: &&str| url.to_ascii_lowercase().starts_with(start);
    assert!(encrypted || loopback.iter().any(here), "{url}");
    assert!(!url.contains(['@', '?', '#']) && !url.ends_with('/'), "{url}");
    assert!(api_path.is_empty() || api_path.starts_with('/') && !api_path.ends_with('/'));
    assert!(!api_path.split('/').any(|step| step == ".."), "{api_path}");
    assert!(connect_timeout <= timeout && concurrency.get() <= 64);
    assert!(outbox.path.is_absolute() && outbox.retry_min <= outbox.retry_max);
    assert!(control.socket.is_absolute() && control.socket.as_os_str().len() <= 107);
    assert!(control.socket != outbox.path);
    assert!(!probing.families.is_empty());
    let names: BTreeSet<_> = rules.rules.iter().map(|rule| &rule.name).collect();
    assert_eq!(names.len(), rules.rules.len(), "two rules of one name");

    let shown = shown(loaded);
    let mut again = match load(&[file(1, &shown)], &[]) {
        Ok(again) => again,
        Err(problems) => panic!("what is in force is a configuration: {problems}\n{shown}"),
    };
    assert_eq!(lines(&again), lines(loaded), "what is in force, read again");
    // The order of CM's numbers depends on who sets them, and means nothing.
    again.settings.rules.numbers = rules.numbers.clone();
    assert_eq!(again.settings, loaded.settings, "what is meant, read again");
}

/// Everything that is in force, as a file.
fn shown(loaded: &LoadedConfig) -> String {
    let mut lines = Vec::new();
    let mut table = "";
    let (tables, plain): (Vec<_>, Vec<_>) =
        loaded.effective.iter().partition(|line| line.key.contains('['));
    lines.extend(plain.iter().map(|line| format!("{} = {}", line.key, line.value)));
    for line in tables {
        let Some((head, name)) = line.key.split_once("].") else { continue };
        if head != table {
            let list = head.split('[').next().unwrap_or_default();
            lines.push(format!("[[{list}]]"));
            table = head;
        }
        lines.push(format!("{name} = {}", line.value));
    }
    lines.join("\n")
}

fn lines(loaded: &LoadedConfig) -> BTreeSet<(&str, &str)> {
    let lines = loaded.effective.iter().map(|line| (line.key.as_str(), line.value.as_str()));
    let all: BTreeSet<_> = lines.collect();
    assert_eq!(all.len(), loaded.effective.len(), "a key is there twice");
    all
}

/// Problems are at least one, each a line that says what to do.
fn have_texts(problems: &ConfigProblems) {
    assert!(problems.iter().len() > 0, "neither settings nor a problem");
    for problem in problems.iter() {
        let texts = [&problem.problem.what, &problem.problem.remedy];
        assert!(!texts.iter().any(|text| text.is_empty()), "{problem:?}");
        assert!(!problem.to_string().contains(char::is_control), "{problem:?}");
    }
}
