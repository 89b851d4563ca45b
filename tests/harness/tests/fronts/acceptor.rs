//! The acceptor of channel bindings.

use std::path::Path;
use std::process::Command;

use cardbridge_harness::acceptor::{Acceptor, AcceptorOptions, available};
use cardbridge_harness::apache::Negotiate;
use cardbridge_harness::cm::Cm;
use cardbridge_harness::kdc;
use cardbridge_harness::pki::Signing;
use cardbridge_harness::require;

use super::curl::{CARD, Curl};
use super::{AGENT, realm};

/// What a client with the given bindings prints.
fn bound(curl: &Curl, acceptor: &Acceptor, binding: &str) -> String {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fronts/bound.py");
    let mut command = Command::new("/usr/bin/python3");
    command.arg("-I").arg(program).arg(format!("{}{}", acceptor.url(), CARD));
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
fn acceptor_requires_bindings_of_its_certificate() {
    require!(kdc::available());
    require!(available());
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
fn acceptor_rejects_strangers_like_iis() {
    require!(kdc::available());
    require!(available());
    let (kdc, mut curl) = realm();
    let cm = Cm::seed().unwrap();
    let negotiate = Negotiate::of(&kdc).unwrap();
    let signing = Signing::default();
    let options = AcceptorOptions { upstream: cm.address(), negotiate, signing };
    let mut acceptor = Acceptor::start(options).unwrap();
    curl.trust(&acceptor.ca_pem());
    let url = format!("{}{}", acceptor.url(), CARD);
    let stranger = curl.get(&url, &["-X", "PUT", "-d", "{}"]).unwrap();
    assert_eq!(stranger.status, 401);
    assert_eq!(stranger.header("www-authenticate"), Some("Negotiate"));
    assert!(stranger.body.starts_with("<!DOCTYPE"));
    // Some curls bind their token to the channel (8.14), some do not (7.88).
    let curls = curl.get(&url, &["--negotiate", "-u", ":"]).unwrap();
    let is_bound = curls.status == 200;
    if !is_bound {
        assert_eq!(curls.header("www-authenticate"), Some("Negotiate"), "bare, as of IIS");
        assert!(acceptor.log().contains("401 no bindings"), "{}", acceptor.log());
    }
    acceptor.stop().unwrap();
    assert!(curl.get(&url, &[]).unwrap_err().contains("connect"));
    acceptor.start_again().unwrap();
    assert_eq!(curl.get(&url, &[]).unwrap().status, 401);
    assert_eq!(cm.log().len(), usize::from(is_bound));
}
