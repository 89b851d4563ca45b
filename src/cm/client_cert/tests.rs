use std::fs;
use std::path::PathBuf;
use std::process::Command;

use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use rustls::client::ResolvesClientCert as _;
use tempfile::TempDir;

use super::*;

/// A certificate in `client.pem` whose key `client.key` is to hold.
struct Files {
    dir: TempDir,
    key: KeyPair,
}

impl Files {
    fn new() -> Self {
        let files = Self { dir: tempfile::tempdir().unwrap(), key: KeyPair::generate().unwrap() };
        files.renew(&CertificateParams::default());
        fs::write(files.path("client.key"), files.key.serialize_pem()).unwrap();
        files
    }

    /// What openssl makes: a key by `algorithm` in `form`, and its certificate.
    fn made(algorithm: &[&str], form: &[&str]) -> Self {
        let files = Self::new();
        let (key, cert) = (files.path("client.key"), files.path("client.pem"));
        let (key, cert) = (key.to_str().unwrap(), cert.to_str().unwrap());
        openssl(&[&["genpkey", "-out", "made.key"], algorithm].concat(), &files.dir);
        let subject = ["-subj", "/CN=desk", "-key", "made.key", "-out", cert];
        openssl(&[&["req", "-x509", "-new"][..], &subject].concat(), &files.dir);
        openssl(&[form, &["-in", "made.key", "-out", key]].concat(), &files.dir);
        files
    }

