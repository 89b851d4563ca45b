//! Code that means to be overlooked, and code that only looks as if it did something.

use std::path::PathBuf;

use crate::law::{MAY_NAME, Project, Rule};
use crate::tree::Sources;

/// A crate with every module of the table, all of them empty.
fn empty() -> Sources {
    let mut sources = Sources::new();
    let mut root = String::new();
    for (module, _) in MAY_NAME {
        root += &["pub mod ", module, ";"].concat();
        sources.insert(PathBuf::from(format!("{module}.rs")), String::new());
    }
    sources.insert(PathBuf::from("lib.rs"), root);
    sources
}

/// What is found in these files and no others.
fn broken(files: &[(&str, &str)]) -> Vec<(Rule, String)> {
    let mut sources = empty();
    for (path, text) in files {
        sources.insert(PathBuf::from(path), (*text).to_owned());
    }
    let found = Project::new(&sources, &crate::CRATES).findings();
    found.into_iter().map(|it| (it.rule, format!("{}: {}", it.file.display(), it.what))).collect()
}

/// Each of these, alone in a module, breaks a rule.
#[track_caller]
fn all_found(rule: Rule, module: &str, codes: &[&str]) {
    for code in codes {
        let found = broken(&[(&format!("{module}.rs"), code)]);
        // That `m!` is no known macro is found besides.
        let mut telling = found.iter().filter(|(_, what)| !what.contains("`m`"));
        assert!(telling.any(|(which, _)| *which == rule), "overlooked: {code}\n{found:?}");
    }
}

#[track_caller]
fn none_found(module: &str, codes: &[&str]) {
    for code in codes {
        assert_eq!(broken(&[(&format!("{module}.rs"), code)]), [], "{code}");
    }
}

#[test]
fn a_module_is_found_however_it_is_named() {
    all_found(
        Rule::Layers,
        "engine",
        &[
            "use crate::outbox;",
            "use crate::outbox::Row;",
            "pub use crate::outbox as disk;",
            "use crate::{domain::Atr}; use crate::{outbox::Row, rules::Rule};",
            "use crate::{domain::{Atr, Card}, rules, outbox::{self, Row}};",
            "use super::outbox::Row;",
            "use self::super::outbox::Row;",
            "use {crate::domain::Atr, crate::outbox::Row};",
            "use crate::r#outbox::Row;",
            "use crate::outbox::*;",
            "mod inner { use super::super::outbox::Row; }",
            "mod inner { fn f() { super::super::outbox::open(); } }",
            "fn f() { use crate::outbox::open; open(); }",
            "fn f(row: &crate::outbox::Row) {}",
            "fn f() -> Option<Vec<crate::outbox::Row>> { None }",
            "fn f<T: crate::outbox::Rows>() {}",
            "fn f() where (): crate::outbox::Rows {}",
            "impl crate::outbox::Rows for () {}",
            "fn f(x: u8) { if let crate::outbox::ROW = x {} }",
            "fn f(x: X) { match x { crate::outbox::Row { .. } => {} } }",
            "fn f() { <crate::outbox::Row>::new(); }",
            "fn f() { <() as crate::outbox::Rows>::new(); }",
            "fn f() { let open = crate::outbox::open; }",
            "const URL: &str = \"http://x\"; use crate::outbox::Row;",
            "/* http:// */ use crate::outbox::Row; // fine",
            "use crate /* :: */ :: outbox\n:: Row;",
            "#[cfg(test)] mod tests {\n}\nuse crate::outbox::Row;",
            "#[cfg(not(test))] use crate::outbox::Row;",
            "#[cfg(any(test, unix))] use crate::outbox::Row;",
            "#[derive(crate::outbox::Row)] struct X;",
            "struct X { #[serde(with = \"crate::outbox::hex\")] x: u8 }",
            "#[serde(try_from = \"Vec<crate::outbox::Row>\")] struct X;",
            "#[cfg_attr(unix, serde(from = \"crate::outbox::Row\"))] struct X;",
            "fn f() { format!(\"{}\", crate::outbox::open()); }",
            "fn f() { vec![vec![crate::outbox::open(); 2]; 2]; }",
            "fn f() { crate::outbox::open!(); }",
            "macro_rules! m { ($x:expr) => { $crate::outbox::open($x) }; }",
            "macro_rules! m { ($($x:ident)*) => { use $crate::{domain::Atr, outbox::Row}; }; }",
            "macro_rules! m { ($($x:ident)*) => { use $crate::{outbox::{$($x),*}}; }; }",
            "m! { use crate::{domain::Atr, outbox::Row}; fn f() {} }",
            "m! { a ==> 0..crate::outbox::LAST }",
            "m! { a ==> #[serde(with = \"crate::outbox::hex\")] x }",
            "mod outer { pub(super) use super::super as up; } fn f() { outer::up::outbox::open(); }",
        ],
    );
    all_found(Rule::Layers, "control", &["use crate::{cm};", "use crate::app::App;"]);
    all_found(Rule::Layers, "app", &["use crate::cli;"]);
    all_found(Rule::Layers, "cli", &["use crate::Unknown;", "fn f() { crate::unknown!(); }"]);
}

