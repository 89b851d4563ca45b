//! Holds the table of `docs/architecture.md`: which module may name which, and what the pure
//! modules must never do. [`names`] reads the sources, [`examples`] tests that the rules are seen
//! to be broken.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "a test that reads sources fails where they are not as expected"
)]

mod examples;
mod names;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::LazyLock;

use names::{File, Kind, Names, Sources, Written, parse, words};

/// Each module, with the modules that it may name.
const MAY_NAME: &[(&str, &str)] = &[
    ("domain", ""),
    ("card", "domain"),
    ("rules", "domain"),
    ("wire", "domain"),
    ("config", "domain rules"),
    ("engine", "domain rules"),
    ("readers", "domain card"),
    ("outbox", "domain"),
    ("cm", "domain wire config"),
    ("control", "domain wire"),
    ("telemetry", ""),
    ("diagnostics", "domain readers outbox cm control telemetry"),
    ("app", "domain card rules wire config engine readers outbox cm control telemetry"),
    (
        "cli",
        "domain card rules wire config engine readers outbox cm control telemetry diagnostics app",
    ),
];

const PURE: [&str; 6] = ["domain", "card", "rules", "wire", "config", "engine"];

/// Each module, with the crates that belong to it alone. `cm` names hyper too, for causes
/// of failure that reqwest only passes on.
const OWNED: &[(&str, &[&str])] = &[
    ("control", &["axum", "hyper", "libc", "nix"]),
    ("outbox", &["rusqlite"]),
    ("readers", &["pcsc"]),
    ("cm", &["hyper", "libloading", "reqwest", "rustls", "rustls_native_certs"]),
    ("telemetry", &["tracing_subscriber", "unicode_properties"]),
    ("cli", &["clap", "clap_complete", "clap_mangen", "csv", "regex_lite"]),
];

/// All that a pure module may name outside this crate: each path, and what is below it. There is
/// no clock, file, socket, environment, process, thread, lock, random source, log or runtime
/// here; and no `HashMap`, whose order is random.
const PURE_PATHS: &str = "
    fastrand::Rng hex humantime::format_duration humantime::parse_duration jiff::SignedDuration
    jiff::Timestamp serde serde_json strsim strum thiserror toml uuid::Error uuid::Uuid wildmatch std::array
    std::borrow std::char std::cmp std::collections::BTreeMap std::collections::BTreeSet
    std::collections::VecDeque std::convert std::error std::fmt std::iter std::mem
    std::net::IpAddr std::net::Ipv4Addr std::net::Ipv6Addr std::net::SocketAddr std::num std::ops
    std::path::Path std::path::PathBuf std::slice std::str std::string std::sync::Arc
    std::time::Duration std::time::Instant std::vec strum
";

/// What reaches outside on types that are pure otherwise, as a function or as a method; and
/// generators of random numbers without a seed.
const IMPURE_NAMES: &str = "
    now elapsed new_v4 new_v1 new_v6 new_v7 now_v1 now_v6 now_v7 in_tz exists try_exists is_file
    is_dir is_symlink metadata symlink_metadata canonicalize read_link read_dir await
";
const IMPURE_PATHS: [&str; 2] = ["fastrand::Rng::new", "fastrand::Rng::default"];

const PURE_MACROS: &str = "
    assert assert_eq assert_ne concat debug_assert debug_assert_eq debug_assert_ne format
    format_args include_str json macro_rules matches stringify unreachable vec write writeln
";

/// Files that use each other's items in a circle, one a line. Nothing is to be added, and in the
/// end there is none.
const CIRCLES: &str = "
";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Everything below a directory that ends in `.rs`.
fn sources(directory: &str) -> Sources {
    let mut sources = Sources::new();
    let mut open = vec![root().join(directory)];
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root().join(directory)).unwrap();
                sources.insert(
                    name.to_str().unwrap().to_owned(),
                    std::fs::read_to_string(&path).unwrap(),
                );
            }
        }
    }
    sources
}

fn manifest(path: &str) -> toml::Table {
    toml::from_str(&std::fs::read_to_string(root().join(path)).unwrap()).unwrap()
}

/// The names of a manifest's dependencies.
fn dependencies(path: &str, kind: &str) -> Vec<String> {
    let manifest = manifest(path);
    let table = manifest.get(kind).and_then(toml::Value::as_table).into_iter();
    table.flat_map(|table| table.keys().cloned()).collect()
}

static SOURCES: LazyLock<Sources> = LazyLock::new(|| sources("src"));
static CRATES: LazyLock<Vec<String>> = LazyLock::new(|| {
    let all = dependencies("Cargo.toml", "dependencies").into_iter();
    let all = all.map(|name| name.replace('-', "_"));
    all.chain(["std", "core", "alloc"].map(str::to_owned)).collect()
});
static NAMES: LazyLock<Names> = LazyLock::new(|| Names::read(&SOURCES, &CRATES));

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    Layers,
    Crates,
    Purity,
    /// What hides names from this test.
    Hiding,
}

