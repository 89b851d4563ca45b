//! Holds the table of `docs/architecture.md`: which module may name which, and what the pure
//! modules must never do.

#![expect(
    clippy::unwrap_used,
    clippy::string_slice,
    reason = "a test that scans sources fails where they are not as expected"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Each module, with the modules that it may name.
const MAY_NAME: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("card", &["domain"]),
    ("rules", &["domain"]),
    ("wire", &["domain"]),
    ("config", &["domain", "rules"]),
    ("engine", &["domain", "rules"]),
    ("readers", &["domain", "card"]),
    ("outbox", &["domain"]),
    ("remote", &["domain", "wire"]),
    ("control", &["domain", "wire"]),
    ("telemetry", &[]),
    (
        "app",
        &[
            "domain",
            "card",
            "rules",
            "wire",
            "config",
            "engine",
            "readers",
            "outbox",
            "remote",
            "control",
            "telemetry",
        ],
    ),
    (
        "cli",
        &[
            "domain",
            "card",
            "rules",
            "wire",
            "config",
            "engine",
            "readers",
            "outbox",
            "remote",
            "control",
            "telemetry",
            "app",
        ],
    ),
];

const PURE: &[&str] = &["domain", "card", "rules", "wire", "config", "engine"];

/// What no pure module does: read a clock, a file, a socket, the environment or a random source,
/// start anything, or log.
const IMPURE: &[&str] = &[
    "::now()",
    "SystemTime",
    "std::fs",
    "std::io",
    "TcpStream",
    "UdpSocket",
    "ToSocketAddrs",
    "std::os",
    "std::env",
    "std::process",
    "std::thread",
    "env::var",
    "fastrand::u64",
    "Rng::new",
    "new_v4",
    "tokio",
    "tracing",
    "println!",
    "static mut",
    "thread_local!",
];

/// Crates that belong to one module each. `remote` names hyper too, to tell causes of failure
/// apart that reqwest only passes on.
const OWNED: &[(&str, &[&str])] = &[
    ("pcsc", &["readers"]),
    ("reqwest", &["remote"]),
    ("rustls", &["remote"]),
    ("rusqlite", &["outbox"]),
    ("axum", &["control"]),
    ("hyper", &["control", "remote"]),
    ("clap", &["cli"]),
    ("tracing_subscriber", &["telemetry"]),
];

/// The production code of every module: comments, strings' contents and test modules left out.
fn modules() -> BTreeMap<String, Vec<(PathBuf, String)>> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut modules = BTreeMap::<String, Vec<_>>::new();
    for file in files(&source) {
        let inside = file.strip_prefix(&source).unwrap();
        let first = inside.components().next().unwrap().as_os_str().to_str().unwrap();
        let module = first.trim_end_matches(".rs").to_owned();
        let name = file.file_stem().unwrap();
        let is_test = inside.components().any(|part| part.as_os_str() == "tests")
            || name == "tests"
            || name == "model";
        if ["lib", "main"].contains(&module.as_str()) || is_test {
            continue;
        }
        let text = production(&fs::read_to_string(&file).unwrap());
        modules.entry(module).or_default().push((file, text));
    }
    modules
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// A file's text up to its test module, without comments and without what `cfg(doc)` brings in.
fn production(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let mut lines = Vec::new();
    let mut documentation = false;
    for line in text.lines() {
        if !documentation {
            lines.push(line.split("//").next().unwrap());
        }
        documentation = line.trim() == "#[cfg(doc)]";
    }
    lines.join("\n")
}

/// Whether `text` has `word` as a path of its own, not as the end of a longer name.
fn names(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + word.len()..].chars().next();
        let part = |c: char| c.is_alphanumeric() || c == '_';
        !before.is_some_and(|c| part(c) || c == ':' || c == '.') && !after.is_some_and(part)
    })
}

#[test]
fn every_module_is_in_the_table() {
    let known: Vec<_> = MAY_NAME.iter().map(|(module, _)| *module).collect();
    for module in modules().keys() {
        assert!(known.contains(&module.as_str()), "{module} is in no layer");
    }
}

#[test]
fn modules_name_only_what_the_table_allows() {
    let modules = modules();
    for (module, allowed) in MAY_NAME {
        for (file, text) in &modules[*module] {
            for (other, _) in MAY_NAME {
                let free = other == module || allowed.contains(other);
                let grouped = text.contains("use crate::{") && {
                    let group = text.split("use crate::{").nth(1).unwrap();
                    names(group.split('}').next().unwrap(), other)
                };
                let named = text.contains(&format!("crate::{other}::")) || grouped;
                assert!(free || !named, "{} names {other}", file.display());
            }
        }
    }
}

#[test]
fn crates_belong_to_one_module_each() {
    for (module, files) in modules() {
        for (file, text) in files {
            for (owned, owners) in OWNED {
                let named = names(&text, owned)
                    && (text.contains(&format!("{owned}::"))
                        || text.contains(&format!("use {owned}")));
                assert!(
                    !named || owners.contains(&module.as_str()),
                    "{} names {owned}",
                    file.display()
                );
            }
        }
    }
}

#[test]
fn pure_modules_do_nothing_but_compute() {
    let modules = modules();
    for module in PURE {
        for (file, text) in &modules[*module] {
            for word in IMPURE {
                assert!(!text.contains(word), "{} has {word}", file.display());
            }
        }
    }
}

#[test]
fn the_harness_never_depends_on_the_daemon() {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/harness/Cargo.toml");
    let manifest = fs::read_to_string(manifest).unwrap();
    let dependencies = manifest.split("[dependencies]").nth(1).unwrap();
    assert!(!dependencies.lines().any(|line| line.starts_with("cardbridge ")), "{dependencies}");
    for file in files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/harness/src")) {
        let text = fs::read_to_string(&file).unwrap();
        assert!(!text.contains("use cardbridge::"), "{}", file.display());
    }
}

#[test]
fn the_scan_sees_what_it_looks_for() {
    assert!(names("use pcsc::Card;", "pcsc"));
    assert!(!names("let mypcsc::x", "pcsc"));
    assert_eq!(production("a // crate::engine::\nb\n#[cfg(test)]\nmod tests {\nc"), "a \nb");
    assert!(modules().values().flatten().count() > 20);
}
