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
                Some(FileContents::UTF16),
                "{text}"
            );
        }
        assert_eq!(FileContents::binary(text.as_bytes()), None);
    }
    assert_eq!(FileContents::binary("köln 北京".as_bytes()), None);
    assert_eq!(FileContents::binary(b"to\0ken"), Some(FileContents::NUL));
    assert_eq!(FileContents::binary(b"token\0\0\0\0\0"), Some(FileContents::NUL));
    assert_eq!(FileContents::binary(b"caf\xe9"), Some(FileContents::NOT_UTF8));
}

#[test]
fn binary_formats_are_distinguished() {
    let p12 = [0x30, 0x82, 0x0A, 0x11, 2, 1, 3, 0x30, 0x82];
    let p7b = [0x30, 0x80, 6, 9, 0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 7, 2, 0xA0];
    assert_eq!(FileContents::binary(&p12), Some(FileContents::PKCS12));
    assert_eq!(FileContents::binary(&p7b), Some(FileContents::PKCS7));
    assert_eq!(
        FileContents::binary(&[0x30, 0x82, 0x03, 0x11, 0x30, 0x82]),
        Some(FileContents::DER)
    );
    assert_eq!(
        FileContents::binary(&[0xFE, 0xED, 0xFE, 0xED, 0, 0]),
        Some(FileContents::KEY_STORE)
    );
}

#[test]
fn what_is_no_certificate_is_named() {
    let block = |label: &str| format!("-----BEGIN {label}-----\nAA==\n-----END {label}-----\n");
    for (label, holds) in [
        ("TRUSTED CERTIFICATE", FileContents::TRUSTED),
        ("PRIVATE KEY", FileContents::KEY),
        ("RSA PRIVATE KEY", FileContents::KEY),
        ("ENCRYPTED PRIVATE KEY", FileContents::KEY),
        ("OPENSSH PRIVATE KEY", FileContents::OTHER_KEY),
        ("PGP PUBLIC KEY BLOCK", FileContents::OTHER_KEY),
        ("CERTIFICATE REQUEST", FileContents::REQUEST),
        ("NEW CERTIFICATE REQUEST", FileContents::REQUEST),
        ("X509 CRL", FileContents::CRL),
        ("PKCS7", FileContents::PKCS7),
        ("PUBLIC KEY", FileContents::PUBLIC_KEY),
    ] {
        let found = FileContents::instead_of_pem(&block(label), "-nothing-");
        assert_eq!(found, holds, "{label}");
    }
    assert_eq!(FileContents::instead_of_pem("<html>", "CERTIFICATE"), FileContents::PAGE);
    assert_eq!(FileContents::instead_of_pem(" \n", "CERTIFICATE"), FileContents::EMPTY);
    assert_eq!(FileContents::instead_of_pem("hunter2", "CERTIFICATE"), FileContents::NO_PEM);
    assert_eq!(
        FileContents::instead_of_pem(&block("CERTIFICATE"), "CERTIFICATE"),
        FileContents::DAMAGED
    );
}

#[test]
fn what_is_no_secret_is_named_and_a_secret_is_one() {
    for (text, holds) in [
        (r#"{"access_token":"x"}"#, FileContents::JSON),
        (" [\"x\"]\n", FileContents::JSON),
        ("\"quoted\"", FileContents::JSON),
        ("{\r\n  \"access_token\": \"x", FileContents::JSON),
        ("null\n", FileContents::JSON),
        ("<!DOCTYPE html><title>Sign in", FileContents::PAGE),
        ("<html>", FileContents::PAGE),
        ("-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n", FileContents::KEY),
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
    assert_eq!(pem_lines(&[0x30, 0x82, 1, 1]).unwrap_err(), FileContents::DER);
}
