//! TLS: whom the client believes, and what it says when it does not.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tempfile::TempDir;

use super::*;

/// A CA with its certificate in a file.
struct Ca {
    issuer: CertifiedIssuer<'static, KeyPair>,
    dir: TempDir,
}

impl Ca {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, dir }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// A server with a certificate of this CA for `name`.
    fn server(&self, name: &str) -> Server {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        Server::start_tls(config, cm(CARD))
    }
}

fn trusting(server: &Server, ca_file: PathBuf) -> Remote {
    let url = format!("https://{}", server.address);
    Remote::new(Options { ca_file: Some(ca_file), ..options(url) }).unwrap()
}

fn setup_error(ca_file: &Path) -> SetupError {
    let url = "https://cm.example.com".to_owned();
    match Remote::new(Options { ca_file: Some(ca_file.to_owned()), ..options(url) }) {
        Ok(_) => panic!("{} was taken", ca_file.display()),
        Err(error) => error,
    }
}

#[tokio::test]
async fn a_server_of_the_named_ca_is_believed() {
    let ca = Ca::new();
    let server = ca.server("127.0.0.1");
    let found = trusting(&server, ca.file()).lookup(&identity()).await.unwrap();
    assert_eq!(found.requests.len(), 1);
}

#[tokio::test]
async fn a_server_of_another_ca_is_not_and_the_reason_is_told() {
    let server = Ca::new().server("127.0.0.1");
    let remote = trusting(&server, Ca::new().file());
    let detail = assert_away(remote.record(record_id()).await, AwayReason::Tls);
    let expected = format!("no TLS with {}: invalid peer certificate: ", server.address);
    assert!(detail.starts_with(&expected), "{detail}");
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn a_certificate_for_another_name_is_told() {
    let ca = Ca::new();
    let server = ca.server("cm.example.com");
    let remote = trusting(&server, ca.file());
    let detail = assert_away(remote.lookup(&identity()).await, AwayReason::Tls);
    assert!(detail.contains("not valid for name"), "{detail}");
}

#[tokio::test]
async fn a_server_without_tls_is_told() {
    // It speaks first: a server that reads on would wait for the line end of a TLS greeting.
    let talking = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = talking.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = talking.accept().unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        std::io::copy(&mut stream, &mut std::io::sink()).ok();
    });
    let remote = Remote::new(options(format!("https://{address}"))).unwrap();
    assert_away(remote.record(record_id()).await, AwayReason::Tls);
}

#[tokio::test]
async fn a_server_with_tls_is_told_from_cm_without() {
    let server = Ca::new().server("127.0.0.1");
    let remote = Remote::new(options(format!("http://{}", server.address))).unwrap();
    assert_away(remote.record(record_id()).await, AwayReason::NotCm);
}

#[tokio::test]
async fn a_tls_handshake_that_hangs_ends_with_the_connect_timeout() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", silent.local_addr().unwrap());
    let connect_timeout = Duration::from_millis(150);
    let remote = Remote::new(Options { connect_timeout, ..options(url) }).unwrap();
    let detail = assert_away(remote.record(record_id()).await, AwayReason::Unreachable);
    assert!(detail.contains("within 150ms"), "{detail}");
}

#[test]
fn a_ca_file_that_does_not_do_is_told_with_a_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ca.pem");
    assert!(matches!(setup_error(&file), SetupError::CaFileUnreadable { .. }));
    for text in
        [&b""[..], b"no certificate", b"\x30\x82\x01\x0a", b"-----BEGIN CERTIFICATE-----\n*"]
    {
        fs::write(&file, text).unwrap();
        let error = setup_error(&file);
        assert!(matches!(error, SetupError::CaFileNotPem { .. }), "{error:?}");
        assert!(error.remedy().contains("openssl"));
    }
    fs::write(&file, "-----BEGIN CERTIFICATE-----\nMAMCAQA=\n-----END CERTIFICATE-----\n").unwrap();
    assert!(matches!(setup_error(&file), SetupError::CaFileNotUsable { .. }));
}

#[test]
fn a_ca_file_that_is_no_regular_file_is_refused_and_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for path in [&pipe, Path::new("/dev/zero"), dir.path()] {
        let error = setup_error(path);
        let SetupError::CaFileUnreadable { source, .. } = error else { panic!("{error:?}") };
        assert_eq!(source.to_string(), "it is not a file");
    }
}

/// The system's roots are found by the environment, so this runs in a process of its own.
#[test]
fn a_machine_without_system_roots_needs_a_ca_file_and_nothing_for_http() {
    let name =
        "remote::tests::tls::a_machine_without_system_roots_needs_a_ca_file_and_nothing_for_http";
    if !alone(name, &[("SSL_CERT_FILE", "/nonexistent/roots.pem"), ("SSL_CERT_DIR", "")]) {
        return;
    }
    let https = || options("https://127.0.0.1:1".to_owned());
    let Err(error) = Remote::new(https()) else { panic!("the system has roots") };
    assert!(matches!(error, SetupError::Client(_)), "{error:?}");
    assert!(error.remedy().contains("cm.ca_file"));
    assert!(Remote::new(Options { ca_file: Some(Ca::new().file()), ..https() }).is_ok());
    assert!(Remote::new(options("http://127.0.0.1:1".to_owned())).is_ok());
}