#[test]
fn a_crate_is_found_however_it_is_named() {
    all_found(
        Rule::Crates,
        "app",
        &[
            "use pcsc;",
            "use ::pcsc::Card;",
            "use pcsc as cards;",
            "use {tokio::time, reqwest::Client};",
            "extern crate rusqlite;",
            "extern crate rusqlite as db;",
            "fn f() { axum::serve(); }",
            "fn f(x: &dyn clap::Parser) {}",
            "#[derive(clap::Parser)] struct X;",
            "#[axum::debug_handler] fn f() {}",
            "fn f() { pcsc::ctl!(); }",
            "fn f() { format!(\"{}\", <pcsc::Card>::new()); }",
            "m!(pcsc);",
            "fn f() { tracing::info!(x = %rusqlite::version(), \"y\"); }",
        ],
    );
    let found = broken(&[
        ("readers.rs", "pub use pcsc::Card; pub use reader::*; mod reader;"),
        ("readers/reader.rs", "pub type Scope = pcsc::Scope;"),
        ("app.rs", "use crate::readers::Card; fn f(x: crate::readers::Scope) {}"),
    ]);
    assert_eq!(
        found.iter().map(|(_, what)| what.as_str()).collect::<Vec<_>>(),
        [
            "app.rs: `crate::readers::Card` names pcsc::Card",
            "app.rs: `crate::readers::Scope` names pcsc::Scope",
        ]
    );
}

#[test]
fn what_reaches_outside_is_found_in_pure_modules() {
    all_found(
        Rule::Purity,
        "engine",
        &[
            "use std::{fs, net, thread, time};",
            "use std as s; fn f() { s::fs::read(); }",
            "use std::*;",
            "use std::time::*;",
            "use core::time; fn f() { time::Instant::now(); }",
            "extern crate std as s;",
            "use std::time::Instant; fn f() { g(Instant::now); }",
            "use std::time::Instant as I; fn f() { I::now(); }",
            "type I = std::time::Instant; fn f() { I::now(); }",
            "fn f() { <std::time::Instant>::now(); }",
            "fn f(at: std::time::Instant) { at.elapsed(); }",
            "fn f() { let x = time::Instant::now; }",
            "fn f<C: Clock>() { C::now(); }",
            "fn f(clock: &dyn Clock) { clock.now(); }",
            "fn f() -> std::time::SystemTime { x }",
            "fn f() { jiff::Zoned::now(); }",
            "fn f() { jiff::tz::TimeZone::system(); }",
            "use std::collections::hash_map::RandomState; fn f() { RandomState::new(); }",
            "use std::collections::HashMap;",
            "fn f() { fastrand::u64(..); }",
            "fn f() { fastrand::Rng::new(); }",
            "use fastrand::Rng; fn f() { Rng::new(); }",
            "type R = fastrand::Rng; fn f() { R::default(); }",
            "fn f() { <fastrand::Rng>::new(); }",
            "fn f() { uuid::Uuid::new_v4(); }",
            "use std::net::TcpListener; fn f() { TcpListener::bind(x); }",
            "use std::net::ToSocketAddrs as _;",
            "fn f() { std::env::var(\"X\"); }",
            "fn f() { \"http://x\"; std::fs::read(\"x\"); }",
            "fn f(x: &std::path::Path) { x.exists(); }",
            "fn f(x: &std::path::Path) { std::path::Path::metadata(x); }",
            "fn f() { std::process::exit(1); }",
            "fn f() { std::thread::spawn(g); }",
            "fn f() { std::io::stdin(); }",
            "fn f() { println!(); }",
            "fn f() { eprint!(\"x\"); }",
            "fn f() { std::println!(); }",
            "fn f() { dbg!(1); }",
            "fn f() { matches!(x, y if dbg!(true)); }",
            "fn f() { env!(\"X\"); }",
            "thread_local! { static X: u8 = 1; }",
            "static X: std::sync::Mutex<u8> = y;",
            "static mut X: u8 = 1;",
            "m! { a ==> static mut X: u8 = 1; }",
            "fn f() { tracing::info!(\"x\"); }",
            "use tracing::info; fn f() { info!(\"x\"); }",
            "#[tracing::instrument] fn f() {}",
            "#[tokio::main] fn f() {}",
            "fn f() { log::info!(\"x\"); }",
            "async fn f() {}",
            "fn f() { async {}; }",
            "fn f() { format!(\"{:?}\", g(|| std::time::Instant::now())); }",
            "fn f() { format!(\"{:?}\", at.elapsed()); }",
            "macro_rules! m { ($x:expr) => { Instant::now() }; }",
            "macro_rules! m { ($x:ty) => { <$x>::now() }; }",
            "macro_rules! m { ($x:ident) => { $x::fs::read() }; } fn f() { m!(std); }",
            "macro_rules! m { () => { use std::{time as t, fmt}; }; }",
            "m! { #[cfg(test)] mod tests {} fn f() { std::fs::read(); } }",
        ],
    );
    let found = broken(&[
        ("engine.rs", "mod a; mod b; use std::time::Instant as Moment;"),
        ("engine/a.rs", "use super::*; fn f() { let f = Moment::now; }"),
        ("engine/b.rs", "#![cfg(test)] fn f() { std::fs::read(); }"),
    ]);
    assert_eq!(found, [(Rule::Purity, "engine/a.rs: `Moment::now` reaches outside".to_owned())]);
}

