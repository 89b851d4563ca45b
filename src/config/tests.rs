//! What administrators get right and wrong.

use std::time::Duration;

use insta::assert_snapshot;
use proptest::prelude::*;

use super::keys::WILDCARD;
use super::*;
use crate::domain::{
    AtrPattern, CardStatus, Family, IdRule, ProbeSettings, ReaderAttributes, ReaderName,
    RequestType, Trigger,
};
use crate::rules::{AtrMismatch, Pick};

mod auth;
mod values;

const MAIN: &str = "/etc/cardbridge/cardbridge.toml";
const MINIMAL: &str = "[cm]\nurl = \"https://cm.example.com\"\n";

#[derive(Default)]
struct World {
    sources: Vec<ConfigText>,
    environment: Vec<(String, String)>,
}

impl World {
    fn of(text: &str) -> Self {
        Self::default().file(MAIN, text)
    }

    fn file(mut self, name: &str, text: &str) -> Self {
        self.sources.push(ConfigText { name: name.to_owned(), text: text.to_owned() });
        self
    }

    fn variable(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    fn parse(&self) -> Result<LoadedConfig, ConfigProblems> {
        let Self { sources, environment } = self;
        parse(&ConfigInputs {
            sources,
            environment,
            host_name: "desk-3",
            ..ConfigInputs::default()
        })
    }

    fn settings(&self) -> Settings {
        self.parse().unwrap_or_else(|problems| panic!("{problems}")).settings
    }

    fn lines(&self) -> Vec<String> {
        let problems = self.parse().expect_err("a problem");
        problems.iter().map(ToString::to_string).collect()
    }

    /// The one problem there is.
    fn line(&self) -> String {
        let lines = self.lines();
        assert_eq!(lines.len(), 1, "{lines:#?}");
        lines.concat()
    }
}

/// The one problem of a file that is good but for these lines.
fn line(text: &str) -> String {
    World::of(&format!("{MINIMAL}\n{text}")).line()
}

/// The settings of a file with these lines.
fn settings(text: &str) -> Settings {
    World::of(&format!("{MINIMAL}\n{text}")).settings()
}

fn effective(loaded: &LoadedConfig, key: &str) -> (String, String) {
    let line = loaded.effective.iter().find(|line| line.key == key);
    let line = line.unwrap_or_else(|| panic!("no {key}"));
    (line.value.clone(), line.origin.to_string())
}

#[test]
fn the_socket_is_never_one_of_the_outboxs_files() {
    for end in ["", ".lock", "-wal", "-shm"] {
        let text = format!(
            "[cm]\nurl = \"https://cm.example.com\"\n[outbox]\npath = \"/x/o.db\"\n\
             [control]\nsocket = \"/x/o.db{end}\"\n"
        );
        let sources = [ConfigText { name: "file".to_owned(), text }];
        let inputs = ConfigInputs {
            sources: &sources,
            environment: &[],
            host_name: "host",
            ..ConfigInputs::default()
        };
        let problems = parse(&inputs).unwrap_err().to_string();
        assert!(problems.contains("control.socket: is a file of the outbox"), "{problems}");
    }
}

#[test]
fn a_problem_is_one_line_whatever_the_names_in_it() {
    for name in ["CARDBRIDGE_CM__NUMBERS__CARD_STATUS__A\nB", "CARDBRIDGE_A\u{1b}[31m"] {
        let line = World::of(MINIMAL).variable(name, "x").line();
        assert!(!line.contains(char::is_control), "{line:?}");
    }
    let line = World::of(MINIMAL).file("/etc/cardbridge/conf.d/a\nb.toml", "x = 1").line();
    assert!(line.starts_with("/etc/cardbridge/conf.d/a\\nb.toml: x: "), "{line}");
}

#[test]
fn the_address_of_cm_is_all_that_has_to_be_said() {
    let settings = World::of(MINIMAL).settings();
    assert_eq!(settings.station, "desk-3");
    assert_eq!(settings.cm.url, "https://cm.example.com");
    assert_eq!(settings.cm.api_path, "/CertificateManagement/api/v1.0");
    assert_eq!(settings.cm.timeout, Duration::from_secs(10));
    assert_eq!(settings.cm.connect_timeout, Duration::from_secs(3));
    assert_eq!(settings.cm.concurrency.get(), 4);
    assert_eq!(settings.cm.ca_file, None);
    assert_eq!(settings.cm.auth, AuthSettings::None);
    assert_eq!(settings.probe, ProbeSettings::default());
    assert_eq!(settings.skip_atr, []);
    assert_eq!(settings.readers.0, []);
    assert_eq!(settings.rules.atr_mismatch, AtrMismatch::Warn);
    assert_eq!(settings.outbox.path.to_str(), Some("/var/lib/cardbridge/outbox.db"));
    assert_eq!(settings.outbox.max_entries, 100_000);
    assert_eq!(settings.audit.retention, Duration::from_hours(400 * 24));
    assert_eq!(settings.outbox.max_age, Duration::from_hours(30 * 24));
    assert_eq!(settings.outbox.retry_min, Duration::from_secs(1));
    assert_eq!(settings.outbox.retry_max, Duration::from_mins(5));
    assert_eq!(settings.control.socket.to_str(), Some("/run/cardbridge/control.sock"));
    let log = LogSettings { level: Level::Info, format: LogFormat::Auto, show_ids: true };
    assert_eq!(settings.log, log);
}

#[test]
fn without_a_rule_retire_and_disable_are_in_force() {
    let rules = World::of(MINIMAL).settings().rules.rules;
    let [retire, disable] = rules.as_slice() else { panic!("{rules:?}") };
    assert_eq!(retire.name, "retire");
    assert_eq!(retire.request_types, [RequestType::new(7)]);
    assert_eq!(retire.set_status, ("Retired".to_owned(), CardStatus::new(6)));
    assert_eq!(retire.card_status, []);
    assert!(retire.reader_role.is_empty());
    assert_eq!(disable.name, "disable");
    assert_eq!(disable.request_types, [RequestType::new(4)]);
    assert_eq!(disable.set_status, ("Disabled".to_owned(), CardStatus::new(3)));
}

#[test]
fn one_rule_of_the_site_replaces_both_default_ones() {
    let rule = "[[rule]]\nname = \"r\"\nrequest_type = [\"retire\", \"Disable\"]\n\
                set_status = \"retired\"\ncard_status = [\"Active\"]\nreader_role = [\"out\"]\n\
                on = \"inserted\"\ncomplete_request = false\n";
    let rules = settings(rule).rules.rules;
    let [rule] = rules.as_slice() else { panic!("{rules:?}") };
    assert_eq!(rule.request_types, [RequestType::new(7), RequestType::new(4)]);
    assert_eq!(rule.set_status.0, "Retired", "CM gets its own spelling");
    assert_eq!(rule.card_status, [CardStatus::new(2)]);
    assert_eq!(rule.reader_role, ["out"]);
}

#[test]
fn a_rule_completes_its_request_only_where_cms_number_for_that_is_known() {
    let rule = "[[rule]]\nname = \"r\"\nrequest_type = [\"Retire\"]\nset_status = \"Retired\"\n\
                complete_request = true\n";
    assert!(settings(rule).rules.rules[0].complete_request);
    assert!(!settings("").rules.rules[0].complete_request);
    let taken = format!("{rule}[cm.numbers.request_status]\nFinished = 8");
    assert_snapshot!(line(&taken), @"/etc/cardbridge/cardbridge.toml: rule[1].complete_request: needs CM's number of the request status Completed, which is not known; add it to [cm.numbers.request_status]");
}

#[test]
fn a_rule_says_whether_it_is_for_cards_that_come_or_that_go() {
    let rule = "[[rule]]\nname = \"r\"\nrequest_type = [\"Retire\"]\nset_status = \"Retired\"\n";
    let on = |line: &str| settings(&format!("{rule}{line}")).rules.rules[0].on;
    assert_eq!(on(""), Trigger::Inserted);
    assert_eq!(on("on = \"inserted\""), Trigger::Inserted);
    assert_eq!(on("on = \"removed\""), Trigger::Removed);
    assert_snapshot!(line(&format!("{rule}on = \"ejected\"")), @r#"/etc/cardbridge/cardbridge.toml: rule[1].on: "ejected" is not known here; use one of inserted, removed"#);
}

#[test]
fn a_rule_says_which_of_several_requests_it_picks() {
    let rule = "[[rule]]\nname = \"r\"\nrequest_type = [\"Retire\"]\nset_status = \"Retired\"\n";
    let pick = |line: &str| settings(&format!("{rule}{line}")).rules.rules[0].pick;
    assert_eq!(pick(""), Pick::Oldest);
    assert_eq!(pick("pick = \"oldest\""), Pick::Oldest);
    assert_eq!(pick("pick = \"newest\""), Pick::Newest);
    assert_eq!(pick("pick = \"refuse\""), Pick::Refuse);
    assert_snapshot!(line(&format!("{rule}pick = \"latest\"")), @r#"/etc/cardbridge/cardbridge.toml: rule[1].pick: "latest" is not known here; use one of oldest, newest, refuse"#);
}

#[test]
fn five_faults_in_three_places_are_five_lines() {
    let world = World::of(
        "[cm]\nurl = \"http://cm.example.com\"\ntimeout = \"10 bananas\"\n\
         [[rule]]\nname = \"retire\"\nrequest_type = [\"Retire\"]\nset_status = \"Retierd\"\n",
    )
    .file("/etc/cardbridge/conf.d/10-desk.toml", "[cm]\nconcurency = 8\n")
    .variable("CARDBRIDGE_OUTBOX__MAX_ENTRIES", "lots");
    assert_snapshot!(world.parse().expect_err("five problems"), @r#"
    /etc/cardbridge/cardbridge.toml: cm.url: "http://cm.example.com" is not encrypted and leads to another machine; write https://
    /etc/cardbridge/cardbridge.toml: cm.timeout: "10 bananas" is no duration; write a number and a unit, such as "10s", "5m" or "30d"
    /etc/cardbridge/cardbridge.toml: rule[1].set_status: "Retierd" is not a known card status; did you mean "Retired"? If CM has it, add its number to [cm.numbers.card_status]
    /etc/cardbridge/conf.d/10-desk.toml: cm.concurency: is not a known key; did you mean cm.concurrency?
    CARDBRIDGE_OUTBOX__MAX_ENTRIES: outbox.max_entries: "lots" is not an integer, such as 4; correct the variable, or unset it
    "#);
}

#[test]
fn a_syntax_error_hides_no_problem_of_another_file() {
    let lines = World::of("[cm]\nurl = \"https://cm.example.com\n[cm.auth]\n")
        .file("b.toml", "[log]\nlevel = \"chatty\"\n[cm.auth]\nmethod = \"bearer\"\n")
        .lines();
    // Neither cm.url nor cm.auth.token_file is reported as missing: the unread file may set it.
    assert_eq!(lines.len(), 2, "{lines:#?}");
    assert!(lines[0].starts_with(&format!("{MAIN}: line 2, column ")), "{}", lines[0]);
    assert!(lines[1].starts_with("b.toml: log.level: \"chatty\""), "{}", lines[1]);
}

#[test]
fn syntax_error_does_not_quote_the_line() {
    let line = World::of("[cm]\npassword = \"hunter2\n").line();
    assert!(!line.contains("hunter2"), "{line}");
    assert!(!line.contains('\n'), "{line}");
}

#[test]
fn problems_come_file_by_file_and_the_environment_last() {
    let lines = World::of("[cm]\nurl = 1\n")
        .file("a.toml", "[log]\nlevel = 1\n")
        .variable("CARDBRIDGE_STATION__ID", "")
        .variable("CARDBRIDGE_NONE", "")
        .lines();
    let origins: Vec<_> = lines.iter().filter_map(|line| line.split(": ").next()).collect();
    let mut want = [MAIN, "a.toml", "CARDBRIDGE_STATION__ID", "CARDBRIDGE_NONE"];
    want[2..].reverse();
    assert_eq!(origins, want);
}

#[test]
fn a_key_that_has_to_be_set_is_missed_where_it_belongs() {
    let line = World::of("").file("b.toml", "").line();
    assert_snapshot!(line, @r#"/etc/cardbridge/cardbridge.toml: cm.url: is missing; write url = "https://cm.example.com" in [cm]"#);
    let line = World::of(&format!("{MINIMAL}[[reader]]\nrole = \"in\"")).line();
    assert_snapshot!(line, @r#"/etc/cardbridge/cardbridge.toml: reader[1].match: is missing; write match = "*Omnikey*" in [[reader]]"#);
}

#[test]
fn unknown_names_come_with_the_one_that_was_meant() {
    assert_snapshot!(line("[logs]\nlevel = \"info\""), @"/etc/cardbridge/cardbridge.toml: logs: is not a known section; did you mean log?");
    assert_snapshot!(line("[log]\nlevle = \"info\""), @"/etc/cardbridge/cardbridge.toml: log.levle: is not a known key; did you mean log.level?");
    assert_snapshot!(line("[outbox]\ntoken_file = \"x\""), @"/etc/cardbridge/cardbridge.toml: outbox.token_file: is not a known key; did you mean cm.auth.token_file?");
    assert_snapshot!(line("[log]\nzebra = 1"), @"/etc/cardbridge/cardbridge.toml: log.zebra: is not a known key; remove it; [log] has level, format, show_ids");
    assert_snapshot!(line("[zebra]\na = 1\nb = 2"), @"/etc/cardbridge/cardbridge.toml: zebra: is not a known section; remove it; a file has station, cm, cards, card, reader, rule, outbox, audit, control, log");
    assert_snapshot!(line("[[rule]]\nname = \"r\"\nrequest_type = [\"Retire\"]\nset_status = \"Retired\"\nstatus = 1"), @"/etc/cardbridge/cardbridge.toml: rule[1].status: is not a known key; remove it; [[rule]] has name, on, request_type, set_status, complete_request, card_status, reader_role, pick");
    assert_snapshot!(line("[log]\nlevel = \"warning\""), @r#"/etc/cardbridge/cardbridge.toml: log.level: "warning" is not known here; did you mean "warn"?"#);
    assert_snapshot!(line("[log]\nformat = \"xml\""), @r#"/etc/cardbridge/cardbridge.toml: log.format: "xml" is not known here; use one of auto, text, json, journald"#);
}

#[test]
fn quoted_names_cannot_pass_for_paths() {
    assert!(World::of("\"cm.url\" = \"https://cm.example.com\"").lines().len() == 2);
    assert!(line("[\"rule[]\"]\nname = \"r\"").contains("is not a known section"));
    assert!(line("[cm.numbers.card_status]\n\"a.b\" = 3").contains("is not a name that CM"));
    assert!(line("[log]\n\"a\\u001b[31m\\nb\" = 3").contains(r"log.a\u{1b}[31m\nb: is not a"));
}

#[test]
fn misplaced_secrets_are_not_quoted() {
    for text in [
        "[cm]\nurl = \"https://user:hunter2@cm.example.com\"",
        "[cm]\nurl = \"https://user:hunter2@cm.example.com/path\"",
        "[cm]\nurl = \"user:hunter2@cm.example.com\"",
        "[cm]\nurl = \"https://cm.example.com\"\nproxy = \"http://user:hunter2@proxy:3128\"",
        "[cm]\nurl = \"https://cm.example.com\"\npassword = \"hunter2\"",
        "[cm]\nurl = \"https://cm.example.com\"\n[cm.auth]\nmethod = \"bearer\"\n\
         token_file = \"hunter2/and/more\"",
    ] {
        let line = World::of(text).line();
        assert!(!line.contains("hunter2"), "{line}");
    }
    let line = World::of(MINIMAL).variable("CARDBRIDGE_CM__PASSWORD", "hunter2").line();
    assert!(!line.contains("hunter2"), "{line}");
}

#[test]
fn every_key_is_really_read() {
    // A date is of the wrong type for all of them.
    for key in KEYS {
        let name = key.name().replace(WILDCARD, "Some");
        let path = key.path.replace("[]", "[1]").replace(WILDCARD, "Some");
        let reported = format!("{MAIN}: {path}: is a date or time, not ");
        let mut lines = ways_in(key).map(|keys| {
            let text = format!("{}\n{keys}{name} = 1979-05-27", key.heading());
            World::of(&text).lines()
        });
        assert!(
            lines.any(|lines| lines.iter().any(|line| line.starts_with(&reported))),
            "{reported}"
        );
    }
}

/// What has to be said beside a key before it counts: a method that it belongs to.
fn ways_in(key: &KeySpec) -> impl Iterator<Item = String> {
    let ways = [
        "",
        "method = \"negotiate\"\n",
        "method = \"bearer\"\n",
        "method = \"oauth2\"\n",
        "method = \"oauth2\"\nuse_windows_client_authentication = true\n",
    ];
    let (section, name) = (key.section(), format!("{} = ", key.name()));
    let possible =
        move |way: &&str| way.is_empty() || (section == "cm.auth" && !way.contains(name.as_str()));
    ways.into_iter().filter(possible).map(str::to_owned)
}

#[test]
fn every_key_says_enough_to_be_shown() {
    for key in KEYS {
        assert!(key.meaning.ends_with('.') && !key.meaning.contains('|'), "{}", key.path);
        assert!(key.example.parse::<toml::Value>().is_ok(), "{}", key.path);
        if let DefaultValue::Value(text) = key.fallback {
            assert!(text.parse::<toml::Value>().is_ok(), "{}", key.path);
        }
        assert_eq!(KEYS.iter().filter(|other| other.path == key.path).count(), 1);
    }
}

#[test]
fn the_example_sets_nothing_but_the_address() {
    let example = World::of(&example());
    assert_eq!(example.settings(), World::of(MINIMAL).settings());
}

/// The example with every key of it set, this method among them; keys of others are left out.
fn uncommented(method: &str) -> LoadedConfig {
    let line = |line: &str| match line.strip_prefix('#') {
        Some(rest) if rest.starts_with("method = ") => format!("method = {method:?}"),
        Some(rest) if !rest.starts_with([' ', '#']) => rest.to_owned(),
        _ => line.to_owned(),
    };
    let mut lines: Vec<_> = example().lines().map(line).collect();
    if let Err(problems) = World::of(&lines.join("\n")).parse() {
        for problem in
            problems.iter().filter(|problem| problem.problem.what.contains("has no effect"))
        {
            let name = problem.key.trim_start_matches("cm.auth.");
            lines.retain(|line| !line.starts_with(&format!("{name} = ")));
        }
    }
    World::of(&lines.join("\n")).parse().unwrap_or_else(|problems| panic!("{method}: {problems}"))
}

#[test]
fn the_example_may_be_uncommented_but_for_the_keys_of_other_methods() {
    let loaded = ["negotiate", "oauth2", "bearer", "none"].map(uncommented);
    for key in KEYS.iter().filter(|key| key.name() != WILDCARD) {
        let shown = key.path.replace("[]", "[1]");
        let set = loaded.iter().any(|loaded| {
            let line = loaded.effective.iter().find(|line| line.key == shown);
            line.is_some_and(|line| {
                line.value == key.example && line.origin == Origin::File(MAIN.to_owned())
            })
        });
        assert!(set, "{shown}");
    }
    let [negotiate, ..] = loaded;
    assert_eq!(negotiate.settings.rules.numbers.request_type.number("OfflineUnblock"), Some(12));
}

#[test]
fn a_later_file_overrides_key_by_key_and_the_environment_overrides_all() {
    let world = World::of(
        "[cm]\nurl = \"https://a.example.com\"\ntimeout = \"1s\"\nconcurrency = 2\n\
         [cards]\nskip_atr = [\"3b00\", \"3b01\"]\n",
    )
    .file("b.toml", "[cm]\ntimeout = \"2s\"\nconcurrency = 3\n[cards]\nskip_atr = [\"3b??\"]\n")
    .variable("CARDBRIDGE_CM__CONCURRENCY", "9");
    let loaded = world.parse().unwrap();
    assert_eq!(effective(&loaded, "cm.url").1, MAIN);
    assert_eq!(effective(&loaded, "cm.timeout"), ("\"2s\"".into(), "b.toml".into()));
    let nine = ("9".into(), "CARDBRIDGE_CM__CONCURRENCY".into());
    assert_eq!(effective(&loaded, "cm.concurrency"), nine);
    assert_eq!(effective(&loaded, "log.level"), ("\"info\"".into(), "default".into()));
    assert_eq!(effective(&loaded, "station.id"), ("\"desk-3\"".into(), "default".into()));
    assert_eq!(effective(&loaded, "rule[2].name"), ("\"disable\"".into(), "default".into()));
    let skip: Vec<_> = loaded.settings.skip_atr.iter().map(AtrPattern::as_str).collect();
    assert_eq!(skip, ["3b??"], "lists are replaced, not merged");
}

#[test]
fn readers_and_rules_of_all_files_stand_in_file_order() {
    let rule = |name: &str| {
        format!(
            "[[rule]]\nname = \"{name}\"\nrequest_type = [\"Retire\"]\nset_status = \"Retired\"\n"
        )
    };
    let world = World::of(&format!("{MINIMAL}{}{}", rule("a"), rule("b")))
        .file("b.toml", &format!("{}[[reader]]\nmatch = \"*\"\nenabled = false", rule("c")));
    let loaded = world.parse().unwrap();
    let names: Vec<_> = loaded.settings.rules.rules.iter().map(|r| r.name.as_str()).collect();
    assert_eq!(names, ["a", "b", "c"]);
    assert_eq!(effective(&loaded, "rule[3].name"), ("\"c\"".into(), "b.toml".into()));
    let place =
        loaded.settings.readers.settings_for(&ReaderName::from("X"), &ReaderAttributes::default());
    assert_eq!((place.label.as_str(), place.role.as_str(), place.enabled), ("X", "desk", false));

    let world = World::of(&format!("{MINIMAL}{}", rule("a"))).file("b.toml", &rule("a"));
    assert_snapshot!(world.line(), @r#"b.toml: rule[1].name: "a" is already rule[1].name in /etc/cardbridge/cardbridge.toml; change one, the audit trail could not distinguish them"#);
}

#[test]
fn later_file_corrects_earlier_one() {
    World::of("[cm]\nurl = \"nonsense\"").file("b.toml", MINIMAL).settings();
}

#[test]
fn every_kind_of_key_can_be_set_by_environment() {
    let settings = World::of("")
        .variable("CARDBRIDGE_CM__URL", "http://localhost:8080/")
        .variable("CARDBRIDGE_CM__AUTH__METHOD", "bearer")
        .variable("CARDBRIDGE_CM__AUTH__TOKEN_FILE", "cm-token")
        .variable("CARDBRIDGE_CM__NUMBERS__CARD_STATUS__Suspended", "5")
        .variable("CARDBRIDGE_CM__NUMBERS__CARD_STATUS__RETIRED", "7")
        .variable("CARDBRIDGE_OUTBOX__RETRY_MIN", "20ms")
        .variable("CARDBRIDGE_STATION__ID", "42")
        .variable("CARDBRIDGE_CARDS__FAMILIES", "[\"gids\"]")
        .variable("CARDBRIDGE_LOG__SHOW_IDS", "false")
        .variable("CARDBRIDGE_CONFIG", "/elsewhere.toml")
        .variable("PATH", "/bin")
        .settings();
    assert_eq!(settings.cm.url, "http://localhost:8080");
    assert_eq!(settings.cm.auth, AuthSettings::Bearer { token_file: "cm-token".into() });
    assert_eq!(settings.rules.numbers.card_status.number("Suspended"), Some(5));
    assert_eq!(settings.rules.numbers.card_status.name(7), Some("Retired"));
    assert_eq!(settings.rules.rules[0].set_status, ("Retired".to_owned(), CardStatus::new(7)));
    assert_eq!(settings.outbox.retry_min, Duration::from_millis(20));
    assert_eq!(settings.station, "42", "what looks like a number is text where text is wanted");
    assert!(!settings.log.show_ids);
}

#[test]
fn key_of_0_1_is_suggested_by_its_new_name() {
    assert_snapshot!(line("[[reader]]\nmatch = \"x\"\nsettle = \"150ms\""), @"/etc/cardbridge/cardbridge.toml: reader[1].settle: is not a known key; did you mean reader[].removal_debounce?");
    assert_snapshot!(line("[audit]\nkeep = \"400d\""), @"/etc/cardbridge/cardbridge.toml: audit.keep: is not a known key; did you mean audit.retention?");
    let variable = World::of(MINIMAL).variable("CARDBRIDGE_AUDIT__KEEP", "400d").line();
    assert_snapshot!(variable, @"CARDBRIDGE_AUDIT__KEEP: names no key of the configuration; did you mean CARDBRIDGE_AUDIT__RETENTION?");
}

#[test]
fn unknown_variables_are_reported() {
    let reported = |name: &str, value: &str| World::of(MINIMAL).variable(name, value).line();
    assert_snapshot!(reported("CARDBRIDGE_CM_URL", "x"), @"CARDBRIDGE_CM_URL: names no key of the configuration; did you mean CARDBRIDGE_CM__URL?");
    assert_snapshot!(reported("CARDBRIDGE_ZEBRA", "x"), @"CARDBRIDGE_ZEBRA: names no key of the configuration; unset it, or write CARDBRIDGE_<SECTION>__<KEY>, such as CARDBRIDGE_CM__URL");
    assert_snapshot!(reported("CARDBRIDGE_RULE__NAME", "x"), @"CARDBRIDGE_RULE__NAME: no variable sets the keys of a rule; unset it, and write [[rule]] in a file");
    assert_snapshot!(reported("CARDBRIDGE_CM__KEYTAB", "x"), @"CARDBRIDGE_CM__KEYTAB: names no key of the configuration; unset it, or write CARDBRIDGE_<SECTION>__<KEY>, such as CARDBRIDGE_CM__URL");
    assert_snapshot!(reported("CARDBRIDGE_CM__AUTH__KEYTAB", "x"), @r#"CARDBRIDGE_CM__AUTH__KEYTAB: cm.auth.keytab: has no effect while cm.auth.method is "none"; write method = "negotiate" or "oauth2", or remove it"#);
    assert_snapshot!(reported("CARDBRIDGE_CARDS__FAMILIES", "gids"), @r#"CARDBRIDGE_CARDS__FAMILIES: cards.families: "gids" is not a list of strings, such as ["a", "b"]; correct the variable, or unset it"#);
    assert_snapshot!(reported("CARDBRIDGE_CM__CONCURRENCY", "\"4\""), @"CARDBRIDGE_CM__CONCURRENCY: cm.concurrency: is a string, not an integer; give a number from 1 to 64");
    assert_snapshot!(reported("CARDBRIDGE_CM__NUMBERS__CARD_STATUS__", "4"), @"CARDBRIDGE_CM__NUMBERS__CARD_STATUS__: names no key of the configuration; did you mean CARDBRIDGE_CM__NUMBERS__CARD_STATUS__NAME?");
}

#[test]
fn an_override_by_environment_keeps_the_spelling_of_the_file() {
    let world = World::of(&format!("{MINIMAL}[cm.numbers.request_type]\nOfflineUnblock = 12"))
        .variable("CARDBRIDGE_CM__NUMBERS__REQUEST_TYPE__OFFLINEUNBLOCK", "13");
    let loaded = world.parse().unwrap();
    assert_eq!(loaded.settings.rules.numbers.request_type.name(13), Some("OfflineUnblock"));
    assert_eq!(loaded.settings.rules.numbers.request_type.name(12), None);
    let (value, origin) = effective(&loaded, "cm.numbers.request_type.OfflineUnblock");
    assert_eq!(value, "13");
    assert_eq!(origin, "CARDBRIDGE_CM__NUMBERS__REQUEST_TYPE__OFFLINEUNBLOCK");
    let known = effective(&loaded, "cm.numbers.request_type.Enroll");
    assert_eq!(known, ("1".into(), "default".into()));
}

/// Text that is nearly a configuration.
fn nearly_toml() -> impl Strategy<Value = String> {
    let name = prop::sample::select(
        KEYS.iter().flat_map(|key| [key.name(), key.section()]).collect::<Vec<_>>(),
    );
    let value = prop_oneof![
        prop::sample::select(KEYS.iter().map(|key| key.example.to_owned()).collect::<Vec<_>>()),
        any::<i64>().prop_map(|number| number.to_string()),
        "[a-z0-9.]{0,4}[smhdy ]{0,3}".prop_map(|text| format!("{text:?}")),
        "\\PC{0,12}".prop_map(|text| format!("[{text:?}]")),
    ];
    let line = prop_oneof![
        prop::sample::select(KEYS.iter().map(KeySpec::heading).collect::<Vec<_>>()),
        (name, value).prop_map(|(name, value)| format!("{name} = {value}")),
    ];
    prop::collection::vec(line, 0..12).prop_map(|lines| lines.join("\n"))
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(
        text in prop_oneof![any::<String>(), nearly_toml()],
        more in nearly_toml(),
        name in prop_oneof![
            "CARDBRIDGE_\\PC{0,20}",
            prop::sample::select(KEYS.iter().filter_map(KeySpec::variable).collect::<Vec<_>>()),
        ],
        value in any::<String>(),
        host_name in any::<String>(),
    ) {
        let World { sources, environment } =
            World::of(&text).file("b.toml", &more).variable(&name, &value);
        let inputs = ConfigInputs { sources: &sources, environment: &environment, host_name: &host_name, ..ConfigInputs::default() };
        if let Err(problems) = parse(&inputs) {
            prop_assert!(problems.iter().len() > 0);
            for line in problems.to_string().lines() {
                prop_assert!(line.contains("; "), "{line:?} has no remedy");
                prop_assert!(!line.contains(char::is_control), "{line:?}");
            }
        }
    }
}