    fn renew(&self, params: &CertificateParams) {
        fs::write(self.path("client.pem"), params.self_signed(&self.key).unwrap().pem()).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn pair(&self) -> ClientCertSettings {
        let (cert_file, key_file) = (self.path("client.pem"), self.path("client.key"));
        ClientCertSettings { cert_file, key_file }
    }

    fn identity(&self) -> ClientCertResolver {
        ClientCertResolver::of(Some(&self.pair()), false).unwrap()
    }

    fn error(&self) -> Problem {
        ClientCertResolver::of(Some(&self.pair()), false).unwrap_err()
    }
}

fn openssl(args: &[&str], dir: &TempDir) {
    let output = Command::new("openssl").args(args).current_dir(dir.path()).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The certificate that a server is shown.
fn shown(identity: &ClientCertResolver) -> Vec<u8> {
    identity.resolve(&[], &[]).unwrap().cert[0].to_vec()
}

#[test]
fn keys_of_every_form_are_taken() {
    const RSA: &[&str] = &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"];
    const EC: &[&str] = &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];
    for (algorithm, form) in [
        (RSA, &["pkey"][..]),
        (RSA, &["rsa", "-traditional"]),
        (EC, &["pkey"]),
        (EC, &["ec"]),
        (&["-algorithm", "ED25519"], &["pkey"]),
    ] {
        shown(&Files::made(algorithm, form).identity());
    }
}

#[test]
fn the_parameters_in_front_of_a_key_do_not_matter() {
    let files = Files::made(&["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"], &["ec"]);
    let key = fs::read_to_string(files.path("client.key")).unwrap();
    let parameters = "-----BEGIN EC PARAMETERS-----\nBgUrgQQAIg==\n-----END EC PARAMETERS-----\n";
    fs::write(files.path("client.key"), format!("{parameters}{key}")).unwrap();
    shown(&files.identity());
}

#[test]
fn the_chain_in_the_file_goes_along_and_the_stations_own_certificate_comes_first() {
    let files = Files::new();
    let own = fs::read_to_string(files.path("client.pem")).unwrap();
    let above = CertificateParams::default().self_signed(&KeyPair::generate().unwrap()).unwrap();
    fs::write(files.path("client.pem"), format!("{own}{}", above.pem())).unwrap();
    assert_eq!(files.identity().resolve(&[], &[]).unwrap().cert.len(), 2);
    fs::write(files.path("client.pem"), format!("{}{own}", above.pem())).unwrap();
    assert!(files.error().what.contains("does not match the certificate"));
}

#[test]
fn encrypted_key_is_reported_with_decrypt_command() {
    for form in [&["pkey", "-aes256"][..], &["rsa", "-traditional", "-aes256"]] {
        let pass = ["-passout", "pass:hunter2"];
        let files = Files::made(
            &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
            &[form, &pass].concat(),
        );
        let error = files.error();
        assert!(error.what.contains("is encrypted"), "{error:?}");
        assert!(error.remedy.contains("openssl pkey -in ENCRYPTED.key -out client.key"));
        // The reported command works.
        let pass = ["-passin", "pass:hunter2"];
        let decrypt = ["pkey", "-in", "client.key", "-out", "client.key.new"];
        openssl(&[&decrypt[..], &pass].concat(), &files.dir);
        fs::rename(files.path("client.key.new"), files.path("client.key")).unwrap();
        shown(&files.identity());
    }
}

#[test]
fn mismatched_key_is_rejected() {
    let files = Files::new();
    fs::write(files.path("client.key"), KeyPair::generate().unwrap().serialize_pem()).unwrap();
    let error = files.error();
    assert!(error.what.contains("does not match the certificate"), "{error:?}");
    assert!(error.remedy.contains("-pubkey"));
}

#[test]
fn unusable_files_are_reported_without_content() {
    let files = Files::new();
    let error_with = |name: &str, content: &[u8]| {
        let good = fs::read(files.path(name)).unwrap();
        fs::write(files.path(name), content).unwrap();
        let error = files.error();
        fs::write(files.path(name), good).unwrap();
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
        assert!(!error.remedy.is_empty());
        error
    };
    for content in [&b""[..], b"hunter2", b"\x30\x82\xff"] {
        let error = error_with("client.pem", content);
        assert!(error.what.contains("has no PEM certificate"), "{error:?}");
        let error = error_with("client.key", content);
        assert!(error.what.contains("has no PEM private key"), "{error:?}");
    }
    let empty = "-----BEGIN PRIVATE KEY-----\nMAMCAQA=\n-----END PRIVATE KEY-----\n";
    let error = error_with("client.key", empty.as_bytes());
    assert!(error.what.contains("the key in cm.auth.client_key_file"), "{error:?}");
    let empty = "-----BEGIN CERTIFICATE-----\nMAMCAQA=\n-----END CERTIFICATE-----\n";
    let error = error_with("client.pem", empty.as_bytes());
    assert!(error.what.contains("the certificate in cm.auth.client_cert_file"), "{error:?}");
    fs::remove_file(files.path("client.key")).unwrap();
    assert!(files.error().what.contains("cannot read cm.auth.client_key_file"));
    fs::remove_file(files.path("client.pem")).unwrap();
    assert!(files.error().what.contains("cannot read cm.auth.client_cert_file"));
}

#[test]
fn short_rsa_key_is_rejected() {
    let short = ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"];
    let error = Files::made(&short, &["pkey"]).error();
    assert!(error.what.contains("the key in cm.auth.client_key_file"), "{error:?}");
    assert!(error.remedy.contains("2048"));
}

#[test]
fn a_pair_that_changed_is_shown_from_the_next_handshake_on() {
    let files = Files::new();
    let identity = files.identity();
    let old = shown(&identity);
    let mut renewed = CertificateParams::default();
    renewed.not_after = date_time_ymd(2042, 1, 1);
    files.renew(&renewed);
    assert_ne!(shown(&identity), old);
}

#[test]
fn a_pair_that_no_longer_does_leaves_the_old_one_in_force() {
    let files = Files::new();
    let identity = files.identity();
    let old = shown(&identity);
    fs::write(files.path("client.key"), KeyPair::generate().unwrap().serialize_pem()).unwrap();
    assert_eq!(shown(&identity), old);
    fs::remove_file(files.path("client.pem")).unwrap();
    assert_eq!(shown(&identity), old);
    let next = Files { key: KeyPair::generate().unwrap(), ..files };
    fs::write(next.path("client.key"), next.key.serialize_pem()).unwrap();
    next.renew(&CertificateParams::default());
    assert_ne!(shown(&identity), old, "both files are there, and belong together");
}

#[test]
fn certificate_status_follows_requests() {
    let identity = Files::new().identity();
    assert_eq!(identity.status(), ClientCertStatus::NotRequested);
    shown(&identity);
    assert_eq!(identity.status(), ClientCertStatus::Presented);
    let none = ClientCertResolver::of(None, false).unwrap();
    assert!(none.resolve(&[], &[]).is_none() && none.was_requested());
    assert_eq!(none.status(), ClientCertStatus::NotConfigured);
    assert!(!none.has_certs());
    let spare = ClientCertResolver::of(Some(&Files::new().pair()), true).unwrap();
    assert_eq!(spare.status(), ClientCertStatus::SigningOnly);
    shown(&spare);
    assert_eq!(spare.status(), ClientCertStatus::Presented);
}

#[test]
fn nothing_of_a_key_is_in_debug_output() {
    let debug = format!("{:?}", Files::new().identity());
    assert_eq!(debug, "ClientCertResolver { status: NotRequested, .. }");
}

#[test]
fn a_certificate_that_has_expired_or_soon_will_is_worth_a_warning() {
    let mut params = CertificateParams::default();
    (params.not_before, params.not_after) = (date_time_ymd(2026, 1, 1), date_time_ymd(2027, 1, 1));
    let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
    let shown = PeerCertificate::read(certificate.der()).unwrap();
    for (now, age) in [
        ("2025-12-31T23:59:59Z", CertValidity::NotYetValid),
        ("2026-01-01T00:00:00Z", CertValidity::Valid),
        ("2026-12-17T23:59:59Z", CertValidity::Valid),
        ("2026-12-18T00:00:01Z", CertValidity::ExpiresSoon),
        ("2027-01-01T00:00:00Z", CertValidity::ExpiresSoon),
        ("2027-01-01T00:00:01Z", CertValidity::Expired),
    ] {
        assert_eq!(shown.validity(now.parse().unwrap()), age, "{now}");
    }
}
