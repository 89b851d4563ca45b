//! OAuth 2: the daemon is let in with tokens of a server that gives them out as AD FS does.

mod errors;
mod secrets;
mod windows;

use std::fs;
use std::path::{Path, PathBuf};

use cardbridge_harness::cards::GidsCard;
use cardbridge_harness::cm::{ClientProof, Cm, Fault, TOKEN_PATH, Tokens};
use cardbridge_harness::pki::{Authority, Signing};
use tempfile::TempDir;

use super::*;

const RESOURCE: &str = "https://cm.example.com/CertificateManagement";
const CLIENT: &str = "6a1f3c52-6a4b-4d7e-9f0d-1d3c5b7a9e10";
const SECRET: &str = "gK7&x+Q=%2f pÜ\"<>\\9";

/// An AD FS on a server of its own, and the files of a client.
struct Adfs {
    tokens: Tokens,
    cm: Cm,
    dir: TempDir,
}

impl Adfs {
    fn start() -> Self {
        let tokens = Tokens::new(RESOURCE);
        let options = CmOptions { tokens: Some(tokens.clone()), ..CmOptions::default() };
        Self { tokens, cm: Cm::start(options).unwrap(), dir: tempfile::tempdir().unwrap() }
    }

    /// One that knows the client by its secret.
    fn with_secret() -> Self {
        let adfs = Self::start();
        adfs.tokens.register_secret(CLIENT, SECRET);
        fs::write(adfs.file("secret"), format!("{SECRET}\n")).unwrap();
        adfs
    }

    /// One that knows the client by a certificate.
    fn with_certificate(signing: Signing) -> Self {
        let adfs = Self::start();
        let identity = Authority::new("clients", signing).unwrap().client("desk-3").unwrap();
        adfs.tokens.register_certificate(CLIENT, &identity);
        identity.write(&adfs.file("cert.pem"), &adfs.file("key.pem")).unwrap();
        adfs
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A CM that lets only its tokens in.
    fn cm(&self, cards: &[&str]) -> CmOptions {
        CmOptions { tokens: Some(self.tokens.clone()), ..cm_with(cards) }
    }

    /// A world whose daemon is its client, by the files that there are.
    fn world(&self, builder: WorldBuilder, cards: &[&str]) -> WorldBuilder {
        let url = format!("{}{TOKEN_PATH}", self.cm.url());
        let builder = builder
            .cm(self.cm(cards))
            .config_set("cm.auth.method", "\"oauth2\"")
            .config_set("cm.auth.token_url", &format!("{url:?}"))
            .config_set("cm.auth.client_id", &format!("{CLIENT:?}"))
            .config_set("cm.auth.resource", &format!("{RESOURCE:?}"));
        let files = [
            ("client_secret_file", "secret"),
            ("client_cert_file", "cert.pem"),
            ("client_key_file", "key.pem"),
        ];
        let there = files.into_iter().filter(|(_, name)| self.file(name).exists());
        there.fold(builder, |builder, (key, name)| {
            builder.config_set(&format!("cm.auth.{key}"), &quoted(&self.file(name)))
        })
    }
}

fn quoted(path: &Path) -> String {
    format!("{:?}", path.display().to_string())
}

/// CM, as `status` shows it.
fn link(world: &World) -> serde_json::Value {
    world.cli(&["status", "--json"]).unwrap().json().unwrap()["cm"].clone()
}

/// Waits until CM is away for this reason; then the detail that `status` shows.
fn away(world: &World, reason: &str) -> String {
    let away = || link(world)["state"] == "unavailable" && link(world)["reason"] == reason;
    world.wait_until("CM to be away", LONG, away).unwrap();
    link(world)["detail"].as_str().unwrap().to_owned()
}

/// How often CM said 401.
fn refusals(world: &World) -> usize {
    world.cm.log().iter().filter(|call| call.status == Some(401)).count()
}

#[test]
fn a_card_is_updated_with_a_token_for_each_proof() {
    for (adfs, proof) in [
        (Adfs::with_secret as fn() -> Adfs, ClientProof::Secret),
        (|| Adfs::with_certificate(Signing::RsaSha256), ClientProof::Assertion),
        (|| Adfs::with_certificate(Signing::EcdsaSha256), ClientProof::Assertion),
        (|| Adfs::with_certificate(Signing::EcdsaSha384), ClientProof::Assertion),
    ] {
        let builder = require!(world());
        let adfs = adfs();
        let world = adfs.world(builder, &[]).start().unwrap();
        // An idle station asks for nothing.
        assert_eq!(adfs.tokens.requests(), []);
        let _card = world.insert(0, GidsCard::seed()).unwrap();
        assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["updated"]);
        assert_eq!(status(&world), RETIRED);
        let [asked] = adfs.tokens.requests().try_into().unwrap();
        assert_eq!((asked.proof, asked.resource.as_deref()), (proof, Some(RESOURCE)));
        assert_eq!((asked.refused, refusals(&world)), (None, 0));
        let output = world.cli(&["status"]).unwrap().stdout;
        assert!(output.contains(&format!("oauth2 as {CLIENT}, valid until 2")), "{output}");
        world.finish().unwrap();
    }
}

