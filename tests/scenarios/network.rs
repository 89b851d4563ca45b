//! What stands between the station and CM: proxies, client certificates, sessions, addresses.

use std::net::{Ipv6Addr, SocketAddr};
use std::path::Path;

use cardbridge_harness::apache::{self, Apache, ApacheOptions, ClientCertificate, TlsVersion};
use cardbridge_harness::cards::GidsCard;
use cardbridge_harness::cm::{Certificate, ClientCertificates, Cm, Fault};
use cardbridge_harness::pki::Identity;
use cardbridge_harness::proxy::{self, Proxy, ProxyOptions};
use serde_json::Value;
use tempfile::TempDir;

use super::*;

/// A CM with TLS, which knows the seed's card.
fn with_tls() -> CmOptions {
    CmOptions { tls: Some(Certificate::Good), store: Store::seed(), ..CmOptions::default() }
}

/// A string of the configuration.
fn quoted(text: &str) -> String {
    format!("{text:?}")
}

/// The station's client certificate in two files, and a world that shows it.
fn showing(world: WorldBuilder, identity: &Identity) -> (WorldBuilder, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = (dir.path().join("client.pem"), dir.path().join("client.key"));
    identity.write(&cert, &key).unwrap();
    let file = |path: &Path| quoted(path.to_str().unwrap());
    let world = world.config_set("cm.auth.client_cert_file", &file(&cert));
    (world.config_set("cm.auth.client_key_file", &file(&key)), dir)
}

/// Inserts the seed's card, which is then retired.
fn updates(world: &World) {
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["updated"]);
    assert_eq!(status(world), RETIRED);
}

/// Waits until CM is away for this reason, and returns what `status` shows.
fn away(world: &World, reason: &str) -> Value {
    let state = || world.cli(&["status", "--json"]).unwrap().json().unwrap()["cm"].clone();
    world.wait_until("CM away", LONG, || state()["reason"] == reason).unwrap();
    state()
}

fn text_of(away: &Value, part: &str) -> String {
    away[part].as_str().unwrap_or_else(|| panic!("no {part} in {away}")).to_owned()
}

/// A proxy, unless this machine cannot have one.
fn start_proxy(credentials: Option<(&str, &str)>) -> Result<Proxy, String> {
    proxy::available()?;
    let credentials = credentials.map(|(user, password)| (user.to_owned(), password.to_owned()));
    Ok(Proxy::start(&ProxyOptions { credentials }).unwrap())
}

#[test]
fn configured_proxy_updates_card() {
    let world = require!(world());
    let proxy = require!(start_proxy(None));
    let world = world.cm(with_tls()).config_set("cm.proxy", &quoted(&proxy.url())).start().unwrap();
    updates(&world);
    let call = format!("CONNECT {} HTTP/1.1", world.cm.address());
    let requests = proxy.requests();
    assert!(
        !requests.is_empty() && requests.iter().all(|request| *request == call),
        "{requests:?}"
    );
    world.finish().unwrap();
}

#[test]
fn environment_proxy_is_used_except_no_proxy_hosts() {
    let first = require!(world());
    let proxy = require!(start_proxy(None));
    let first = first.cm(with_tls()).env("HTTPS_PROXY", proxy.url()).start().unwrap();
    updates(&first);
    assert!(!proxy.requests().is_empty());
    first.finish().unwrap();

    let second = require!(world());
    let (asked, closed) = (proxy.requests().len(), "http://127.0.0.1:9");
    let second = second.cm(with_tls()).env("https_proxy", closed).env("NO_PROXY", "127.0.0.0/8");
    let second = second.start().unwrap();
    updates(&second);
    assert_eq!(proxy.requests().len(), asked);
    second.finish().unwrap();
}

#[test]
fn proxy_login_succeeds_after_file_is_corrected() {
    let credentials = Some(("desk", "s3cret-of-the-proxy"));
    let world = require!(world());
    let proxy = require!(start_proxy(credentials));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("proxy");
    std::fs::write(&file, "desk:wrong-password\n").unwrap();
    let world = world
        .cm(with_tls())
        .config_set("cm.proxy", &quoted(&proxy.url()))
        .config_set("cm.proxy_credentials_file", &quoted(file.to_str().unwrap()))
        .config_set("log.level", "\"trace\"")
        .start()
        .unwrap();
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    let why = away(&world, "proxy");
    let wanted = format!("the proxy {} requires a login", proxy.address());
    assert!(text_of(&why, "detail").starts_with(&wanted), "{why}");
    assert!(text_of(&why, "remedy").contains("cm.proxy_credentials_file"), "{why}");
    let check = world.cli(&["check"]).unwrap();
    assert_eq!(check.code, Some(4), "{check:?}");
    assert!(check.stdout.contains(&wanted), "{}", check.stdout);

    std::fs::write(&file, "desk:s3cret-of-the-proxy\n").unwrap();
    assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["updated"]);
    let check = world.cli(&["check"]).unwrap();
    assert_eq!(check.code, Some(0), "{check:?}");
    for text in [world.daemon_log(), check.stdout] {
        for secret in ["s3cret-of-the-proxy", "wrong-password", "ZGVzazp"] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
    }
    world.finish().unwrap();
}

