//! Compares the documents with the code.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{fs, io};

use cardbridge::config::{ConfigInputs, ConfigText, DefaultValue, KEYS, KeySpec, parse};
use cardbridge::domain::{
    ClientCertFault, CmEnums, NotIdentifiedReason, Outcome, ParkReason, ProxyFault,
    ReaderAttributes, ReaderMatch, TlsFault, UnavailableReason,
};

const CONFIGURE: &str = include_str!("../docs/configure.md");
const OPERATE: &str = include_str!("../docs/operate.md");
const TROUBLESHOOT: &str = include_str!("../docs/troubleshoot.md");
const REFERENCE: &str = include_str!("../docs/reference.md");

/// The documents with configuration examples.
const EXAMPLES: [&str; 2] = [CONFIGURE, REFERENCE];

/// A key's row in the table of all keys.
fn row(key: &KeySpec) -> String {
    let default = match key.fallback {
        DefaultValue::Value(value) => format!("`{value}`"),
        DefaultValue::Required | DefaultValue::Unset | DefaultValue::HostName => {
            key.default_text().to_owned()
        }
    };
    format!("| `{}` | {default} | {} |", key.path, key.meaning)
}

/// The lines below a heading, up to the next one.
fn below(document: &'static str, heading: &str) -> impl Iterator<Item = &'static str> {
    let lines = document.lines().skip_while(move |line| *line != heading).skip(1);
    lines.take_while(|line| !line.starts_with('#'))
}

/// The table rows below a heading whose first cell is code.
fn rows(document: &'static str, heading: &str) -> Vec<&'static str> {
    below(document, heading).filter(|line| line.starts_with("| `")).collect()
}

#[test]
fn key_table_equals_keys_in_code() {
    let written = rows(REFERENCE, "## All configuration keys");
    let meant: Vec<_> = KEYS.iter().map(row).collect();
    assert_eq!(written, meant, "the table should be:\n\n{}\n", meant.join("\n"));
}

#[test]
fn every_outcome_and_reason_has_a_row() {
    use UnavailableReason as Why;

    let mut outcomes = Outcome::ALL.map(Outcome::as_str).to_vec();
    outcomes.dedup();
    let reason = |outcome| {
        if let Outcome::Parked(reason) = outcome { Some(ParkReason::as_str(reason)) } else { None }
    };
    let parked: Vec<_> = Outcome::ALL.into_iter().filter_map(reason).collect();
    let unavailable = [
        Why::Unreachable,
        Why::Timeout,
        Why::Proxy(ProxyFault::AuthRequired),
        Why::Tls(TlsFault::Other),
        Why::ClientCertificate(ClientCertFault::RequestedLate),
        Why::Credentials,
        Why::Unauthorized,
        Why::ApiDisabled,
        Why::MethodNotAllowed,
        Why::RequestTooLarge,
        Why::Busy,
        Why::ServerError,
        Why::NotCm,
    ]
    .map(UnavailableReason::as_str);
    let not_identified: Vec<_> = NotIdentifiedReason::ALL.iter().map(|it| it.as_str()).collect();

    for (document, heading, names) in [
        (OPERATE, "## Outcomes", outcomes.as_slice()),
        (OPERATE, "## Parked entries: what to do", &parked),
        (TROUBLESHOOT, "## CM is unavailable: reasons", &unavailable),
        (TROUBLESHOOT, "## Card is not identified", &not_identified),
    ] {
        let rows = rows(document, heading);
        let has_row =
            |name: &&str| rows.iter().any(|row| row.starts_with(&format!("| `{name}` |")));
        let missing: Vec<_> = names.iter().filter(|name| !has_row(name)).collect();
        assert!(missing.is_empty(), "{heading} has no row for {missing:?}");
        assert_eq!(rows.len(), names.len(), "{heading} has a row for an unknown name");
    }
}

#[test]
fn metric_table_equals_metrics_in_code() {
    let source = include_str!("../src/control/prometheus.rs");
    let heads = source.split("page.").skip(1);
    let heads = heads.filter_map(|call| {
        let heading =
            ["gauge(", "counter(", "head("].iter().find_map(|it| call.strip_prefix(it))?;
        heading.split('"').nth(1)
    });
    let meant: Vec<_> = heads.map(|name| format!("| `cardbridge_{name}`")).collect();
    let rows = rows(REFERENCE, "## Metrics");
    assert!(meant.len() > 15, "{meant:?}");
    assert_eq!(rows.len(), meant.len(), "{meant:?}");
    for (row, name) in rows.iter().zip(&meant) {
        assert!(row.starts_with(name.as_str()), "{row} is not {name}");
    }
}

#[test]
fn number_table_equals_numbers_in_code() {
    let numbers = CmEnums::default();
    for (section, map) in [
        ("request_type", &numbers.request_type),
        ("card_status", &numbers.card_status),
        ("request_status", &numbers.request_status),
    ] {
        let names: Vec<_> = map.iter().map(|(name, number)| format!("{name} {number}")).collect();
        let row = format!("| `[cm.numbers.{section}]` | {} |", names.join(", "));
        assert!(below(REFERENCE, "## CM numbers").any(|line| line == row), "no row {row}");
    }
}

#[test]
fn example_error_messages_are_the_real_ones() {
    let source =
        |name: &str, text: &str| ConfigText { name: name.to_owned(), text: text.to_owned() };
    let sources = [
        source(
            "/etc/cardbridge/cardbridge.toml",
            "[cm]\nurl = \"https://cm.example.com\"\ntimeout = \"10 bananas\"",
        ),
        source("/etc/cardbridge/conf.d/10-desk.toml", "[cm]\nconcurency = 8"),
    ];
    let variable = ("CARDBRIDGE_OUTBOX__MAX_ENTRIES".to_owned(), "lots".to_owned());
    let inputs = ConfigInputs {
        sources: &sources,
        environment: &[variable],
        host_name: "desk-3",
        ..ConfigInputs::default()
    };
    let problems = parse(&inputs).expect_err("three problems").to_string();
    assert!(CONFIGURE.contains(&format!("```text\n{problems}\n```")), "{problems}");
}

#[test]
fn toml_examples_are_valid_configurations() {
    let blocks = EXAMPLES.into_iter().flat_map(|document| document.split("```toml\n").skip(1));
    let mut seen = 0;
    for text in blocks.filter_map(|block| block.split("```").next()) {
        let source = ConfigText { name: "example".to_owned(), text: text.to_owned() };
        let inputs = ConfigInputs {
            sources: &[source],
            environment: &[],
            host_name: "desk-3",
            ..ConfigInputs::default()
        };
        if let Err(problems) = parse(&inputs) {
            panic!("{problems}");
        }
        seen += 1;
    }
    assert!(seen > 5, "{seen} examples");
}

/// PC/SC names by product: the driver's product name, the interface, the serial number of devices that
/// have one, and two counters.
const READERS: [(&str, &[&str]); 6] = [
    (
        "omnikey",
        &[
            "HID Global OMNIKEY 3x21 Smart Card Reader [OMNIKEY 3x21 Smart Card Reader] 00 00",
            "HID Global OMNIKEY 5422 Smartcard Reader [OMNIKEY 5422CL Smartcard Reader] (KH05060028) 01 00",
            "HID Global OMNIKEY 6121 Smart Card Reader 00 00",
            "OMNIKEY AG CardMan 3121 00 00",
            "OMNIKEY CardMan 5321 (0) 00 01",
        ],
    ),
    ("acr39", &["ACS ACR39U ICC Reader 00 00", "ACS ACR39U 01 00"]),
    ("identiv", &["Identiv uTrust 3700 F CL Reader [uTrust 3700 F CL Reader] (55041234) 00 00"]),
    ("gemalto", &["Gemalto PC Twin Reader (E1A2B3C4) 00 00", "Gemalto USB Shell Token V2 00 00"]),
    ("cherry", &["Cherry GmbH SmartTerminal ST-1144 [CCID] 00 00", "Cherry KC 1000 SC 00 00"]),
    ("yubikey", &["Yubico YubiKey OTP+FIDO+CCID 00 00", "Yubico YubiKey CCID 00 00"]),
];

/// Every value of `reader[].match` in the examples of a text, except `*`.
fn reader_globs(text: &str) -> Vec<String> {
    let examples = text.split("```toml\n").skip(1).filter_map(|block| block.split("```").next());
    let tables = examples.flat_map(|example| example.split("[[reader]]").skip(1));
    let globs = tables.filter_map(|table| {
        let line = table.lines().find(|line| line.starts_with("match = "))?;
        line.split('"').nth(1).map(str::to_owned)
    });
    globs.filter(|glob| glob != "*").collect()
}

#[test]
fn reader_globs_in_examples_match_real_readers() {
    let in_the_table = KEYS.iter().find(|key| key.path == "reader[].match").unwrap();
    let mut globs = reader_globs(CONFIGURE);
    globs.push(in_the_table.example.trim_matches('"').to_owned());
    assert!(globs.len() > 1, "the document has no example");
    for glob in globs.iter().filter(|glob| !glob.contains(':')) {
        let product = glob.to_lowercase();
        let (_, names) = READERS
            .iter()
            .find(|(product_line, _)| product.contains(product_line))
            .unwrap_or_else(|| panic!("add PC/SC names for {glob}"));
        for name in *names {
            let matches =
                ReaderMatch::new(glob).matches(&(*name).into(), &ReaderAttributes::default());
            assert!(matches, "{glob} leaves {name} out");
        }
    }
}

#[test]
fn first_reader_example_enables_only_its_reader() {
    let example = CONFIGURE.split("```toml\n").find(|block| block.contains("[[reader]]")).unwrap();
    let text = example.split("```").next().unwrap().to_owned();
    let source = ConfigText { name: "docs/configure.md".to_owned(), text };
    let sources = [source];
    let inputs = ConfigInputs {
        sources: &sources,
        environment: &[],
        host_name: "desk-3",
        ..ConfigInputs::default()
    };
    let readers = parse(&inputs).expect("a configuration").settings.readers;
    for (product_line, names) in READERS {
        for name in names {
            let settings = readers.settings_for(&(*name).into(), &ReaderAttributes::default());
            assert_eq!(settings.enabled, product_line == "omnikey", "{name}: {settings:?}");
        }
    }
}

#[test]
fn every_connection_fault_has_a_row_with_its_remedy() {
    use {ClientCertFault as Cert, ProxyFault as Proxy, TlsFault as Tls};

    let faults = [
        [Proxy::Unreachable, Proxy::AuthRequired, Proxy::ConnectRejected]
            .map(UnavailableReason::Proxy)
            .to_vec(),
        [
            Tls::UnknownIssuer,
            Tls::Expired,
            Tls::NotYetValid,
            Tls::NameMismatch,
            Tls::WrongPurpose,
            Tls::BadSignature,
            Tls::WeakSignature,
            Tls::ProtocolVersion,
            Tls::NoCommonCipher,
            Tls::UnrecognizedName,
            Tls::NotTls,
            Tls::TlsRequired,
            Tls::Other,
        ]
        .map(UnavailableReason::Tls)
        .to_vec(),
        [Cert::Required, Cert::RequestedLate, Cert::Rejected]
            .map(UnavailableReason::ClientCertificate)
            .to_vec(),
    ]
    .concat();
    let rows = rows(TROUBLESHOOT, "## TLS, proxy and client certificate");
    for fault in faults {
        let (word, remedy) = (fault.as_str(), fault.remedy());
        let has = |row: &&str| row.starts_with(&format!("| `{word}` |")) && row.contains(remedy);
        assert!(rows.iter().any(has), "no row of `{word}` has: {remedy}");
    }
}

/// The sources of this program and its tests, as one text.
fn sources() -> io::Result<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut directories = vec![root.join("src"), root.join("tests")];
    let mut text = String::new();
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                text.push_str(&fs::read_to_string(path)?);
            }
        }
    }
    Ok(text)
}

