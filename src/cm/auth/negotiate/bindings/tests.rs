use std::path::Path;
use std::process::Command;

use super::*;

fn openssl(dir: &Path, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new("openssl").args(arguments).current_dir(dir).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// A certificate that openssl signs with such a key in such a manner.
fn certificate(dir: &Path, key: &str, how: &[&str]) -> Vec<u8> {
    let fixed = ["req", "-x509", "-subj", "/CN=cm", "-outform", "DER", "-out", "cert.der"];
    openssl(dir, &[&fixed[..], &["-key", key], how].concat());
    std::fs::read(dir.join("cert.der")).unwrap()
}

/// A directory with a key of each kind.
fn keys() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let key = |arguments: &[&str]| drop(openssl(dir.path(), &[&["genpkey"], arguments].concat()));
    key(&["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", "ec"]);
    key(&["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", "rsa"]);
    key(&["-algorithm", "ED25519", "-out", "ed25519"]);
    dir
}

#[test]
fn the_hash_is_the_signatures_own_or_sha_256_where_that_is_weak() {
    let dir = keys();
    let pss = ["-sigopt", "rsa_padding_mode:pss"];
    for (key, signed_with, hashed_with) in [
        ("rsa", "-md5", "-sha256"),
        ("rsa", "-sha1", "-sha256"),
        ("rsa", "-sha256", "-sha256"),
        ("rsa", "-sha384", "-sha384"),
        ("rsa", "-sha512", "-sha512"),
        ("ec", "-sha1", "-sha256"),
        ("ec", "-sha256", "-sha256"),
        ("ec", "-sha384", "-sha384"),
        ("ec", "-sha512", "-sha512"),
        ("pss", "-sha1", "-sha256"),
        ("pss", "-sha256", "-sha256"),
        ("pss", "-sha384", "-sha384"),
        ("pss", "-sha512", "-sha512"),
    ] {
        let certificate = match key {
            "pss" => certificate(dir.path(), "rsa", &[&[signed_with], &pss[..]].concat()),
            key => certificate(dir.path(), key, &[signed_with]),
        };
        let judge = openssl(dir.path(), &["dgst", hashed_with, "-binary", "cert.der"]);
        let expected = [PREFIX, &judge].concat();
        assert_eq!(binding(&certificate).unwrap().as_ref(), expected, "{key} {signed_with}");
    }
}

#[test]
fn a_certificate_whose_signature_has_no_hash_function_or_an_odd_one_makes_no_bindings() {
    let dir = keys();
    let ed25519 = certificate(dir.path(), "ed25519", &[]);
    assert_eq!(binding(&ed25519), Err(NoBinding::Undefined(oid("1.3.101.112"))));
    let sha3 = certificate(dir.path(), "rsa", &["-sha3-256"]);
    assert_eq!(binding(&sha3), Err(NoBinding::Undefined(oid("2.16.840.1.101.3.4.3.14"))));
}

#[test]
fn what_is_no_certificate_makes_no_bindings() {
    let dir = keys();
    let whole = certificate(dir.path(), "ec", &["-sha256"]);
    for length in 0..whole.len() {
        assert!(matches!(binding(&whole[..length]), Err(NoBinding::Unreadable(_))), "{length}");
    }
    assert!(matches!(binding(&[&whole[..], b"x"].concat()), Err(NoBinding::Unreadable(_))));
    assert!(matches!(binding(b"\x30\x03\x02\x01\x00"), Err(NoBinding::Unreadable(_))));
}