#[test]
fn lost_proxy_is_distinguished_from_lost_cm() {
    let world = require!(world());
    let mut proxy = require!(start_proxy(None));
    let world = world.cm(with_tls()).config_set("cm.proxy", &quoted(&proxy.url())).start().unwrap();
    world.cm.go_away().unwrap();
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    let why = away(&world, "proxy");
    let rejected = format!("the proxy {} rejected the connection to CM", proxy.address());
    assert!(text_of(&why, "detail").starts_with(&rejected), "{why}");
    proxy.stop().unwrap();
    world.cm.come_back().unwrap();
    let gone = format!("no connection to the proxy {}", proxy.address());
    world
        .wait_until("the proxy is gone", LONG, || {
            text_of(&away(&world, "proxy"), "detail").starts_with(&gone)
        })
        .unwrap();
    proxy.start_again().unwrap();
    assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["updated"]);
    world.finish().unwrap();
}

#[test]
fn client_certificate_in_handshake_is_accepted() {
    let world = require!(world());
    let client_certificates = ClientCertificates::Needed;
    let cm = Cm::start(CmOptions { client_certificates, ..with_tls() }).unwrap();
    let me = cm.client("desk-3").unwrap();
    let (world, _files) = showing(world, &me);
    let world = world.running_cm(cm).start().unwrap();
    updates(&world);
    let shown = hex::encode(me.thumbprint());
    assert!(world.cm.log().iter().all(|call| call.client_certificate.as_ref() == Some(&shown)));
    world.finish().unwrap();
}

#[test]
fn required_client_certificate_is_sent_after_reload() {
    let world = require!(world());
    let client_certificates = ClientCertificates::Needed;
    let cm = Cm::start(CmOptions { client_certificates, ..with_tls() }).unwrap();
    let me = cm.client("desk-3").unwrap();
    let world = world.running_cm(cm).start().unwrap();
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    let why = away(&world, "client-certificate");
    assert!(
        text_of(&why, "detail").contains("wants a client certificate, and there is none"),
        "{why}"
    );
    assert!(text_of(&why, "remedy").contains("cm.auth.client_cert_file"), "{why}");
    let (cert, key) = (world.dir().join("client.pem"), world.dir().join("client.key"));
    me.write(&cert, &key).unwrap();
    let config = std::fs::read_to_string(world.config_path()).unwrap();
    let keys = format!("[cm.auth]\nclient_cert_file = {cert:?}\nclient_key_file = {key:?}\n");
    let config = config.replace("[cm.auth]\n", &keys);
    assert!(config.contains(&keys), "{config}");
    std::fs::write(world.config_path(), config).unwrap();
    world.reload_daemon().unwrap();
    assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["updated"]);
    world.finish().unwrap();
}

/// A world before an Apache that wants client certificates like this, and the station's.
fn behind_apache(
    version: TlsVersion,
    client_certificate: ClientCertificate,
) -> Result<(WorldBuilder, Apache), String> {
    let world = world()?;
    apache::available()?;
    let cm = Cm::seed().unwrap();
    let tls = Some(version);
    let options = ApacheOptions { tls, client_certificate, ..ApacheOptions::before(cm.address()) };
    let apache = Apache::start(&options).unwrap();
    let world = world.running_cm(cm).cm_url(&apache.url()).ca_file(&apache.ca_pem());
    Ok((world, apache))
}

#[test]
fn apache_accepts_client_certificate() {
    for version in [TlsVersion::Tls12, TlsVersion::Tls13] {
        let (world, apache) = require!(behind_apache(version, ClientCertificate::WholeSite));
        let (world, _files) = showing(world, &apache.client("desk-3").unwrap());
        let world = world.start().unwrap();
        updates(&world);
        world.finish().unwrap();
    }
}

