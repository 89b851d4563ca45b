use std::fs;

use super::*;

const CM: &str = "https://cm.example.com";

fn url(text: &str) -> Url {
    text.parse().unwrap()
}

fn on_the_way(
    server: &str,
    proxy: &ProxySettings,
    variables: &[(&str, &str)],
) -> Result<Option<ProxyRoute>, Problem> {
    ProxyRoute::find(&url(server), proxy, |name| {
        let set = variables.iter().find(|(known, _)| *known == name);
        set.map(|(_, value)| OsString::from(value))
    })
}

/// The proxy that these variables put on the way to a server.
fn by_environment(server: &str, variables: &[(&str, &str)]) -> Option<String> {
    let environment = ProxySettings::Environment { credentials_file: None };
    on_the_way(server, &environment, variables).unwrap().map(|proxy| proxy.url.to_string())
}

fn named(url: &str) -> ProxySettings {
    ProxySettings::Named { url: url.to_owned(), credentials_file: None }
}

#[test]
fn the_environment_decides_as_for_curl() {
    for (variables, meant) in [
        (&[("HTTPS_PROXY", "http://upper:1")][..], Some("http://upper:1/")),
        (
            &[("https_proxy", "http://lower:1"), ("HTTPS_PROXY", "http://upper:1")],
            Some("http://lower:1/"),
        ),
        (&[("all_proxy", "http://all:1")], Some("http://all:1/")),
        (
            &[("ALL_PROXY", "http://all:1"), ("HTTPS_PROXY", "http://upper:1")],
            Some("http://upper:1/"),
        ),
        (&[("https_proxy", ""), ("HTTPS_PROXY", "http://upper:1")], Some("http://upper:1/")),
        (&[("HTTPS_PROXY", "bare:3128")], Some("http://bare:3128/")),
        (&[("HTTPS_PROXY", "https://tls:3129/")], Some("https://tls:3129/")),
        (&[("HTTP_PROXY", "http://other:1"), ("http_proxy", "http://other:1")], None),
        (&[("HTTPS_PROXY", "http://p:1"), ("NO_PROXY", "example.com")], None),
        (&[("HTTPS_PROXY", "socks5://p:1"), ("no_proxy", "*")], None),
        (
            &[("HTTPS_PROXY", "http://p:1"), ("no_proxy", "other"), ("NO_PROXY", "example.com")],
            Some("http://p:1/"),
        ),
        (&[], None),
    ] {
        assert_eq!(by_environment(CM, variables).as_deref(), meant, "{variables:?}");
    }
}

#[test]
fn plain_http_and_proxy_none_use_no_proxy() {
    let variables = [("HTTPS_PROXY", "http://p:1"), ("ALL_PROXY", "socks5://p:1")];
    assert_eq!(by_environment("http://localhost:8080", &variables), None);
    assert!(on_the_way("http://127.0.0.1", &named("http://p:1"), &[]).unwrap().is_none());
    assert!(on_the_way(CM, &ProxySettings::None, &variables).unwrap().is_none());
}

#[test]
fn a_named_proxy_counts_whatever_the_environment_says() {
    let variables = [("HTTPS_PROXY", "http://other:1"), ("NO_PROXY", "*")];
    let proxy = on_the_way(CM, &named("http://proxy:3128"), &variables).unwrap().unwrap();
    assert_eq!(proxy.name(), "proxy:3128");
    let proxy = on_the_way(CM, &named("https://proxy"), &[]).unwrap().unwrap();
    assert_eq!(proxy.name(), "proxy:443");
}

#[test]
fn invalid_proxy_variable_is_reported_without_value() {
    let environment = ProxySettings::Environment { credentials_file: None };
    for value in [
        "socks5://me:hunter2@p:1",
        "ftp://me:hunter2@p",
        "http://",
        "http://me:hunter2@p:1/path",
        "http://me:hunter2@p:99999",
        "http://p:1?hunter2",
        "://hunter2",
    ] {
        let Err(error) = on_the_way(CM, &environment, &[("HTTPS_PROXY", value)]) else {
            panic!("{value} was taken");
        };
        assert!(error.what.starts_with("invalid proxy in HTTPS_PROXY: "), "{error:?}");
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
        assert!(error.remedy.contains("cm.proxy"));
    }
}

#[test]
fn a_proxy_is_not_asked_for_an_ipv6_address() {
    let error = on_the_way("https://[2001:db8::1]", &named("http://p:1"), &[]).err().unwrap();
    assert!(error.to_string().contains("write CM's name in cm.url"), "{error}");
}

