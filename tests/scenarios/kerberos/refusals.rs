//! Whatever stands between a station and CM is reported by step and with a remedy.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::thread;

use super::*;

/// A world for lookups, without a daemon.
fn lookup_world(kdc: &Kdc, cm: Cm, url: &str) -> Result<World, String> {
    Ok(station(world()?, kdc, cm, url).without_daemon().start().unwrap())
}

/// The error of a lookup, after a change of the configuration's text.
fn lookup_error(world: &World, from: &str, to: &str) -> String {
    let text = fs::read_to_string(world.config_path()).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(world.config_path(), text.replace(from, to)).unwrap();
    let output = world.cli(&["lookup", "--card-id", CARD]).unwrap();
    fs::write(world.config_path(), text).unwrap();
    output.stderr
}

#[track_caller]
fn assert_message(said: &str, parts: &[&str]) {
    for part in parts {
        assert!(said.contains(part), "{said}");
    }
    assert!(!said.contains('\0'), "{said:?}");
}

#[test]
fn local_kerberos_errors_are_reported() {
    let kdc = require!(realm(KdcOptions::default()));
    let (cm, apache) = apache(&kdc, |_| ());
    let world = require!(lookup_world(&kdc, cm, &apache.url()));
    let keytab = kdc.keytab(STATION).unwrap();
    let other = |path: &Path| lookup_error(&world, &quoted(&keytab), &quoted(path));
    assert_eq!(lookup_error(&world, "[cm]", "[cm]"), "", "as it is, all is well");
    let missing = world.dir().join("no.keytab");
    assert_message(&other(&missing), &["no.keytab: No such file", "check that it is there"]);
    assert_message(
        &other(&world.config_path()),
        &["is not a valid keytab: it is text, perhaps base64"],
    );
    let wrong = format!("{}\nprincipal = \"desk-4\"", quoted(&keytab));
    let said = lookup_error(&world, &quoted(&keytab), &wrong);
    let name = format!("{STATION}@{}", kdc.realm());
    assert_message(
        &said,
        &["has no key for desk-4; it has keys for ", &name, "correct cm.auth.principal"],
    );
    assert_eq!(kdc.requests().as_issued, 1, "no other program asked the KDC");
    world.finish().unwrap();
}

#[test]
fn missing_gssapi_library_is_named() {
    let kdc = require!(realm(KdcOptions::default()));
    let (cm, apache) = apache(&kdc, |_| ());
    let builder = require!(world());
    let elsewhere = tempfile::tempdir().unwrap();
    fs::write(elsewhere.path().join("libgssapi_krb5.so.2"), "").unwrap();
    let world = station(builder, &kdc, cm, &apache.url())
        .env("LD_LIBRARY_PATH", elsewhere.path())
        .start()
        .unwrap();
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    let message = "the Kerberos library cannot be loaded";
    world.wait_until(message, LONG, || world.daemon_log().contains(message)).unwrap();
    // What was missing can be installed without a restart.
    fs::remove_file(elsewhere.path().join("libgssapi_krb5.so.2")).unwrap();
    assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["updated"]);
    world.finish().unwrap();
}

#[test]
fn kdc_errors_are_reported() {
    let mut kdc = require!(realm(KdcOptions::default()));
    let (cm, apache) = apache(&kdc, |_| ());
    let world = require!(lookup_world(&kdc, cm, &apache.url()));
    let keytab = quoted(&kdc.keytab(STATION).unwrap());
    let as_it_is = || lookup_error(&world, "[cm]", "[cm]");

    let said = lookup_error(&world, &keytab, &format!("{keytab}\nspn = \"HTTP/nowhere\""));
    assert_message(&said, &["no Kerberos ticket for HTTP/nowhere: ", "not found", "setspn -S"]);
    kdc.disable(STATION).unwrap();
    assert_message(&as_it_is(), &["have been revoked", "the account is disabled or locked"]);
    kdc.enable(STATION).unwrap();
    kdc.rekey(STATION).unwrap();
    assert_message(&as_it_is(), &["Preauthentication failed", "create a new keytab"]);
    kdc.delete(STATION).unwrap();
    assert_message(&as_it_is(), &["not found in Kerberos database", "create the account"]);
    kdc.stop().unwrap();
    assert_message(&as_it_is(), &["Cannot contact any KDC for realm", "check the network"]);
    fs::write(kdc.krb5_conf(), "[libdefaults]\ndns_lookup_kdc = false\n").unwrap();
    assert_message(
        &as_it_is(),
        &["Cannot find KDC for realm", "configure the realm's KDC in krb5.conf"],
    );
    world.finish().unwrap();
}

