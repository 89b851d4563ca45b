//! The commands: what they print, and the codes they end with.

use std::process::Command;

use cardbridge_harness::cards::GidsCard;
use cardbridge_harness::cm::{Fault, Store};

use super::*;

/// The program, without a configuration of the machine's own.
fn cardbridge(args: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_cardbridge"))
        .args(args)
        .env_remove("CARDBRIDGE_CONFIG")
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn each_configuration_problem_is_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("cardbridge.toml");
    let text = r#"
[station]
name = "desk"
[cm]
url = "http://cm.example.com"
timeout = "soon"
[cm.auth]
method = "negotiate"
[outbox]
retry_min = "10m"
retry_max = "5m"
"#;
    std::fs::write(&file, text).unwrap();
    let config = file.to_str().unwrap();
    for command in [&["config", "check"][..], &["config", "show"], &["run"], &["lookup"]] {
        let (code, stdout, stderr) = cardbridge(&[command, &["--config", config]].concat());
        assert_eq!(code, Some(2), "{command:?}");
        assert_eq!(stdout, "");
        assert_eq!(stderr.lines().count(), 5, "{stderr}");
        for key in ["station.name", "cm.url", "cm.timeout", "cm.auth.keytab", "outbox.retry_min"] {
            assert!(stderr.contains(key), "{key}: {stderr}");
        }
    }
}

