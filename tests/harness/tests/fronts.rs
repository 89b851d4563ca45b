//! The servers in front of the simulator, judged by curl.

#![expect(
    clippy::expect_used,
    clippy::unwrap_in_result,
    reason = "a test's helpers may fail the test"
)]

#[path = "fronts/curl.rs"]
mod curl;

use std::path::Path;
use std::process::Command;

use cardbridge_harness::acceptor::{self, Acceptor, AcceptorOptions};
use cardbridge_harness::apache::{
    self, Apache, ApacheOptions, ClientCertificate, Negotiate, TlsVersion,
};
use cardbridge_harness::cm::Cm;
use cardbridge_harness::kdc::{self, Kdc, KdcOptions, WEB_SERVICE};
use cardbridge_harness::pki::Signing;
use cardbridge_harness::skipped;

use curl::{Curl, Reply};

const AGENT: &str = "desk-3";

fn can_run() -> bool {
    let reason = kdc::unavailable().or_else(apache::unavailable);
    if let Some(reason) = &reason {
        skipped(reason);
    }
    reason.is_none()
}

/// A realm, the agent logged in.
fn realm() -> (Kdc, Curl) {
    let kdc = Kdc::start(KdcOptions::default()).expect("the KDC starts");
    kdc.add_principal(AGENT).expect("a principal");
    let mut curl = Curl::default();
    curl.kinit(&kdc, AGENT);
    (kdc, curl)
}

fn get(curl: &Curl, apache: &Apache, more: &[&str]) -> Reply {
    curl.get(&format!("{}{}", apache.url(), curl::CARD), more).expect("an answer")
}

#[test]
fn negotiate_is_demanded_and_the_caller_is_named_to_the_simulator() {
    if !can_run() {
        return;
    }
    let (kdc, curl) = realm();
    let cm = Cm::seed().unwrap();
    let negotiate = Some(Negotiate::of(&kdc).unwrap());
    let apache =
        Apache::start(&ApacheOptions { negotiate, ..ApacheOptions::before(cm.address()) }).unwrap();
    let stranger = get(&curl, &apache, &["-H", "X-Remote-User: root@ELSEWHERE"]);
    assert_eq!(stranger.status, 401);
    assert_eq!(stranger.header("www-authenticate"), Some("Negotiate"));
    assert!(cm.log().is_empty(), "{}", cm.story());
    let known = get(&curl, &apache, &["--negotiate", "-u", ":", "-H", "X-Remote-User: root"]);
    assert_eq!(known.status, 200, "{}", apache.error_log());
    let proof = known.header("www-authenticate").unwrap();
    assert!(proof.starts_with("Negotiate o") && proof.len() > 100, "{proof}");
    assert!(known.body.contains("17cf063d-e337-4aa9-a822-346554ddd3c9"));
    let name = format!("{AGENT}@{}", kdc.realm());
    assert_eq!(cm.log()[0].header("x-remote-user"), Some(name.as_str()));
    assert!(apache.log().contains(&name), "{}", apache.log());
}

#[test]
fn a_connection_stays_open_for_strangers_only_where_it_is_to_persist() {
    if !can_run() {
        return;
    }
    let (kdc, curl) = realm();
    let cm = Cm::seed().unwrap();
    for (persist, status) in [(false, 401), (true, 200)] {
        let negotiate = Some(Negotiate::of(&kdc).unwrap());
        let options = ApacheOptions { negotiate, persist, ..ApacheOptions::before(cm.address()) };
        let apache = Apache::start(&options).unwrap();
        let url = format!("{}{}", apache.url(), curl::CARD);
        let second = ["--negotiate", "-u", ":", &url, "--next", "-s", "-i"];
        let reply = get(&curl, &apache, &second);
        assert_eq!(reply.status, status, "persist {persist}: {}", apache.log());
    }
}

#[test]
fn a_server_with_other_keys_lets_nobody_in_until_it_has_the_right_ones() {
    if !can_run() {
        return;
    }
    let (kdc, curl) = realm();
    let cm = Cm::seed().unwrap();
    let negotiate = Some(Negotiate::of(&kdc).unwrap());
    let options = ApacheOptions { negotiate, ..ApacheOptions::before(cm.address()) };
    let mut apache = Apache::start(&options).unwrap();
    kdc.rekey(WEB_SERVICE).unwrap();
    let negotiating = ["--negotiate", "-u", ":"];
    assert_eq!(get(&curl, &apache, &negotiating).status, 401);
    apache.set_keytab(&kdc.keytab(WEB_SERVICE).unwrap()).unwrap();
    assert_eq!(get(&curl, &apache, &negotiating).status, 200);
    apache.stop().unwrap();
    let url = format!("{}{}", apache.url(), curl::CARD);
    assert!(curl.get(&url, &negotiating).unwrap_err().contains("connect"));
    apache.start_again().unwrap();
    assert_eq!(get(&curl, &apache, &negotiating).status, 200);
    cm.go_away().unwrap();
    assert_eq!(get(&curl, &apache, &negotiating).status, 503);
    cm.come_back().unwrap();
    assert_eq!(get(&curl, &apache, &negotiating).status, 200);
}