/// Whether a function of this name is a test.
fn is_a_test(sources: &str, name: &str) -> bool {
    let head = format!("fn {name}()");
    sources.match_indices(&head).any(|(at, _)| {
        let before = sources.get(..at).unwrap_or_default().trim_end();
        let attribute = before.trim_end_matches("async").trim_end();
        attribute.ends_with(']')
            && attribute.lines().rev().take(3).any(|line| line.contains("test"))
    })
}

#[test]
fn every_server_behaviour_names_an_existing_test() {
    let protocol = include_str!("../docs/cm-protocol.md");
    let headings = ["## Server behaviour and effects", "## Token endpoint behaviour and effects"];
    let rows_below = |heading: &'static str| {
        let lines = protocol.lines().skip_while(move |line| *line != heading).skip(1);
        let lines = lines.take_while(|line| !line.starts_with("## "));
        lines.filter(|line| line.starts_with("| ") && !line.starts_with("| Behaviour"))
    };
    let rows: Vec<_> = headings.into_iter().flat_map(rows_below).collect();
    assert!(rows.len() >= 60, "{} rows", rows.len());
    assert!(headings.into_iter().all(|heading| rows_below(heading).count() > 10));
    let sources = sources().unwrap();
    for row in &rows {
        let tests = row.rsplit(" | ").next().unwrap().trim_end_matches(" |");
        let names: Vec<_> = tests.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "no test: {row}");
        for name in names {
            assert!(is_a_test(&sources, name), "there is no test `{name}`: {row}");
        }
    }
    assert!(!is_a_test(&sources, "is_a_test") && !is_a_test(&sources, "sources"));
}

