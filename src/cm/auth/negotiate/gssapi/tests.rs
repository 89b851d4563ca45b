use std::env;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cardbridge_harness::kdc::{self, Kdc, KdcOptions};
use cardbridge_harness::require;

use super::*;
use crate::cm::tests::alone;

#[test]
fn words_are_the_mechanisms_and_gssapis_only_where_they_say_more() {
    let reported = |gssapi, mechanism| GssError::from_texts(gssapi, mechanism, 7).to_string();
    assert_eq!(reported("", "Preauthentication failed"), "Preauthentication failed");
    assert_eq!(reported("Invalid token was supplied", "Success"), "Invalid token was supplied");
    assert_eq!(reported("No credentials", "Ticket expired\0\n"), "Ticket expired (No credentials)");
    assert_eq!(reported("same", "same"), "same");
    assert_eq!(GssError::from_texts("", "x", -7).code(), -7);
}

#[test]
fn what_c_wrote_ends_at_a_nul_and_need_not_be_text() {
    assert_eq!(text(b"no mechanisms\0\x01"), "no mechanisms");
    assert_eq!(text(b"\xff"), "\u{fffd}");
    assert_eq!(text(b""), "");
    assert!(c_string("a\0b").is_err());
}

#[test]
fn the_library_takes_names_and_says_what_is_wrong_with_credentials() {
    let gssapi = Gssapi::load().unwrap();
    let name = GssName::new(gssapi, "none@NOWHERE.INVALID").unwrap();
    let cache = Arc::new(CredentialCache::new(gssapi).unwrap());
    let dir = tempfile::tempdir().unwrap();
    let keytab = dir.path().join("none");
    let error = Credential::from_keytab(&name, &keytab, &cache).err().unwrap();
    assert!(error.to_string().contains("No credentials cache found"), "{error}");
    assert_ne!(error.code(), 0);
    let error = Credential::from_cache(&name, Mechanism::Spnego, &cache).err().unwrap();
    assert!(!error.to_string().is_empty());
}

#[test]
fn a_name_that_is_none_is_an_error_and_no_crash() {
    let gssapi = Gssapi::load().unwrap();
    for name in ["", "@", "a@b@c", "a\\", &"x".repeat(1 << 20)] {
        if let Err(error) = GssName::new(gssapi, name) {
            assert!(!error.to_string().is_empty(), "{name:.10}");
        }
    }
}

#[test]
fn a_path_that_c_cannot_hold_is_an_error() {
    let gssapi = Gssapi::load().unwrap();
    let name = GssName::new(gssapi, "none@NOWHERE.INVALID").unwrap();
    let cache = Arc::new(CredentialCache::new(gssapi).unwrap());
    let odd = Path::new("a\0b");
    assert!(Credential::from_keytab(&name, odd, &cache).is_err());
}

/// The library finds the KDC by the environment, so what asks it runs in a process of its own.
#[test]
fn tickets_make_tokens_and_end_with_their_cache() {
    const KEYTAB: &str = "CARDBRIDGE_TEST_KEYTAB";
    if let Some(keytab) = env::var_os(KEYTAB) {
        return converse(&PathBuf::from(keytab));
    }
    require!(kdc::available());
    let kdc = Kdc::start(KdcOptions::default()).unwrap();
    kdc.add_principal("desk-3").unwrap();
    let (keytab, conf) = (kdc.keytab("desk-3").unwrap(), kdc.krb5_conf());
    let environment = [(KEYTAB, keytab.to_str().unwrap()), ("KRB5_CONFIG", conf.to_str().unwrap())];
    let here = "cm::auth::negotiate::gssapi::tests::";
    let test = format!("{here}tickets_make_tokens_and_end_with_their_cache");
    assert!(!alone(&test, &environment), "it ran in the other process");
    let requests = kdc.requests();
    assert_eq!((requests.as_issued, requests.tgs_issued), (1, 1), "{}", kdc.log());
}

fn converse(keytab: &Path) {
    let gssapi = Gssapi::load().unwrap();
    let name = GssName::new(gssapi, "desk-3@CARDBRIDGE.TEST").unwrap();
    let service = Arc::new(GssName::new(gssapi, "HTTP/localhost@").unwrap());
    let cache = Arc::new(CredentialCache::new(gssapi).unwrap());
    let again = Arc::new(cache.again());
    let from = |cache: &_| Credential::from_cache(&name, Mechanism::Spnego, cache);
    assert!(from(&cache).is_err(), "no login yet");
    let login = Arc::new(Credential::from_keytab(&name, keytab, &cache).unwrap());
    let first = SecurityContext::start(&login, &service, Mechanism::Kerberos, None).unwrap();
    assert!(first.lifetime > 35_000 && login.life() > 35_000, "ten hours");
    let negotiated = Arc::new(from(&cache).unwrap());
    drop((login, first));
    for bindings in [None, Some(Arc::from(&b"tls-server-end-point:"[..]))] {
        let bound = bindings.is_some();
        let mut started =
            SecurityContext::start(&negotiated, &service, Mechanism::Spnego, bindings).unwrap();
        assert_eq!(started.token.first(), Some(&0x60), "bound: {bound}");
        assert!(started.context.step(b"nonsense").is_err());
        assert!(started.context.step(b"").is_err(), "it is over");
    }
    let alive = from(&again).unwrap();
    drop(alive);
    drop((negotiated, cache));
    assert!(from(&again).is_err(), "the tickets are still there");
}
