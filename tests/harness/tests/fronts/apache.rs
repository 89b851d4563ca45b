//! Apache with Negotiate and with client certificates.

use std::path::Path;
use std::process::Command;

use cardbridge_harness::apache::{
    Apache, ApacheOptions, ClientCertificate, Negotiate, TlsVersion, available,
};
use cardbridge_harness::cm::Cm;
use cardbridge_harness::kdc::{self, WEB_SERVICE};
use cardbridge_harness::process::wait_until;
use cardbridge_harness::require;

use super::curl::{CARD, Curl, Reply};
use super::{AGENT, LONG, realm};

fn can_run() -> Result<(), String> {
    kdc::available().and_then(|()| available())
}

/// What a client prints that logs in with the first of two calls alone.
fn twice(curl: &Curl, apache: &Apache) -> String {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fronts/twice.py");
    let mut command = Command::new("/usr/bin/python3");
    command.arg("-I").arg(program).arg(format!("{}{}", apache.url(), CARD));
    curl.log_in(&mut command);
    let output = command.output().expect("the client runs");
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

fn get(curl: &Curl, apache: &Apache, more: &[&str]) -> Reply {
    curl.get(&format!("{}{}", apache.url(), CARD), more).expect("an answer")
}

#[test]
fn apache_requires_negotiate_and_names_caller() {
    require!(can_run());
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
    wait_until("the access log", LONG, || apache.log().contains(&name)).unwrap();
}

#[test]
fn stranger_connection_persists_only_if_configured() {
    require!(can_run());
    let (kdc, curl) = realm();
    let cm = Cm::seed().unwrap();
    for (persist, statuses) in [(false, "200\n401\n"), (true, "200\n200\n")] {
        let negotiate = Some(Negotiate::of(&kdc).unwrap());
        let options = ApacheOptions { negotiate, persist, ..ApacheOptions::before(cm.address()) };
        let apache = Apache::start(&options).unwrap();
        // curl is no judge: 8.14 takes another connection for a call without a login.
        assert_eq!(twice(&curl, &apache), statuses, "persist {persist}: {}", apache.log());
    }
}

#[test]
fn server_with_wrong_keys_rejects_all_callers() {
    require!(can_run());
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
    let url = format!("{}{}", apache.url(), CARD);
    assert!(curl.get(&url, &negotiating).unwrap_err().contains("connect"));
    apache.start_again().unwrap();
    assert_eq!(get(&curl, &apache, &negotiating).status, 200);
    cm.go_away().unwrap();
    assert_eq!(get(&curl, &apache, &negotiating).status, 503);
    cm.come_back().unwrap();
    assert_eq!(get(&curl, &apache, &negotiating).status, 200);
}

#[test]
fn client_certificate_is_requested_in_handshake_or_later() {
    require!(can_run());
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
            let bare = curl.get(&format!("{}{}", apache.url(), CARD), &[]);
            assert!(bare.is_err() || bare.is_ok_and(|reply| reply.status == 403), "{case}");
            let identity = curl.identity(&apache.client("desk-3").unwrap());
            let mut arguments: Vec<&str> = identity.iter().map(String::as_str).collect();
            arguments.extend(["-H", "X-Remote-User: root"]);
            let known = get(&curl, &apache, &arguments);
            assert_eq!(known.status, 200, "{case}: {}", apache.error_log());
            let call = cm.log().pop().unwrap();
            assert_eq!(call.header("x-client-subject"), Some("CN=desk-3"), "{case}");
            assert_eq!(call.header("x-remote-user"), None, "no user logged in");
        }
    }
}

#[test]
fn a_ticket_and_a_client_certificate_may_both_be_demanded() {
    require!(can_run());
    let (kdc, mut curl) = realm();
    let cm = Cm::seed().unwrap();
    let apache = Apache::start(&ApacheOptions {
        negotiate: Some(Negotiate::of(&kdc).unwrap()),
        tls: Some(TlsVersion::Tls13),
        client_certificate: ClientCertificate::WholeSite,
        ..ApacheOptions::before(cm.address())
    })
    .unwrap();
    curl.trust(&apache.ca_pem());
    let identity = curl.identity(&apache.client("desk-3").unwrap());
    let mut arguments: Vec<&str> = identity.iter().map(String::as_str).collect();
    assert_eq!(get(&curl, &apache, &arguments).status, 401);
    arguments.extend(["--negotiate", "-u", ":"]);
    assert_eq!(get(&curl, &apache, &arguments).status, 200);
    let call = cm.log().pop().unwrap();
    assert_eq!(call.header("x-client-subject"), Some("CN=desk-3"));
    assert!(call.header("x-remote-user").unwrap().starts_with(AGENT));
}