#[test]
fn sixteen_cards_at_once_cost_one_token_request() {
    let builder = require!(world());
    let adfs = Adfs::with_secret();
    let ids: Vec<_> =
        (0..16).map(|n| format!("7c1d0e52-9b3a-4f6e-8d27-3e9a51c4b8{n:02x}")).collect();
    let known: Vec<_> = ids.iter().map(String::as_str).collect();
    let builder = builder.readers(16).config_set("cm.concurrency", "64");
    // The endpoint takes its time, so that all of them come to wait.
    adfs.cm.set_fault(Fault::Slow { ms: 1000 }.path(TOKEN_PATH));
    let world = adfs.world(builder, &known).start().unwrap();
    let insert =
        |(reader, id): (usize, &&str)| world.insert(reader, GidsCard::new(cardid(id))).unwrap();
    let _cards: Vec<_> = known.iter().enumerate().map(insert).collect();
    let outcomes = world.wait_for_outcomes(16, LONG).unwrap();
    assert!(outcomes.iter().all(|outcome| outcome == "updated"), "{outcomes:?}");
    assert_eq!(adfs.tokens.requests().len(), 1);
    assert_eq!(adfs.cm.log().len(), 1);
    world.finish().unwrap();
}

#[test]
fn tokens_end_again_and_again_and_no_call_fails() {
    let builder = require!(world());
    let adfs = Adfs::with_secret();
    adfs.tokens.set_life(Duration::from_secs(2));
    let world = adfs.world(builder, &[]).start().unwrap();
    let mut cards = 0;
    while adfs.tokens.issued() < 6 {
        cards += 1;
        let card = world.insert(0, GidsCard::seed()).unwrap();
        world.wait_for_outcomes(cards, LONG).unwrap();
        drop(card);
        let gone = || {
            let status = world.cli(&["status", "--json"]).unwrap().json().unwrap();
            status["readers"][0]["card"]["state"] == "empty"
        };
        world.wait_until("the reader to be empty", LONG, gone).unwrap();
    }
    assert_eq!(refusals(&world), 0);
    assert!(!world.daemon_log().contains("CM unavailable"));
    world.finish().unwrap();
}

#[test]
fn revoked_token_is_replaced_within_the_call() {
    let builder = require!(world());
    let adfs = Adfs::with_secret();
    let world = adfs.world(builder, &[OTHER]).start().unwrap();
    let _first = world.insert(0, GidsCard::seed()).unwrap();
    world.wait_for_outcomes(1, LONG).unwrap();
    adfs.tokens.revoke_all();
    let _second = world.insert(1, GidsCard::new(cardid(OTHER))).unwrap();
    assert_eq!(world.wait_for_outcomes(2, LONG).unwrap(), ["updated", "updated"]);
    assert_eq!(adfs.tokens.issued(), 2);
    // The three calls of a lookup go side by side, with the same token.
    assert!((1..=3).contains(&refusals(&world)), "{}", refusals(&world));
    assert!(!world.daemon_log().contains("CM unavailable"));
    world.finish().unwrap();
}

const OTHER: &str = "7c1d0e52-9b3a-4f6e-8d27-3e9a51c4b806";