/// Each place where a rule is broken.
fn findings(names: &Names) -> Vec<(Rule, String)> {
    let mut found = Vec::new();
    for (path, file) in names.files.iter().filter(|(_, file)| !file.module.is_empty()) {
        for written in &file.written {
            let text = written.path.join("::");
            let meanings = &written.meanings;
            let broken = meanings.iter().filter_map(|full| broken(&file.module[0], written, full));
            let acts = acts(names, &file.module[0], written).then_some(Rule::Purity);
            found.extend(broken.chain(acts).map(|rule| (rule, format!("{path}: {text}"))));
        }
    }
    found
}

/// The rule that a module breaks by naming this.
fn broken(module: &str, written: &Written, full: &[String]) -> Option<Rule> {
    let other = full.get(1).map_or("", String::as_str);
    if full[0] == "crate" {
        let (_, allowed) = MAY_NAME.iter().find(|(name, _)| *name == module)?;
        return match written.kind {
            Kind::Use | Kind::Reexport if other.is_empty() => Some(Rule::Hiding),
            _ if other.is_empty() || other == module || has(allowed, other) => None,
            _ => Some(Rule::Layers),
        };
    }
    let owners = OWNED.iter().filter(|(_, owned)| owned.contains(&full[0].as_str()));
    let owners: Vec<_> = owners.map(|(owner, _)| *owner).collect();
    if !owners.is_empty() && !owners.contains(&module) {
        return Some(Rule::Crates);
    }
    (PURE.contains(&module) && !is_pure(&full.join("::"))).then_some(Rule::Purity)
}

fn has(words: &str, word: &str) -> bool {
    words.split_whitespace().any(|it| it == word)
}

fn is_pure(path: &str) -> bool {
    let is_below = |outer: &str| {
        path.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    };
    PURE_PATHS.split_whitespace().any(is_below) && !IMPURE_PATHS.into_iter().any(is_below)
}

/// Whether a pure module does something by naming this, whatever crate it is from.
fn acts(names: &Names, module: &str, Written { kind, path, .. }: &Written) -> bool {
    let last = path.last().unwrap();
    let is_ours =
        |file: &File| file.items.iter().any(|item| item[1] == module && item.last() == Some(last));
    PURE.contains(&module)
        && match kind {
            Kind::Macro => !has(PURE_MACROS, last) && !names.files.values().any(is_ours),
            Kind::Method => has(IMPURE_NAMES, last),
            _ => path == &["async"] || (path.len() > 1 && has(IMPURE_NAMES, last)),
        }
}

/// Says each place where a rule is broken.
#[track_caller]
fn holds(rule: Rule) {
    let broken: Vec<_> = findings(&NAMES).into_iter().filter(|(it, _)| *it == rule).collect();
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn every_module_is_in_the_table_and_every_entry_is_a_module() {
    let known: BTreeSet<_> = MAY_NAME.iter().map(|(module, _)| *module).collect();
    let modules = NAMES.files.values().filter_map(|file| file.module.first());
    assert_eq!(modules.map(String::as_str).collect::<BTreeSet<_>>(), known);
}

#[test]
fn modules_name_only_what_the_table_allows() {
    holds(Rule::Layers);
}

#[test]
fn crates_belong_to_one_module_each() {
    holds(Rule::Crates);
    let mut naming = BTreeMap::<String, BTreeSet<&str>>::new();
    for file in NAMES.files.values().filter(|file| !file.module.is_empty()) {
        for full in file.written.iter().flat_map(|written| &written.meanings) {
            naming.entry(full[0].clone()).or_default().insert(&file.module[0]);
        }
    }
    for (owner, owned) in OWNED {
        for name in *owned {
            assert!(naming[*name].contains(owner), "{owner} does not use {name}");
        }
    }
}

#[test]
fn pure_modules_do_nothing_but_compute() {
    holds(Rule::Purity);
}

#[test]
fn nothing_hides_names_from_this_test() {
    holds(Rule::Hiding);
    for (path, text) in &*SOURCES {
        let allowed = ["#[cfg(test)]\n#[path", "#[cfg(fuzzing)]\n#[path"];
        let allowed: usize = allowed.iter().map(|path| text.matches(path).count()).sum();
        assert_eq!(text.matches("#[path").count(), allowed, "{path}");
        assert!(!text.contains("include!("), "{path}");
        let (outside, name) =
            path.trim_end_matches(".rs").rsplit_once('/').unwrap_or(("lib", path));
        let module = format!("mod {};", name.trim_end_matches(".rs"));
        let declared = SOURCES.get(&format!("{outside}.rs")).is_some_and(|it| it.contains(&module))
            || SOURCES.values().any(|text| text.contains(&format!("#[path = {path:?}]")));
        assert!(
            declared || ["lib.rs", "main.rs"].contains(&path.as_str()),
            "{path} is in no module"
        );
    }
}

/// The names that more than one type has.
fn doubles(names: &Names) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    let types = names.files.values().flat_map(|file| &file.types);
    types.filter(|name| !seen.insert(*name)).cloned().collect()
}

