//! TLS: whom the client believes, and what it says when it does not.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::version::{TLS12, TLS13};
use rustls::{ConfigBuilder, RootCertStore, ServerConfig, SupportedProtocolVersion, WantsVerifier};
use tempfile::TempDir;

use super::*;
use crate::domain::TlsFault;

/// A CA with its certificate in a file.
pub(super) struct Ca {
    issuer: CertifiedIssuer<'static, KeyPair>,
    dir: TempDir,
}

impl Ca {
    pub(super) fn new() -> Self {
        Self::named("cardbridge test CA")
    }

    pub(super) fn named(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, dir }
    }

    pub(super) fn file(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// The roots of a server that asks for certificates of this CA.
    pub(super) fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        roots
    }

    /// A certificate of this CA and its key, as PEM.
    pub(super) fn issue(&self, params: &CertificateParams) -> (String, KeyPair) {
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key)
    }

    /// A server with a certificate of this CA for `name`.
    fn server(&self, name: &str) -> Server {
        self.server_with(&for_name(name), ALL_VERSIONS)
    }

    fn server_with(&self, params: &CertificateParams, versions: Versions) -> Server {
        Server::start_tls(self.config(params, versions), cm(CARD))
    }

    fn config(&self, params: &CertificateParams, versions: Versions) -> ServerConfig {
        let builder = builder(versions).with_no_client_auth();
        let (chain, key) = self.pair(params);
        builder.with_single_cert(chain, key).unwrap()
    }

    /// A certificate of this CA and its key, as a server needs them.
    pub(super) fn pair(
        &self,
        params: &CertificateParams,
    ) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        (vec![certificate.der().clone()], key)
    }
}

pub(super) type Versions = &'static [&'static SupportedProtocolVersion];

pub(super) const ALL_VERSIONS: Versions = &[&TLS12, &TLS13];

pub(super) const EACH_VERSION: [Versions; 2] = [&[&TLS12], &[&TLS13]];

pub(super) fn builder(versions: Versions) -> ConfigBuilder<ServerConfig, WantsVerifier> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ServerConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap()
}

pub(super) fn for_name(name: &str) -> CertificateParams {
    CertificateParams::new(vec![name.to_owned()]).unwrap()
}

const fn tls(fault: TlsFault) -> UnavailableReason {
    UnavailableReason::Tls(fault)
}

fn trusting(server: &Server, ca_file: PathBuf) -> CmClient {
    let url = format!("https://{}", server.address);
    new_client(CmSettings { ca_file: Some(ca_file), ..options(url) }).unwrap()
}

fn setup_error(ca_file: &Path) -> Problem {
    let url = "https://cm.example.com".to_owned();
    match new_client(CmSettings { ca_file: Some(ca_file.to_owned()), ..options(url) }) {
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
async fn unknown_issuer_is_reported() {
    let server = Ca::new().server("127.0.0.1");
    let remote = trusting(&server, Ca::named("another").file());
    let detail = assert_away(remote.record(record_id()).await, tls(TlsFault::UnknownIssuer));
    let expected = format!("no TLS with {}: invalid peer certificate: ", server.address);
    assert!(detail.starts_with(&expected), "{detail}");
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn name_mismatch_is_reported() {
    let ca = Ca::new();
    let server = ca.server("cm.example.com");
    let remote = trusting(&server, ca.file());
    let detail = assert_away(remote.lookup(&identity()).await, tls(TlsFault::NameMismatch));
    assert!(detail.contains("not valid for name"), "{detail}");
}

#[tokio::test]
async fn server_without_tls_is_reported() {
    // It speaks first: a server that reads on would wait for the line end of a TLS greeting.
    let talking = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = talking.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = talking.accept().unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        std::io::copy(&mut stream, &mut std::io::sink()).ok();
    });
    let remote = new_client(options(format!("https://{address}"))).unwrap();
    assert_away(remote.record(record_id()).await, tls(TlsFault::NotTls));
}

#[tokio::test]
async fn tls_server_on_http_url_is_reported() {
    let server = Ca::new().server("127.0.0.1");
    let remote = new_client(options(format!("http://{}", server.address))).unwrap();
    assert_away(remote.record(record_id()).await, UnavailableReason::NotCm);
}

#[tokio::test]
async fn a_tls_handshake_that_hangs_ends_with_the_connect_timeout() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", silent.local_addr().unwrap());
    let connect_timeout = Duration::from_millis(150);
    let remote = new_client(CmSettings { connect_timeout, ..options(url) }).unwrap();
    let detail = assert_away(remote.record(record_id()).await, UnavailableReason::Unreachable);
    assert!(detail.contains("within 150ms"), "{detail}");
}