#[test]
fn the_example_is_a_good_configuration() {
    let (code, example, _) = cardbridge(&["config", "example"]);
    assert_eq!(code, Some(0));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("cardbridge.toml");
    std::fs::write(&file, example).unwrap();
    let (code, _, stderr) = cardbridge(&["config", "check", "--config", file.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{stderr}");
}

#[test]
fn a_missing_configuration_is_bad_usage() {
    let (code, _, stderr) = cardbridge(&["config", "check", "--config", "/nowhere/at/all.toml"]);
    assert_eq!(code, Some(2));
    assert!(stderr.contains("/nowhere/at/all.toml"), "{stderr}");
}

#[test]
fn status_without_daemon_exits_with_3() {
    let mut world = require!(world()).start().unwrap();
    world.stop_daemon().unwrap();
    let output = world.cli(&["status"]).unwrap();
    assert_eq!(output.code, Some(3), "{output:?}");
    assert!(output.stderr.contains("cannot connect to the daemon"), "{output:?}");
    world.finish().unwrap();
}

#[test]
fn read_and_scan_without_pcscd_exit_with_3() {
    for command in [&["read"][..], &["scan", "--once"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_cardbridge"))
            .args(command)
            .env("PCSCLITE_CSOCK_NAME", "/nowhere/pcscd.comm")
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{stderr}");
        assert!(stderr.contains("pcscd is unreachable"), "{stderr}");
    }
}

#[test]
fn read_shows_identity_and_its_source_bytes() {
    let world = require!(world()).start().unwrap();
    let none = world.cli(&["read"]).unwrap();
    assert_eq!(none.code, Some(1), "{none:?}");
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    world.wait_for_outcomes(1, LONG).unwrap();

    let json = world.cli(&["read", "--json"]).unwrap().json().unwrap();
    assert_eq!(json["identity"]["family"], "gids");
    assert_eq!(json["identity"]["serial"], "3ff188bcba833740826246eba1291c6e");
    assert_eq!(json["identity"]["candidates"][0]["card_id"], CARD);
    assert_eq!(json["identity"]["candidates"][0]["rule"], "gids-cardid");
    assert_eq!(json["atr"], "3b8d0180fba000000397425446590301c8");
    assert_eq!(json["atr_decoded"]["card_name"], "Microsoft virtual smart card");
    assert_eq!(json["cm"]["matched_rule"], "gids-cardid");

    let text = world.cli(&["read", "--trace"]).unwrap();
    assert_eq!(text.code, Some(0));
    assert!(text.stdout.contains("> 00a4040009a00000039742544659"), "{}", text.stdout);
    assert!(text.stdout.contains("df20103ff188bcba833740826246eba1291c6e9000"), "{}", text.stdout);
    let wrong = world.cli(&["read", "--reader", "no such reader"]).unwrap();
    assert_eq!(wrong.code, Some(2), "{wrong:?}");
    world.finish().unwrap();
}

#[test]
fn scan_prints_one_object_a_line() {
    let world = require!(world()).start().unwrap();
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    world.wait_for_outcomes(1, LONG).unwrap();
    let output = world.cli(&["scan", "--once", "--json"]).unwrap();
    assert_eq!(output.code, Some(0));
    let lines: Vec<serde_json::Value> =
        output.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let events: Vec<_> = lines.iter().map(|line| line["event"].as_str().unwrap()).collect();
    assert_eq!(events, ["reader-attached", "reader-attached", "card-inserted"]);
    assert_eq!(lines[2]["identity"]["candidates"][0]["card_id"], CARD);
    assert_eq!(lines[2]["atr"], "3b8d0180fba000000397425446590301c8");
    assert!(output.stdout.starts_with(r#"{"event":"reader-attached","at":""#), "{}", output.stdout);
    world.finish().unwrap();
}

#[test]
fn lookup_shows_decision_and_changes_nothing() {
    let mut world = require!(world()).start().unwrap();
    world.stop_daemon().unwrap();
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    let read = || world.cli(&["read"]).unwrap().code == Some(0);
    world.wait_until("the card", LONG, read).unwrap();
    let output = world.cli(&["lookup"]).unwrap();
    assert_eq!(output.code, Some(0), "{output:?}");
    assert!(output.stdout.contains("would set Retired instead of Active"), "{}", output.stdout);
    let effect = "permanent: revokes the card's certificates";
    assert!(output.stdout.contains(effect), "{}", output.stdout);
    let json = world.cli(&["lookup", "--card-id", CARD, "--json"]).unwrap().json().unwrap();
    assert_eq!(json["on_insertion"]["result"], "set");
    assert!(json["on_insertion"]["effect"].as_str().unwrap().starts_with(effect), "{json}");
    assert_eq!(json["records"][0]["Uuid"], RECORD);
    assert_eq!(json["requests"][0]["request"], REQUEST);
    assert_eq!(world.cm.puts().len(), 0);
    assert_eq!(status(&world), ACTIVE);

    let rules = json["rules"].as_array().unwrap();
    let applies: Vec<_> = rules.iter().map(|rule| (&rule["rule"], &rule["applies"])).collect();
    assert_eq!(applies, [(&"retire".into(), &true.into()), (&"disable".into(), &false.into())]);
    assert_eq!(rules[0]["request"], REQUEST);
    for part in [
        "sets Retired instead of Active, and leaves the request open",
        "disable: not applied: the rule matches request type Disable, the open request is Retire",
    ] {
        assert!(output.stdout.contains(part), "{}", output.stdout);
    }

    world.cm.set_fault(Fault::Unauthorized);
    assert_eq!(world.cli(&["lookup", "--card-id", CARD]).unwrap().code, Some(4));
    world.cm.clear_faults();
    world.cm.go_away().unwrap();
    assert_eq!(world.cli(&["lookup", "--card-id", CARD]).unwrap().code, Some(3));
    world.finish().unwrap();
}

#[test]
fn lookup_shows_each_rule_for_insertion_and_removal() {
    let world = require!(world());
    let rules = [
        retire_rule("complete_request = true\npick = \"newest\"\n"),
        "[[rule]]\nname = \"lost\"\non = \"removed\"\nrequest_type = [\"Disable\"]\n\
         set_status = \"Disabled\""
            .to_owned(),
    ];
    let world = world.config_extra(&rules.concat()).without_daemon().start().unwrap();
    let lookup = ["lookup", "--card-id", CARD];
    let text = world.cli(&lookup).unwrap().stdout;
    for part in [
        "sets Retired instead of Active, and completes the request",
        "lost, on removal: not applied: the rule matches request type Disable, the open request is Retire",
        "would set Retired instead of Active and complete the request, by rule retire",
        "On removal    would do nothing: no rule matches the open request (Retire)",
    ] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
    let json = world.cli(&[&lookup[..], &["--json"]].concat()).unwrap().json().unwrap();
    assert_eq!(json["on_insertion"]["decision"]["complete_request"], true);
    assert_eq!(json["on_removal"]["result"], "nothing-to-do");
    assert_eq!((&json["rules"][1]["on"], &json["record"]), (&"removed".into(), &RECORD.into()));
    assert_eq!(world.cm.puts().len(), 0);
    world.finish().unwrap();
}

#[test]
fn operator_shows_retries_and_discards_parked_entry() {
    let world = require!(world()).start().unwrap();
    world.cm.set_fault(Fault::Forbidden.times(2).method("PUT"));
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    world.wait_for_outcomes(1, LONG).unwrap();
    let listed = world.cli(&["outbox", "list", "--json"]).unwrap().json().unwrap();
    assert_eq!(listed[0]["entry"]["stage"]["reason"], "refused", "{listed}");
    assert_eq!(world.cli(&["outbox", "show", "1"]).unwrap().code, Some(0));

    assert_eq!(world.cli(&["outbox", "retry", "1"]).unwrap().code, Some(0));
    let again = world.wait_for_outcomes(3, LONG).unwrap();
    assert_eq!(again, ["parked", "retried", "parked"]);

    let sure = world.cli(&["outbox", "discard", "1"]).unwrap();
    assert_eq!(sure.code, Some(2), "{sure:?}");
    assert_eq!(world.cli(&["outbox", "discard", "1", "--yes"]).unwrap().code, Some(0));
    let last = world.audit().unwrap().pop().unwrap();
    assert_eq!((&last["outcome"], &last["by"]), (&"discarded".into(), &by().into()));
    assert_eq!(world.cli(&["outbox", "show", "1"]).unwrap().code, Some(1));
    assert_eq!(status(&world), ACTIVE);
    world.finish().unwrap();
}

#[test]
fn parked_entry_is_retried_or_discarded_offline() {
    let mut world = require!(world()).start().unwrap();
    world.cm.set_fault(Fault::Forbidden.times(2).method("PUT"));
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    world.wait_for_outcomes(1, LONG).unwrap();
    world.stop_daemon().unwrap();

    assert_eq!(world.cli(&["outbox", "retry", "2"]).unwrap().code, Some(1));
    assert_eq!(world.cli(&["outbox", "retry", "1"]).unwrap().code, Some(0));
    let listed = world.cli(&["outbox", "list", "--json"]).unwrap().json().unwrap();
    assert_eq!(listed[0]["entry"]["stage"]["stage"], "sent", "{listed}");
    assert_eq!(world.outcomes().unwrap(), ["parked", "retried"]);
    world.start_daemon().unwrap();
    world.wait_for_outcomes(3, LONG).unwrap();
    world.stop_daemon().unwrap();

    assert_eq!(world.cli(&["outbox", "discard", "1"]).unwrap().code, Some(2));
    assert_eq!(world.cli(&["outbox", "discard", "1", "--yes"]).unwrap().code, Some(0));
    let last = world.audit().unwrap().pop().unwrap();
    assert_eq!((&last["outcome"], &last["by"]), (&"discarded".into(), &by().into()));
    assert_eq!(world.cli(&["audit", "verify"]).unwrap().code, Some(0));
    world.finish().unwrap();
}

#[test]
fn outbox_of_unresponsive_daemon_is_not_opened() {
    let mut world = require!(world()).start().unwrap();
    world.cm.set_fault(Fault::Forbidden.times(1).method("PUT"));
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    world.wait_for_outcomes(1, LONG).unwrap();
    std::fs::remove_file(world.control_path()).unwrap();
    for act in [&["outbox", "retry", "1"][..], &["outbox", "discard", "1", "--yes"]] {
        let refused = world.cli(act).unwrap();
        assert_eq!(refused.code, Some(3), "{refused:?}");
        let pid = world.daemon_pid().unwrap().to_string();
        assert!(refused.stderr.contains(&pid), "{refused:?} does not name {pid}");
    }
    world.kill9_daemon().unwrap();
    assert_eq!(world.outcomes().unwrap(), ["parked"]);
    world.finish().unwrap();
}

#[test]
fn audit_trail_is_verified_online_and_offline() {
    let mut world = require!(world()).start().unwrap();
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    world.wait_for_outcomes(1, LONG).unwrap();
    let whole = world.cli(&["audit", "verify", "--json"]).unwrap();
    assert_eq!(whole.code, Some(0), "{whole:?}");
    let verdict = whole.json().unwrap();
    assert_eq!((&verdict["ok"], &verdict["lines"]), (&true.into(), &1.into()), "{verdict}");
    let csv = world.cli(&["audit", "--format", "csv"]).unwrap().stdout;
    assert!(csv.starts_with("at,station,kind,outcome,"), "{csv}");
    assert!(csv.contains(",outcome,updated,"), "{csv}");

    world.stop_daemon().unwrap();
    assert_eq!(world.cli(&["audit", "verify"]).unwrap().code, Some(0));
    let mut bytes = std::fs::read(world.outbox_path()).unwrap();
    let start = bytes.windows(9).position(|part| part == b"\"updated\"").unwrap();
    bytes[start + 1] = b'U';
    std::fs::write(world.outbox_path(), bytes).unwrap();
    let stopped = world.cli(&["audit", "verify"]).unwrap();
    assert_eq!(stopped.code, Some(1), "{stopped:?}");
    assert!(stopped.stdout.starts_with("line 1 ("), "{stopped:?}");
    world.expect_error("Damaged outbox row skipped");
    world.start_daemon().unwrap();
    let running = world.cli(&["audit", "verify"]).unwrap();
    assert_eq!((running.code, running.stdout), (Some(1), stopped.stdout));
    world.finish().unwrap();
}

/// The head that the daemon logs after its start, as `--against` takes it.
fn logged_head(world: &World, seq: u32) -> String {
    let head = format!("Audit trail head seq={seq} ");
    world.wait_until("the logged head", LONG, || world.daemon_log().contains(&head)).unwrap();
    let log = world.daemon_log();
    let line = log.lines().rfind(|line| line.contains(&head)).unwrap();
    let field = |name: &str| {
        let rest = line.split_once(&format!(" {name}=")).unwrap().1;
        rest.split_whitespace().next().unwrap().trim_matches('"').to_owned()
    };
    format!("{}:{}", field("seq"), field("chain"))
}

#[test]
fn logged_audit_head_is_compared_with_trail() {
    let world = require!(world()).double(cardbridge_harness::pcscd::Double::Ifd);
    let mut world = world.start().unwrap();
    let mut card = world.insert(0, GidsCard::seed()).unwrap();
    assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["updated"]);
    world.stop_daemon().unwrap();
    let old = std::fs::read(world.outbox_path()).unwrap();
    card.eject();
    world.start_daemon().unwrap();
    let first = logged_head(&world, 1);
    let line = world.audit().unwrap().remove(0);
    assert_eq!(format!("{}:{}", line["seq"], line["chain"].as_str().unwrap()), first);
    let ask = |world: &World, heads: &[&str]| {
        let against = heads.iter().flat_map(|head| ["--against", head]);
        let args: Vec<_> = ["audit", "verify", "--json"].into_iter().chain(against).collect();
        let output = world.cli(&args).unwrap();
        let found = output.json().map(|json| json["against"][0]["found"].clone());
        (output.code, found.unwrap_or_default())
    };
    let wrong = format!("1:{}", "0f".repeat(32));
    let later = format!("2:{}", "0f".repeat(32));
    let table = [(&first, 0, "same"), (&wrong, 1, "differs"), (&later, 1, "missing")];
    for (head, code, found) in table {
        assert_eq!(ask(&world, &[head]), (Some(code), found.into()), "running: {head}");
    }
    assert_eq!(ask(&world, &[&first, &wrong]).0, Some(1));
    assert_eq!(ask(&world, &["1:abc"]).0, Some(2));

    let _card = world.insert(0, GidsCard::seed()).unwrap();
    assert_eq!(world.wait_for_outcomes(2, LONG).unwrap(), ["updated", "already-set"]);
    world.stop_daemon().unwrap();
    world.start_daemon().unwrap();
    let second = logged_head(&world, 2);
    world.stop_daemon().unwrap();
    for (head, code, found) in table.into_iter().take(2).chain([(&second, 0, "same")]) {
        assert_eq!(ask(&world, &[head]), (Some(code), found.into()), "stopped: {head}");
    }
    // An older copy of the file is whole by itself; the log's head knows better.
    std::fs::write(world.outbox_path(), old).unwrap();
    assert_eq!(world.cli(&["audit", "verify"]).unwrap().code, Some(0));
    assert_eq!(ask(&world, &[&first]), (Some(0), "same".into()));
    assert_eq!(ask(&world, &[&second]), (Some(1), "missing".into()));
    let output = world.cli(&["audit", "verify", "--against", &second]).unwrap().stdout;
    assert!(output.contains("older copy"), "{output}");
    world.finish().unwrap();
}

fn by() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("Uid:")).unwrap();
    let uid = line.split_whitespace().nth(1).unwrap();
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap();
    let mut users = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let name = users.find(|user| user[2] == uid).map(|user| user[0].to_owned());
    name.map_or_else(|| format!("uid {uid}"), |name| format!("{name} (uid {uid})"))
}

#[test]
fn a_second_daemon_on_the_same_outbox_is_refused() {
    let world = require!(world()).start().unwrap();
    let second = world.cli(&["run"]).unwrap();
    assert_eq!(second.code, Some(1), "{second:?}");
    let pid = world.daemon_pid().unwrap().to_string();
    assert!(second.stderr.contains(&pid), "{second:?} does not name {pid}");
    assert!(world.cli(&["status"]).unwrap().code == Some(0), "the first goes on");
    world.finish().unwrap();
}

#[test]
fn damaged_outbox_is_set_aside_and_logged() {
    let mut world = require!(world()).start().unwrap();
    world.stop_daemon().unwrap();
    std::fs::write(world.outbox_path(), vec![0x5a; 20_000]).unwrap();
    world.expect_error("Damaged outbox file set aside");
    world.start_daemon().unwrap();
    let files = std::fs::read_dir(world.outbox_path().parent().unwrap()).unwrap();
    let mut files = files.map(|file| file.unwrap().path());
    let aside = files.find(|file| file.display().to_string().contains(".damaged-")).unwrap();
    assert_eq!(std::fs::read(&aside).unwrap(), vec![0x5a; 20_000]);
    let status = world.cli(&["status"]).unwrap().stdout;
    assert!(status.contains("DATA LOSS: the outbox was damaged"), "{status}");
    let verdict = world.cli(&["audit", "verify"]).unwrap();
    assert_eq!(verdict.code, Some(1), "{verdict:?}");
    assert!(verdict.stdout.contains(": the outbox was damaged"), "{verdict:?}");

    let _card = world.insert(0, GidsCard::seed()).unwrap();
    let outcomes = world.wait_for_outcomes(2, LONG).unwrap();
    assert_eq!(outcomes, ["outbox-damaged", "updated"]);
    world.finish().unwrap();
}

#[test]
fn daemon_exits_without_calling_cm_when_outbox_is_removed() {
    let mut world = require!(world()).start().unwrap();
    world.expect_error("Outbox file lost; stopping");
    std::fs::remove_file(world.outbox_path()).unwrap();
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    let ended = world.wait_daemon_end(LONG).unwrap();
    assert_eq!(ended.code(), Some(1));
    assert_eq!(world.cm.log().len(), 0);
    world.finish().unwrap();
}

#[test]
fn a_reload_takes_good_settings_and_refuses_bad_ones() {
    let mut world = require!(world())
        .cm(CmOptions { store: Store::seed(), ..CmOptions::default() })
        .start()
        .unwrap();
    world.expect_error("Configuration reload failed");
    let good = std::fs::read_to_string(world.config_path()).unwrap();
    std::fs::write(world.config_path(), format!("{good}\n[nonsense]\n")).unwrap();
    world.reload_daemon().unwrap();
    let refused = || world.daemon_log().contains("Configuration reload failed");
    world.wait_until("the refusal", LONG, refused).unwrap();

    let rule = "[[rule]]\nname=\"off\"\nrequest_type=[\"Retire\"]\nset_status=\"Disabled\"\n";
    std::fs::write(world.config_path(), format!("{good}\n{rule}")).unwrap();
    world.reload_daemon().unwrap();
    let taken = || world.daemon_log().contains("Configuration reloaded");
    world.wait_until("the reload", LONG, taken).unwrap();
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["updated"]);
    assert_eq!(status(&world), 3, "by the new rule");
    world.finish().unwrap();
}

#[test]
fn a_configuration_of_the_environment_alone_is_one() {
    let world = require!(world()).without_daemon().start().unwrap();
    let card = world.insert(0, GidsCard::seed()).unwrap();
    readers::wait_powered(&card);
    let read = |name: &str, value: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_cardbridge"))
            .args(["read", "--json"])
            .env("PCSCLITE_CSOCK_NAME", world.pcscd.socket_path())
            .env_remove("CARDBRIDGE_CONFIG")
            .env(name, value)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        (output.status.code(), text)
    };
    let (code, said) =
        read("CARDBRIDGE_CARDS__SKIP_ATR", "[\"3b8d0180fba000000397425446590301c8\"]");
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains(r#""reason": "skipped""#) || said.contains(r#""reason":"skipped""#),
        "{said}"
    );
    assert_eq!(card.apdus(), [], "it was not touched");
    for (name, value) in [
        ("CARDBRIDGE_LOG__LEVEL", "bogus"),
        ("CARDBRIDGE_CONFIG", "/nonexistent/cardbridge.toml"),
        ("CARDBRIDGE_CARDS__SKIP", "[]"),
    ] {
        let (code, said) = read(name, value);
        assert_eq!(code, Some(2), "{name}: {said}");
    }
    world.finish().unwrap();
}