#[test]
fn no_two_types_have_one_name() {
    assert_eq!(doubles(&NAMES), BTreeSet::new());
}

/// The files that use each other's items in a circle. A re-export is no use, and a file may use
/// the items of the modules around it.
fn circles(names: &Names) -> BTreeSet<String> {
    let homes = names
        .files
        .iter()
        .flat_map(|(path, file)| file.items.iter().map(move |it| (it.as_slice(), path)));
    let homes: BTreeMap<_, _> = homes.collect();
    let used = |file: &File| {
        let written = file.written.iter().filter(|written| written.kind != Kind::Reexport);
        let home =
            |full: &Vec<String>| (2..=full.len()).find_map(|end| homes.get(&full[..end]).copied());
        let used = written.flat_map(|written| &written.meanings).filter_map(home);
        used.filter(|home| !file.module.starts_with(&names.files[*home].module))
            .collect::<BTreeSet<_>>()
    };
    let uses: BTreeMap<_, _> = names.files.iter().map(|(path, file)| (path, used(file))).collect();
    let reached = |from| {
        let mut reached = BTreeSet::new();
        let mut open = vec![from];
        while let Some(next) = open.pop() {
            open.extend(uses[next].iter().filter(|next| reached.insert(**next)));
        }
        reached
    };
    let reached: BTreeMap<_, _> = uses.keys().map(|path| (*path, reached(*path))).collect();
    let circle = |path: &&String| {
        let back = reached[*path].iter().filter(|other| reached[**other].contains(path));
        back.map(|path| path.as_str()).collect::<Vec<_>>()
    };
    uses.keys().map(circle).filter(|it| it.len() > 1).map(|it| it.join(" ")).collect()
}

#[test]
fn no_files_use_each_other_in_a_circle() {
    let known =
        |circle: &String| CIRCLES.lines().any(|line| circle.split(' ').all(|path| has(line, path)));
    let new: Vec<_> = circles(&NAMES).into_iter().filter(|circle| !known(circle)).collect();
    assert!(new.is_empty(), "{}", new.join("\n"));
}

/// Two options of a socket: docs/decisions/0029-access-groups.md; a length that the crate `pcsc` trusts:
/// docs/decisions/0002-thread-model.md; the binding to the system's GSSAPI:
/// docs/decisions/0015-negotiate.md.
const UNSAFE: [&str; 4] = [
    "cm/auth/negotiate/gssapi/ffi.rs",
    "cm/auth/negotiate/gssapi/handles.rs",
    "control/access.rs",
    "readers/status_change.rs",
];

#[test]
fn nothing_is_unsafe_but_what_c_libraries_make_necessary() {
    let is_unsafe =
        |(path, text): &(&String, &String)| words(parse(path, text)).contains(&"unsafe".to_owned());
    let found = SOURCES.iter().filter(is_unsafe).map(|(path, _)| path.as_str());
    assert_eq!(found.collect::<Vec<_>>(), UNSAFE);
}

#[test]
fn every_unsafe_block_says_why_it_is_sound() {
    for path in UNSAFE {
        let text = &SOURCES[path];
        let blocks = ["unsafe {", "unsafe impl", "unsafe extern \"C\" {"];
        let blocks = blocks.map(|block| text.matches(block).count());
        assert_eq!(text.matches("// SAFETY: ").count(), blocks.iter().sum(), "{path}");
    }
}

#[test]
fn the_roots_only_declare_modules_and_call_the_command_line() {
    let code = |path: &str| {
        let lines = SOURCES[path].lines().filter(|line| !line.starts_with("//!"));
        lines.filter(|line| !line.is_empty()).collect::<Vec<_>>()
    };
    let is_module =
        |line: &&str| line.trim_start_matches("pub ").starts_with("mod ") && line.ends_with(';');
    assert!(code("lib.rs").iter().all(is_module));
    let main = ["fn main() -> std::process::ExitCode {", "    cardbridge::cli::main()", "}"];
    assert_eq!(code("main.rs"), main);
}

#[test]
fn the_manifest_renames_no_crate_and_moves_no_source() {
    let manifest = manifest("Cargo.toml");
    for key in ["lib", "bin", "target", "build-dependencies"] {
        assert!(!manifest.contains_key(key), "{key}");
    }
    assert!(!manifest.to_string().contains("package = "));
    assert!(!root().join("build.rs").exists());
}

#[test]
fn the_harness_never_depends_on_the_daemon() {
    let daemon = "cardbridge".to_owned();
    for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
        assert!(!dependencies("tests/harness/Cargo.toml", kind).contains(&daemon));
    }
    for (path, text) in sources("tests/harness") {
        let words = words(parse(&path, &text));
        assert!(!words.contains(&daemon) && !words.contains(&"include".to_owned()), "{path}");
        let outside = text.lines().any(|line| line.contains("#[path") && line.contains(".."));
        assert!(!outside, "{path}");
    }
}
