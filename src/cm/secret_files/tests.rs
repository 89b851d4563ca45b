use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;
use std::process::Command;

use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;

use super::*;

const CA: &str = "cm.ca_file";
const CERT: &str = "cm.auth.client_cert_file";
const KEY: &str = "cm.auth.client_key_file";
const TOKEN: &str = "cm.auth.token_file";
const SECRET: &str = "cm.auth.client_secret_file";
const PROXY: &str = "cm.proxy_credentials_file";
const KEYTAB: &str = "cm.auth.keytab";

struct Files {
    dir: TempDir,
    certificate: String,
    key: String,
}

impl Files {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["desk".to_owned()]).unwrap();
        let certificate = certificate.self_signed(&key).unwrap().pem();
        Self { dir: tempfile::tempdir().unwrap(), certificate, key: key.serialize_pem() }
    }

    fn write(&self, content: &[u8]) -> PathBuf {
        let path = self.dir.path().join("file");
        fs::write(&path, content).unwrap();
        path
    }

    /// What openssl makes of certificate and key.
    fn openssl(&self, args: &[&str]) -> Vec<u8> {
        fs::write(self.dir.path().join("cert"), &self.certificate).unwrap();
        fs::write(self.dir.path().join("key"), &self.key).unwrap();
        let output = Command::new("openssl").args(args).current_dir(self.dir.path()).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    #[track_caller]
    fn assert_named(&self, key: &str, content: &[u8], expected: &str, next: &str) {
        let path = self.write(content);
        let Some(Problem { what, remedy }) = unusable(key, &path) else {
            panic!("{key} takes {content:?}");
        };
        assert!(what.contains(expected), "{key}: {what}");
        assert!(what.contains(path.to_str().unwrap()), "{key}: {what}");
        assert!(remedy.contains(next), "{key}: {remedy}");
        for secret in ["hunter2", "s3cret"] {
            assert!(!format!("{what}{remedy}").contains(secret), "{what}");
        }
    }

    #[track_caller]
    fn assert_taken(&self, key: &str, content: impl AsRef<[u8]>) {
        let path = self.write(content.as_ref());
        assert_eq!(unusable(key, &path), None, "{key}");
    }
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

#[test]
fn a_mark_and_line_ends_of_windows_are_no_fault() {
    let files = Files::new();
    for change in [
        |text: &str| text.to_owned(),
        |text: &str| format!("\u{feff}{text}"),
        |text: &str| text.replace('\n', "\r\n"),
        |text: &str| format!("\u{feff}{}", text.replace('\n', " \t\r\n")),
    ] {
        files.assert_taken(CA, change(&files.certificate));
        files.assert_taken(CERT, change(&files.certificate));
        files.assert_taken(KEY, change(&files.key));
        files.assert_taken(TOKEN, change("s3cret\n"));
    }
    for text in ["s3cret", "s3cret\r\n", "\u{feff}s3cret\n", "{curly", "12345"] {
        files.assert_taken(SECRET, text);
    }
    files.assert_taken(PROXY, "\u{feff}desk:hunter2\r\n");
}

#[test]
fn each_wrong_kind_of_file_is_named_with_a_next_step() {
    let files = Files::new();
    let trusted = files.openssl(&["x509", "-in", "cert", "-trustout"]);
    let der = files.openssl(&["x509", "-in", "cert", "-outform", "der"]);
    let key_der = files.openssl(&["pkey", "-in", "key", "-outform", "der"]);
    let p12 = files.openssl(&[
        "pkcs12",
        "-export",
        "-in",
        "cert",
        "-inkey",
        "key",
        "-passout",
        "pass:hunter2",
    ]);
    let p7b = files.openssl(&["crl2pkcs7", "-nocrl", "-certfile", "cert", "-outform", "der"]);
    let encrypted = files.openssl(&["pkey", "-in", "key", "-aes256", "-passout", "pass:hunter2"]);
    let request = files.openssl(&["req", "-new", "-key", "key", "-subj", "/CN=desk", "-batch"]);
    let cut = files.certificate.replace("-----END CERTIFICATE-----", "");
    for key in [CA, CERT] {
        files.assert_named(key, &trusted, "TRUSTED CERTIFICATE", "openssl x509 -in");
        files.assert_named(key, &der, "binary (DER)", "-inform der");
        files.assert_named(key, &p12, "PKCS#12", "openssl pkcs12");
        files.assert_named(key, &p7b, "PKCS#7", "openssl pkcs7 -print_certs");
        files.assert_named(key, files.key.as_bytes(), "a private key", "key's file");
        files.assert_named(key, &request, "a certificate request", "issue");
        files.assert_named(key, &utf16(&files.certificate), "UTF-16", "iconv");
        files.assert_named(key, b"", "it is empty", "write");
        files.assert_named(key, cut.as_bytes(), "PEM", "");
        files.assert_named(key, b"<html>hunter2", "a web page", "proxy");
    }
    files.assert_named(KEY, &key_der, "binary (DER)", "openssl pkey -inform der");
    files.assert_named(KEY, &p12, "PKCS#12", "-nocerts");
    files.assert_named(KEY, &encrypted, "is encrypted", "openssl pkey -in ENCRYPTED.key");
    files.assert_named(KEY, files.certificate.as_bytes(), "a certificate", "each by its own key");
    files.assert_named(KEY, &utf16(&files.key), "UTF-16", "iconv");
    files.assert_named(KEY, b" \n", "it is empty", "write");
    for key in [TOKEN, SECRET, PROXY] {
        files.assert_named(key, &utf16("s3cret"), "UTF-16", "iconv");
        files.assert_named(key, b"\xff\xfes\x003\x00c\0r\0e\0t\0", "UTF-16", "iconv");
        files.assert_named(key, br#"{"access_token":"hunter2"}"#, "JSON", "jq");
        files.assert_named(key, b"s3cr\0et", "NUL", "plain text");
        files.assert_named(key, b"<!DOCTYPE html>hunter2", "a web page", "");
        files.assert_named(key, files.key.as_bytes(), "a private key", "");
        files.assert_named(key, &p12, "PKCS#12", "");
        files.assert_named(key, b"", "", "write");
    }
    files.assert_named(TOKEN, b"Bearer hunter2", "scheme", "the token alone");
    files.assert_named(TOKEN, b"hunter2 hunter2", "something else than one token", "alone");
    files.assert_named(PROXY, b"hunter2", "user:password", "");
    files.assert_named(KEYTAB, b"BQIAAABN", "text, perhaps base64", "ktutil");
    files.assert_named(KEYTAB, b"", "it is empty", "ktutil");
}

#[test]
fn exposed_secret_is_reported() {
    let files = Files::new();
    let path = files.write(b"s3cret");
    let reported = |key, mode| {
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        exposed(key, &path).map(|problem| problem.what)
    };
    for key in SECRETS {
        for mode in [0o400, 0o600, 0o640, 0o440, 0o660] {
            assert_eq!(reported(key, mode), None, "{key} {mode:o}");
        }
        for (mode, who) in [
            (0o644, "every user of this machine may read it"),
            (0o642, "may write it"),
            (0o606, "read"),
        ] {
            let reported = reported(key, mode).unwrap();
            assert!(
                reported.contains(who) && reported.contains(&format!("{mode:04o}")),
                "{reported}"
            );
        }
        // A link is as open as what it leads to.
        let link = files.dir.path().join("link");
        symlink(&path, &link).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o604)).unwrap();
        assert!(exposed(key, &link).is_some());
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        assert_eq!(exposed(key, &link), None);
        fs::remove_file(&link).unwrap();
    }
    assert_eq!(reported(CA, 0o644), None);
    assert!(reported(CA, 0o646).unwrap().contains("may write it"));
    assert_eq!(exposed(TOKEN, Path::new("/nonexistent")), None);
}

#[test]
fn blanks_and_invisible_characters_in_secret_are_reported() {
    let files = Files::new();
    for key in [SECRET, PROXY] {
        for text in
            ["desk:hunter2 \n", " desk:hunter2", "desk:hunter2\t\r\n", "desk:hun\u{200b}ter2"]
        {
            let path = files.write(text.as_bytes());
            let reported = padded(key, &path).unwrap().what;
            assert!(
                reported.contains("is sent as part of it") && !reported.contains("hun"),
                "{reported}"
            );
        }
        for text in ["desk:hunter2\r\n", "\u{feff}desk:hunter2", "desk:two words, \u{e4}"] {
            assert_eq!(padded(key, &files.write(text.as_bytes())), None, "{text}");
        }
    }
    // Of a token nothing around it is sent.
    assert_eq!(padded(TOKEN, &files.write(b" s3cret \n")), None);
}
