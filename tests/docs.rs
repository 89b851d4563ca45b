//! The documents say what the code does.

use std::path::Path;
use std::{fs, io};

use cardbridge::config::{Fallback, Inputs, KEYS, Key, Source, parse};
use cardbridge::domain::{
    AwayReason, CertificateFault, NotIdentifiedReason, Numbers, Outcome, ParkReason, ProxyFault,
    ReaderAttributes, ReaderMatch, TlsFault,
};

const OPERATIONS: &str = include_str!("../docs/operations.md");

/// A key's row in the table of all keys.
fn row(key: &Key) -> String {
    let default = match key.fallback {
        Fallback::Value(value) => format!("`{value}`"),
        Fallback::Required | Fallback::Unset | Fallback::HostName => key.default_text().to_owned(),
    };
    format!("| `{}` | {default} | {} |", key.path, key.meaning)
}

/// The lines below a heading, up to the next one.
fn below(heading: &str) -> impl Iterator<Item = &'static str> {
    let lines = OPERATIONS.lines().skip_while(move |line| *line != heading).skip(1);
    lines.take_while(|line| !line.starts_with('#'))
}

#[test]
fn the_table_of_keys_is_the_one_in_the_code() {
    let written: Vec<_> = below("### Every key").filter(|line| line.starts_with("| `")).collect();
    let meant: Vec<_> = KEYS.iter().map(row).collect();
    assert_eq!(written, meant, "the table should be:\n\n{}\n", meant.join("\n"));
}

#[test]
fn every_outcome_and_every_reason_is_explained_where_a_person_looks_for_it() {
    use {AwayReason as Away, NotIdentifiedReason as Not, ParkReason as Park};

    let outcomes = [
        Outcome::Updated,
        Outcome::AlreadySet,
        Outcome::NothingToDo,
        Outcome::UnknownCard,
        Outcome::NotIdentified,
        Outcome::Superseded,
        Outcome::Parked(Park::Refused),
        Outcome::Discarded,
    ]
    .map(Outcome::as_str);
    let reason = |outcome| {
        if let Outcome::Parked(reason) = outcome { Some(ParkReason::as_str(reason)) } else { None }
    };
    let parked: Vec<_> = Outcome::ALL.into_iter().filter_map(reason).collect();
    let away = [
        Away::Unreachable,
        Away::Timeout,
        Away::Proxy(ProxyFault::Login),
        Away::Tls(TlsFault::Other),
        Away::ClientCertificate(CertificateFault::Late),
        Away::Credentials,
        Away::NotLetIn,
        Away::ApiOff,
        Away::MethodTaken,
        Away::TooLong,
        Away::Busy,
        Away::ServerError,
        Away::NotCm,
    ]
    .map(AwayReason::as_str);
    let not_identified = [
        Not::UnknownFamily,
        Not::NoId,
        Not::Mute,
        Not::Busy,
        Not::Removed,
        Not::Timeout,
        Not::Skipped,
        Not::Failed,
    ]
    .map(NotIdentifiedReason::as_str);

    for (heading, words) in [
        ("### Outcomes", outcomes.as_slice()),
        ("### Parked: what to do", &parked),
        ("### CM is away", &away),
        ("### A card is not identified", &not_identified),
    ] {
        let rows: Vec<_> = below(heading).filter(|line| line.starts_with("| `")).collect();
        let told = |word: &&str| rows.iter().any(|row| row.starts_with(&format!("| `{word}` |")));
        let missing: Vec<_> = words.iter().filter(|word| !told(word)).collect();
        assert!(missing.is_empty(), "{heading} says nothing about {missing:?}");
        assert_eq!(rows.len(), words.len(), "{heading} explains what does not exist");
    }
}