#[test]
fn unreadable_files_are_reported_with_other_problems() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("cardbridge.toml");
    let text = r#"
[cm]
url = "https://cm.example.com"
concurency = 5
ca_file = "/nonexistent/ca.pem"
[cm.auth]
method = "bearer"
token_file = "tok"
"#;
    std::fs::write(&file, text).unwrap();
    let config = file.to_str().unwrap();
    let (code, _, stderr) = cardbridge(&["config", "check", "--config", config]);
    assert_eq!(code, Some(2), "{stderr}");
    assert_eq!(stderr.lines().count(), 3, "{stderr}");
    for key in ["cm.concurency: ", "cm.ca_file: ", "cm.auth.token_file: "] {
        let named = stderr.lines().any(|line| line.contains(config) && line.contains(key));
        assert!(named, "{key} in {stderr}");
    }
    let (_, stdout, _) = cardbridge(&["config", "check", "--json", "--config", config]);
    let said: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(said["problems"].as_array().unwrap().len(), 3, "{said}");
    let (code, _, stderr) = cardbridge(&["config", "check", "--config", "/nonexistent/x.toml"]);
    assert_eq!(code, Some(2));
    assert!(stderr.contains("/nonexistent/x.toml: cannot be read: "), "{stderr}");
}

#[test]
fn silent_name_server_does_not_delay_stop() {
    let world = require!(world());
    let url = "\"https://cm.nowhere.example\"";
    let mut world = world.config_set("cm.url", url).without_daemon().start().unwrap();
    // A name server that never answers, for the daemon alone.
    let silent = std::net::UdpSocket::bind("127.0.0.9:53");
    let silent = require!(silent.map_err(|error| format!("no name server of our own: {error}")));
    let resolver = world.dir().join("resolv.conf");
    let text = "nameserver 127.0.0.9\noptions timeout:20 attempts:3\n";
    std::fs::write(&resolver, text).unwrap();
    let mount = format!("mount --bind {} /etc/resolv.conf && exec \"$@\"", resolver.display());
    world.start_daemon_under(&["unshare", "-m", "sh", "-c", &mount, "sh"]).unwrap();
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    let queued = || world.daemon_log().contains("Entry queued");
    world.wait_until("the entry", LONG, queued).unwrap();
    silent.set_read_timeout(Some(LONG)).unwrap();
    silent.recv(&mut [0; 512]).unwrap();
    // Within two seconds, or it fails.
    world.stop_daemon().unwrap();
    world.finish().unwrap();
}

