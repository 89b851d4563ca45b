//! Assertions as openssl sees them. `cm::client_cert` tests what else is reported of the files.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde_json::Value;
use tempfile::TempDir;

use super::super::assertion::{Signer, assertion};
use crate::config::ClientCertSettings;
use crate::domain::Problem;

const URL: &str = "https://adfs.example.com/adfs/oauth2/token";
const CLIENT: &str = "6a1f3c52-6a4b-4d7e-9f0d-1d3c5b7a9e10";

/// A directory in which openssl makes keys.
struct Keys {
    dir: TempDir,
}

impl Keys {
    /// With `key.pem` (PKCS#8) of this kind, and `cert.pem` for it.
    fn new(kind: &[&str]) -> Self {
        let keys = Self { dir: tempfile::tempdir().unwrap() };
        keys.openssl(
            &[
                &["req", "-x509", "-nodes", "-subj", "/CN=desk-3", "-days", "30"],
                kind,
                &["-keyout", "key.pem", "-out", "cert.pem"],
            ]
            .concat(),
        );
        keys
    }

    fn rsa() -> Self {
        Self::new(&["-newkey", "rsa:2048"])
    }

    fn curve(name: &str) -> Self {
        let curve = format!("ec_paramgen_curve:{name}");
        Self::new(&["-newkey", "ec", "-pkeyopt", &curve])
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What openssl writes to its output.
    #[track_caller]
    fn openssl(&self, arguments: &[&str]) -> Vec<u8> {
        let output =
            Command::new("openssl").args(arguments).current_dir(self.dir.path()).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "openssl {arguments:?}: {stderr}");
        output.stdout
    }

    fn read(&self, key: &str) -> Result<Signer, Problem> {
        self.read_at(key, Timestamp::now())
    }

    fn read_at(&self, key: &str, now: Timestamp) -> Result<Signer, Problem> {
        let (cert_file, key_file) = (self.path("cert.pem"), self.path(key));
        Signer::read(&ClientCertSettings { cert_file, key_file }, now)
    }

    #[track_caller]
    fn refusal(&self, key: &str) -> String {
        match self.read(key) {
            Ok(_) => panic!("{key} was taken"),
            Err(problem) => problem.to_string(),
        }
    }

    /// Header and claims of an assertion, whose signature openssl has verified.
    #[track_caller]
    fn verified(&self, key: &str, now: Timestamp) -> (Value, Value) {
        let signer = self.read_at(key, now).unwrap_or_else(|problem| panic!("{problem}"));
        let jwt = assertion(&signer, CLIENT, URL, now).unwrap();
        let parts: Vec<_> = jwt.expose().split('.').collect();
        let [header, claims, signature] = parts[..] else { panic!("{} parts", parts.len()) };
        let bytes = |part: &str| URL_SAFE_NO_PAD.decode(part).unwrap();
        let (header, claims_read): (Value, Value) = (
            serde_json::from_slice(&bytes(header)).unwrap(),
            serde_json::from_slice(&bytes(claims)).unwrap(),
        );
        let message = jwt.expose().rsplit_once('.').unwrap().0;
        fs::write(self.path("message"), message).unwrap();
        let signature = bytes(signature);
        let signature = if header["alg"] == "RS256" { signature } else { as_der(&signature) };
        fs::write(self.path("signature"), signature).unwrap();
        fs::write(
            self.path("public.pem"),
            self.openssl(&["x509", "-in", "cert.pem", "-pubkey", "-noout"]),
        )
        .unwrap();
        let hash = if header["alg"] == "ES384" { "-sha384" } else { "-sha256" };
        self.openssl(&[
            "dgst",
            hash,
            "-verify",
            "public.pem",
            "-signature",
            "signature",
            "message",
        ]);
        (header, claims_read)
    }
}

/// The two numbers of a signature as openssl wants them (RFC 3279 section 2.2.3).
fn as_der(signature: &[u8]) -> Vec<u8> {
    let (r, s) = signature.split_at(signature.len() / 2);
    let number = |bytes: &[u8]| {
        let bytes = &bytes[bytes.iter().take_while(|byte| **byte == 0).count()..];
        let pad = usize::from(bytes[0] >= 0x80);
        let mut der = vec![0x02, u8::try_from(bytes.len() + pad).unwrap()];
        der.resize(2 + pad, 0);
        der.extend_from_slice(bytes);
        der
    };
    let numbers = [number(r), number(s)].concat();
    [vec![0x30, u8::try_from(numbers.len()).unwrap()], numbers].concat()
}

