use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use proptest::prelude::*;

use super::*;

/// As MIT's ktutil writes it: two keys of `svc-card`, one of `host/desk-3.example.com`.
const KEYTAB: &str = "05020000004a0001000b4558414d504c452e434f4d00087376632d63617264000000016b05d854\
03001200205a65959ad9ee02f06f9c6f57ff04bba5b0d103e97e091be35e00b80b1ee0226c000000030000003a0001\
000b4558414d504c452e434f4d00087376632d63617264000000016b05d8540300110010b984433cbf8733a250dd75\
94eb6f0221000000030000004a0002000b4558414d504c452e434f4d0004686f737400126465736b2d332e6578616d\
706c652e636f6d000000016b05d8540100110010805d1b5945a0513e708a1b54ba7b676400000001";
const ACCOUNT: &str = "svc-card@EXAMPLE.COM";
const HOST: &str = "host/desk-3.example.com@EXAMPLE.COM";

fn keytab() -> Vec<u8> {
    hex::decode(KEYTAB).unwrap()
}

/// A key of a principal with these components, and nothing that is not read.
fn entry(realm: &str, components: &[&str]) -> Vec<u8> {
    let part = |text: &str| {
        [&u16::try_from(text.len()).unwrap().to_be_bytes()[..], text.as_bytes()].concat()
    };
    let mut entry = u16::try_from(components.len()).unwrap().to_be_bytes().to_vec();
    entry.extend(part(realm));
    for text in components {
        entry.extend(part(text));
    }
    entry
}

fn with(entry: &[u8]) -> Vec<u8> {
    let length = i32::try_from(entry.len()).unwrap();
    [&FORMAT[..], &length.to_be_bytes(), entry].concat()
}

/// The principal of a keytab, or why there is none.
fn choose(bytes: &[u8], wanted: Option<&str>) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), bytes).unwrap();
    principal(file.path(), wanted).unwrap_or_else(|error| {
        assert!(!error.remedy.is_empty());
        error.what.replace(&file.path().display().to_string(), "FILE")
    })
}

#[test]
fn each_principal_is_listed_once() {
    assert_eq!(principals(&keytab()).unwrap(), [ACCOUNT, HOST]);
}

#[test]
fn a_principal_is_the_wanted_one_in_full_or_the_first() {
    let chosen = |wanted| choose(&keytab(), wanted);
    assert_eq!(chosen(None), ACCOUNT);
    assert_eq!(chosen(Some(HOST)), HOST);
    assert_eq!(chosen(Some("host/desk-3.example.com")), HOST);
    for absent in ["svc", "SVC-CARD", "svc-card@OTHER.COM", "host/desk-3"] {
        let expected =
            format!("keytab FILE has no key for {absent}; it has keys for {ACCOUNT}, {HOST}");
        assert_eq!(choose(&keytab(), Some(absent)), expected);
    }
}

#[test]
fn a_key_that_was_deleted_leaves_a_hole() {
    let bytes = keytab();
    let (head, rest) = bytes.split_at(2);
    let hole = [&(-10_i32).to_be_bytes()[..], &[0xff; 10]].concat();
    assert_eq!(principals(&[head, &hole, rest].concat()).unwrap(), [ACCOUNT, HOST]);
    assert_eq!(principals(&[&bytes[..], &[0; 64]].concat()).unwrap(), [ACCOUNT, HOST]);
    assert_eq!(principals(&[head, &i32::MIN.to_be_bytes()].concat()), Err(CUT));
}

#[test]
fn separators_that_belong_to_a_name_are_marked() {
    let odd = with(&entry("R", &["a/b", "c@d", "e\\f"]));
    assert_eq!(principals(&odd).unwrap(), ["a\\/b/c\\@d/e\\\\f@R"]);
    let computer = with(&entry("EXAMPLE.COM", &["DESK-3$"]));
    assert_eq!(principals(&computer).unwrap(), ["DESK-3$@EXAMPLE.COM"]);
}

#[test]
fn other_file_differs_from_damaged_keytab() {
    let no = |bytes: &[u8]| choose(bytes, None);
    assert_eq!(no(b""), "FILE is not a valid keytab: it is empty");
    assert_eq!(no(&[0xff, 0xfe, 0]), "FILE is not a valid keytab: it does not begin with 0x0502");
    let text =
        "FILE is not a valid keytab: it is text, perhaps base64, and does not begin with 0x0502";
    assert_eq!(no(b"secret"), text);
    assert_eq!(no(&[5, 1, 0]), "FILE is not a valid keytab: its format, 0x0501, is out of use");
    assert_eq!(no(&[5, 2]), "FILE is not a valid keytab: it holds no key");
    let bytes = keytab();
    assert_eq!(no(&bytes[..bytes.len() - 1]), format!("FILE is not a valid keytab: {CUT}"));
    let control = with(&entry("R", &["a\nb"]));
    assert_eq!(no(&control), "FILE is not a valid keytab: a name in it holds control characters");
    let latin = with(&[0, 1, 0, 1, b'R', 0, 1, 0xe4]);
    assert_eq!(no(&latin), "FILE is not a valid keytab: a name in it is no text in UTF-8");
}

#[test]
fn what_cannot_be_read_is_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let reported = |name: &str| principal(&dir.path().join(name), None).unwrap_err().what;
    assert!(reported("none").contains("none: No such file"), "{}", reported("none"));
    assert!(Command::new("mkfifo").arg(dir.path().join("pipe")).status().unwrap().success());
    assert!(reported("pipe").ends_with("it is not a file"), "{}", reported("pipe"));
    assert!(reported(".").ends_with("it is not a file"));
    fs::write(dir.path().join("large"), vec![0; (1 << 20) + 1]).unwrap();
    assert!(reported("large").ends_with("it has more than 1048576 bytes"), "{}", reported("large"));
    fs::write(dir.path().join("kept"), keytab()).unwrap();
    fs::set_permissions(dir.path().join("kept"), fs::Permissions::from_mode(0o000)).unwrap();
    // Root may read everything.
    let unreadable = principal(&dir.path().join("kept"), None);
    assert!(unreadable.is_ok_and(|name| name == ACCOUNT) || reported("kept").contains("denied"));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let all = [&FORMAT[..], &bytes].concat();
        principals(&all).ok();
    }

    #[test]
    fn no_damage_makes_it_panic(at in 0..220_usize, byte in any::<u8>(), end in 0..221_usize) {
        let mut bytes = keytab();
        bytes[at] = byte;
        bytes.truncate(end);
        principals(&bytes).ok();
    }
}