#[test]
fn unusable_ca_file_is_reported_with_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ca.pem");
    assert!(setup_error(&file).what.starts_with("cannot read cm.ca_file "));
    for text in
        [&b""[..], b"no certificate", b"\x30\x82\x01\x0a", b"-----BEGIN CERTIFICATE-----\n*"]
    {
        fs::write(&file, text).unwrap();
        let error = setup_error(&file);
        assert!(error.what.contains("has no PEM certificate: "), "{error:?}");
        let remedy = error.remedy;
        let known = ["openssl", "write the content", "export it again"];
        assert!(known.iter().any(|known| remedy.contains(known)), "{remedy}");
    }
    fs::write(&file, "-----BEGIN CERTIFICATE-----\nMAMCAQA=\n-----END CERTIFICATE-----\n").unwrap();
    assert!(setup_error(&file).what.starts_with("a certificate in cm.ca_file "));
}

#[test]
fn a_ca_file_that_is_no_regular_file_is_refused_and_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for path in [&pipe, Path::new("/dev/zero"), dir.path()] {
        let error = setup_error(path);
        assert!(error.what.starts_with("cannot read cm.ca_file "), "{error:?}");
        assert!(error.what.ends_with(": it is not a file"), "{error:?}");
    }
}

/// The system's roots are found by the environment, so this runs in a process of its own.
#[test]
fn a_machine_without_system_roots_needs_a_ca_file_and_nothing_for_http() {
    let name =
        "cm::tests::tls::a_machine_without_system_roots_needs_a_ca_file_and_nothing_for_http";
    if !alone(name, &[("SSL_CERT_FILE", "/nonexistent/roots.pem"), ("SSL_CERT_DIR", "")]) {
        return;
    }
    let https = || options("https://127.0.0.1:1".to_owned());
    let Err(error) = new_client(https()) else { panic!("the system has roots") };
    assert!(error.what.starts_with("no trusted CA"), "{error:?}");
    assert!(error.remedy.contains("cm.ca_file"));
    assert!(new_client(CmSettings { ca_file: Some(Ca::new().file()), ..https() }).is_ok());
    assert!(new_client(options("http://127.0.0.1:1".to_owned())).is_ok());
}

/// The client runs in a process of its own, with the environment that it needs; the server is here.
#[tokio::test]
async fn the_systems_roots_are_those_of_the_environment_where_it_names_some() {
    const URL: &str = "CARDBRIDGE_TEST_URL";
    let name = "cm::tests::tls::the_systems_roots_are_those_of_the_environment_where_it_names_some";
    let ca = Ca::new();
    let server = ca.server("127.0.0.1");
    let (file, url) = (ca.file(), format!("https://{}", server.address));
    if alone(name, &[("SSL_CERT_FILE", file.to_str().unwrap()), (URL, &url)]) {
        let remote = new_client(options(env::var(URL).unwrap())).unwrap();
        assert!(remote.record(record_id()).await.is_ok());
    } else {
        assert_eq!(server.seen().len(), 1);
        let error = new_client(options(url)).unwrap().record(record_id()).await;
        assert_away(error, tls(TlsFault::UnknownIssuer));
    }
}

#[tokio::test]
async fn tls_1_2_and_1_3_are_spoken() {
    let ca = Ca::new();
    for versions in EACH_VERSION {
        let server = ca.server_with(&for_name("127.0.0.1"), versions);
        let found = trusting(&server, ca.file()).lookup(&identity()).await;
        assert_eq!(found.unwrap().requests.len(), 1, "{versions:?}");
    }
}

/// What comes of a server whose certificate of a trusted CA is like this.
async fn refused(params: CertificateParams) -> CallError {
    let ca = Ca::new();
    let server = ca.server_with(&params, ALL_VERSIONS);
    let error = trusting(&server, ca.file()).record(record_id()).await.unwrap_err();
    assert!(server.seen().is_empty());
    error
}

