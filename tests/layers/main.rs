//! Holds the table of `docs/architecture.md`: which module may name which, and what the pure
//! modules must never do.
//!
//! The sources are parsed, and every path is followed through `use`, `type` and `pub use` to what
//! it means: [`tree`] finds the files, [`names`] and [`tokens`] what they write, [`resolve`] what
//! that means, [`law`] what of it is forbidden. [`fooled`] tests the test.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "a test that reads sources fails where they are not as expected"
)]

mod fooled;
mod law;
mod names;
mod resolve;
mod tokens;
mod tree;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use proc_macro2::{TokenStream, TokenTree};
use syn::Item;

use law::{Finding, MAY_NAME, OWNED, Project, Rule};
use names::Names;
use tree::{Sources, reach, read};

const KINDS_OF_DEPENDENCIES: [&str; 3] = ["dependencies", "dev-dependencies", "build-dependencies"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources() -> Sources {
    read(&root().join("src"))
}

fn manifest(path: &str) -> toml::Table {
    toml::from_str(&std::fs::read_to_string(root().join(path)).unwrap()).unwrap()
}

/// The names of a manifest's dependencies, and the names of their packages.
fn dependencies(manifest: &toml::Table, kinds: &[&str]) -> Vec<(String, String)> {
    let targets = manifest.get("target").and_then(toml::Value::as_table).into_iter().flatten();
    let shared = manifest.get("workspace").and_then(toml::Value::as_table);
    let targets = targets.filter_map(|(_, target)| target.as_table());
    let tables = targets.chain(shared).chain([manifest]);
    let kinds = tables.flat_map(|table| kinds.iter().filter_map(|kind| table.get(*kind)));
    let all = kinds.filter_map(toml::Value::as_table).flatten();
    all.map(|(name, how)| {
        let package = how.get("package").and_then(toml::Value::as_str).unwrap_or(name);
        (name.clone(), package.to_owned())
    })
    .collect()
}

/// The names that the program's dependencies have.
fn crates() -> Vec<String> {
    let all = dependencies(&manifest("Cargo.toml"), &["dependencies"]);
    all.into_iter().map(|(name, _)| name).collect()
}

static CRATES: LazyLock<Vec<String>> = LazyLock::new(crates);
static PROJECT: LazyLock<Project> = LazyLock::new(|| Project::new(&sources(), &CRATES));
static FINDINGS: LazyLock<BTreeSet<Finding>> = LazyLock::new(|| PROJECT.findings());

/// Says each place where a rule is broken.
#[track_caller]
fn holds(rule: Rule) {
    let broken: Vec<_> = FINDINGS.iter().filter(|it| it.rule == rule).collect();
    let lines =
        broken.iter().map(|Finding { file, what, .. }| format!("{}: {what}\n", file.display()));
    assert!(
        broken.is_empty(),
        "{rule:?}, see tests/layers/law.rs, is broken:\n{}",
        lines.collect::<String>()
    );
}

fn words(text: &str) -> Vec<String> {
    fn collect(stream: TokenStream, words: &mut Vec<String>) {
        for token in stream {
            match token {
                TokenTree::Group(group) => collect(group.stream(), words),
                TokenTree::Ident(ident) => words.push(ident.to_string()),
                TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
        }
    }
    let mut words = Vec::new();
    collect(text.parse().unwrap(), &mut words);
    words
}

#[test]
fn every_module_is_in_the_table_and_every_entry_is_a_module() {
    let known: BTreeSet<_> = MAY_NAME.iter().map(|(module, _)| *module).collect();
    assert_eq!(PROJECT.modules(), known);
}

#[test]
fn modules_name_only_what_the_table_allows() {
    holds(Rule::Layers);
}

#[test]
fn crates_belong_to_one_module_each() {
    holds(Rule::Crates);
    let naming = PROJECT.owners();
    for (name, owners) in OWNED {
        assert_eq!(naming[*name], owners.iter().copied().collect(), "who names {name}");
    }
}

#[test]
fn pure_modules_do_nothing_but_compute() {
    holds(Rule::Purity);
}

#[test]
fn nothing_hides_names_from_this_test() {
    holds(Rule::Hiding);
}

/// Two options of a socket: docs/decisions/0029-access-groups.md; a length that the crate `pcsc` trusts: docs/decisions/0002-thread-model.md; the binding to the
/// system's GSSAPI: docs/decisions/0015-negotiate.md.
const UNSAFE: [&str; 4] = [
    "control/peer/socket.rs",
    "readers/atr.rs",
    "remote/credentials/negotiate/gssapi/owned.rs",
    "remote/credentials/negotiate/gssapi/raw.rs",
];

#[test]
fn nothing_is_unsafe_but_what_c_libraries_make_necessary() {
    let is_unsafe = |text: &str| words(text).contains(&"unsafe".to_owned());
    let sources = sources();
    let found = sources.iter().filter(|(_, text)| is_unsafe(text)).map(|(path, _)| path.as_path());
    assert_eq!(found.collect::<Vec<_>>(), UNSAFE.map(Path::new));
}

#[test]
fn every_unsafe_block_says_why_it_is_sound() {
    for path in UNSAFE {
        let text = &sources()[Path::new(path)];
        let blocks = ["unsafe {", "unsafe impl", "unsafe extern \"C\" {"]
            .map(|block| text.matches(block).count());
        assert_eq!(text.matches("// SAFETY: ").count(), blocks.iter().sum(), "{path}");
    }
}

#[test]
fn the_root_of_the_library_only_declares_the_modules() {
    let library = syn::parse_file(&sources()[Path::new("lib.rs")]).unwrap();
    let mut attributes = library.attrs;
    for item in library.items {
        let Item::Mod(module) = item else { panic!("lib.rs has more than modules") };
        assert!(module.content.is_none(), "{} stands in lib.rs", module.ident);
        attributes.extend(module.attrs);
    }
    assert!(attributes.iter().all(|attribute| attribute.path().is_ident("doc")));
}

#[test]
fn the_program_only_calls_the_command_line() {
    let files = reach(&sources(), "main.rs", &[]);
    let [main] = files.as_slice() else { panic!("main.rs has modules") };
    let names = Names::of(&main.module, &main.syntax);
    let paths: BTreeSet<_> = names.written.iter().map(|path| path.segments.join("::")).collect();
    let expected = ["cardbridge::cli::main", "std::process::ExitCode"];
    assert_eq!(paths, expected.map(str::to_owned).into());
}

#[test]
fn every_file_is_reached_from_the_roots() {
    let sources = sources();
    let roots = ["lib.rs", "main.rs"].into_iter();
    let reached = roots.flat_map(|root| reach(&sources, root, &[])).map(|file| file.path);
    let all: BTreeSet<PathBuf> = sources.keys().cloned().collect();
    assert_eq!(reached.collect::<BTreeSet<_>>(), all);
}

#[test]
fn the_manifest_renames_no_crate_and_moves_no_source() {
    let manifest = manifest("Cargo.toml");
    for (name, package) in dependencies(&manifest, &KINDS_OF_DEPENDENCIES) {
        assert_eq!(name, package);
    }
    for key in ["lib", "bin"] {
        assert!(!manifest.contains_key(key), "{key}");
    }
    assert!(!manifest["package"].as_table().unwrap().contains_key("build"));
    assert!(!root().join("build.rs").exists());
}

#[test]
fn renamed_crates_and_unsafe_code_are_seen() {
    let manifest = "[target.x.dependencies]\na = { package = 'b' }\n\
                    [workspace.dependencies.c]\npackage = 'd'";
    let found = dependencies(&toml::from_str(manifest).unwrap(), &KINDS_OF_DEPENDENCIES);
    assert_eq!(found, [("a", "b"), ("c", "d")].map(|(a, b)| (a.to_owned(), b.to_owned())));
    assert!(words("fn f() { m!({ unsafe { g() } }) } // x").contains(&"unsafe".to_owned()));
    assert!(!words("// unsafe\nconst X: &str = \"unsafe\";").contains(&"unsafe".to_owned()));
}

#[test]
fn the_harness_never_depends_on_the_daemon() {
    let manifest = manifest("tests/harness/Cargo.toml");
    for (name, package) in dependencies(&manifest, &KINDS_OF_DEPENDENCIES) {
        assert!(name != "cardbridge" && package != "cardbridge");
    }
    for (path, text) in read(&root().join("tests/harness")) {
        let words = words(&text);
        assert!(!words.contains(&"include".to_owned()), "{}", path.display());
        assert!(!words.contains(&"cardbridge".to_owned()), "{}", path.display());
        let outside = text.lines().any(|line| line.contains("#[path") && line.contains(".."));
        assert!(!outside, "{}", path.display());
    }
}
