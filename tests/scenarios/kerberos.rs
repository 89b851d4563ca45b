//! Negotiate: the daemon logs in by itself, from a keytab, with a real KDC and real web servers.

mod refusals;
mod renewals;

use std::fs;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;

use cardbridge_harness::acceptor::{self, Acceptor, AcceptorOptions};
use cardbridge_harness::apache::{self, Apache, ApacheOptions, Negotiate, TlsVersion};
use cardbridge_harness::cards::GidsCard;
use cardbridge_harness::cm::Cm;
use cardbridge_harness::kdc::{self, Kdc, KdcOptions};
use cardbridge_harness::pki::Signing;

use super::*;

const STATION: &str = "desk-3";

/// A realm that the station has an account in.
fn realm(options: KdcOptions) -> Result<Kdc, String> {
    kdc::available()?;
    apache::available()?;
    let kdc = Kdc::start(options).unwrap();
    kdc.add_principal(STATION).unwrap();
    Ok(kdc)
}

/// Apache with Negotiate before a simulator of its own.
fn apache(kdc: &Kdc, change: impl FnOnce(&mut ApacheOptions)) -> (Cm, Apache) {
    let cm = Cm::seed().unwrap();
    let negotiate = Some(Negotiate::of(kdc).unwrap());
    let mut options = ApacheOptions { negotiate, ..ApacheOptions::before(cm.address()) };
    change(&mut options);
    let apache = Apache::start(&options).unwrap();
    (cm, apache)
}

/// A world whose daemon has the station's keytab.
fn station(builder: WorldBuilder, kdc: &Kdc, cm: Cm, url: &str) -> WorldBuilder {
    let keytab = kdc.keytab(STATION).unwrap();
    builder
        .running_cm(cm)
        .cm_url(url)
        .env("KRB5_CONFIG", kdc.krb5_conf())
        .config_set("cm.auth.method", "\"negotiate\"")
        .config_set("cm.auth.keytab", &quoted(&keytab))
}

fn quoted(path: &Path) -> String {
    format!("{:?}", path.display().to_string())
}

fn credentials(world: &World) -> serde_json::Value {
    world.cli(&["status", "--json"]).unwrap().json().unwrap()["credentials"].clone()
}

#[test]
fn keytab_login_updates_card() {
    let builder = require!(world());
    let kdc = require!(realm(KdcOptions::default()));
    let (cm, apache) = apache(&kdc, |_| ());
    // What a user of this machine has is not touched.
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("of-a-user");
    let builder = builder.env("KRB5CCNAME", &cache).env("KRB5_CLIENT_KTNAME", &cache);
    let world = station(builder, &kdc, cm, &apache.url()).start().unwrap();
    assert_eq!(credentials(&world)["method"], "negotiate");
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["updated"]);
    assert_eq!(status(&world), RETIRED);
    let name = format!("{STATION}@{}", kdc.realm());
    for call in world.cm.log() {
        assert_eq!(call.header("x-remote-user"), Some(name.as_str()));
    }
    // A token with every call: none was refused first, and the KDC was asked twice in all.
    assert!(!apache.log().contains(" 401 "), "{}", apache.log());
    let requests = kdc.requests();
    assert_eq!((requests.as_issued, requests.tgs_issued), (1, 1), "{}", kdc.log());
    let credentials = credentials(&world);
    assert_eq!(credentials["identity"], name.as_str());
    assert!(credentials["valid_until"].is_string(), "{credentials}");
    let output = world.cli(&["status"]).unwrap().stdout;
    assert!(output.contains(&format!("negotiate as {name}, valid until 2")), "{output}");
    assert!(!cache.exists());
    let check = world.cli(&["check"]).unwrap();
    assert_eq!(check.code, Some(0), "{}", check.stdout);
    let login = format!("credentials     negotiate as {name}, valid until 2");
    let steps = [login.as_str(), "authentication  the account is authenticated"];
    assert!(steps.iter().all(|step| check.stdout.contains(step)), "{}", check.stdout);
    world.finish().unwrap();
}