/// What `Proxy-Authorization` says, decoded.
fn login(proxy: &ProxyRoute) -> String {
    let header = proxy.login().unwrap().unwrap();
    assert!(header.is_sensitive());
    let encoded = header.to_str().unwrap().strip_prefix("Basic ").unwrap().to_owned();
    String::from_utf8(STANDARD.decode(encoded).unwrap()).unwrap()
}

#[test]
fn user_and_password_come_from_the_file_or_from_the_environments_address() {
    let variables = [("HTTPS_PROXY", "http://me:p%40ss%3aw%6Frd%@p:1")];
    let environment = ProxySettings::Environment { credentials_file: None };
    let proxy = on_the_way(CM, &environment, &variables).unwrap().unwrap();
    assert_eq!(login(&proxy), "me:p@ss:word%");
    assert_eq!(proxy.url.as_str(), "http://p:1/");

    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("proxy");
    fs::write(&file, "desk:100% s3:cret \u{fc}\r\n").unwrap();
    let environment = ProxySettings::Environment { credentials_file: Some(file.clone()) };
    let proxy = on_the_way(CM, &environment, &variables).unwrap().unwrap();
    assert_eq!(login(&proxy), "desk:100% s3:cret \u{fc}");
    fs::write(&file, "desk:other").unwrap();
    assert_eq!(login(&proxy), "desk:other");
    let plain = on_the_way(CM, &named("http://p:1"), &[]).unwrap().unwrap();
    assert_eq!(plain.login(), Ok(None));
}

#[test]
fn proxy_file_without_login_is_reported_unquoted() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("proxy");
    let proxy =
        ProxySettings::Named { url: "http://p:1".to_owned(), credentials_file: Some(file.clone()) };
    let proxy = on_the_way(CM, &proxy, &[]).unwrap().unwrap();
    for content in [None, Some("hunter2"), Some(":hunter2"), Some("me:hunter2\nx:y"), Some("")] {
        if let Some(content) = content {
            fs::write(&file, content).unwrap();
        }
        match proxy.login() {
            Err(CallError::Unavailable {
                reason: UnavailableReason::Credentials, detail, ..
            }) => {
                assert!(detail.contains(file.to_str().unwrap()), "{detail}");
                assert!(!detail.contains("hunter2"), "{detail}");
            }
            other => panic!("{content:?}: {other:?}"),
        }
    }
}

#[test]
fn a_name_covers_itself_and_what_ends_in_it() {
    for list in ["example.com", ".example.com", "a, EXAMPLE.com.", "x example.com,y"] {
        for host in ["example.com", "cm.example.com", "CM.Example.Com."] {
            assert!(no_proxy_covers(list, host), "{list} {host}");
        }
        for host in ["notexample.com", "example.com.evil", "com", "10.0.0.1"] {
            assert!(!no_proxy_covers(list, host), "{list} {host}");
        }
    }
}

#[test]
fn an_address_covers_itself_and_a_network_what_is_in_it() {
    for (list, host) in [
        ("10.0.0.1", "10.0.0.1"),
        ("192.168.0.0/16", "192.168.7.9"),
        ("10.0.0.0/0", "8.8.8.8"),
        ("::1", "[::1]"),
        ("[::1]", "[::1]"),
        ("2001:db8::/32", "[2001:db8:1::9]"),
    ] {
        assert!(no_proxy_covers(list, host), "{list} {host}");
    }
    for (list, host) in [
        ("10.0.0.1", "10.0.0.10"),
        ("192.168.0.0/16", "192.169.0.1"),
        ("0.0.0.1", "[::1]"),
        ("2001:db8::/32", "[2001:db9::1]"),
        ("10.0.0.0/x", "10.0.0.0"),
        ("0.0.1", "10.0.0.1"),
    ] {
        assert!(!no_proxy_covers(list, host), "{list} {host}");
    }
}

#[test]
fn an_asterisk_alone_covers_everything_and_nothing_covers_nothing() {
    for host in ["cm.example.com", "10.0.0.1", "[::1]"] {
        assert!(no_proxy_covers(" * ", host));
        assert!(
            !no_proxy_covers("", host)
                && !no_proxy_covers(" , ", host)
                && !no_proxy_covers(".", host)
        );
        assert!(!no_proxy_covers("*.example.com", host));
    }
}
