//! The tables, and what breaks them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::names::{ELSEWHERE, FROM_PARAMETERS, Kind, Names, Written};
use crate::resolve::{Full, Resolver};
use crate::tree::{Sources, reach};

/// Each module, with the modules that it may name.
pub(crate) const MAY_NAME: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("card", &["domain"]),
    ("rules", &["domain"]),
    ("wire", &["domain"]),
    ("config", &["domain", "rules"]),
    ("engine", &["domain", "rules"]),
    ("readers", &["domain", "card"]),
    ("outbox", &["domain"]),
    ("cm", &["domain", "wire"]),
    ("control", &["domain", "wire"]),
    ("telemetry", &[]),
    ("app", EDGES_AND_PURE),
    ("diagnostics", &["domain", "readers", "outbox", "cm", "control", "telemetry"]),
    ("cli", ALL),
];

const ALL: &[&str] = &[
    "app",
    "domain",
    "card",
    "rules",
    "wire",
    "config",
    "engine",
    "readers",
    "outbox",
    "cm",
    "control",
    "telemetry",
    "diagnostics",
];
const EDGES_AND_PURE: &[&str] = ALL.split_at(1).1.split_at(11).0;

pub(crate) const PURE: &[&str] = &["domain", "card", "rules", "wire", "config", "engine"];

/// Crates that belong to one module each. `cm` names hyper too, to tell causes of failure
/// apart that reqwest only passes on.
pub(crate) const OWNED: &[(&str, &[&str])] = &[
    ("pcsc", &["readers"]),
    ("reqwest", &["cm"]),
    ("rustls", &["cm"]),
    ("rustls_native_certs", &["cm"]),
    ("libloading", &["cm"]),
    ("rusqlite", &["outbox"]),
    ("axum", &["control"]),
    ("nix", &["control"]),
    ("libc", &["control"]),
    ("hyper", &["control", "cm"]),
    ("clap", &["cli"]),
    ("clap_complete", &["cli"]),
    ("clap_mangen", &["cli"]),
    ("tracing_subscriber", &["telemetry"]),
    ("unicode_properties", &["telemetry"]),
];

/// All that a pure module may name outside this crate: each path, and what is below it. There is
/// no clock, file, socket, environment, process, thread, lock, random source, log or runtime
/// here; and no `HashMap`, whose order is random.
const PURE_PATHS: &[&str] = &[
    "fastrand::Rng",
    "hex",
    "humantime::format_duration",
    "humantime::parse_duration",
    "jiff::SignedDuration",
    "jiff::Timestamp",
    "serde",
    "serde_json",
    "thiserror",
    "toml",
    "uuid::Error",
    "uuid::Uuid",
    "wildmatch",
    "std::array",
    "std::borrow",
    "std::char",
    "std::cmp",
    "std::collections::BTreeMap",
    "std::collections::BTreeSet",
    "std::collections::VecDeque",
    "std::convert",
    "std::error",
    "std::fmt",
    "std::iter",
    "std::mem",
    "std::net::IpAddr",
    "std::net::Ipv4Addr",
    "std::net::Ipv6Addr",
    "std::net::SocketAddr",
    "std::num",
    "std::ops",
    "std::path::Path",
    "std::path::PathBuf",
    "std::slice",
    "std::str",
    "std::string",
    "std::sync::Arc",
    "std::time::Duration",
    "std::time::Instant",
    "std::vec",
];

/// A generator without a seed.
const IMPURE_PATHS: &[&str] = &["fastrand::Rng::new", "fastrand::Rng::default"];

/// What reaches outside on types that are pure otherwise, called as a function or as a method.
const IMPURE_NAMES: &[&str] = &[
    "now",
    "elapsed",
    "new_v4",
    "new_v1",
    "new_v6",
    "new_v7",
    "now_v1",
    "now_v6",
    "now_v7",
    "in_tz",
    "exists",
    "try_exists",
    "is_file",
    "is_dir",
    "is_symlink",
    "metadata",
    "symlink_metadata",
    "canonicalize",
    "read_link",
    "read_dir",
];

const PURE_MACROS: &[&str] = &[
    "assert",
    "assert_eq",
    "assert_ne",
    "concat",
    "debug_assert",
    "debug_assert_eq",
    "debug_assert_ne",
    "format",
    "format_args",
    "include_str",
    "macro_rules",
    "matches",
    "stringify",
    "unreachable",
    "vec",
    "write",
    "writeln",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rule {
    Layers,
    Crates,
    Purity,
    /// What hides names from this test.
    Hiding,
}

/// A place where a rule is broken.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    pub(crate) rule: Rule,
    pub(crate) file: PathBuf,
    pub(crate) what: String,
}

/// A file of production code.
struct Production {
    path: PathBuf,
    module: String,
    names: Names,
    /// What each name may stand for.
    meanings: Vec<BTreeSet<Full>>,
}

