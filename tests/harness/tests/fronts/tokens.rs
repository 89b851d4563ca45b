//! The token endpoint, called by curl with assertions that openssl signed.

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cardbridge_harness::apache::{self, Apache, ApacheOptions, Negotiate};
use cardbridge_harness::cm::{
    ClientProof, Cm, CmOptions, Fault, Store, TOKEN_PATH, TokenRequest, Tokens,
};
use cardbridge_harness::kdc;
use cardbridge_harness::pki::{Authority, Identity, Signing};
use cardbridge_harness::process::wait_until;
use cardbridge_harness::require;
use serde_json::{Value, json};

use super::curl::{CARD, Curl, Reply};
use super::{AGENT, realm};

const RESOURCE: &str = "urn:cm";
const SECRET: &str = "s3cret &+%/=ü";
const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// A CM whose AD FS is another server.
struct Site {
    tokens: Tokens,
    adfs: Cm,
    cm: Cm,
    curl: Curl,
}

fn site() -> Site {
    let tokens = Tokens::new(RESOURCE);
    tokens.register_secret("agent", SECRET);
    let start = |store| {
        let tokens = Some(tokens.clone());
        Cm::start(CmOptions { tokens, store, ..CmOptions::default() }).expect("it starts")
    };
    let (adfs, cm) = (start(Store::default()), start(Store::seed()));
    Site { tokens, adfs, cm, curl: Curl::default() }
}

impl Site {
    fn ask_at(&self, url: &str, form: &[(&str, &str)], more: &[&str]) -> Reply {
        let fields = form
            .iter()
            .flat_map(|(name, value)| ["--data-urlencode".to_owned(), format!("{name}={value}")]);
        let fields: Vec<String> = fields.collect();
        let arguments: Vec<&str> =
            fields.iter().map(String::as_str).chain(more.iter().copied()).collect();
        self.curl.get(&format!("{url}{TOKEN_PATH}"), &arguments).expect("an answer")
    }

    fn ask(&self, form: &[(&str, &str)]) -> Reply {
        self.ask_at(&self.adfs.url(), form, &[])
    }

    /// Asks for a token for CM, with more fields.
    fn ask_with(&self, more: &[(&str, &str)]) -> Reply {
        let base =
            [("grant_type", "client_credentials"), ("client_id", "agent"), ("resource", RESOURCE)];
        self.ask(&[&base, more].concat())
    }

    fn enter(&self, token: &str) -> Reply {
        let header = format!("Authorization: Bearer {token}");
        self.curl.get(&format!("{}{CARD}", self.cm.url()), &["-H", &header]).expect("an answer")
    }

    fn last(&self) -> TokenRequest {
        self.tokens.requests().pop().expect("a call for a token")
    }

    fn refusal(&self) -> String {
        self.last().refused.expect("it was refused")
    }
}

fn json(reply: &Reply) -> Value {
    serde_json::from_str(&reply.body).expect("JSON")
}

fn token(reply: &Reply) -> String {
    let object = json(reply);
    object.get("access_token").and_then(Value::as_str).expect("a token").to_owned()
}

#[test]
fn client_secret_gets_token_accepted_by_cm() {
    let site = site();
    let reply = site.ask_with(&[("client_secret", SECRET), ("scope", "openid")]);
    assert_eq!(reply.status, 200, "{:?}", site.last());
    assert_eq!(json(&reply)["token_type"], "bearer");
    assert_eq!(json(&reply)["expires_in"], 3600);
    assert_eq!(site.enter(&token(&reply)).status, 200);
    let last = site.last();
    assert_eq!((last.proof, last.scope.as_deref()), (ClientProof::Secret, Some("openid")));
    assert_eq!((site.tokens.issued(), site.cm.log().len()), (1, 1));
    let stranger = site.curl.get(&format!("{}{CARD}", site.cm.url()), &[]).unwrap();
    assert_eq!(stranger.header("www-authenticate"), Some("Bearer"));
}