#[test]
fn every_metric_is_in_the_table_and_the_table_has_no_other() {
    let source = include_str!("../src/control/exposition.rs");
    let heads = source.split("page.").skip(1);
    let heads = heads.filter_map(|call| {
        let heading =
            ["gauge(", "counter(", "head("].iter().find_map(|it| call.strip_prefix(it))?;
        heading.split('"').nth(1)
    });
    let meant: Vec<_> = heads.map(|name| format!("| `cardbridge_{name}`")).collect();
    let rows: Vec<_> = below("### Metrics").filter(|line| line.starts_with("| `")).collect();
    assert!(meant.len() > 15, "{meant:?}");
    assert_eq!(rows.len(), meant.len(), "{meant:?}");
    for (row, name) in rows.iter().zip(&meant) {
        assert!(row.starts_with(name.as_str()), "{row} is not {name}");
    }
}

#[test]
fn the_names_of_numbers_are_those_that_rules_may_use() {
    let numbers = Numbers::default();
    for (section, map) in [
        ("request_type", &numbers.request_type),
        ("card_status", &numbers.card_status),
        ("request_status", &numbers.request_status),
    ] {
        let names: Vec<_> = map.iter().map(|(name, number)| format!("{name} {number}")).collect();
        let row = format!("| `[cm.numbers.{section}]` | {} |", names.join(", "));
        assert!(below("### CM's numbers").any(|line| line == row), "no row {row}");
    }
}

#[test]
fn the_messages_in_the_document_are_what_a_person_reads() {
    let source = |name: &str, text: &str| Source { name: name.to_owned(), text: text.to_owned() };
    let sources = [
        source(
            "/etc/cardbridge/cardbridge.toml",
            "[cm]\nurl = \"https://cm.example.com\"\ntimeout = \"10 bananas\"",
        ),
        source("/etc/cardbridge/conf.d/10-desk.toml", "[cm]\nconcurency = 8"),
    ];
    let variable = ("CARDBRIDGE_OUTBOX__MAX_ENTRIES".to_owned(), "lots".to_owned());
    let inputs = Inputs {
        sources: &sources,
        environment: &[variable],
        host_name: "desk-3",
        ..Inputs::default()
    };
    let problems = parse(&inputs).expect_err("three problems").to_string();
    assert!(OPERATIONS.contains(&format!("```text\n{problems}\n```")), "{problems}");
}

#[test]
fn the_examples_in_the_document_are_configurations() {
    let blocks = OPERATIONS.split("```toml\n").skip(1);
    let mut seen = 0;
    for text in blocks.filter_map(|block| block.split("```").next()) {
        let source = Source { name: "docs/operations.md".to_owned(), text: text.to_owned() };
        let inputs = Inputs {
            sources: &[source],
            environment: &[],
            host_name: "desk-3",
            ..Inputs::default()
        };
        if let Err(problems) = parse(&inputs) {
            panic!("{problems}");
        }
        seen += 1;
    }
    assert!(seen > 0);
}

/// Names as pcscd gives them, by what the manual may call the reader: the driver's name of the product,
/// the interface, the serial number where the device has one, and two counters.
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

/// Every value of `reader[].match` in the examples of a text, but for the one that stands for all
/// others.
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
fn every_glob_over_readers_in_the_document_matches_readers_that_exist() {
    let in_the_table = KEYS.iter().find(|key| key.path == "reader[].match").unwrap();
    let mut globs = reader_globs(OPERATIONS);
    globs.push(in_the_table.example.trim_matches('"').to_owned());
    assert!(globs.len() > 1, "the document has no example");
    for glob in globs.iter().filter(|glob| !glob.contains(':')) {
        let product = glob.to_lowercase();
        let (_, names) = READERS
            .iter()
            .find(|(product_line, _)| product.contains(product_line))
            .unwrap_or_else(|| panic!("add the names of readers that {glob} is about"));
        for name in *names {
            let matches =
                ReaderMatch::new(glob).matches(&(*name).into(), &ReaderAttributes::default());
            assert!(matches, "{glob} leaves {name} out");
        }
    }
}