#[test]
fn check_shows_ticket_or_kerberos_error() {
    let builder = require!(world());
    let mut kdc = require!(realm(KdcOptions::default()));
    let (cm, apache) = apache(&kdc, |options| options.tls = Some(TlsVersion::Tls13));
    let builder = builder.ca_file(&apache.ca_pem());
    let world = station(builder, &kdc, cm, &apache.url()).without_daemon().start().unwrap();
    let step = |name: &str| {
        let report = world.cli(&["check", "--json"]).unwrap().json().unwrap();
        let checks = report["checks"].as_array().unwrap().clone();
        checks.into_iter().find(|check| check["name"] == name).unwrap()
    };
    let credentials = step("credentials");
    let who = format!("negotiate as {STATION}@{}, valid until 2", kdc.realm());
    assert!(credentials["detail"].as_str().unwrap().starts_with(&who), "{credentials}");
    assert_eq!(step("open-requests")["status"], "ok");
    kdc.stop().unwrap();
    let credentials = step("credentials");
    assert_eq!(credentials["status"], "failed", "{credentials}");
    assert!(credentials["detail"].as_str().unwrap().contains("KDC"), "{credentials}");
    assert_eq!(step("authentication")["status"], "skipped");
    world.finish().unwrap();
}

#[test]
fn connections_are_reused_with_one_token_per_call() {
    for persist in [false, true] {
        let builder = require!(world());
        let kdc = require!(realm(KdcOptions::default()));
        let (cm, apache) = apache(&kdc, |options| {
            options.persist = persist;
            options.tls = Some(TlsVersion::Tls13);
        });
        let world = station(builder, &kdc, cm, &apache.url());
        let world = world.ca_file(&apache.ca_pem()).start().unwrap();
        let _card = world.insert(0, GidsCard::seed()).unwrap();
        assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["updated"], "{}", apache.log());
        // One check of the certificate, without saying who asks; then calls, not one of them refused.
        let log = apache.log();
        let calls: Vec<_> = log.lines().filter(|line| !line.contains(" HEAD ")).collect();
        assert_eq!(log.lines().count(), calls.len() + 1, "{log}");
        assert!(calls.len() >= 4 && calls.iter().all(|line| !line.contains(" 401 ")), "{log}");
        let connections: std::collections::BTreeSet<_> =
            log.lines().filter_map(|line| line.split(' ').next()).collect();
        assert!(connections.len() <= 3, "three calls go side by side: {log}");
        world.finish().unwrap();
    }
}

/// The library's own end is made to come while a thread is still in it: strace holds the thread up
/// where it reads krb5.conf, and the process where it is about to be gone.
#[test]
fn command_exit_during_ticket_release_is_clean() {
    require!(require::strace());
    let builder = require!(world());
    let kdc = require!(realm(KdcOptions::default()));
    let (cm, apache) = apache(&kdc, |_| ());
    let world = station(builder, &kdc, cm, &apache.url()).without_daemon().start().unwrap();
    let plain = world.cli_command(&["lookup", "--card-id", CARD]);
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=openat,exit_group"]);
    command.args(["-e", "inject=openat:delay_enter=10000"]);
    command.args(["-e", "inject=exit_group:delay_enter=500000"]);
    command.arg(plain.get_program()).args(plain.get_args());
    for (name, value) in plain.get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !said.contains("Assertion"), "{}: {said}", output.status);
    world.finish().unwrap();
}

fn acceptor(kdc: &Kdc, signing: Signing) -> Result<(Cm, Acceptor), String> {
    acceptor::available()?;
    let cm = Cm::seed().unwrap();
    let negotiate = Negotiate::of(kdc).unwrap();
    let options = AcceptorOptions { upstream: cm.address(), negotiate, signing };
    let acceptor = Acceptor::start(options).unwrap();
    Ok((cm, acceptor))
}

