//! What a key may say: numbers, addresses, durations, patterns.

use super::*;

#[test]
fn numbers_that_contradict_each_other_are_refused() {
    assert_snapshot!(line("[cm.numbers.card_status]\nSuspended = 4\nHeld = 4"), @"/etc/cardbridge/cardbridge.toml: cm.numbers.card_status.Suspended: contradicts Held = 4; remove one of the two");
    assert_snapshot!(line("[cm.numbers.card_status]\nSuspended = 4\nsuspended = 5"), @"/etc/cardbridge/cardbridge.toml: cm.numbers.card_status.suspended: contradicts Suspended = 4; remove one of the two");
    assert_snapshot!(line("[cm.numbers.card_status]\nSuspended = 4294967296"), @"/etc/cardbridge/cardbridge.toml: cm.numbers.card_status.Suspended: 4294967296 is out of range; give a number from -2147483648 to 2147483647");
    assert_snapshot!(line("[cm.numbers.card_status]\n\"in use\" = 4"), @"/etc/cardbridge/cardbridge.toml: cm.numbers.card_status.in use: is not a name that CM could have; use letters, digits and _ only, a letter first");
}

#[test]
fn numbers_may_be_swapped() {
    let settings = settings("[cm.numbers.request_type]\nRetire = 4\nDisable = 7");
    assert_eq!(settings.rules.rules[0].request_types, [RequestType::new(4)]);
    assert_eq!(settings.rules.rules[1].request_types, [RequestType::new(7)]);
}