#[test]
fn the_first_example_of_the_document_works_on_the_reader_that_it_names() {
    let example = OPERATIONS.split("```toml\n").find(|block| block.contains("[[reader]]")).unwrap();
    let text = example.split("```").next().unwrap().to_owned();
    let source = Source { name: "docs/operations.md".to_owned(), text };
    let sources = [source];
    let inputs =
        Inputs { sources: &sources, environment: &[], host_name: "desk-3", ..Inputs::default() };
    let readers = parse(&inputs).expect("a configuration").settings.readers;
    for (product_line, names) in READERS {
        for name in names {
            let place = readers.place(&(*name).into(), &ReaderAttributes::default());
            assert_eq!(place.enabled, product_line == "omnikey", "{name}: {place:?}");
        }
    }
}

#[test]
fn every_remedy_is_explained_where_a_person_looks_for_it() {
    use {CertificateFault as Cert, ProxyFault as Proxy, TlsFault as Tls};

    let faults = [
        [Proxy::Unreachable, Proxy::Login, Proxy::Refuses].map(AwayReason::Proxy).to_vec(),
        [
            Tls::UnknownIssuer,
            Tls::Expired,
            Tls::NotYetValid,
            Tls::WrongName,
            Tls::NotForServers,
            Tls::BadSignature,
            Tls::Weak,
            Tls::OldVersion,
            Tls::NoCipher,
            Tls::UnknownName,
            Tls::None,
            Tls::Wanted,
            Tls::Other,
        ]
        .map(AwayReason::Tls)
        .to_vec(),
        [Cert::Wanted, Cert::Late, Cert::Refused].map(AwayReason::ClientCertificate).to_vec(),
    ]
    .concat();
    let rows: Vec<_> = below("### Proxy, TLS and client certificate").collect();
    for fault in faults {
        let (word, remedy) = (fault.as_str(), fault.remedy());
        let told = |row: &&str| row.starts_with(&format!("| `{word}` |")) && row.contains(remedy);
        assert!(rows.iter().any(told), "no row of `{word}` says: {remedy}");
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
fn every_behaviour_of_a_server_has_its_test() {
    let protocol = include_str!("../docs/cm-protocol.md");
    let headings =
        ["## What comes of what a server does", "## What comes of what a token endpoint does"];
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

#[test]
fn every_link_between_the_documents_leads_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut documents = vec![root.join("README.md")];
    for directory in ["docs", "docs/decisions"] {
        let entries = fs::read_dir(root.join(directory)).unwrap();
        documents.extend(entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file()));
    }
    let mut links = 0;
    for document in documents {
        let text = fs::read_to_string(&document).unwrap();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = target.split('#').next().unwrap();
            if file.is_empty() || file.contains("://") {
                continue;
            }
            let path = document.parent().unwrap().join(file);
            assert!(path.exists(), "{}: {target}", document.display());
            links += 1;
        }
    }
    assert!(links > 10, "only {links} links were seen");
}

#[test]
fn each_decision_has_a_number_of_its_own_and_a_row_in_the_list() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/decisions");
    let list = fs::read_to_string(folder.join("README.md")).unwrap();
    let entries = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name());
    let mut files: Vec<String> = entries.map(|name| name.into_string().unwrap()).collect();
    files.retain(|name| name != "README.md");
    files.sort();
    let mut numbers = Vec::new();
    for file in &files {
        let (number, _) = file.split_once('-').unwrap();
        assert!(!numbers.contains(&number), "{file} has the number of another");
        numbers.push(number);
        assert!(list.contains(&format!("| [{number}]({file}) |")), "{file} is not in the list");
        let text = fs::read_to_string(folder.join(file)).unwrap();
        assert!(text.starts_with(&format!("# {number}: ")), "{file}");
    }
    // A number that is passed over is said to be.
    for number in 1..=files.len() {
        assert!(list.contains(&format!("{number:04}")), "{number:04}");
    }
}
