//! How the station is let in, and what is on the way.

use super::*;

fn auth(keys: &str) -> AuthSettings {
    settings(&format!("[cm.auth]\n{keys}")).cm.auth
}

fn reported(keys: &str) -> String {
    World::of(&format!("{MINIMAL}[cm.auth]\n{keys}")).lines().join("\n")
}

fn pair() -> ClientCertSettings {
    ClientCertSettings { cert_file: "/c.pem".into(), key_file: "/c.key".into() }
}

fn kerberos() -> KerberosSettings {
    KerberosSettings { keytab: "/k".into(), principal: None, spn: None, channel_bindings: true }
}

const PAIR: &str = "client_cert_file = \"/c.pem\"\nclient_key_file = \"/c.key\"\n";

#[test]
fn kerberos_needs_a_keytab_and_nothing_else() {
    let meant = AuthSettings::Negotiate(kerberos());
    assert_eq!(auth("method = \"negotiate\"\nkeytab = \"/k\""), meant);
    let keys = "method = \"negotiate\"\nkeytab = \"k\"\nprincipal = \"host/d@E\"\n\
                spn = \"HTTP/cm\"\nchannel_bindings = false";
    let meant = KerberosSettings {
        keytab: "k".into(),
        principal: Some("host/d@E".into()),
        spn: Some("HTTP/cm".into()),
        channel_bindings: false,
    };
    assert_eq!(auth(keys), AuthSettings::Negotiate(meant));
}

#[test]
fn a_token_endpoint_is_shown_a_secret_a_certificate_or_a_ticket() {
    let proof = |keys: &str| {
        let keys = format!(
            "method = \"oauth2\"\ntoken_url = \"https://adfs/adfs/oauth2/token\"\n\
             client_id = \"desk\"\n{keys}"
        );
        let AuthSettings::OAuth2(client) = auth(&keys) else { panic!("another method") };
        assert_eq!(client.token_url, "https://adfs/adfs/oauth2/token");
        client.proof
    };
    let secret = || ClientAuthSettings::Secret { file: "/s".into() };
    assert_eq!(proof("client_secret_file = \"/s\""), secret());
    assert_eq!(proof(&format!("client_secret_file = \"/s\"\n{PAIR}")), secret());
    assert_eq!(proof(PAIR), ClientAuthSettings::Assertion(pair()));
    assert_eq!(
        proof("use_windows_client_authentication = true\nkeytab = \"/k\""),
        ClientAuthSettings::Kerberos(kerberos())
    );
}

#[test]
fn a_client_certificate_comes_with_any_method() {
    for method in [
        "",
        "method = \"bearer\"\ntoken_file = \"/t\"\n",
        "method = \"negotiate\"\nkeytab = \"/k\"\n",
    ] {
        let settings = settings(&format!("[cm.auth]\n{method}{PAIR}"));
        assert_eq!(settings.cm.client_certificate, Some(pair()));
    }
    assert_eq!(settings("").cm.client_certificate, None);
}