#[test]
fn environment_proxy_is_not_used_for_loopback() {
    let mut world = require!(world()).without_daemon().start().unwrap();
    let closed = "http://127.0.0.1:9";
    let proxies = ["http_proxy", "https_proxy", "all_proxy"].map(|name| format!("{name}={closed}"));
    let prefix: Vec<_> = ["env"].into_iter().chain(proxies.iter().map(String::as_str)).collect();
    world.start_daemon_under(&prefix).unwrap();
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["updated"]);
    world.finish().unwrap();
}

#[test]
fn a_file_of_the_wrong_kind_is_named_by_config_check() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let text = format!(
        "[cm]\nurl = \"https://cm.example.com\"\nca_file = \"{}\"\n[cm.auth]\nmethod = \"bearer\"\n\
         token_file = \"{}\"\n",
        path("ca.pem"),
        path("token"),
    );
    let config = path("cardbridge.toml");
    let problems = || {
        let (code, _, stderr) = cardbridge(&["config", "check", "--config", &config]);
        assert_eq!(code, Some(2), "{stderr}");
        assert!(!stderr.contains("hunter2"), "{stderr}");
        stderr
    };
    let utf16: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    for mark in [&[0xFF, 0xFE][..], &[]] {
        std::fs::write(&config, [mark, &utf16].concat()).unwrap();
        let problems = problems();
        assert!(
            problems.contains(&config) && problems.contains("UTF-16; save it as UTF-8"),
            "{problems}"
        );
    }
    std::fs::write(&config, format!("\u{feff}{}", text.replace('\n', "\r\n"))).unwrap();
    std::fs::write(path("ca.pem"), "-----BEGIN TRUSTED CERTIFICATE-----\nAA==\n").unwrap();
    std::fs::write(path("token"), r#"{"access_token":"hunter2"}"#).unwrap();
    let problems = problems();
    for part in [
        "cm.ca_file: ",
        "TRUSTED CERTIFICATE",
        "openssl x509 -in",
        "cm.auth.token_file: ",
        "it holds JSON",
        "jq -r .access_token",
    ] {
        assert!(problems.contains(part), "{part} in {problems}");
    }
}