#[test]
fn required_channel_bindings_match_any_signature_algorithm() {
    for signing in [Signing::EcdsaSha256, Signing::EcdsaSha384, Signing::RsaSha256] {
        let builder = require!(world());
        let kdc = require!(realm(KdcOptions::default()));
        let (cm, acceptor) = require!(acceptor(&kdc, signing));
        let world = station(builder, &kdc, cm, &acceptor.url());
        let world = world.ca_file(&acceptor.ca_pem()).start().unwrap();
        let _card = world.insert(0, GidsCard::seed()).unwrap();
        let outcomes = world.wait_for_outcomes(1, LONG).unwrap();
        assert_eq!(outcomes, ["updated"], "{signing:?}: {}", acceptor.log());
        assert!(!acceptor.log().contains(" 401 "), "{signing:?}: {}", acceptor.log());
        world.finish().unwrap();
    }
}

#[test]
fn missing_channel_bindings_are_rejected_and_reported() {
    let builder = require!(world());
    let kdc = require!(realm(KdcOptions::default()));
    let (cm, acceptor) = require!(acceptor(&kdc, Signing::default()));
    let world = station(builder, &kdc, cm, &acceptor.url())
        .ca_file(&acceptor.ca_pem())
        .config_set("cm.auth.channel_bindings", "false")
        .without_daemon()
        .start()
        .unwrap();
    let output = world.cli(&["lookup", "--card-id", CARD]).unwrap();
    let message = "requires Extended Protection, and cm.auth.channel_bindings is false";
    assert!(output.stderr.contains(message), "{output:?}");
    assert!(acceptor.log().contains("no bindings"), "{}", acceptor.log());
    world.finish().unwrap();
}

#[test]
fn changed_server_certificate_gets_new_bindings() {
    let builder = require!(world());
    let kdc = require!(realm(KdcOptions::default()));
    let (cm, first) = require!(acceptor(&kdc, Signing::EcdsaSha256));
    let negotiate = Negotiate::of(&kdc).unwrap();
    let options =
        AcceptorOptions { upstream: cm.address(), negotiate, signing: Signing::EcdsaSha384 };
    let second = Acceptor::start(options).unwrap();
    let redirect = Redirect::to(first.address());
    let both = tempfile::NamedTempFile::new().unwrap();
    let pem = |acceptor: &Acceptor| fs::read_to_string(acceptor.ca_pem()).unwrap();
    fs::write(both.path(), pem(&first) + &pem(&second)).unwrap();
    let world = station(builder, &kdc, cm, &format!("https://localhost:{}", redirect.port()));
    let world = world.ca_file(both.path()).start().unwrap();
    let unknown = world.insert(0, GidsCard::new(*Uuid::new_v4().as_bytes())).unwrap();
    assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["unknown-card"]);
    redirect.lead(second.address());
    drop(first);
    let _card = world.insert(1, GidsCard::seed()).unwrap();
    assert_eq!(world.wait_for_outcomes(2, LONG).unwrap()[1], "updated", "{}", second.log());
    assert!(second.log().contains("wrong bindings"), "{}", second.log());
    assert_eq!(kdc.requests().as_issued, 1, "the ticket was good all the time");
    drop(unknown);
    world.finish().unwrap();
}

/// A port that leads to one server or another.
struct Redirect {
    listener: SocketAddr,
    to: Arc<Mutex<SocketAddr>>,
}

impl Redirect {
    fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let redirect =
            Self { listener: listener.local_addr().unwrap(), to: Arc::new(Mutex::new(server)) };
        let to = Arc::clone(&redirect.to);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(*to.lock().unwrap()) else { continue };
                for (mut from, mut to) in
                    [(client.try_clone().unwrap(), server.try_clone().unwrap()), (server, client)]
                {
                    thread::spawn(move || {
                        io::copy(&mut from, &mut to).ok();
                        to.shutdown(Shutdown::Both).ok();
                    });
                }
            }
        });
        redirect
    }

    fn port(&self) -> u16 {
        self.listener.port()
    }

    fn lead(&self, server: SocketAddr) {
        *self.to.lock().unwrap() = server;
    }
}