pub(crate) struct Project {
    files: Vec<Production>,
}

impl Project {
    /// The production code of everything that `lib.rs` reaches.
    pub(crate) fn new(sources: &Sources, dependencies: &[String]) -> Self {
        let mut files = Vec::new();
        let mut aliases = Vec::new();
        for file in reach(sources, "lib.rs", &[]).into_iter().filter(|file| !file.test) {
            let mut names = Names::of(&file.module, &file.syntax);
            aliases.append(&mut names.aliases);
            // The root has a test of its own.
            if let Some(module) = file.module.first().cloned() {
                files.push(Production { path: file.path, module, names, meanings: Vec::new() });
            }
        }
        let known = ["std", "core", "alloc", "proc_macro", "test"].map(str::to_owned);
        let crates = dependencies.iter().map(|name| name.replace('-', "_")).chain(known);
        let resolver = Resolver::new(crates.collect(), aliases);
        for file in &mut files {
            file.meanings = file.names.written.iter().map(|it| resolver.resolve(it)).collect();
        }
        Self { files }
    }

    pub(crate) fn modules(&self) -> BTreeSet<&str> {
        self.files.iter().map(|file| file.module.as_str()).collect()
    }

    /// Each external crate, with the modules that name it.
    pub(crate) fn owners(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        let mut owners = BTreeMap::<&str, BTreeSet<_>>::new();
        for file in &self.files {
            for full in file.meanings.iter().flatten() {
                owners.entry(&full[0]).or_default().insert(file.module.as_str());
            }
        }
        owners
    }

    pub(crate) fn findings(&self) -> BTreeSet<Finding> {
        let mut findings = BTreeSet::new();
        for file in &self.files {
            let pure = PURE.contains(&file.module.as_str());
            let mut find = |rule, what| {
                findings.insert(Finding { rule, file: file.path.clone(), what });
            };
            for (written, meanings) in file.names.written.iter().zip(&file.meanings) {
                let text = written.segments.join("::");
                for full in meanings {
                    if let Some(rule) = breaks(&file.module, written, full) {
                        find(rule, format!("`{text}` names {}", full.join("::")));
                    }
                }
                if pure && self.acts(&file.module, written, meanings) {
                    find(Rule::Purity, format!("`{text}` reaches outside"));
                }
                let ends = |full: &Full| full.last().is_some_and(|last| last == "include");
                if written.kind == Kind::Macro && meanings.iter().any(ends) {
                    find(Rule::Hiding, format!("`{text}!` brings in what is not seen"));
                }
            }
            for oddity in &file.names.oddities {
                if [ELSEWHERE, FROM_PARAMETERS].contains(oddity) {
                    find(Rule::Hiding, (*oddity).to_owned());
                } else if pure {
                    find(Rule::Purity, (*oddity).to_owned());
                }
            }
        }
        findings
    }

    /// Whether a name does something, whatever crate it is from.
    fn acts(&self, module: &str, written: &Written, meanings: &BTreeSet<Full>) -> bool {
        let Some((last, front)) = written.segments.split_last() else { return false };
        match written.kind {
            Kind::Method => IMPURE_NAMES.contains(&last.as_str()),
            Kind::Path | Kind::Use => !front.is_empty() && IMPURE_NAMES.contains(&last.as_str()),
            Kind::Word => false,
            Kind::Macro => {
                let mut here = self.files.iter().filter(|file| file.module == module);
                !PURE_MACROS.contains(&last.as_str())
                    && !here.any(|file| file.names.macros.contains(last))
                    // What is from elsewhere is held as a path.
                    && meanings.iter().all(|full| full[0] == "crate")
            }
        }
    }
}

/// The rule that a module breaks by naming this.
fn breaks(module: &str, written: &Written, full: &[String]) -> Option<Rule> {
    let crate_ = full[0].as_str();
    if crate_ == "crate" {
        let Some(other) = full.get(1) else { return Some(Rule::Hiding) };
        let (_, allowed) = MAY_NAME.iter().find(|(name, _)| *name == module)?;
        let free = other == module || allowed.contains(&other.as_str());
        return (!free).then_some(Rule::Layers);
    }
    if OWNED.iter().any(|(name, owners)| *name == crate_ && !owners.contains(&module)) {
        return Some(Rule::Crates);
    }
    if !PURE.contains(&module) || is_pure(full) {
        return None;
    }
    // A lone word may be a variable that has a crate's name.
    let known = PURE_PATHS.iter().any(|path| path.split("::").next() == Some(crate_));
    let variable = written.kind == Kind::Word && known && crate_ != "std";
    (!variable).then_some(Rule::Purity)
}

fn is_pure(full: &[String]) -> bool {
    let text = full.join("::");
    let is_below = |path: &&str| {
        text.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    };
    PURE_PATHS.iter().any(is_below) && !IMPURE_PATHS.iter().any(is_below)
}
