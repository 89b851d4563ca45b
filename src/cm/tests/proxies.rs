//! A proxy between here and the server.

use std::fs;
use std::io::{self, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::thread;

use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::tls::{ALL_VERSIONS, Ca, builder, for_name};
use super::*;
use crate::domain::{ProxyFault, TlsFault};

const FORBIDDEN: &str = "HTTP/1.1 403 Filtered\r\nContent-Length: 0\r\n\r\n";
const LOGIN: &str = "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n";

/// A proxy; it lasts as long as the test process.
pub(super) struct Middle {
    pub(super) address: SocketAddr,
    /// The heads of what it was asked, in order.
    seen: Arc<Mutex<Vec<String>>>,
}

impl Middle {
    /// Connects clients that send a line that ends in `login`; others get `otherwise`.
    pub(super) fn start(login: &'static str, otherwise: &'static str) -> Self {
        Self::listen(login, otherwise, None)
    }

    fn listen(login: &'static str, otherwise: &'static str, tls: Option<ServerConfig>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let middle = Self { address: listener.local_addr().unwrap(), seen: Arc::default() };
        let (seen, tls) = (Arc::clone(&middle.seen), tls.map(Arc::new));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (seen, tls) = (Arc::clone(&seen), tls.clone());
                thread::spawn(move || {
                    let stream = stream?;
                    stream.set_nodelay(true)?;
                    let Some(tls) = tls else {
                        return serve(stream.try_clone()?, stream, login, otherwise, &seen);
                    };
                    // Half-duplex is enough to see that its own TLS is spoken, and its login reported.
                    let tls = ServerConnection::new(tls).map_err(io::Error::other)?;
                    let mut stream = StreamOwned::new(tls, stream);
                    let head = head(&mut BufReader::new(&mut stream))?;
                    seen.lock().unwrap().push(head);
                    stream.write_all(otherwise.as_bytes())?;
                    stream.flush()
                });
            }
        });
        middle
    }

    pub(super) fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

fn serve(
    from: TcpStream,
    mut to: TcpStream,
    login: &str,
    otherwise: &str,
    seen: &Mutex<Vec<String>>,
) -> io::Result<()> {
    let mut from = BufReader::new(from);
    let head = head(&mut from)?;
    let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let welcome = head.lines().any(|line| line.ends_with(login));
    seen.lock().map_err(|_| io::Error::other("a test failed"))?.push(head);
    if !welcome {
        return to.write_all(otherwise.as_bytes());
    }
    let server = TcpStream::connect(target)?;
    to.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
    let (mut there, mut back) = (server.try_clone()?, server);
    thread::spawn(move || io::copy(&mut back, &mut to));
    io::copy(&mut from, &mut there).map(drop)
}

/// The lines up to the empty one.
fn head(stream: &mut impl io::BufRead) -> io::Result<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(head)
}

/// A server with TLS, and its CA.
fn server() -> (Server, Ca) {
    let ca = Ca::new();
    (Server::start_tls(config(&ca), cm(CARD)), ca)
}

fn config(ca: &Ca) -> ServerConfig {
    let (chain, key) = ca.pair(&for_name("localhost"));
    builder(ALL_VERSIONS).with_no_client_auth().with_single_cert(chain, key).unwrap()
}

fn named(url: String) -> ProxySettings {
    ProxySettings::Named { url, credentials_file: None }
}

fn by_way(server: SocketAddr, ca: &Ca, proxy: ProxySettings) -> CmClient {
    let url = format!("https://localhost:{}", server.port());
    new_client(CmSettings { proxy, ca_file: Some(ca.file()), ..options(url) }).unwrap()
}

#[tokio::test]
async fn cm_is_reached_through_a_proxy_that_learns_nothing_but_where_it_is() {
    let (server, ca) = server();
    let middle = Middle::start("", FORBIDDEN);
    let remote = by_way(server.address, &ca, named(middle.url()));
    remote.set_status(&decision()).await.unwrap();
    let seen = middle.seen();
    let first = format!("CONNECT localhost:{} HTTP/1.1\r\n", server.address.port());
    assert_eq!(seen.len(), 1);
    assert!(seen[0].starts_with(&first), "{seen:?}");
    for part in ["CertificateManagement", REQUEST, "authorization", "Authorization"] {
        assert!(!seen[0].contains(part), "{seen:?}");
    }
}