/// Every Markdown document, with its path.
fn documents() -> io::Result<Vec<(PathBuf, String)>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = vec![root.join("README.md"), root.join("CONTRIBUTING.md")];
    for directory in ["docs", "docs/decisions"] {
        for entry in fs::read_dir(root.join(directory))? {
            paths.push(entry?.path());
        }
    }
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    let read = |path: PathBuf| fs::read_to_string(&path).map(|text| (path, text));
    paths.into_iter().map(read).collect()
}

/// The anchors of the headings of a Markdown text, as GitHub makes them.
fn anchors(text: &str) -> Vec<String> {
    let mut in_code = false;
    let headings = text.lines().filter(|line| {
        in_code ^= line.starts_with("```");
        !in_code && line.starts_with('#')
    });
    let anchor = |heading: &str| {
        let title = heading.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
        title.chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_')).collect()
    };
    headings.map(anchor).collect()
}

#[test]
fn every_link_between_documents_resolves() {
    let mut links = 0;
    for (document, text) in documents().unwrap() {
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.contains("://") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let path = match file {
                "" => document.clone(),
                file => document.parent().unwrap().join(file),
            };
            assert!(path.exists(), "{}: {target}", document.display());
            let linked = anchor.is_empty()
                || anchors(&fs::read_to_string(&path).unwrap()).contains(&anchor.to_owned());
            assert!(linked, "{}: {target}", document.display());
            links += 1;
        }
    }
    assert!(links > 100, "only {links} links");
}