#[test]
fn expired_revoked_or_foreign_tokens_are_rejected() {
    let site = site();
    let refused = |token: &str| {
        let reply = site.enter(token);
        let challenge = reply.header("www-authenticate").unwrap_or_default();
        reply.status == 401 && challenge == "Bearer error=\"invalid_token\""
    };
    assert!(refused("made-up"));
    let secret = ("client_secret", SECRET);
    let revoked = token(&site.ask_with(&[secret]));
    site.tokens.revoke_all();
    assert!(refused(&revoked));
    let elsewhere =
        site.ask(&[("grant_type", "client_credentials"), ("client_id", "agent"), secret]);
    assert_eq!(elsewhere.status, 200, "AD FS gives one for itself");
    assert!(refused(&token(&elsewhere)));
    site.tokens.set_life(Duration::from_secs(1));
    let short = token(&site.ask_with(&[secret]));
    assert!(!refused(&short));
    wait_until("the token ends", Duration::from_secs(10), || refused(&short)).unwrap();
}

#[test]
fn invalid_token_requests_get_adfs_errors() {
    let site = site();
    let refused = |reply: &Reply, error: &str, code: &str| {
        assert_eq!(reply.status, 400, "{reply:?}");
        assert_eq!(json(reply)["error"], error);
        let description = json(reply)["error_description"].to_string();
        assert!(description.contains(code), "{description}");
    };
    refused(&site.ask_with(&[("client_secret", "guess")]), "invalid_client", "MSIS9622");
    refused(&site.ask_with(&[]), "invalid_client", "MSIS9622");
    let windows = ("use_windows_client_authentication", "true");
    refused(&site.ask_with(&[windows]), "invalid_client", "MSIS9622");
    let stranger = [("grant_type", "client_credentials"), ("client_id", "unknown")];
    refused(&site.ask(&stranger), "invalid_client", "MSIS9607");
    let other = [
        ("grant_type", "client_credentials"),
        ("client_id", "agent"),
        ("client_secret", SECRET),
        ("resource", "urn:cm/.default"),
    ];
    refused(&site.ask(&other), "invalid_resource", "MSIS9602");
    let code = [("grant_type", "authorization_code"), ("client_id", "agent")];
    refused(&site.ask(&code), "unsupported_grant_type", "MSIS");
    let json = ["-H", "Content-Type: application/json"];
    refused(&site.ask_at(&site.adfs.url(), &code, &json), "invalid_request", "MSIS");
    assert_eq!(site.tokens.issued(), 0);
    site.tokens.remove_clients();
    refused(&site.ask_with(&[("client_secret", SECRET)]), "invalid_client", "MSIS9607");
    assert_eq!(
        site.curl.get(&format!("{}{TOKEN_PATH}", site.adfs.url()), &[]).unwrap().status,
        405
    );
}

#[test]
fn token_faults_affect_only_token_endpoint() {
    let site = site();
    let ask = || site.ask_with(&[("client_secret", SECRET)]);
    let error = Fault::OauthError { error: "invalid_grant".to_owned() };
    site.adfs.set_fault(error.times(1));
    let reply = ask();
    assert_eq!((reply.status, &json(&reply)["error"]), (400, &Value::from("invalid_grant")));
    site.adfs.set_fault(Fault::ExpiresInText.times(1));
    let reply = ask();
    assert_eq!(json(&reply)["expires_in"], "3600");
    assert_eq!(site.enter(&token(&reply)).status, 200);
    site.adfs.go_away().unwrap();
    assert_eq!(site.enter(&token(&reply)).status, 200, "CM is not AD FS");
}

/// A JWT that openssl has signed.
fn assertion(identity: &Identity, x5t: &[u8], claims: &Value) -> String {
    let rsa = identity.signing() == Signing::RsaSha256;
    let algorithm = if rsa { "RS256" } else { "ES256" };
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let header = json!({ "typ": "JWT", "alg": algorithm, "x5t": encode(x5t) });
    let text = |value: &Value| encode(value.to_string().as_bytes());
    let signed = format!("{}.{}", text(&header), text(claims));
    let dir = tempfile::tempdir().expect("a directory");
    let key = dir.path().join("key");
    fs::write(&key, identity.key_pem()).expect("a file");
    let mut openssl = Command::new("openssl");
    openssl.args(["dgst", "-sha256", "-sign"]).arg(key);
    let mut openssl =
        openssl.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("openssl runs");
    openssl.stdin.take().expect("stdin").write_all(signed.as_bytes()).expect("it reads");
    let signature = openssl.wait_with_output().expect("it ends").stdout;
    let signature = if rsa { signature } else { numbers(&signature) };
    format!("{signed}.{}", encode(&signature))
}