#[test]
fn what_a_method_needs_is_missed_by_name() {
    assert_snapshot!(reported("method = \"negotiate\""), @r#"/etc/cardbridge/cardbridge.toml: cm.auth.keytab: is missing; write keytab = "/etc/cardbridge/station.keytab" in [cm.auth]"#);
    assert_snapshot!(reported("method = \"bearer\""), @r#"/etc/cardbridge/cardbridge.toml: cm.auth.token_file: is missing; write token_file = "/etc/cardbridge/cm-token" in [cm.auth]"#);
    assert_snapshot!(reported("method = \"oauth2\""), @r#"
/etc/cardbridge/cardbridge.toml: cm.auth.token_url: is missing; write token_url = "https://adfs.example.com/adfs/oauth2/token" in [cm.auth]
/etc/cardbridge/cardbridge.toml: cm.auth.client_id: is missing; write client_id = "cardbridge-desk-3" in [cm.auth]
/etc/cardbridge/cardbridge.toml: cm.auth.client_secret_file: is missing; write client_secret_file = "/etc/cardbridge/client-secret" in [cm.auth]
"#);
    assert_snapshot!(reported("client_cert_file = \"/c\""), @r#"/etc/cardbridge/cardbridge.toml: cm.auth.client_key_file: is missing; write client_key_file = "/etc/cardbridge/client.key" in [cm.auth]"#);
    assert_snapshot!(reported("client_key_file = \"/c\""), @r#"/etc/cardbridge/cardbridge.toml: cm.auth.client_cert_file: is missing; write client_cert_file = "/etc/cardbridge/client.pem" in [cm.auth]"#);
}

#[test]
fn keys_of_another_method_are_refused_with_the_methods_that_they_belong_to() {
    assert_snapshot!(reported("token_file = \"/t\""), @r#"/etc/cardbridge/cardbridge.toml: cm.auth.token_file: has no effect while cm.auth.method is "none"; write method = "bearer", or remove it"#);
    assert_snapshot!(reported("method = \"negotiate\"\nkeytab = \"/k\"\nclient_id = \"x\""), @r#"/etc/cardbridge/cardbridge.toml: cm.auth.client_id: has no effect while cm.auth.method is "negotiate"; write method = "oauth2", or remove it"#);
    assert_snapshot!(reported("method = \"oauth2\"\ntoken_url = \"https://a/b\"\nclient_id = \"x\"\nclient_secret_file = \"/s\"\nkeytab = \"/k\""), @"/etc/cardbridge/cardbridge.toml: cm.auth.keytab: has no effect while cm.auth.use_windows_client_authentication is false; set that to true, or remove it");
    assert_snapshot!(reported("method = \"oauth2\"\ntoken_url = \"https://a/b\"\nclient_id = \"x\"\nclient_secret_file = \"/s\"\nuse_windows_client_authentication = true"), @"/etc/cardbridge/cardbridge.toml: cm.auth.client_secret_file: has no effect while cm.auth.use_windows_client_authentication is true; remove one of the two");
    assert_snapshot!(reported("method = \"ntlm\""), @r#"/etc/cardbridge/cardbridge.toml: cm.auth.method: "ntlm" is not known here; use one of negotiate, oauth2, bearer, none"#);
    assert_snapshot!(reported("method = \"negotiate\"\nkeytab = \"/k\"\nspn = \"cm.example.com\""), @r#"/etc/cardbridge/cardbridge.toml: cm.auth.spn: is no service principal name; write it like "HTTP/cm.example.com""#);
}

#[test]
fn a_token_endpoint_is_encrypted_or_on_this_machine() {
    let url = |url: &str| {
        World::of(&format!(
            "{MINIMAL}[cm.auth]\nmethod = \"oauth2\"\nclient_id = \"x\"\nclient_secret_file = \"/s\"\n\
             token_url = {url:?}"
        ))
        .parse()
        .map_err(|problems| problems.to_string())
    };
    for good in ["https://adfs/adfs/oauth2/token", "http://localhost:8080/t", "http://[::1]/t"] {
        assert!(url(good).is_ok(), "{good}");
    }
    for bad in [
        "http://adfs/adfs/oauth2/token",
        "https://adfs",
        "https://adfs/",
        "https://adfs/token?x=y",
        "https://adfs/token#x",
        "https://adfs/to ken",
        "ftp://adfs/token",
        "adfs/token",
    ] {
        let problems = url(bad).unwrap_err();
        assert!(problems.contains("cm.auth.token_url: "), "{bad}: {problems}");
    }
    let problems = url("https://user:hunter2@adfs/token").unwrap_err();
    assert!(!problems.contains("hunter2"), "{problems}");
}

fn proxy(keys: &str) -> Result<ProxySettings, String> {
    let parsed = World::of(&format!("{MINIMAL}{keys}")).parse();
    parsed.map(|loaded| loaded.settings.cm.proxy).map_err(|problems| problems.to_string())
}

#[test]
fn a_proxy_is_named_switched_off_or_left_to_the_environment() {
    let credentials_file = Some("/p".into());
    assert_eq!(proxy(""), Ok(ProxySettings::Environment { credentials_file: None }));
    assert_eq!(proxy("proxy = \"none\""), Ok(ProxySettings::None));
    let environment = ProxySettings::Environment { credentials_file: credentials_file.clone() };
    assert_eq!(proxy("proxy_credentials_file = \"/p\""), Ok(environment));
    for url in
        ["http://proxy:3128", "https://proxy", "http://[2001:db8::1]:8080", "http://10.0.0.1"]
    {
        let named =
            |credentials_file| ProxySettings::Named { url: url.to_owned(), credentials_file };
        assert_eq!(proxy(&format!("proxy = {url:?}")), Ok(named(None)));
        let both = format!("proxy = {url:?}\nproxy_credentials_file = \"/p\"");
        assert_eq!(proxy(&both), Ok(named(credentials_file.clone())));
    }
}

#[test]
fn what_names_no_proxy_is_refused() {
    assert_snapshot!(line_of("proxy = \"proxy:3128\""), @r#"/etc/cardbridge/cardbridge.toml: cm.proxy: "proxy:3128" is not the address of a proxy; write it like "http://proxy.example.com:3128", or "none""#);
    assert_snapshot!(line_of("proxy = \"socks5://proxy:1080\""), @r#"/etc/cardbridge/cardbridge.toml: cm.proxy: "socks5://proxy:1080" is not the address of a proxy; write it like "http://proxy.example.com:3128", or "none""#);
    assert_snapshot!(line_of("proxy = \"http://proxy:3128/path\""), @r#"/etc/cardbridge/cardbridge.toml: cm.proxy: "http://proxy:3128/path" is not the address of a proxy; write it like "http://proxy.example.com:3128", or "none""#);
    assert_snapshot!(line_of("proxy = \"http://me:hunter2@proxy:3128\""), @"/etc/cardbridge/cardbridge.toml: cm.proxy: has a user name or a password in it; remove everything up to the @, and see cm.proxy_credentials_file");
    assert_snapshot!(line_of("proxy = \"None\""), @r#"/etc/cardbridge/cardbridge.toml: cm.proxy: "None" is not the address of a proxy; write it like "http://proxy.example.com:3128", or "none""#);
    assert_snapshot!(line_of("proxy = \"none\"\nproxy_credentials_file = \"/p\""), @r#"/etc/cardbridge/cardbridge.toml: cm.proxy_credentials_file: has no effect while cm.proxy is "none"; name a proxy in cm.proxy, or remove this"#);
}

fn line_of(keys: &str) -> String {
    proxy(keys).unwrap_err()
}

#[test]
fn every_file_that_a_key_names_is_among_the_named_files() {
    let text = format!(
        "{MINIMAL}ca_file = \"/ca\"\nproxy_credentials_file = \"/p\"\n\
         [cm.auth]\nkeytab = \"/k\"\ntoken_file = \"/t\"\nclient_secret_file = \"s\"\n{PAIR}"
    );
    let World { sources, environment } = World::of(&text);
    let inputs =
        ConfigInputs { sources: &sources, environment: &environment, ..ConfigInputs::default() };
    let named = named_files(&inputs);
    let mut paths: Vec<_> = named.iter().map(|file| file.path.as_str()).collect();
    paths.sort_unstable();
    assert_eq!(paths, ["/c.key", "/c.pem", "/ca", "/k", "/p", "/t", "s"]);
    let files =
        KEYS.iter().filter(|key| key.meaning.contains("File") || key.meaning.contains("file"));
    let files = files.filter(|key| !key.path.starts_with("outbox"));
    for key in files.chain(KEYS.iter().filter(|key| key.path == "cm.auth.keytab")) {
        assert!(named.iter().any(|file| file.key == key.path), "{}", key.path);
    }
}