#[tokio::test]
async fn a_proxy_learns_the_login_in_the_file_and_a_changed_one_without_a_reload() {
    let (server, ca) = server();
    // desk:s3cret
    let middle = Middle::start("Basic ZGVzazpzM2NyZXQ=", LOGIN);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("proxy");
    fs::write(&file, "desk:wrong\n").unwrap();
    let proxy = ProxySettings::Named { url: middle.url(), credentials_file: Some(file.clone()) };
    let remote = by_way(server.address, &ca, proxy);
    let login = UnavailableReason::Proxy(ProxyFault::AuthRequired);
    let detail = assert_away(remote.record(record_id()).await, login);
    assert!(
        detail.starts_with(&format!("the proxy {} requires a login", middle.address)),
        "{detail}"
    );
    assert!(login.remedy().contains("cm.proxy_credentials_file"));
    fs::write(&file, "desk:s3cret\n").unwrap();
    remote.record(record_id()).await.unwrap();
    // Only the proxy gets the login.
    assert!(server.seen().iter().all(|seen| !seen.headers.join("").contains("proxy-auth")));
    fs::remove_file(&file).unwrap();
    let detail = assert_away(remote.record(record_id()).await, UnavailableReason::Credentials);
    assert!(detail.contains(file.to_str().unwrap()), "{detail}");
}

