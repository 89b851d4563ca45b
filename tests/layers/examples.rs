//! Code that breaks a rule, and code that only seems to: one example a line.

use crate::names::{Names, Sources};
use crate::{CRATES, MAY_NAME, Rule, circles, doubles, findings};

/// A crate with every module of the table; all of them are empty but these files.
fn names(files: &[(&str, &str)]) -> Names {
    let mut sources = Sources::new();
    let modules = MAY_NAME.iter().map(|(module, _)| module);
    let root = modules.clone().map(|module| format!("pub mod {module};"));
    sources.insert("lib.rs".to_owned(), root.collect::<Vec<_>>().concat());
    sources.extend(modules.map(|module| (format!("{module}.rs"), String::new())));
    sources.extend(files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())));
    Names::read(&sources, &CRATES)
}

#[track_caller]
fn all_found(rule: Rule, module: &str, examples: &str) {
    for code in examples.trim().lines() {
        let found = findings(&names(&[(&format!("{module}.rs"), code)]));
        assert!(found.iter().any(|(it, _)| *it == rule), "overlooked: {code}\n{found:?}");
    }
}

#[test]
fn a_module_is_found_however_it_is_named() {
    all_found(
        Rule::Layers,
        "engine",
        r#"
use crate::outbox;
use crate::outbox::Row;
pub use crate::outbox as disk;
use crate::{domain::Atr}; use crate::{outbox::Row, rules::Rule};
use crate::{domain::{Atr, Card}, rules as r, outbox::{self, Row}};
use super::outbox::Row;
use self::super::outbox::Row;
use {crate::domain::Atr, crate::outbox::Row};
use crate::r#outbox::Row;
use crate::outbox::*;
mod inner { use super::super::outbox::Row; }
mod inner { fn f() { super::super::outbox::open(); } }
fn f() { use crate::outbox::open; open(); }
fn f(row: &crate::outbox::Row) -> Option<Vec<u8>> { None }
fn f() -> Option<Vec<crate::outbox::Row>> { None }
fn f<T: crate::outbox::Rows>() {}
impl crate::outbox::Rows for () {}
fn f(x: X) { match x { crate::outbox::Row { .. } => {} } }
fn f() { <crate::outbox::Row>::new(); }
fn f() { <() as crate::outbox::Rows>::new(); }
const URL: &str = "http://x"; use crate::outbox::Row;
/* http:// */ use crate::outbox::Row; // fine
use crate /* :: */ :: outbox :: Row;
#[cfg(test)] mod tests { } use crate::outbox::Row;
#[cfg(not(test))] use crate::outbox::Row;
#[derive(crate::outbox::Row)] struct X;
struct X { #[serde(with = "crate::outbox::hex")] x: u8 }
#[serde(try_from = "Vec<crate::outbox::Row>")] struct X;
fn f() { format!("{}", crate::outbox::open()); }
fn f() { crate::outbox::open!(); }
macro_rules! m { ($x:expr) => { $crate::outbox::open($x) }; }
macro_rules! m { ($($x:ident)*) => { use $crate::{domain::Atr, outbox::{$($x),*}}; }; }
mod outer { pub(super) use super::super as up; } fn f() { outer::up::outbox::open(); }
"#,
    );
    all_found(Rule::Layers, "control", "use crate::{cm};\nuse crate::app::App;");
    all_found(Rule::Layers, "cli", "use crate::Unknown;\nfn f() { crate::unknown!(); }");
}

#[test]
fn a_crate_is_found_however_it_is_named() {
    all_found(
        Rule::Crates,
        "app",
        r#"
use pcsc;
use ::pcsc::Card;
use pcsc as cards;
use {tokio::time, reqwest::Client};
fn f() { axum::serve(); }
fn f(x: &dyn clap::Parser) {}
#[derive(clap::Parser)] struct X;
#[axum::debug_handler] fn f() {}
fn f() { pcsc::ctl!(); }
fn f() { format!("{}", <pcsc::Card>::new()); }
fn f() { tracing::info!(x = %rusqlite::version(), "y"); }
"#,
    );
    let found = findings(&names(&[
        ("readers.rs", "pub use pcsc::Card; pub use reader::*; mod reader;"),
        ("readers/reader.rs", "pub type Scope = pcsc::Scope;"),
        ("app.rs", "use crate::readers::Card; fn f(x: crate::readers::Scope) {}"),
    ]));
    let paths = ["app.rs: crate::readers::Card", "app.rs: crate::readers::Scope"];
    assert_eq!(found, paths.map(|path| (Rule::Crates, path.to_owned())));
}

#[test]
fn what_reaches_outside_is_found_in_pure_modules() {
    all_found(
        Rule::Purity,
        "engine",
        r#"
use std::{fs, net, thread, time};
use std as s; fn f() { s::fs::read(); }
use std::time::*;
use core::time; fn f() { time::Instant::now(); }
use std::time::Instant; fn f() { g(Instant::now); }
use std::time::Instant as I; fn f() { I::now(); }
type I = std::time::Instant; fn f() { I::now(); }
fn f() { <std::time::Instant>::now(); }
fn f(at: std::time::Instant) { at.elapsed(); }
fn f() -> std::time::SystemTime { x }
fn f() { jiff::Zoned::now(); }
use std::collections::HashMap;
fn f() { fastrand::u64(..); }
use fastrand::Rng; fn f() { Rng::new(); }
type R = fastrand::Rng; fn f() { R::default(); }
fn f() { uuid::Uuid::new_v4(); }
use std::net::ToSocketAddrs as _;
fn f() { "http://x"; std::fs::read("x"); }
fn f(x: &std::path::Path) { std::path::Path::metadata(x); }
fn f() { std::process::exit(1); }
fn f() { println!(); }
fn f() { std::println!(); }
fn f() { matches!(x, y if dbg!(true)); }
thread_local! { static X: u8 = 1; }
static X: std::sync::Mutex<u8> = y;
use tracing::info; fn f() { info!("x"); }
#[tracing::instrument] fn f() {}
async fn f() {}
fn f() { x.await; }
fn f() { format!("{:?}", g(|| at.elapsed())); }
macro_rules! m { ($x:ty) => { <$x>::now() }; }
macro_rules! m { () => { use std::{time as t, fmt}; }; }
m! { #[cfg(test)] mod tests {} fn f() { std::fs::read(); } }
"#,
    );
    all_found(Rule::Hiding, "cli", "use crate::*;\nuse crate as all;\nuse super::{self as all};");
}

#[test]
fn what_only_looks_like_a_name_is_not_found() {
    let examples = r#"
// crate::outbox::Row /* std::fs */
/** [`crate::outbox`] */ struct X;
const X: &str = "crate::outbox::Row std::fs println!";
#[cfg(test)] mod tests { use crate::outbox; fn f() { println!(); } }
#[cfg(doc)] use crate::app::App;
impl X { #[cfg(test)] fn f() { std::fs::read("x"); } }
fn f(outbox: u8, pcsc: u8) { outbox; pcsc; let now = 1; now; self.now = now; }
pub(crate) fn f() {} pub(in crate::engine) struct X(pub(crate) u8);
#[expect(dead_code, reason = "std::fs::read")] struct X;
use crate::domain::Atr; use crate::{rules::{self, Rule}, engine::queue};
use std::{fmt::{self, Write as _}, time::{Duration, Instant}};
fn f() { fastrand::Rng::with_seed(1); }
macro_rules! guid { ($x:ident) => { pub struct $x(uuid::Uuid); }; } guid! { X }
fn f() { matches!(x, Some(y) if !(y == 1)); format!("{x}", x = 1, std = 2); }
"#;
    for code in examples.trim().lines() {
        assert_eq!(findings(&names(&[("engine.rs", code)])), [], "{code}");
    }
}

#[test]
fn types_of_one_name_are_found() {
    let with = |app: &str| {
        let cli = "struct A; pub enum B {} guid! { Card } impl X { type D = u8; }";
        doubles(&names(&[("cli.rs", cli), ("app.rs", app)])).into_iter().collect::<Vec<_>>()
    };
    assert_eq!(with("mod inner { type A = u8; } trait B {} number! { Card }"), ["A", "B", "Card"]);
    assert_eq!(with("impl Y { type D = u8; } #[cfg(test)] struct A; fn B() {}"), [""; 0]);
}

#[test]
fn circles_are_found_through_what_is_re_exported() {
    let with = |a: &str, b: &str, c: &str| {
        let files = [(
            "cli.rs",
            "mod a; mod b; mod c; pub use a::A; pub use b::B; pub use c::*; pub struct P;",
        )];
        let files = [files[0], ("cli/a.rs", a), ("cli/b.rs", b), ("cli/c.rs", c)];
        circles(&names(&files)).into_iter().collect::<Vec<_>>()
    };
    let (a, b) = ("use super::B; pub struct A;", "pub struct B; fn f() -> crate::cli::c::C {}");
    assert_eq!(with(a, b, "pub struct C(super::A);"), ["cli/a.rs cli/b.rs cli/c.rs"]);
    assert_eq!(
        with("pub fn A() { super::c::C::new() }", "", "use super::*; struct C; fn f() { A() }"),
        ["cli/a.rs cli/c.rs"]
    );
    assert_eq!(with(a, b, "pub struct C(super::P);"), [""; 0]);
    assert_eq!(with("pub use super::B; pub struct A;", "use super::A; pub struct B;", ""), [""; 0]);
}
