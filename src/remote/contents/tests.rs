use super::*;

fn utf16(text: &str, mark: bool, big: bool) -> Vec<u8> {
    let units = mark.then_some(0xFEFF).into_iter().chain(text.encode_utf16());
    units.flat_map(|unit| if big { unit.to_be_bytes() } else { unit.to_le_bytes() }).collect()
}

#[test]
fn utf_16_is_known_in_each_order_with_and_without_a_mark() {
    for text in
        ["[cm]\nurl = \"https://cm.example.com\"\n", "s3cret", "-----BEGIN CERTIFICATE-----"]
    {
        for (mark, big) in [(true, true), (true, false), (false, true), (false, false)] {
            assert_eq!(Holds::binary(&utf16(text, mark, big)), Some(Holds::Utf16), "{text}");
        }
        assert_eq!(Holds::binary(text.as_bytes()), None);
    }
    assert_eq!(Holds::binary("köln 北京".as_bytes()), None);
    assert_eq!(Holds::binary(b"to\0ken"), Some(Holds::Nul));
    assert_eq!(Holds::binary(b"token\0\0\0\0\0"), Some(Holds::Nul));
    assert_eq!(Holds::binary(b"caf\xe9"), Some(Holds::NoText));
}

#[test]
fn binary_files_are_told_apart() {
    let p12 = [0x30, 0x82, 0x0A, 0x11, 2, 1, 3, 0x30, 0x82];
    let p7b = [0x30, 0x80, 6, 9, 0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 7, 2, 0xA0];
    assert_eq!(Holds::binary(&p12), Some(Holds::Pkcs12));
    assert_eq!(Holds::binary(&p7b), Some(Holds::Pkcs7));
    assert_eq!(Holds::binary(&[0x30, 0x82, 0x03, 0x11, 0x30, 0x82]), Some(Holds::Der));
    assert_eq!(Holds::binary(&[0xFE, 0xED, 0xFE, 0xED, 0, 0]), Some(Holds::KeyStore));
}

#[test]
fn what_is_no_certificate_is_named() {
    let block = |label: &str| format!("-----BEGIN {label}-----\nAA==\n-----END {label}-----\n");
    for (label, holds) in [
        ("TRUSTED CERTIFICATE", Holds::Trusted),
        ("PRIVATE KEY", Holds::Key),
        ("RSA PRIVATE KEY", Holds::Key),
        ("ENCRYPTED PRIVATE KEY", Holds::Key),
        ("OPENSSH PRIVATE KEY", Holds::OtherKey),
        ("PGP PUBLIC KEY BLOCK", Holds::OtherKey),
        ("CERTIFICATE REQUEST", Holds::Request),
        ("NEW CERTIFICATE REQUEST", Holds::Request),
        ("X509 CRL", Holds::Crl),
        ("PKCS7", Holds::Pkcs7),
        ("PUBLIC KEY", Holds::PublicKey),
    ] {
        let found = Holds::instead_of_pem(&block(label), "-nothing-");
        assert_eq!(found, holds, "{label}");
    }
    assert_eq!(Holds::instead_of_pem("<html>", "CERTIFICATE"), Holds::Page);
    assert_eq!(Holds::instead_of_pem(" \n", "CERTIFICATE"), Holds::Nothing);
    assert_eq!(Holds::instead_of_pem("hunter2", "CERTIFICATE"), Holds::NoPem);
    assert_eq!(Holds::instead_of_pem(&block("CERTIFICATE"), "CERTIFICATE"), Holds::Damaged);
}

#[test]
fn what_is_no_secret_is_named_and_a_secret_is_one() {
    for (text, holds) in [
        (r#"{"access_token":"x"}"#, Holds::Json),
        (" [\"x\"]\n", Holds::Json),
        ("\"quoted\"", Holds::Json),
        ("{\r\n  \"access_token\": \"x", Holds::Json),
        ("null\n", Holds::Json),
        ("<!DOCTYPE html><title>Sign in", Holds::Page),
        ("<html>", Holds::Page),
        ("-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n", Holds::Key),
    ] {
        assert_eq!(Holds::instead_of_secret(text), Some(holds), "{text}");
    }
    for secret in ["s3cret", "{curly", "12345", "eyJ.eyJ.sig", "<3", "--BEGIN", "[x"] {
        assert_eq!(Holds::instead_of_secret(secret), None, "{secret}");
    }
}

#[test]
fn a_mark_and_blanks_around_lines_do_not_count() {
    let lines = pem_lines("\u{feff}-----BEGIN X-----  \r\n\tAA== \r\n  -----END X-----".as_bytes());
    assert_eq!(**lines.as_ref().unwrap(), "-----BEGIN X-----\nAA==\n-----END X-----\n");
    assert_eq!(pem_lines(&[0x30, 0x82, 1, 1]).unwrap_err(), Holds::Der);
}