/// The two numbers of an ECDSA signature in DER, 32 bytes each.
fn numbers(der: &[u8]) -> Vec<u8> {
    let mut numbers = Vec::new();
    let (_sequence, mut rest) = der.split_at(2);
    while let [2, length, tail @ ..] = rest {
        let (number, after) = tail.split_at(usize::from(*length));
        let digits = number.strip_prefix(&[0]).unwrap_or(number);
        numbers.extend(vec![0; 32 - digits.len()]);
        numbers.extend(digits);
        rest = after;
    }
    numbers
}

fn claims(site: &Site, id: &str) -> Value {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time").as_secs();
    json!({
        "iss": "agent", "sub": "agent", "jti": id, "nbf": now - 60, "exp": now + 300,
        "aud": format!("{}{TOKEN_PATH}", site.adfs.url()),
    })
}

#[test]
fn valid_assertion_is_accepted_once() {
    let site = site();
    for signing in [Signing::RsaSha256, Signing::EcdsaSha256] {
        let ca = Authority::new("The site's CA", signing).unwrap();
        let (me, other) = (ca.client("agent").unwrap(), ca.client("agent").unwrap());
        site.tokens.remove_clients();
        site.tokens.register_certificate("agent", &me);
        let ask = |jwt: &str| {
            site.ask_with(&[("client_assertion_type", JWT_BEARER), ("client_assertion", jwt)])
        };
        let id = format!("first {signing:?}");
        let good = assertion(&me, &me.thumbprint(), &claims(&site, &id));
        let reply = ask(&good);
        assert_eq!(reply.status, 200, "{signing:?}: {:?}", site.last());
        assert_eq!(site.last().proof, ClientProof::Assertion);
        assert_eq!(site.enter(&token(&reply)).status, 200);
        assert_eq!(json(&ask(&good))["error"], "invalid_client");
        assert_eq!(site.refusal(), "jti was used before");
        ask(&assertion(&other, &me.thumbprint(), &claims(&site, "2")));
        assert_eq!(site.refusal(), "wrong assertion: signature");
        ask(&assertion(&me, &other.thumbprint(), &claims(&site, "3")));
        assert_eq!(site.refusal(), "wrong assertion: x5t");
        ask("no.jwt");
        assert!(site.refusal().starts_with("not "), "{}", site.refusal());
        for (claim, value, what) in [
            ("aud", json!("http://elsewhere/adfs/oauth2/token"), "aud"),
            ("iss", json!("stranger"), "iss"),
            ("sub", json!("stranger"), "sub"),
            ("exp", json!(1), "exp is past"),
            ("exp", json!(u32::MAX), "exp is too far"),
            ("nbf", json!(u32::MAX), "nbf is to come"),
            ("jti", json!(""), "jti is missing"),
        ] {
            let mut claims = claims(&site, "4");
            claims[claim] = value;
            ask(&assertion(&me, &me.thumbprint(), &claims));
            assert_eq!(site.refusal(), format!("wrong assertion: {what}"));
        }
    }
}

#[test]
fn a_windows_account_gets_a_token_by_its_ticket() {
    require!(kdc::available());
    require!(apache::available());
    let (kdc, curl) = realm();
    let site = Site { curl, ..site() };
    site.tokens.register_user("agent", &format!("{AGENT}@{}", kdc.realm()));
    site.tokens.register_user("other", &format!("other@{}", kdc.realm()));
    let negotiate = Some(Negotiate::of(&kdc).unwrap());
    let upstream = site.adfs.address();
    let apache =
        Apache::start(&ApacheOptions { negotiate, ..ApacheOptions::before(upstream) }).unwrap();
    let form = |client_id| {
        [
            ("grant_type", "client_credentials"),
            ("client_id", client_id),
            ("resource", RESOURCE),
            ("use_windows_client_authentication", "true"),
        ]
    };
    let ticket = ["--negotiate", "-u", ":"];
    let reply = site.ask_at(&apache.url(), &form("agent"), &ticket);
    assert_eq!(reply.status, 200, "{:?}", site.tokens.requests());
    assert_eq!(site.enter(&token(&reply)).status, 200);
    assert_eq!(site.last().proof, ClientProof::Windows);
    assert_eq!(site.ask_at(&apache.url(), &form("other"), &ticket).status, 400);
    assert!(site.refusal().starts_with("not its account"), "{}", site.refusal());
    assert_eq!(site.ask_at(&apache.url(), &form("agent"), &[]).status, 401);
}
