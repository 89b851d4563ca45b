//! The forward proxy.

use cardbridge_harness::cm::{Certificate, Cm, CmOptions, Store};
use cardbridge_harness::proxy::{Proxy, ProxyOptions, available};
use cardbridge_harness::require;

use super::curl::{CARD, Curl};

/// A simulator with HTTPS, and a client that trusts it.
fn cm() -> (Cm, Curl) {
    let tls = Some(Certificate::Good);
    let options = CmOptions { tls, store: Store::seed(), ..CmOptions::default() };
    let cm = Cm::start(options).expect("the simulator starts");
    let curl = Curl::trusting(&cm.ca_pem_path().expect("a CA"));
    (cm, curl)
}

#[test]
fn proxy_relays_and_logs_calls() {
    require!(available());
    let (cm, curl) = cm();
    let mut proxy = Proxy::start(&ProxyOptions::default()).unwrap();
    let (address, url) = (proxy.url(), format!("{}{}", cm.url(), CARD));
    let through = ["--noproxy", "", "-x", &address];
    assert_eq!(curl.get(&url, &[]).unwrap().status, 200);
    assert!(proxy.requests().is_empty(), "that one went straight");
    assert_eq!(curl.get(&url, &through).unwrap().status, 200);
    assert_eq!(proxy.requests(), [format!("CONNECT {} HTTP/1.1", cm.address())]);
    proxy.stop().unwrap();
    assert!(curl.get(&url, &through).is_err());
    proxy.start_again().unwrap();
    assert_eq!(curl.get(&url, &through).unwrap().status, 200);
    let plain = Cm::seed().unwrap();
    let url = format!("{}{}", plain.url(), CARD);
    assert_eq!(curl.get(&url, &through).unwrap().status, 200);
    assert_eq!(proxy.requests().len(), 3);
    assert!(proxy.requests()[2].starts_with(&format!("GET {}/", plain.url())));
    assert_eq!(cm.log().len(), 3);
}

#[test]
fn a_proxy_with_credentials_refuses_strangers() {
    require!(available());
    let (cm, curl) = cm();
    let credentials = Some(("desk".to_owned(), "pass-word".to_owned()));
    let proxy = Proxy::start(&ProxyOptions { credentials }).unwrap();
    let (address, url) = (proxy.url(), format!("{}{}", cm.url(), CARD));
    let through = ["--noproxy", "", "-x", &address];
    let error = curl.get(&url, &through).unwrap_err();
    assert!(error.contains("407"), "{error}");
    let wrong = [&through[..], &["--proxy-user", "desk:guess"]].concat();
    assert!(curl.get(&url, &wrong).is_err());
    assert!(cm.log().is_empty());
    let right = [&through[..], &["--proxy-user", "desk:pass-word"]].concat();
    assert_eq!(curl.get(&url, &right).unwrap().status, 200);
}