#[tokio::test]
async fn missing_proxy_login_is_reported() {
    let (server, ca) = server();
    let middle = Middle::start("Basic ", LOGIN);
    let remote = by_way(server.address, &ca, named(middle.url()));
    let login = UnavailableReason::Proxy(ProxyFault::AuthRequired);
    assert_away(remote.lookup(&identity()).await, login);
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn unreachable_proxy_differs_from_unreachable_cm() {
    let (server, ca) = server();
    // No port of those that are given out.
    let closed = SocketAddr::from(([127, 0, 0, 1], 1));
    let remote = by_way(server.address, &ca, named(format!("http://{closed}")));
    let unreachable = UnavailableReason::Proxy(ProxyFault::Unreachable);
    let detail = assert_away(remote.record(record_id()).await, unreachable);
    let expected =
        format!("no connection to the proxy {closed}: Connection refused (os error 111)");
    assert_eq!(detail, expected);

    // Proxies say so in their own way; this one hangs up.
    let middle = Middle::start("", FORBIDDEN);
    let remote = by_way(closed, &ca, named(middle.url()));
    let refuses = UnavailableReason::Proxy(ProxyFault::ConnectRejected);
    let detail = assert_away(remote.record(record_id()).await, refuses);
    assert!(
        detail.starts_with(&format!("the proxy {} rejected the connection", middle.address)),
        "{detail}"
    );
}

#[tokio::test]
async fn rejected_connect_reports_proxy_message() {
    let (server, ca) = server();
    for (no, expected) in [
        (FORBIDDEN, "rejected the connection to CM: HTTP/1.1 403 Filtered"),
        (
            "HTTP/1.1 502 Bad Gateway\r\n\r\n",
            "rejected the connection to CM: HTTP/1.1 502 Bad Gateway",
        ),
        ("nonsense\r\n\r\n", "rejected the connection to CM: nonsense"),
        ("", "rejected the connection to CM: unexpected end of file"),
    ] {
        let middle = Middle::start("never", no);
        let remote = by_way(server.address, &ca, named(middle.url()));
        let refuses = UnavailableReason::Proxy(ProxyFault::ConnectRejected);
        let detail = assert_away(remote.record(record_id()).await, refuses);
        assert_eq!(detail, format!("the proxy {} {expected}", middle.address));
        assert_eq!(middle.seen().len(), 2, "asked once, and once more for its expected");
    }
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn a_proxy_that_takes_a_wrong_login_for_none_wants_one() {
    let (server, ca) = server();
    let middle = Middle::start("never", "HTTP/1.1 401 Unauthorized\r\n\r\n");
    let remote = by_way(server.address, &ca, named(middle.url()));
    assert_away(
        remote.record(record_id()).await,
        UnavailableReason::Proxy(ProxyFault::AuthRequired),
    );
}

#[tokio::test]
async fn a_proxy_that_keeps_silent_ends_with_the_connect_timeout() {
    let (server, ca) = server();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://localhost:{}", server.address.port());
    let proxy = named(format!("http://{}", silent.local_addr().unwrap()));
    let connect_timeout = Duration::from_millis(150);
    let ca_file = Some(ca.file());
    let remote =
        new_client(CmSettings { connect_timeout, ca_file, proxy, ..options(url) }).unwrap();
    let detail = assert_away(remote.record(record_id()).await, UnavailableReason::Unreachable);
    assert!(detail.contains("through the proxy 127.0.0.1:"), "{detail}");
}

#[tokio::test]
async fn certificate_error_is_reported_through_proxy() {
    let (server, _) = server();
    let middle = Middle::start("", FORBIDDEN);
    let remote = by_way(server.address, &Ca::named("another"), named(middle.url()));
    let unknown = UnavailableReason::Tls(TlsFault::UnknownIssuer);
    let detail = assert_away(remote.record(record_id()).await, unknown);
    assert!(detail.starts_with("no TLS with localhost:"), "{detail}");
}

#[tokio::test]
async fn a_proxy_with_tls_of_its_own_is_spoken_to_in_it() {
    let (server, ca) = server();
    let middle = Middle::listen("never", LOGIN, Some(config(&ca)));
    let url = format!("https://localhost:{}", middle.address.port());
    let remote = by_way(server.address, &ca, named(url.clone()));
    assert_away(
        remote.record(record_id()).await,
        UnavailableReason::Proxy(ProxyFault::AuthRequired),
    );
    assert!(middle.seen()[0].starts_with("CONNECT "), "{:?}", middle.seen());
    let remote = by_way(server.address, &Ca::named("another"), named(url));
    let unreachable = UnavailableReason::Proxy(ProxyFault::Unreachable);
    let detail = assert_away(remote.record(record_id()).await, unreachable);
    assert!(detail.starts_with("no TLS with the proxy localhost:"), "{detail}");
}

#[tokio::test]
async fn the_servers_certificate_is_known_through_a_proxy() {
    let (server, ca) = server();
    let middle = Middle::start("", FORBIDDEN);
    let options = CmSettings {
        proxy: named(middle.url()),
        ca_file: Some(ca.file()),
        ..options(format!("https://localhost:{}", server.address.port()))
    };
    let base = api::base_url(&options).unwrap();
    let transport = transport::HttpTransport::new(&base, &options, &Arc::default()).unwrap();
    let request = Request::new(Method::GET, base);
    let deadline = Instant::now() + options.timeout;
    let response = transport.execute(request, deadline).await.unwrap();
    assert!(transport.certificate_of(&response).unwrap().starts_with(b"\x30\x82"));
}

/// The steps of a connection through a proxy.
async fn step_by_step(remote: &CmClient) -> Result<TlsHandshake, CallError> {
    let check = remote.connection_check().unwrap();
    assert_eq!(Some(check.first_hop()), check.proxy());
    let (stream, _) = check.connect(&check.resolve(&check.first_hop()).await?).await?;
    Ok(check.handshake(check.open_tunnel(stream).await?).await)
}

#[tokio::test]
async fn the_steps_of_a_check_go_through_the_proxy_too() {
    let (server, ca) = server();
    let middle = Middle::start("", FORBIDDEN);
    let remote = by_way(server.address, &ca, named(middle.url()));
    let handshake = step_by_step(&remote).await.unwrap();
    assert_eq!((handshake.version.unwrap(), handshake.chain.len()), ("TLS 1.3", 1));
    let other = Ca::named("another");
    let stranger = by_way(server.address, &other, named(middle.url()));
    let handshake = step_by_step(&stranger).await.unwrap();
    let unknown = UnavailableReason::Tls(TlsFault::UnknownIssuer);
    assert_eq!(handshake.version.unwrap_err().unavailable_reason(), Some(unknown));
    assert_eq!(handshake.chain.len(), 1, "what is not believed is shown all the same");
}

#[tokio::test]
async fn connection_check_reports_proxy_message() {
    let (server, ca) = server();
    for (answer, fault, expected) in [
        (LOGIN, ProxyFault::AuthRequired, "407 Proxy Authentication Required"),
        (FORBIDDEN, ProxyFault::ConnectRejected, "403 Filtered"),
        ("", ProxyFault::ConnectRejected, "unexpected end of file"),
    ] {
        let middle = Middle::start("never", answer);
        let error = step_by_step(&by_way(server.address, &ca, named(middle.url()))).await;
        let detail = assert_away(error, UnavailableReason::Proxy(fault));
        assert!(detail.contains(expected), "{detail}");
    }
    let middle = Middle::listen("never", LOGIN, Some(config(&ca)));
    let url = format!("https://localhost:{}", middle.address.port());
    let error = step_by_step(&by_way(server.address, &ca, named(url))).await;
    assert_away(error, UnavailableReason::Proxy(ProxyFault::AuthRequired));
}

#[tokio::test]
async fn the_steps_of_a_check_blame_the_proxy_that_is_not_there_and_not_cms_address() {
    let unreachable = Some(UnavailableReason::Proxy(ProxyFault::Unreachable));
    let (server, ca) = server();
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let remote = by_way(server.address, &ca, named(format!("http://{gone}")));
    assert_eq!(step_by_step(&remote).await.unwrap_err().unavailable_reason(), unreachable);
    let remote = by_way(server.address, &ca, named("http://proxy.invalid:3128".to_owned()));
    assert_eq!(step_by_step(&remote).await.unwrap_err().unavailable_reason(), unreachable);
}

/// A proxy that speaks TLS, wants a certificate, and leads on: how many it was shown.
fn asking_proxy(
    ca: &Ca,
    versions: tls::Versions,
) -> (SocketAddr, Arc<std::sync::atomic::AtomicUsize>) {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let roots = Arc::new(ca.roots());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(roots, provider);
    let (chain, key) = ca.pair(&for_name("localhost"));
    let config = builder(versions)
        .with_client_cert_verifier(verifier.allow_unauthenticated().build().unwrap())
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    let shown = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&shown);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (acceptor, count) = (acceptor.clone(), Arc::clone(&count));
            tokio::spawn(async move {
                let mut from = acceptor.accept(stream).await?;
                let certificates = from.get_ref().1.peer_certificates().map_or(0, <[_]>::len);
                count.fetch_add(certificates, Ordering::SeqCst);
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(from.read_u8().await?);
                }
                let head = String::from_utf8_lossy(&head).into_owned();
                let target = head.split(' ').nth(1).unwrap_or_default();
                let mut to = tokio::net::TcpStream::connect(target).await?;
                from.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
                tokio::io::copy_bidirectional(&mut from, &mut to).await.map(drop)
            });
        }
    });
    (address, shown)
}