#[test]
fn clock_skew_is_reported() {
    let library = require!(require::faketime());
    let kdc = require!(realm(KdcOptions { timesync: false, ..KdcOptions::default() }));
    let (cm, apache) = apache(&kdc, |_| ());
    let builder = require!(world());
    let world = station(builder, &kdc, cm, &apache.url())
        .env("LD_PRELOAD", library)
        .env("FAKETIME", "+10m")
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .without_daemon()
        .start()
        .unwrap();
    assert_message(
        &lookup_error(&world, "[cm]", "[cm]"),
        &["Clock skew too great", "correct this machine's clock"],
    );
    world.finish().unwrap();
}

#[test]
fn rejected_ticket_is_reported() {
    let kdc = require!(realm(KdcOptions::default()));
    let (cm, apache) = apache(&kdc, |_| ());
    let world = require!(lookup_world(&kdc, cm, &apache.url()));
    // The name stands on an account with another key than the server's.
    kdc.rekey(kdc::WEB_SERVICE).unwrap();
    let said = lookup_error(&world, "[cm]", "[cm]");
    let key = "rejected the ticket for HTTP/localhost: Key version is not available; check";
    assert_message(&said, &[key, "setspn -Q HTTP/localhost"]);
    let asked = kdc.requests();
    assert_eq!(asked.as_issued, 2, "one more ticket was tried");
    world.finish().unwrap();
}

/// A server that says the same to every client.
fn says(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                let mut stream = stream;
                while let Some(Ok(line)) = lines.next() {
                    if line.is_empty() && stream.write_all(answer.as_bytes()).is_err() {
                        break;
                    }
                }
            });
        }
    });
    format!("http://localhost:{port}")
}

#[test]
fn unsupported_scheme_is_reported() {
    let kdc = require!(realm(KdcOptions::default()));
    let cases = [
        ("WWW-Authenticate: NTLM\r\n", "offers NTLM only: cardbridge has no NTLM"),
        ("WWW-Authenticate: Basic realm=\"cm\"\r\n", "offers Basic only: switch Windows"),
        ("WWW-Authenticate: Bearer\r\n", "offers Bearer only: set cm.auth.method to"),
        ("", "offers no authentication"),
    ];
    for (header, message) in cases {
        let answer = format!("HTTP/1.1 401 Unauthorized\r\n{header}Content-Length: 0\r\n\r\n");
        let url = says(Box::leak(answer.into_boxed_str()));
        let world = require!(lookup_world(&kdc, Cm::seed().unwrap(), &url));
        assert_message(&lookup_error(&world, "[cm]", "[cm]"), &[message]);
        world.finish().unwrap();
    }
}

#[test]
fn invalid_mutual_authentication_is_rejected() {
    let kdc = require!(realm(KdcOptions::default()));
    for token in ["", " oRQwEqADCgEAoQsGCSqGSIb3EgECAg==", " bm9uc2Vuc2U=", " ***"] {
        let answer = format!(
            "HTTP/1.1 200 OK\r\nWWW-Authenticate: Negotiate{token}\r\nContent-Type: \
             application/json\r\nContent-Length: 4\r\n\r\nnull"
        );
        let url = says(Box::leak(answer.into_boxed_str()));
        let world = require!(lookup_world(&kdc, Cm::seed().unwrap(), &url));
        let said = lookup_error(&world, "[cm]", "[cm]");
        let expected = "the server does not prove its identity";
        assert_eq!(said.contains(expected), !token.is_empty(), "{token}: {said}");
        world.finish().unwrap();
    }
}
