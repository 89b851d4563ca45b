//! The private realm, judged by Kerberos' own clients.

#![expect(
    clippy::expect_used,
    clippy::unwrap_in_result,
    reason = "a test's helpers may fail the test"
)]

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use cardbridge_harness::kdc::{
    Kdc, KdcOptions, KdcRequests, WEB_SERVICE, available, client_environment,
};
use cardbridge_harness::process::wait_until;
use cardbridge_harness::require;
use tempfile::TempDir;

const LONG: Duration = Duration::from_secs(20);
const AGENT: &str = "desk-3";

/// A realm with the agent in it, and a directory for tickets.
fn realm(options: KdcOptions) -> Result<(Kdc, TempDir), String> {
    available()?;
    let kdc = Kdc::start(options).expect("the KDC starts");
    kdc.add_principal(AGENT).expect("a principal");
    Ok((kdc, tempfile::tempdir().expect("a directory")))
}

/// What a client says: standard output where it succeeds, or its error.
fn client(kdc: &Kdc, dir: &Path, program: &str, arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new(program);
    command.args(arguments).env("LC_ALL", "C");
    client_environment(&mut command, &kdc.krb5_conf(), dir);
    let output = command.output().expect("the client runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

fn kinit(kdc: &Kdc, dir: &Path, keytab: &Path) -> Result<String, String> {
    let keytab = keytab.to_str().expect("a path");
    client(kdc, dir, "kinit", &["-k", "-t", keytab, AGENT])
}

fn kvno(kdc: &Kdc, dir: &Path) -> Result<String, String> {
    client(kdc, dir, "kvno", &[WEB_SERVICE])
}

#[test]
fn a_keytab_gets_tickets_and_the_kdc_counts_them() {
    let (kdc, dir) = require!(realm(KdcOptions::default()));
    let keytab = kdc.keytab(AGENT).unwrap();
    assert_eq!(kdc.requests(), KdcRequests::default());
    kinit(&kdc, dir.path(), &keytab).unwrap();
    let answer = kvno(&kdc, dir.path()).unwrap();
    assert_eq!(answer.trim(), format!("{WEB_SERVICE}@{}: kvno = 1", kdc.realm()));
    let unknown = client(&kdc, dir.path(), "kvno", &["HTTP/elsewhere"]).unwrap_err();
    assert!(unknown.contains("not found in Kerberos database"), "{unknown}");
    let requests = kdc.requests();
    assert_eq!((requests.as_issued, requests.as_refused, requests.tgs_issued), (1, 0, 1));
    assert!(requests.tgs_refused > 0);
}

#[test]
fn a_new_key_makes_the_keytab_stale_until_it_is_written_again() {
    let (kdc, dir) = require!(realm(KdcOptions::default()));
    let keytab = kdc.keytab(AGENT).unwrap();
    kdc.rekey(AGENT).unwrap();
    let error = kinit(&kdc, dir.path(), &keytab).unwrap_err();
    assert!(error.contains("Preauthentication failed"), "{error}");
    assert!(kdc.requests().as_refused > 0);
    assert_eq!(kdc.keytab(AGENT).unwrap(), keytab);
    kinit(&kdc, dir.path(), &keytab).unwrap();
    kdc.rekey(WEB_SERVICE).unwrap();
    assert!(kvno(&kdc, dir.path()).unwrap().contains("kvno = 2"));
}

#[test]
fn disabled_and_deleted_principals_get_nothing() {
    let (kdc, dir) = require!(realm(KdcOptions::default()));
    let keytab = kdc.keytab(AGENT).unwrap();
    kdc.disable(AGENT).unwrap();
    let error = kinit(&kdc, dir.path(), &keytab).unwrap_err();
    assert!(error.contains("credentials have been revoked"), "{error}");
    kdc.enable(AGENT).unwrap();
    kinit(&kdc, dir.path(), &keytab).unwrap();
    kdc.delete(AGENT).unwrap();
    let error = kinit(&kdc, dir.path(), &keytab).unwrap_err();
    assert!(error.contains("not found in Kerberos database"), "{error}");
    assert!(kdc.delete(AGENT).is_err(), "it is gone");
}

#[test]
fn tickets_of_seconds_end_within_seconds() {
    let options = KdcOptions { clock_skew: Duration::from_secs(1), ..KdcOptions::default() };
    let (kdc, dir) = require!(realm(options));
    let keytab = kdc.keytab(AGENT).unwrap();
    kdc.set_max_life(AGENT, Duration::from_secs(2)).unwrap();
    kinit(&kdc, dir.path(), &keytab).unwrap();
    let start = Instant::now();
    wait_until("the ticket ends", LONG, || kvno(&kdc, dir.path()).is_err()).unwrap();
    assert!(start.elapsed() < LONG, "after {:?}", start.elapsed());
    let error = kvno(&kdc, dir.path()).unwrap_err();
    assert!(error.contains("expired"), "{error}");
}

#[test]
fn a_kdc_refuses_while_it_is_stopped_and_comes_back_on_its_port() {
    let (mut kdc, dir) = require!(realm(KdcOptions::default()));
    let keytab = kdc.keytab(AGENT).unwrap();
    kdc.stop().unwrap();
    let start = Instant::now();
    let error = kinit(&kdc, dir.path(), &keytab).unwrap_err();
    assert!(error.contains("Cannot contact any KDC"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(10), "refused, not swallowed");
    kdc.start_again().unwrap();
    kinit(&kdc, dir.path(), &keytab).unwrap();
}

#[test]
fn silent_kdc_keeps_client_waiting() {
    let (kdc, dir) = require!(realm(KdcOptions::default()));
    let keytab = kdc.keytab(AGENT).unwrap();
    kdc.swallow().unwrap();
    std::thread::scope(|scope| {
        let login = scope.spawn(|| kinit(&kdc, dir.path(), &keytab));
        let waits = wait_until("an answer", Duration::from_secs(2), || login.is_finished());
        assert!(waits.is_err(), "the client has its answer");
        kdc.answer_again().unwrap();
        login.join().unwrap().unwrap();
    });
}