#[test]
fn every_path_in_documents_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = 0;
    for (document, text) in documents().unwrap() {
        for path in text.split('`').skip(1).step_by(2) {
            let is_path =
                ["src/", "tests/", "docs/", "systemd/"].iter().any(|it| path.starts_with(it));
            if is_path && !path.contains([' ', '<', '*', '{']) {
                assert!(root.join(path).exists(), "{}: {path}", document.display());
                paths += 1;
            }
        }
    }
    assert!(paths > 30, "only {paths} paths");
}

#[test]
fn drawing_has_the_modules_of_the_library() {
    let modules = include_str!("../src/lib.rs").lines();
    let modules =
        modules.filter_map(|line| line.strip_suffix(';')?.split_once("mod ").map(|it| it.1));
    let modules: BTreeSet<_> = modules.collect();
    let names = |text: &'static str, before: &'static str, after: char| -> BTreeSet<&str> {
        text.split(before).skip(1).filter_map(|rest| rest.split(after).next()).collect()
    };
    let source = include_str!("../docs/architecture.dot");
    assert_eq!(names(source, "\n  \"src/", '"'), modules);
    let drawing = include_str!("../docs/architecture.svg");
    assert_eq!(names(drawing, "<title>src/", '<'), modules, "draw it again, see architecture.dot");
    let labels = source.split("[label=<").skip(1).filter_map(|rest| rest.split(">, pos=").next());
    let lines = labels.flat_map(|label| label.split("<br/>"));
    for line in lines.filter(|line| !line.contains("<b>")) {
        assert!(drawing.contains(&format!(">{line}</text>")), "{line}: draw it again");
    }
    let edges = drawing.matches("class=\"edge\"").count();
    assert_eq!(edges, source.matches(" -> ").count(), "draw it again");
}

#[test]
fn every_decision_has_a_unique_number_and_a_row_in_the_list() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/decisions");
    let list = fs::read_to_string(folder.join("README.md")).unwrap();
    let entries = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name());
    let mut files: Vec<String> = entries.map(|name| name.into_string().unwrap()).collect();
    files.retain(|name| name != "README.md");
    files.sort();
    let mut numbers = Vec::new();
    for file in &files {
        let (number, _) = file.split_once('-').unwrap();
        assert!(!numbers.contains(&number), "{file} repeats a number");
        numbers.push(number);
        assert!(list.contains(&format!("| [{number}]({file}) |")), "{file} is not in the list");
        let text = fs::read_to_string(folder.join(file)).unwrap();
        assert!(text.starts_with(&format!("# {number}: ")), "{file}");
    }
    // The list also names an unused number.
    for number in 1..=files.len() {
        assert!(list.contains(&format!("{number:04}")), "{number:04}");
    }
}