#[test]
fn a_name_whose_number_was_taken_is_no_longer_known() {
    // Without this the default rule would go on to set whatever 6 means there.
    let line = line("[cm.numbers.card_status]\nSuspended = 6");
    assert!(line.contains(r#"default: rule[1].set_status: "Retired" is not a known card status"#));
}

#[test]
fn plain_http_leads_to_this_machine_only() {
    let reported = |url: &str| {
        let parsed = World::of(&format!("[cm]\nurl = {url:?}")).parse();
        parsed.map(|loaded| loaded.settings.cm.url).map_err(|problems| problems.to_string())
    };
    for (url, meant) in [
        ("http://localhost", "http://localhost"),
        ("HTTP://LocalHost:8080/", "http://LocalHost:8080"),
        ("http://127.0.0.1:80", "http://127.0.0.1:80"),
        ("http://127.255.0.9", "http://127.255.0.9"),
        ("http://[::1]:8080", "http://[::1]:8080"),
        ("https://cm.example.com:8443", "https://cm.example.com:8443"),
        ("https://[2001:db8::1]", "https://[2001:db8::1]"),
        ("https://cm_1", "https://cm_1"),
    ] {
        assert_eq!(reported(url).as_deref(), Ok(meant));
    }
    for url in [
        "http://cm.example.com",
        "http://localhost.example.com",
        "http://127.0.0.1.example.com",
        "http://127.1",
        "http://10.0.0.1",
        "http://[::2]",
        "http://[::ffff:127.0.0.1]",
        "http://localhost@cm.example.com",
        "http://cm.example.com\\@localhost",
        "http://localhost#@cm.example.com",
        "ftp://localhost",
        "cm.example.com",
        "https://",
        "https://:443",
        "https://cm.example.com:0",
        "https://cm.example.com:",
        "https://cm.example.com:65536",
        "https://cm.example.com:+443",
        "https://cm..example.com",
        "https://cm.example.com.",
        "https://2001:db8::1",
        "https://[::1",
        "https://[::1]x",
        "https://cm.example.com//",
        "https://cm.example.com/path",
        "https://cm.example.com?query",
        "https://cm example.com",
        "https://cm.example.com\n",
        "https://c\u{fc}.example.com",
        "",
    ] {
        assert!(reported(url).is_err(), "{url} passed");
    }
}

#[test]
fn values_that_make_no_sense_are_refused_with_a_remedy() {
    assert_snapshot!(World::of("[cm]\nurl = \"https://cm.example.com/api\"").line(), @r#"/etc/cardbridge/cardbridge.toml: cm.url: "https://cm.example.com/api" goes on after the host; remove the path; set it in cm.api_path"#);
    assert_snapshot!(line("[outbox]\nmax_age = 30"), @r#"/etc/cardbridge/cardbridge.toml: outbox.max_age: is an integer, not a duration; write a number and a unit, such as "10s", "5m" or "30d""#);
    assert_snapshot!(line("[outbox]\nmax_age = \"0s\""), @r#"/etc/cardbridge/cardbridge.toml: outbox.max_age: "0s" is too short; give a duration from 10ms to 10years"#);
    assert_snapshot!(line("[outbox]\nmax_age = \"11years\""), @r#"/etc/cardbridge/cardbridge.toml: outbox.max_age: "11years" is too long; give a duration from 10ms to 10years"#);
    assert_snapshot!(line("[outbox]\nmax_entries = 0"), @"/etc/cardbridge/cardbridge.toml: outbox.max_entries: 0 is out of range; give a number from 1 to 10000000");
    assert_snapshot!(line("[outbox]\nretry_min = \"10m\""), @"/etc/cardbridge/cardbridge.toml: outbox.retry_min: 10m is longer than outbox.retry_max, 5m; lower it, or raise the other");
    assert_snapshot!(line("[outbox]\nretry_max = \"500ms\""), @"/etc/cardbridge/cardbridge.toml: outbox.retry_max: 500ms is shorter than outbox.retry_min, 1s; raise it, or lower the other");
    assert_snapshot!(line("[outbox]\npath = \"outbox.db\""), @r#"/etc/cardbridge/cardbridge.toml: outbox.path: "outbox.db" is not an absolute path; write the whole path from / on"#);
    assert_snapshot!(line("[audit]\nretention = \"400s\""), @r#"/etc/cardbridge/cardbridge.toml: audit.retention: "400s" is too short; give a duration from 1day to 100years"#);
    let listen = |at: &str| format!("[control]\nmetrics_listen = \"{at}\"");
    assert_snapshot!(line(&listen("9475")), @r#"/etc/cardbridge/cardbridge.toml: control.metrics_listen: "9475" is no address and port; write it like "127.0.0.1:9475" or "[::1]:9475""#);
    assert_snapshot!(line(&listen("0.0.0.0:9475")), @r#"/etc/cardbridge/cardbridge.toml: control.metrics_listen: "0.0.0.0:9475" can be reached from other machines; write it like "127.0.0.1:9475" or "[::1]:9475"; use a proxy for access from other machines"#);
    for other in ["192.0.2.1:80", "[::]:80", "[::ffff:127.0.0.1]:80", "localhost:80", "127.0.0.1"] {
        assert!(line(&listen(other)).contains("control.metrics_listen"), "{other}");
    }
    assert_snapshot!(line("[control]\nsocket = \"/run/\""), @"/etc/cardbridge/cardbridge.toml: control.socket: is the path of a directory; write the path of a file");
    assert_snapshot!(line("[cards]\nskip_atr = [\"3b 8d\"]"), @r#"/etc/cardbridge/cardbridge.toml: cards.skip_atr[1]: "3b 8d" is no ATR: ' ' is not a hex digit or `?`; write the ATR as hex digits without blanks, ? for any one digit"#);
    assert_snapshot!(line("[cards]\nskip_atr = \"3b8d\""), @"/etc/cardbridge/cardbridge.toml: cards.skip_atr: is a string, not a list; put it in [ ]");
    assert_snapshot!(line("[cards]\nfamilies = []"), @"/etc/cardbridge/cardbridge.toml: cards.families: is an empty list; name at least one, or remove the key");
    assert_snapshot!(line("[cards]\nfamilies = [\"gids\", \"gids\"]"), @r#"/etc/cardbridge/cardbridge.toml: cards.families[2]: "gids" is there twice; remove one"#);
    assert_snapshot!(line("[cards]\nfamilies = [\"gid\"]"), @r#"/etc/cardbridge/cardbridge.toml: cards.families[1]: "gid" is not known here; did you mean "gids"?"#);
    assert_snapshot!(line("[station]\nid = \" desk\""), @r#"/etc/cardbridge/cardbridge.toml: station.id: " desk" has blanks around it or control characters in it; remove them"#);
    assert_snapshot!(line("[cm.auth]\nmethod = \"bearer\""), @r#"/etc/cardbridge/cardbridge.toml: cm.auth.token_file: is missing; write token_file = "/etc/cardbridge/cm-token" in [cm.auth]"#);
    assert_snapshot!(line("[cm.auth]\ntoken_file = \"t\""), @r#"/etc/cardbridge/cardbridge.toml: cm.auth.token_file: has no effect while cm.auth.method is "none"; write method = "bearer", or remove it"#);
    assert_snapshot!(line("[cm.auth]\nmethod = \"bearer\"\ntoken_file = \"../t\""), @"/etc/cardbridge/cardbridge.toml: cm.auth.token_file: is neither an absolute path nor the bare name of a credential; write the whole path from / on, or a name without / for a file in $CREDENTIALS_DIRECTORY");
    assert_snapshot!(line("[[reader]]\nmatch = \"*Omnikey*\"\n[[reader]]\nmatch = \"*OMNIKEY*\""), @r#"/etc/cardbridge/cardbridge.toml: reader[2].match: "*OMNIKEY*" is already reader[1].match in /etc/cardbridge/cardbridge.toml; change one, only the first of them ever matches"#);
    assert_snapshot!(line("[[reader]]\nmatch = \"\""), @"/etc/cardbridge/cardbridge.toml: reader[1].match: is empty; write something there, or remove the key");
    assert_snapshot!(line("[reader]\nmatch = \"*\""), @"/etc/cardbridge/cardbridge.toml: reader: is a table, not a list of tables; write [[reader]]");
    assert_snapshot!(World::of("rule = []\nlog = 3\n[cm]\nurl = \"https://a\"").lines().join("\n"), @"
    /etc/cardbridge/cardbridge.toml: log: is an integer, not a section; write [log]
    /etc/cardbridge/cardbridge.toml: rule: is an empty list; remove it, or give at least one table
    ");
}

#[test]
fn every_bad_list_element_is_reported() {
    let text = format!("{MINIMAL}[cards]\nskip_atr = [\"3b00\", \"x\", 5, \"3b00\"]");
    assert_snapshot!(World::of(&text).lines().join("\n"), @r#"
    /etc/cardbridge/cardbridge.toml: cards.skip_atr[2]: "x" is no ATR: 'x' is not a hex digit or `?`; write the ATR as hex digits without blanks, ? for any one digit
    /etc/cardbridge/cardbridge.toml: cards.skip_atr[3]: is an integer, not a string; put it in quotes
    /etc/cardbridge/cardbridge.toml: cards.skip_atr[4]: "3b00" is there twice; remove one
    "#);
}

#[test]
fn the_paths_of_sockets_end_where_the_kernel_ends_them() {
    let socket = |length: usize| format!("[control]\nsocket = \"/{}\"", "s".repeat(length - 1));
    assert_eq!(settings(&socket(107)).control.socket.as_os_str().len(), 107);
    assert!(line(&socket(108)).contains("too long for a socket"));
}

#[test]
fn a_connect_timeout_beyond_the_timeout_is_pointless_but_no_problem() {
    World::of(&format!("{MINIMAL}timeout = \"1s\"")).settings();
}

#[test]
fn unusable_host_name_is_reported() {
    let source = ConfigText { name: MAIN.to_owned(), text: MINIMAL.to_owned() };
    let inputs = ConfigInputs {
        sources: &[source],
        environment: &[],
        host_name: "",
        ..ConfigInputs::default()
    };
    assert_snapshot!(parse(&inputs).expect_err("no station"), @r#"default: station.id: the host name "" is unusable; write id = "desk-3" in [station]"#);
}

#[test]
fn a_file_of_another_system_is_read() {
    let text = format!("\u{feff}{}", MINIMAL.replace('\n', "\r\n"));
    World::of(&text).settings();
}

#[test]
fn absurd_durations_are_refused_not_computed() {
    for text in ["18446744073709551615s 1000ms", "9999999999y", "1e9s", "1.", "\u{b5}s", "-1s"] {
        let line = line(&format!("[outbox]\nmax_age = {text:?}"));
        assert!(line.contains("is no duration"), "{line}");
    }
}

#[test]
fn site_configures_a_kind_of_card() {
    let text = format!(
        "{MINIMAL}[[card]]\nmatch = \"3B00??\"\nid_rule = \"piv-guid-be\"\n\
         [[card]]\nmatch = \"3b01\"\nfamilies = [\"openpgp\", \"piv\"]\n"
    );
    let cards = World::of(&text).settings().probe.cards;
    let [first, second] = cards.as_slice() else { panic!("{cards:?}") };
    assert_eq!((first.matches.as_str(), first.id_rule), ("3b00??", Some(IdRule::PivGuidBe)));
    assert_eq!(first.families, None);
    assert_eq!(second.families, Some(vec![Family::Openpgp, Family::Piv]));
    assert_eq!(second.id_rule, None);
}

#[test]
fn what_a_site_cannot_know_of_a_card_is_refused() {
    let card = |keys: &str| line(&format!("[[card]]\n{keys}"));
    assert_snapshot!(card("match = \"3b*\""), @r#"/etc/cardbridge/cardbridge.toml: card[1].match: "3b*" is no ATR: '*' is not a hex digit or `?`; write the ATR as hex digits without blanks, ? for any one digit"#);
    assert_snapshot!(card("id_rule = \"piv-guid-be\""), @r#"/etc/cardbridge/cardbridge.toml: card[1].match: is missing; write match = "3bfd1300008131fe158073c021c057597562694b6579??" in [[card]]"#);
    assert_snapshot!(card("match = \"3b00\"\nid_rule = \"piv-guid\""), @r#"/etc/cardbridge/cardbridge.toml: card[1].id_rule: "piv-guid" is not known here; did you mean "piv-guid-le"?"#);
    assert_snapshot!(card("match = \"3b00\"\nfamilies = [\"gids\"]\nid_rule = \"piv-guid-be\""), @r#"/etc/cardbridge/cardbridge.toml: card[1].id_rule: piv-guid-be makes ids of piv cards, which families leaves out; add "piv" to families, or remove families"#);
    assert_snapshot!(card("match = \"3b00\"\n[[card]]\nmatch = \"3b00\""), @r#"/etc/cardbridge/cardbridge.toml: card[2].match: "3b00" is already card[1].match in /etc/cardbridge/cardbridge.toml; change one, only the first of them ever matches"#);
}
