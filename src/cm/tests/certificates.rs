//! A server that asks for a client certificate in the handshake.

use std::fs;
use std::path::Path;

use rustls::server::WebPkiClientVerifier;
use tempfile::TempDir;

use super::tls::{Ca, EACH_VERSION, Versions, builder, for_name};
use super::*;
use crate::domain::ClientCertFault;

/// Certificate and key as the station has them.
struct Station {
    dir: TempDir,
}

impl Station {
    fn with(ca: &Ca) -> Self {
        let station = Self { dir: tempfile::tempdir().unwrap() };
        station.renew(ca);
        station
    }

    fn renew(&self, ca: &Ca) {
        let (certificate, key) = ca.issue(&for_name("desk-3"));
        fs::write(self.dir.path().join("client.pem"), certificate).unwrap();
        fs::write(self.dir.path().join("client.key"), key.serialize_pem()).unwrap();
    }

    fn pair(&self) -> ClientCertSettings {
        let path = |name: &str| Path::join(self.dir.path(), name);
        ClientCertSettings { cert_file: path("client.pem"), key_file: path("client.key") }
    }
}

/// A server of `ca`'s that wants clients of `clients`.
fn server(ca: &Ca, clients: &Ca, versions: Versions) -> Server {
    answering(ca, clients, versions, cm(CARD))
}

fn answering(
    ca: &Ca,
    clients: &Ca,
    versions: Versions,
    reply: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
) -> Server {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let roots = Arc::new(clients.roots());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build().unwrap();
    let (chain, key) = ca.pair(&for_name("127.0.0.1"));
    let config = builder(versions).with_client_cert_verifier(verifier);
    Server::start_tls(config.with_single_cert(chain, key).unwrap(), reply)
}

fn remote(server: &Server, ca: &Ca, client_certificate: Option<ClientCertSettings>) -> CmClient {
    let url = format!("https://{}", server.address);
    let ca_file = Some(ca.file());
    new_client(CmSettings { ca_file, client_certificate, ..options(url) }).unwrap()
}

/// A server may reject a certificate while the client sends the request: then either
/// end of the connection is seen first.
#[track_caller]
fn assert_fault(error: &CallError, fault: ClientCertFault) {
    let reason = error.unavailable_reason().unwrap();
    assert_eq!(reason, UnavailableReason::ClientCertificate(fault), "{error}");
}

#[tokio::test]
async fn a_certificate_that_is_asked_for_in_the_handshake_is_shown() {
    let ca = Ca::new();
    let station = Station::with(&ca);
    for versions in EACH_VERSION {
        let server = server(&ca, &ca, versions);
        let remote = remote(&server, &ca, Some(station.pair()));
        remote.set_status(&decision()).await.unwrap();
        assert_eq!(remote.lookup(&identity()).await.unwrap().requests.len(), 1);
    }
}

#[tokio::test]
async fn missing_client_certificate_is_reported() {
    let ca = Ca::new();
    for versions in EACH_VERSION {
        let server = server(&ca, &ca, versions);
        let error = remote(&server, &ca, None).record(record_id()).await.unwrap_err();
        assert_fault(&error, ClientCertFault::Required);
        assert!(
            error.detail().contains("wants a client certificate, and there is none"),
            "{error}"
        );
        let remedy = error.unavailable_reason().unwrap().remedy();
        assert!(remedy.contains("cm.auth.client_cert_file"), "{remedy}");
        assert!(server.seen().is_empty());
    }
}

#[tokio::test]
async fn untrusted_client_certificate_is_reported() {
    let (ca, other) = (Ca::new(), Ca::named("another"));
    let station = Station::with(&other);
    for versions in EACH_VERSION {
        let server = server(&ca, &ca, versions);
        let remote = remote(&server, &ca, Some(station.pair()));
        let error = remote.record(record_id()).await.unwrap_err();
        assert_fault(&error, ClientCertFault::Rejected);
        assert!(error.detail().contains("does not accept the client certificate"), "{error}");
        assert!(server.seen().is_empty());
    }
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_without_a_reload() {
    let (ca, other) = (Ca::new(), Ca::named("another"));
    let station = Station::with(&other);
    for versions in EACH_VERSION {
        station.renew(&other);
        let server = server(&ca, &ca, versions);
        let remote = remote(&server, &ca, Some(station.pair()));
        let error = remote.record(record_id()).await.unwrap_err();
        assert_fault(&error, ClientCertFault::Rejected);
        station.renew(&ca);
        remote.record(record_id()).await.unwrap();
    }
}

#[test]
fn unusable_client_certificate_fails_setup() {
    let ca = Ca::new();
    let station = Station::with(&ca);
    fs::write(station.dir.path().join("client.key"), "s3cret").unwrap();
    let options = CmSettings {
        client_certificate: Some(station.pair()),
        ca_file: Some(ca.file()),
        ..options("https://cm.example.com".to_owned())
    };
    let Err(error) = new_client(options) else { panic!("it was taken") };
    assert!(error.what.contains("cm.auth.client_key_file"), "{error}");
    assert!(error.remedy.contains("openssl pkey"));
    assert!(!format!("{error:?}").contains("s3cret"));
}

#[tokio::test]
async fn who_was_shown_before_counts_for_no_later_connection() {
    let (ca, other) = (Ca::new(), Ca::named("another"));
    for versions in EACH_VERSION {
        let station = Station::with(&ca);
        // Each call on a connection of its own, so that a session of TLS could be taken up again.
        let server = answering(&ca, &ca, versions, |_| {
            Reply::Cut(answer(OK, "Connection: close\r\n", &card_json(CARD, 2)))
        });
        let remote = remote(&server, &ca, Some(station.pair()));
        remote.record(record_id()).await.unwrap();
        remote.record(record_id()).await.unwrap();
        station.renew(&other);
        let error = remote.record(record_id()).await.unwrap_err();
        assert_fault(&error, ClientCertFault::Rejected);
    }
}