/// A server that asks for the certificate once it knows the call: by renegotiation in TLS 1.2, and
/// after the handshake in TLS 1.3. Neither can be answered, and the cure is reported.
#[test]
fn late_certificate_request_is_reported_with_remedy() {
    for version in [TlsVersion::Tls12, TlsVersion::Tls13] {
        let (world, apache) = require!(behind_apache(version, ClientCertificate::PerPath));
        let (world, _files) = showing(world, &apache.client("desk-3").unwrap());
        let world = world.start().unwrap();
        let _card = world.insert(0, GidsCard::seed()).unwrap();
        let why = away(&world, "client-certificate");
        let command = "netsh http update sslcert ipport=0.0.0.0:443 certhash=HASH appid={GUID} \
                       clientcertnegotiation=enable";
        assert!(text_of(&why, "remedy").contains(command), "{version:?}: {why}");
        assert!(text_of(&why, "remedy").contains("netsh http show sslcert"), "{version:?}: {why}");
        let waiting = world.cli(&["status"]).unwrap().stdout;
        assert!(waiting.contains("1 waiting"), "{waiting}");
        assert_eq!(world.outcomes().unwrap(), [""; 0], "no card is parked for it");
        world.finish().unwrap();
    }
}

#[test]
fn late_certificate_request_without_certificate_is_reported() {
    for version in [TlsVersion::Tls12, TlsVersion::Tls13] {
        let (world, _apache) = require!(behind_apache(version, ClientCertificate::PerPath));
        let world = world.start().unwrap();
        let _card = world.insert(0, GidsCard::seed()).unwrap();
        let why = away(&world, "client-certificate");
        assert!(text_of(&why, "remedy").contains("cm.auth.client_cert_file"), "{version:?}: {why}");
        world.finish().unwrap();
    }
}

#[test]
fn iis_certificate_errors_park_no_entry() {
    let world = require!(world()).start().unwrap();
    for sub in [7, 13, 16, 17] {
        world.cm.set_fault(Fault::IisError { status: 403, substatus: Some(sub) });
        let card = world.insert(0, GidsCard::seed()).unwrap();
        let name = format!("403.{sub}");
        world
            .wait_until("IIS's message", LONG, || {
                text_of(&away(&world, "client-certificate"), "detail").contains(&name)
            })
            .unwrap();
        drop(card);
        world.cm.clear_faults();
    }
    updates_once_more(&world);
    world.finish().unwrap();
}

/// What waited goes through; the card that was inserted again and again has one update.
fn updates_once_more(world: &World) {
    let updated = || world.outcomes().unwrap().iter().any(|outcome| outcome == "updated");
    world.wait_until("the update", LONG, updated).unwrap();
    let parked = world.outcomes().unwrap().iter().any(|outcome| outcome == "parked");
    assert!(!parked);
    assert_eq!(status(world), RETIRED);
}

#[test]
fn too_long_request_parks_no_entry() {
    let world = require!(world()).start().unwrap();
    world.cm.set_fault(Fault::HeadTooLong { bytes: 20 });
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    let why = away(&world, "request-too-large");
    assert!(text_of(&why, "remedy").contains("MaxFieldLength and MaxRequestBytes"), "{why}");
    world.cm.clear_faults();
    updates_once_more(&world);
    world.finish().unwrap();
}

#[test]
fn a_session_that_cm_needs_is_kept() {
    let world = require!(world()).start().unwrap();
    world.cm.set_fault(Fault::SessionCookie);
    updates(&world);
    let calls = world.cm.log().len();
    // Each of the first calls, made side by side, may begin a session; no later one does.
    let refused = world.cm.log().iter().filter(|call| call.status == Some(401)).count();
    assert!(refused <= 3, "{refused} of {calls}\n{}", world.cm.story());
    world.finish().unwrap();
}

#[test]
fn cm_is_reached_by_an_ipv6_address() {
    require!(require::ipv6());
    let listen = SocketAddr::from((Ipv6Addr::LOCALHOST, 0));
    let world = require!(world()).cm(CmOptions { listen, ..with_tls() }).start().unwrap();
    assert!(world.cm.url().starts_with("https://[::1]:"));
    updates(&world);
    world.finish().unwrap();
}

#[test]
fn server_certificate_problems_are_reported_with_remedies() {
    for (certificate, message, remedy) in [
        (Certificate::WrongName, "not valid for name", "use a host name in cm.url"),
        (Certificate::Expired, "certificate expired", "renew the server certificate"),
    ] {
        let world = require!(world());
        let tls = Some(certificate);
        let world = world.cm(CmOptions { tls, ..with_tls() }).start().unwrap();
        let _card = world.insert(0, GidsCard::seed()).unwrap();
        let why = away(&world, "tls");
        assert!(text_of(&why, "detail").contains(message), "{why}");
        assert!(text_of(&why, "remedy").contains(remedy), "{why}");
        world.finish().unwrap();
    }
}