#[test]
fn world_readable_secret_is_a_warning() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    std::fs::write(&token, "hunter2").unwrap();
    let config = dir.path().join("cardbridge.toml");
    let text = format!(
        "[cm]\nurl = \"https://cm.example.com\"\n[cm.auth]\nmethod = \"bearer\"\ntoken_file = {:?}\n",
        token.display().to_string()
    );
    std::fs::write(&config, text).unwrap();
    let config = config.to_str().unwrap();
    for (mode, warned) in [(0o644, true), (0o600, false)] {
        std::fs::set_permissions(&token, std::fs::Permissions::from_mode(mode)).unwrap();
        let (code, stdout, stderr) = cardbridge(&["config", "check", "--config", config]);
        assert_eq!(code, Some(0), "{stderr}");
        let said = stdout.contains("warning: ") && stdout.contains("every user of this machine");
        assert_eq!(said, warned, "{stdout}");
        assert!(!stdout.contains("hunter2"), "{stdout}");
        let (_, stdout, _) = cardbridge(&["config", "check", "--json", "--config", config]);
        let said: serde_json::Value = serde_json::from_str(&stdout).unwrap();
        assert_eq!(said["warnings"].as_array().unwrap().len(), usize::from(warned), "{said}");
        let (_, stdout, _) = cardbridge(&["check", "--json", "--config", config]);
        let said: serde_json::Value = serde_json::from_str(&stdout).unwrap();
        let of_configuration = said["checks"].as_array().unwrap().iter();
        let mut of_configuration = of_configuration.filter(|c| c["name"] == "configuration");
        let found = of_configuration.any(|check| check["status"] == "warning");
        assert_eq!(found, warned, "{said}");
    }
}