#[test]
fn client_certificates_are_asked_for_in_the_handshake_or_once_the_path_is_known() {
    if !can_run() {
        return;
    }
    let cm = Cm::seed().unwrap();
    for version in [TlsVersion::Tls12, TlsVersion::Tls13] {
        for client_certificate in [ClientCertificate::WholeSite, ClientCertificate::PerPath] {
            let case = format!("{version:?}, {client_certificate:?}");
            let tls = Some(version);
            let options =
                ApacheOptions { tls, client_certificate, ..ApacheOptions::before(cm.address()) };
            let apache = Apache::start(&options).unwrap();
            let curl = Curl::trusting(&apache.ca_pem());
            let elsewhere = curl.get(&format!("{}/elsewhere", apache.url()), &[]);
            let asked_late = client_certificate == ClientCertificate::PerPath;
            assert_eq!(elsewhere.is_ok_and(|reply| reply.status == 404), asked_late, "{case}");
            let bare = curl.get(&format!("{}{}", apache.url(), curl::CARD), &[]);
            assert!(bare.is_err() || bare.is_ok_and(|reply| reply.status == 403), "{case}");
            let identity = curl.identity(&apache.client("desk-3").unwrap());
            let mut arguments: Vec<&str> = identity.iter().map(String::as_str).collect();
            arguments.extend(["-H", "X-Remote-User: root"]);
            let known = get(&curl, &apache, &arguments);
            assert_eq!(known.status, 200, "{case}: {}", apache.error_log());
            let call = cm.log().pop().unwrap();
            assert_eq!(call.header("x-client-subject"), Some("CN=desk-3"), "{case}");
            assert_eq!(call.header("x-remote-user"), None, "nobody logged in");
        }
    }
}

/// What a client with the given bindings prints.
fn bound(curl: &Curl, acceptor: &Acceptor, binding: &str) -> String {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fronts/bound.py");
    let mut command = Command::new("/usr/bin/python3");
    command.arg("-I").arg(program).arg(format!("{}{}", acceptor.url(), curl::CARD));
    command.arg(acceptor.ca_pem()).arg(binding);
    curl.log_in(&mut command);
    let output = command.output().expect("the client runs");
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[test]
fn the_acceptor_wants_the_bindings_of_its_own_certificate() {
    let reason = kdc::unavailable().or_else(acceptor::unavailable);
    if let Some(reason) = reason {
        return skipped(&reason);
    }
    let (kdc, curl) = realm();
    let cm = Cm::seed().unwrap();
    for (signing, right, other) in [
        (Signing::EcdsaSha256, "sha256", "sha384"),
        (Signing::EcdsaSha384, "sha384", "sha256"),
        (Signing::RsaSha256, "sha256", "sha512"),
    ] {
        let negotiate = Negotiate::of(&kdc).unwrap();
        let options = AcceptorOptions { upstream: cm.address(), negotiate, signing };
        let acceptor = Acceptor::start(options).unwrap();
        assert_eq!(bound(&curl, &acceptor, right), "200 proved\n", "{signing:?}");
        for wrong in [other, "wrong", "none"] {
            let answer = bound(&curl, &acceptor, wrong);
            assert_eq!(answer, "401 unproved\n", "{signing:?}, {wrong}:\n{}", acceptor.log());
        }
        let log = acceptor.log();
        let ends: Vec<_> = log.lines().filter_map(|line| line.split_once(" 401 ")).collect();
        let reasons: Vec<_> = ends.iter().map(|(_, reason)| *reason).collect();
        assert_eq!(reasons, ["wrong bindings", "wrong bindings", "no bindings"]);
    }
    let name = format!("{AGENT}@{}", kdc.realm());
    assert!(cm.log().iter().all(|call| call.header("x-remote-user") == Some(&name)));
    assert_eq!(cm.log().len(), 3);
}

#[test]
fn the_acceptor_answers_strangers_as_iis_does_and_hands_puts_on() {
    let reason = kdc::unavailable().or_else(acceptor::unavailable);
    if let Some(reason) = reason {
        return skipped(&reason);
    }
    let (kdc, mut curl) = realm();
    let cm = Cm::seed().unwrap();
    let negotiate = Negotiate::of(&kdc).unwrap();
    let signing = Signing::default();
    let options = AcceptorOptions { upstream: cm.address(), negotiate, signing };
    let mut acceptor = Acceptor::start(options).unwrap();
    curl.trust(&acceptor.ca_pem());
    let url = format!("{}{}", acceptor.url(), curl::CARD);
    let stranger = curl.get(&url, &["-X", "PUT", "-d", "{}"]).unwrap();
    assert_eq!(stranger.status, 401);
    assert_eq!(stranger.header("www-authenticate"), Some("Negotiate"));
    assert!(stranger.body.starts_with("<!DOCTYPE"));
    let unbound = curl.get(&url, &["--negotiate", "-u", ":"]).unwrap();
    assert_eq!(unbound.header("www-authenticate"), Some("Negotiate"), "bare, as of IIS");
    acceptor.stop().unwrap();
    assert!(curl.get(&url, &[]).unwrap_err().contains("connect"));
    acceptor.start_again().unwrap();
    assert_eq!(curl.get(&url, &[]).unwrap().status, 401);
    assert!(cm.log().is_empty());
}