#[tokio::test]
async fn certificate_error_is_reported_with_remedy() {
    let mut expired = for_name("127.0.0.1");
    expired.not_after = date_time_ymd(2020, 1, 1);
    let mut future = for_name("127.0.0.1");
    future.not_before = date_time_ymd(2199, 1, 1);
    future.not_after = date_time_ymd(2200, 1, 1);
    let mut client = for_name("127.0.0.1");
    client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let mut ca = for_name("127.0.0.1");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    for (params, fault, remedy) in [
        (expired, TlsFault::Expired, "clock"),
        (future, TlsFault::NotYetValid, "clock"),
        (for_name("cm.example.com"), TlsFault::NameMismatch, "cm.url"),
        (client, TlsFault::WrongPurpose, "server authentication"),
        (ca, TlsFault::WrongPurpose, "not a client or CA certificate"),
    ] {
        let error = refused(params).await;
        assert_eq!(error.unavailable_reason(), Some(tls(fault)), "{error}");
        assert!(tls(fault).remedy().contains(remedy), "{fault:?}");
    }
}

#[tokio::test]
async fn a_self_signed_server_is_refused_until_its_certificate_is_the_ca() {
    let key = KeyPair::generate().unwrap();
    let certificate = for_name("127.0.0.1").self_signed(&key).unwrap();
    let der = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = builder(ALL_VERSIONS)
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], der)
        .unwrap();
    let server = Server::start_tls(config, cm(CARD));
    let stranger = trusting(&server, Ca::named("another").file()).record(record_id()).await;
    assert_away(stranger, tls(TlsFault::UnknownIssuer));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("server.pem");
    fs::write(&file, certificate.pem()).unwrap();
    assert!(trusting(&server, file).record(record_id()).await.is_ok());
}

#[tokio::test]
async fn ca_with_same_name_and_other_key_is_rejected() {
    let server = Ca::new().server("127.0.0.1");
    let error = trusting(&server, Ca::new().file()).record(record_id()).await.unwrap_err();
    assert_eq!(error.unavailable_reason(), Some(tls(TlsFault::BadSignature)));
}

/// A server that reads a greeting, and answers it with these bytes.
fn answering(bytes: &'static [u8]) -> CmClient {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || -> std::io::Result<()> {
        for stream in listener.incoming() {
            let mut stream = stream?;
            std::io::Read::read(&mut stream, &mut [0; 16 << 10])?;
            stream.write_all(bytes)?;
        }
        Ok(())
    });
    new_client(options(url)).unwrap()
}

#[tokio::test]
async fn missing_common_cipher_is_reported_with_remedy() {
    for (alert, fault) in [
        // protocol_version, handshake_failure, insufficient_security, unrecognized_name: fatal.
        (b"\x15\x03\x01\0\x02\x02\x46", TlsFault::ProtocolVersion),
        (b"\x15\x03\x03\0\x02\x02\x28", TlsFault::NoCommonCipher),
        (b"\x15\x03\x03\0\x02\x02\x47", TlsFault::NoCommonCipher),
        (b"\x15\x03\x03\0\x02\x02\x70", TlsFault::UnrecognizedName),
    ] {
        let error = answering(alert).record(record_id()).await.unwrap_err();
        assert_eq!(error.unavailable_reason(), Some(tls(fault)), "{error}");
    }
    // A ServerHello of TLS 1.1, as from a server that takes what it can get.
    let hello = b"\x16\x03\x02\0\x2a\x02\0\0\x26\x03\x02\
                  0123456789abcdef0123456789abcdef\0\xc0\x14\0";
    let error = answering(hello).record(record_id()).await.unwrap_err();
    assert_eq!(error.unavailable_reason(), Some(tls(TlsFault::ProtocolVersion)), "{error}");
}

#[tokio::test]
async fn a_server_is_reached_by_an_ipv6_address() {
    let ca = Ca::new();
    let server =
        Server::start_tls_on("[::1]:0", ca.config(&for_name("::1"), ALL_VERSIONS), cm(CARD));
    trusting(&server, ca.file()).record(record_id()).await.unwrap();
    let host = format!("host: {}", server.address);
    assert!(server.seen()[0].headers.contains(&host), "{:?}", server.seen());
    let other =
        Server::start_tls_on("[::1]:0", ca.config(&for_name("::2"), ALL_VERSIONS), cm(CARD));
    let error = trusting(&other, ca.file()).record(record_id()).await;
    assert_away(error, tls(TlsFault::NameMismatch));
}
