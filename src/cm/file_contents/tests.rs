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
            assert_eq!(
                FileContents::binary(&utf16(text, mark, big)),
                Some(FileContents::Utf16),
                "{text}"
            );
        }
        assert_eq!(FileContents::binary(text.as_bytes()), None);
    }
    assert_eq!(FileContents::binary("köln 北京".as_bytes()), None);
    assert_eq!(FileContents::binary(b"to\0ken"), Some(FileContents::Nul));
    assert_eq!(FileContents::binary(b"token\0\0\0\0\0"), Some(FileContents::Nul));
    assert_eq!(FileContents::binary(b"caf\xe9"), Some(FileContents::NotUtf8));
}

#[test]
fn binary_files_are_told_apart() {
    let p12 = [0x30, 0x82, 0x0A, 0x11, 2, 1, 3, 0x30, 0x82];
    let p7b = [0x30, 0x80, 6, 9, 0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 7, 2, 0xA0];
    assert_eq!(FileContents::binary(&p12), Some(FileContents::Pkcs12));
    assert_eq!(FileContents::binary(&p7b), Some(FileContents::Pkcs7));
    assert_eq!(
        FileContents::binary(&[0x30, 0x82, 0x03, 0x11, 0x30, 0x82]),
        Some(FileContents::Der)
    );
    assert_eq!(FileContents::binary(&[0xFE, 0xED, 0xFE, 0xED, 0, 0]), Some(FileContents::KeyStore));
}

#[test]
fn what_is_no_certificate_is_named() {
    let block = |label: &str| format!("-----BEGIN {label}-----\nAA==\n-----END {label}-----\n");
    for (label, holds) in [
        ("TRUSTED CERTIFICATE", FileContents::Trusted),
        ("PRIVATE KEY", FileContents::Key),
        ("RSA PRIVATE KEY", FileContents::Key),
        ("ENCRYPTED PRIVATE KEY", FileContents::Key),
        ("OPENSSH PRIVATE KEY", FileContents::OtherKey),
        ("PGP PUBLIC KEY BLOCK", FileContents::OtherKey),
        ("CERTIFICATE REQUEST", FileContents::Request),
        ("NEW CERTIFICATE REQUEST", FileContents::Request),
        ("X509 CRL", FileContents::Crl),
        ("PKCS7", FileContents::Pkcs7),
        ("PUBLIC KEY", FileContents::PublicKey),
    ] {
        let found = FileContents::instead_of_pem(&block(label), "-nothing-");
        assert_eq!(found, holds, "{label}");
    }
    assert_eq!(FileContents::instead_of_pem("<html>", "CERTIFICATE"), FileContents::Page);
    assert_eq!(FileContents::instead_of_pem(" \n", "CERTIFICATE"), FileContents::Empty);
    assert_eq!(FileContents::instead_of_pem("hunter2", "CERTIFICATE"), FileContents::NoPem);
    assert_eq!(
        FileContents::instead_of_pem(&block("CERTIFICATE"), "CERTIFICATE"),
        FileContents::Damaged
    );
}

#[test]
fn what_is_no_secret_is_named_and_a_secret_is_one() {
    for (text, holds) in [
        (r#"{"access_token":"x"}"#, FileContents::Json),
        (" [\"x\"]\n", FileContents::Json),
        ("\"quoted\"", FileContents::Json),
        ("{\r\n  \"access_token\": \"x", FileContents::Json),
        ("null\n", FileContents::Json),
        ("<!DOCTYPE html><title>Sign in", FileContents::Page),
        ("<html>", FileContents::Page),
        ("-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n", FileContents::Key),
    ] {
        assert_eq!(FileContents::instead_of_secret(text), Some(holds), "{text}");
    }
    for secret in ["s3cret", "{curly", "12345", "eyJ.eyJ.sig", "<3", "--BEGIN", "[x"] {
        assert_eq!(FileContents::instead_of_secret(secret), None, "{secret}");
    }
}

#[test]
fn a_mark_and_blanks_around_lines_do_not_count() {
    let lines = pem_lines("\u{feff}-----BEGIN X-----  \r\n\tAA== \r\n  -----END X-----".as_bytes());
    assert_eq!(**lines.as_ref().unwrap(), "-----BEGIN X-----\nAA==\n-----END X-----\n");
    assert_eq!(pem_lines(&[0x30, 0x82, 1, 1]).unwrap_err(), FileContents::Der);
}