#[tokio::test]
async fn a_client_certificate_is_shown_to_the_server_and_not_to_a_proxy_that_wants_one() {
    for versions in tls::EACH_VERSION {
        let ca = Ca::new();
        let (proxy, shown) = asking_proxy(&ca, versions);
        // The server requires a certificate.
        let roots = Arc::new(ca.roots());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(roots, provider);
        let (chain, key) = ca.pair(&for_name("localhost"));
        let config = builder(versions)
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(chain, key)
            .unwrap();
        let server = Server::start_tls(config, cm(CARD));
        let (certificate, key) = ca.issue(&for_name("desk"));
        let dir = tempfile::tempdir().unwrap();
        let [cert_file, key_file] = ["cert", "key"].map(|name| dir.path().join(name));
        fs::write(&cert_file, certificate).unwrap();
        fs::write(&key_file, key.serialize_pem()).unwrap();
        let options = CmSettings {
            proxy: named(format!("https://localhost:{}", proxy.port())),
            ca_file: Some(ca.file()),
            client_certificate: Some(ClientCertSettings { cert_file, key_file }),
            ..options(format!("https://localhost:{}", server.address.port()))
        };
        let remote = new_client(options).unwrap();
        // Side by side, each on a connection of its own.
        remote.lookup(&identity()).await.unwrap();
        let handshake = step_by_step(&remote).await.unwrap();
        assert!(handshake.version.is_ok(), "{handshake:?}");
        assert_eq!(server.seen().len(), 3);
        assert_eq!(shown.load(std::sync::atomic::Ordering::SeqCst), 0, "{versions:?}");
    }
}
