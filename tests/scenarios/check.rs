//! `cardbridge check`: what an administrator reads when a station does not work.

use cardbridge_harness::cards::GidsCard;
use cardbridge_harness::cm::{Certificate, CmOptions, Fault};
use cardbridge_harness::world::Output;

use super::*;

/// Every step, in order.
const STEPS: [&str; 16] = [
    "configuration",
    "pcscd",
    "pcsc-access",
    "readers",
    "outbox",
    "dns",
    "tcp",
    "proxy",
    "tls",
    "clock",
    "credentials",
    "api-enabled",
    "authentication",
    "authorization",
    "cm-response",
    "open-requests",
];

/// The one step that failed, and how its line reads.
#[track_caller]
fn failed(output: &Output) -> (String, String, String) {
    let report = output.json().unwrap();
    assert_eq!(report["ok"], false, "{output:?}");
    let checks = report["checks"].as_array().unwrap();
    let at = checks.iter().position(|check| check["status"] == "failed").unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let check = &checks[at];
    (text(&check["name"]), text(&check["detail"]), text(&check["remedy"]))
}

#[test]
fn check_passes_all_steps_in_order() {
    let world = require!(world());
    let options =
        CmOptions { tls: Some(Certificate::Good), store: Store::seed(), ..CmOptions::default() };
    let world = world.cm(options).start().unwrap();
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    world.wait_for_outcomes(1, LONG).unwrap();
    world.cm.add_request(Request::approved(RETIRE, &Record::seed()));
    let output = world.cli(&["check", "--json"]).unwrap();
    assert_eq!(output.code, Some(0), "{output:?}");
    let report = output.json().unwrap();
    assert_eq!(report["ok"], true);
    let checks = report["checks"].as_array().unwrap();
    let steps: Vec<_> = checks.iter().map(|check| check["name"].as_str().unwrap()).collect();
    assert_eq!(steps, STEPS);
    let detail = |step: &str| {
        let check = checks.iter().find(|check| check["name"] == step).unwrap();
        assert_eq!(check["status"], "ok", "{check}");
        check["detail"].as_str().unwrap().to_owned()
    };
    for (step, part) in [
        ("readers", "with a card"),
        ("outbox", "0 waiting, 0 parked"),
        ("dns", "127.0.0.1"),
        ("tls", "TLS 1.3"),
        ("clock", "0 s"),
        ("open-requests", "2 open requests"),
    ] {
        assert!(detail(step).contains(part), "{step}: {}", detail(step));
    }
    // Nothing but questions reached CM.
    assert_eq!(world.cm.puts().len(), 1);
    let text = world.cli(&["check"]).unwrap();
    assert_eq!(text.code, Some(0));
    assert_eq!(text.stdout.lines().count(), STEPS.len(), "{}", text.stdout);
    world.finish().unwrap();
}

#[test]
fn check_stops_at_cm_error_with_remedy() {
    let world = require!(world()).start().unwrap();
    for (fault, step, code, remedy) in [
        (Fault::HtmlNotFound, "api-enabled", 3, "Clm.WebApi.Enabled"),
        (Fault::Unauthorized, "authentication", 4, "[cm.auth]"),
        (Fault::Forbidden, "authorization", 4, "permissions"),
        (Fault::HtmlOk, "cm-response", 3, "cm.url"),
        (Fault::Unavailable { retry_after: None }, "api-enabled", 3, "server"),
    ] {
        world.cm.set_fault(fault);
        let output = world.cli(&["check", "--json"]).unwrap();
        let (failed, detail, remedies) = failed(&output);
        assert_eq!((failed.as_str(), output.code), (step, Some(code)), "{detail}");
        assert!(remedies.contains(remedy), "{step}: {remedies}");
        world.cm.clear_faults();
    }
    world.finish().unwrap();
}

#[test]
fn check_shows_untrusted_certificate() {
    for (certificate, part) in
        [(Certificate::Expired, "until 20"), (Certificate::WrongName, "other.example.com")]
    {
        let world = require!(world());
        let options = CmOptions { tls: Some(certificate), ..CmOptions::default() };
        let world = world.cm(options).without_daemon().start().unwrap();
        let output = world.cli(&["check", "--json"]).unwrap();
        let (step, detail, remedy) = failed(&output);
        assert_eq!((step.as_str(), output.code), ("tls", Some(3)), "{detail}");
        assert!(detail.contains(part), "{detail}");
        assert!(remedy.contains("certificate"), "{remedy}");
        world.finish().unwrap();
    }
}

#[test]
fn check_stops_at_refused_connection() {
    let world = require!(world()).without_daemon().start().unwrap();
    world.cm.go_away().unwrap();
    let output = world.cli(&["check", "--json"]).unwrap();
    let (step, detail, _) = failed(&output);
    assert_eq!((step.as_str(), output.code), ("tcp", Some(3)), "{detail}");
    let report = output.json().unwrap();
    let last = report["checks"].as_array().unwrap().last().unwrap().clone();
    assert_eq!((&last["name"], &last["status"]), (&"open-requests".into(), &"skipped".into()));
    world.finish().unwrap();
}

#[test]
fn check_stops_at_unresolved_host_name() {
    let world = require!(world())
        .without_daemon()
        .config_set("cm.url", "\"https://no-such-host.invalid\"")
        .start()
        .unwrap();
    let output = world.cli(&["check", "--json"]).unwrap();
    let (step, detail, _) = failed(&output);
    assert_eq!((step.as_str(), output.code), ("dns", Some(3)), "{detail}");
    assert!(detail.contains("no-such-host.invalid"), "{detail}");
    world.finish().unwrap();
}

#[test]
fn check_continues_with_readers_after_bad_configuration() {
    let world = require!(world())
        .without_daemon()
        .config_extra("[cards]\natr_mismatch = \"ignore\"")
        .start()
        .unwrap();
    let output = world.cli(&["check", "--json"]).unwrap();
    let (step, detail, remedy) = failed(&output);
    assert_eq!((step.as_str(), output.code), ("configuration", Some(2)), "{detail}");
    assert!(detail.contains("cards.atr_mismatch") && remedy.contains("warn"), "{detail}: {remedy}");
    world.finish().unwrap();
}

#[test]
fn check_continues_with_cm_without_pcscd() {
    let mut world = require!(world()).without_daemon().start().unwrap();
    world.pcscd.kill9().unwrap();
    let output = world.cli(&["check", "--json"]).unwrap();
    let (step, detail, remedy) = failed(&output);
    assert_eq!((step.as_str(), output.code), ("pcscd", Some(3)), "{detail}");
    assert!(remedy.contains("systemctl start pcscd"), "{remedy}");
    let report = output.json().unwrap();
    let last = report["checks"].as_array().unwrap().last().unwrap().clone();
    assert_eq!((&last["name"], &last["status"]), (&"open-requests".into(), &"ok".into()));
    world.finish().unwrap();
}
