//! The simulator's own HTTPS: client certificates, and IPv6.

use std::net::{Ipv6Addr, SocketAddr};

use cardbridge_harness::cm::{Certificate, ClientCertificates, Cm, CmOptions, Store};
use cardbridge_harness::pki::{Authority, Identity, Signing};
use cardbridge_harness::require;

use super::curl::{CARD, Curl, Reply};

fn start(options: CmOptions) -> (Cm, Curl) {
    let tls = Some(Certificate::Good);
    let cm = Cm::start(CmOptions { tls, store: Store::seed(), ..options }).expect("it starts");
    let curl = Curl::trusting(&cm.ca_pem_path().expect("a CA"));
    (cm, curl)
}

fn get(cm: &Cm, curl: &Curl, identity: Option<&Identity>) -> Result<Reply, String> {
    let arguments = identity.map(|identity| curl.identity(identity)).unwrap_or_default();
    let arguments: Vec<&str> =
        arguments.iter().map(String::as_str).filter(|text| !text.is_empty()).collect();
    curl.get(&format!("{}{CARD}", cm.url()), &arguments)
}

#[test]
fn client_certificate_thumbprint_is_logged() {
    for (client_certificates, bare) in [
        (ClientCertificates::NotAsked, true),
        (ClientCertificates::Wanted, true),
        (ClientCertificates::Needed, false),
    ] {
        let (cm, curl) = start(CmOptions { client_certificates, ..CmOptions::default() });
        assert_eq!(get(&cm, &curl, None).is_ok(), bare, "{client_certificates:?}");
        let me = cm.client("desk-3").unwrap();
        let reply = get(&cm, &curl, Some(&me)).unwrap();
        assert_eq!(reply.status, 200);
        let asked = client_certificates != ClientCertificates::NotAsked;
        let shown = asked.then(|| hex::encode(me.thumbprint()));
        assert_eq!(cm.log().last().unwrap().client_certificate, shown);
        if asked {
            let stranger = Authority::new("Stranger", Signing::default()).unwrap();
            let error = get(&cm, &curl, Some(&stranger.client("desk-3").unwrap())).unwrap_err();
            assert!(error.contains("alert"), "{error}");
        }
    }
}

#[test]
fn an_expired_client_certificate_is_refused() {
    let client_certificates = ClientCertificates::Needed;
    let (cm, curl) = start(CmOptions { client_certificates, ..CmOptions::default() });
    let error = get(&cm, &curl, Some(&cm.expired_client("desk-3").unwrap())).unwrap_err();
    assert!(error.contains("expired"), "{error}");
    assert!(cm.log().is_empty());
}

#[test]
fn the_simulator_listens_on_ipv6() {
    require!(require::ipv6());
    let listen = SocketAddr::from((Ipv6Addr::LOCALHOST, 0));
    let (cm, curl) = start(CmOptions { listen, ..CmOptions::default() });
    assert!(cm.url().starts_with("https://[::1]:"), "{}", cm.url());
    assert_eq!(get(&cm, &curl, None).unwrap().status, 200);
    cm.go_away().unwrap();
    assert!(get(&cm, &curl, None).is_err());
    cm.come_back().unwrap();
    assert_eq!(get(&cm, &curl, None).unwrap().status, 200);
}