#[test]
fn what_hides_names_is_found() {
    all_found(
        Rule::Hiding,
        "cli",
        &[
            "use crate::*;",
            "use crate as all;",
            "use super::*;",
            "use super::{self as all};",
            "mod inner { use super::super as all; }",
            "extern crate self as all;",
            "macro_rules! m { () => { use $crate as all; }; }",
            "m!(crate);",
            "include!(\"../outbox.rs\");",
            "fn f() { std::include!(\"x\"); }",
            "use std::include as i; i!(\"x\");",
            "use crate::{self as all, domain::Atr};",
            "#[path = \"../outbox/row.rs\"] mod row;",
            "#[cfg_attr(unix, path = \"../outbox/row.rs\")] mod row;",
            "macro_rules! m { ($x:ident) => { std::$x::f() }; }",
        ],
    );
}

#[test]
fn what_only_looks_like_a_name_is_not_found() {
    none_found(
        "engine",
        &[
            "// crate::outbox::Row\n/* std::fs */ /// [`crate::outbox`]\nstruct X;",
            "const X: &str = \"crate::outbox::Row std::fs println!\";",
            "#[cfg(test)] mod tests { use crate::outbox; fn f() { println!(); } }",
            "#[cfg(all(test, unix))] use crate::outbox;",
            "#[cfg(test)] mod tests { #[test] fn f() {} } fn g() {}",
            "#[cfg(doc)] use crate::app::App;",
            "impl X { #[cfg(test)] fn f() { std::fs::read(\"x\"); } }",
            "fn f(outbox: u8, pcsc: u8) { outbox; pcsc; let now = 1; now; }",
            "fn f(uuid: u8) { format!(\"{} {}\", uuid, 1); }",
            "pub(crate) fn f() {} pub(in crate::engine) struct X(pub(crate) u8);",
            "#[expect(dead_code, reason = \"std::fs::read\")] struct X;",
            "#[serde(rename = \"std::fs\")] struct X;",
            "use crate::domain::Atr; use crate::{rules::{self, Rule}, engine::queue};",
            "use super::domain::Atr; mod queue { use super::*; use super::super::rules::Rule; }",
            "use std::{fmt::{self, Write as _}, time::{Duration, Instant}};",
            "fn f() { fastrand::Rng::with_seed(1); }",
            "macro_rules! guid { ($x:ident) => { pub struct $x(uuid::Uuid); }; } guid! { X }",
            "fn f() { vec!(pub(crate) x ==> y); format!(\"{x}\", x = 1, std = 2); }",
            "fn f() { matches!(x, Some(y) if !(y == 1)); }",
        ],
    );
    none_found("outbox", &["use rusqlite::Connection; fn f() { std::time::Instant::now(); }"]);
    none_found(
        "telemetry",
        &["fn f() { tracing::info!(pcsc = true, \"crate::outbox\"); println!(); }"],
    );
}