#[test]
fn an_assertion_says_who_asks_whom_and_is_good_for_a_short_time() {
    let keys = Keys::rsa();
    let now = Timestamp::now();
    let (header, claims) = keys.verified("key.pem", now);
    assert_eq!((&header["alg"], &header["typ"]), (&"RS256".into(), &"JWT".into()));
    assert_eq!((&claims["iss"], &claims["sub"]), (&CLIENT.into(), &CLIENT.into()));
    assert_eq!(claims["aud"], URL);
    assert_eq!(claims["nbf"], now.as_second() - 60);
    assert_eq!(claims["exp"], now.as_second() + 300);
    let jti = |claims: &Value| claims["jti"].as_str().unwrap().parse::<uuid::Uuid>().unwrap();
    let (_, another) = keys.verified("key.pem", now);
    assert_ne!(jti(&claims), jti(&another));
}

#[test]
fn the_certificate_is_named_by_both_thumbprints() {
    let keys = Keys::rsa();
    let (header, _) = keys.verified("key.pem", Timestamp::now());
    let print = |hash: &str| {
        let line = keys.openssl(&["x509", "-in", "cert.pem", "-noout", "-fingerprint", hash]);
        let line = String::from_utf8(line).unwrap();
        line.trim().rsplit_once('=').unwrap().1.replace(':', "")
    };
    let base64 = |hex_print: String| URL_SAFE_NO_PAD.encode(hex::decode(hex_print).unwrap());
    assert_eq!(header["kid"], print("-sha1"));
    assert_eq!(header["x5t"], base64(print("-sha1")));
    assert_eq!(header["x5t#S256"], base64(print("-sha256")));
}

#[test]
fn keys_are_read_in_every_form_that_openssl_writes() {
    let rsa = Keys::rsa();
    rsa.openssl(&["rsa", "-in", "key.pem", "-traditional", "-out", "pkcs1.pem"]);
    for key in ["key.pem", "pkcs1.pem"] {
        assert_eq!(rsa.verified(key, Timestamp::now()).0["alg"], "RS256", "{key}");
    }
    for (curve, algorithm) in [("P-256", "ES256"), ("P-384", "ES384")] {
        let keys = Keys::curve(curve);
        keys.openssl(&["ec", "-in", "key.pem", "-out", "sec1.pem"]);
        // With a block of parameters in front.
        keys.openssl(&["ecparam", "-name", curve, "-out", "parameters.pem"]);
        let parts = ["parameters.pem", "sec1.pem"].map(|part| fs::read(keys.path(part)).unwrap());
        fs::write(keys.path("both.pem"), parts.concat()).unwrap();
        for key in ["key.pem", "sec1.pem", "both.pem"] {
            assert_eq!(keys.verified(key, Timestamp::now()).0["alg"], algorithm, "{curve} {key}");
        }
    }
}

#[test]
fn unusable_files_are_reported_with_cause_and_remedy() {
    let keys = Keys::rsa();
    for (text, what, remedy) in [
        ("", "has no PEM private key", "it is empty; write"),
        ("x", "has no PEM private key", "convert it: openssl"),
        ("-----BEGIN ENCRYPTED PRIVATE KEY-----", "is encrypted; ", "openssl pkey -in"),
    ] {
        fs::write(keys.path("odd.pem"), text).unwrap();
        let reported = keys.refusal("odd.pem");
        assert!(reported.contains(what) && reported.contains(remedy), "{reported}");
    }
    let reported = keys.refusal("missing.pem");
    assert!(
        reported.contains("missing.pem: No such file") && reported.contains("; check"),
        "{reported}"
    );
    fs::copy(Keys::rsa().path("key.pem"), keys.path("foreign.pem")).unwrap();
    let reported = keys.refusal("foreign.pem");
    assert!(reported.contains("does not match the certificate"), "{reported}");
}

#[test]
fn unsupported_assertion_key_is_reported() {
    let reported = Keys::new(&["-newkey", "ed25519"]).refusal("key.pem");
    assert!(reported.contains("is not supported for client assertions; "), "{reported}");
}

#[test]
fn expired_and_future_certificates_are_reported() {
    let keys = Keys::rsa();
    let dates = |days: i64| {
        let now = Timestamp::now() + jiff::SignedDuration::from_hours(24 * days);
        let signer = keys.read_at("key.pem", now).unwrap_or_else(|problem| panic!("{problem}"));
        signer.dates().unwrap_or_default().to_owned()
    };
    assert_eq!(dates(1), "");
    assert!(dates(-1).starts_with("the certificate is not valid before 2"));
    assert!(dates(31).starts_with("the certificate ended on 2"));
}

#[test]
fn files_that_are_replaced_count_at_once() {
    let (keys, next) = (Keys::rsa(), Keys::curve("P-256"));
    assert_eq!(keys.verified("key.pem", Timestamp::now()).0["alg"], "RS256");
    for name in ["key.pem", "cert.pem"] {
        move_over(&next.path(name), &keys.path(name));
    }
    assert_eq!(keys.verified("key.pem", Timestamp::now()).0["alg"], "ES256");
}

fn move_over(from: &Path, to: &Path) {
    fs::copy(from, to.with_extension("new")).unwrap();
    fs::rename(to.with_extension("new"), to).unwrap();
}
