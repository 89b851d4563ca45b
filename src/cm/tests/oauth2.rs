//! Tokens of a token endpoint, as they go over the wire: what is asked, and what calls to CM get.

mod failures;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use tempfile::TempDir;

use super::*;

const CLIENT: &str = "6a1f3c52-6a4b-4d7e-9f0d-1d3c5b7a9e10";
const RESOURCE: &str = "https://cm.example.com/CertificateManagement";

/// What a form, JSON, HTML and a header would each write in another way.
const SECRET: &str = "s3cr&t=+% \"<ü>\\";

/// A token endpoint, a CM that is asked with its tokens, and a client of both.
struct Site {
    adfs: Server,
    cm: Server,
    remote: CmClient,
    dir: TempDir,
}

impl Site {
    /// With a secret, and this endpoint.
    fn new(adfs: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        Self::with_cm(adfs, cm(CARD))
    }

    fn with_cm(
        adfs: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
        cm: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let (adfs, cm) = (Server::start(adfs), Server::start(cm));
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("secret"), format!("{SECRET}\n")).unwrap();
        let client = client(&adfs, ClientAuthSettings::Secret { file: dir.path().join("secret") });
        let remote = remote_of(&cm, client);
        Self { adfs, cm, remote, dir }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    async fn call(&self) -> Result<CardRecord, CallError> {
        self.remote.record(record_id()).await
    }

    /// The `Authorization` of each call to CM.
    fn shown(&self) -> Vec<String> {
        let headers = self.cm.seen().into_iter().flat_map(|seen| seen.headers);
        headers.filter_map(|line| line.strip_prefix("authorization: ").map(str::to_owned)).collect()
    }
}

fn client(adfs: &Server, proof: ClientAuthSettings) -> OAuth2Settings {
    OAuth2Settings {
        token_url: format!("http://{}/adfs/oauth2/token", adfs.address),
        client_id: CLIENT.to_owned(),
        proof,
        resource: Some(RESOURCE.to_owned()),
        scope: Some("openid user_impersonation".to_owned()),
    }
}

fn remote_of(cm: &Server, client: OAuth2Settings) -> CmClient {
    let url = format!("http://{}", cm.address);
    new_client(CmSettings { auth: AuthSettings::OAuth2(client), ..options(url) }).unwrap()
}

/// A token of AD FS's.
fn token(token: &str, life: u64) -> Reply {
    let body = format!(r#"{{"access_token":"{token}","token_type":"bearer","expires_in":{life}}}"#);
    Reply::Answer(answer(OK, "Content-Type: application/json;charset=UTF-8\r\n", &body))
}

/// An endpoint that numbers its tokens.
fn numbered(life: u64) -> impl Fn(&Seen) -> Reply + Send + Sync + 'static {
    let count = AtomicUsize::new(0);
    move |_| token(&format!("token-{}", count.fetch_add(1, Ordering::SeqCst) + 1), life)
}

/// An answer from `tests/fixtures/adfs`, as bytes.
fn adfs(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/adfs").join(name);
    let text = fs::read_to_string(path).unwrap();
    let (head, body) = text.split_once("\n\n").unwrap();
    let (status, headers) = head.split_once('\n').unwrap();
    let headers = format!("{}\r\n", headers.replace('\n', "\r\n"));
    answer(status.strip_prefix("HTTP/1.1 ").unwrap(), &headers, body.trim_end())
}

/// What a form says, as the URL parser's own reader has it.
fn form(seen: &Seen) -> Vec<(String, String)> {
    let url = reqwest::Url::parse(&format!("http://host/?{}", seen.body)).unwrap();
    url.query_pairs().into_owned().collect()
}

#[tokio::test]
async fn a_secret_asks_for_a_token_that_goes_along_with_every_call() {
    let site = Site::new(numbered(3600));
    site.call().await.unwrap();
    site.remote.set_status(&decision()).await.unwrap();
    assert_eq!(site.shown(), ["bearer token-1", "bearer token-1"]);
    let [asked] = site.adfs.seen().try_into().unwrap();
    assert_eq!((asked.method.as_str(), asked.target.as_str()), ("POST", "/adfs/oauth2/token"));
    let pairs = form(&asked);
    let pairs: Vec<_> = pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(
        pairs,
        [
            ("grant_type", "client_credentials"),
            ("client_id", CLIENT),
            ("resource", RESOURCE),
            ("scope", "openid user_impersonation"),
            ("client_secret", SECRET),
        ]
    );
    let header = |name: &str| {
        let name = format!("{name}: ");
        asked.headers.iter().find_map(|line| line.strip_prefix(&name)).unwrap_or_default()
    };
    assert_eq!(header("content-type"), "application/x-www-form-urlencoded");
    assert_eq!(header("accept"), "application/json");
    assert_eq!(header("authorization"), "");
    assert!(header("client-request-id").parse::<uuid::Uuid>().is_ok(), "{asked:?}");
}

#[tokio::test]
async fn a_resource_and_a_scope_that_are_not_set_are_not_sent() {
    let site = Site::new(numbered(3600));
    let proof = ClientAuthSettings::Secret { file: site.file("secret") };
    let bare = OAuth2Settings { resource: None, scope: None, ..client(&site.adfs, proof) };
    remote_of(&site.cm, bare).record(record_id()).await.unwrap();
    let names: Vec<_> = form(&site.adfs.seen()[0]).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["grant_type", "client_id", "client_secret"]);
}

#[tokio::test]
async fn a_certificate_signs_a_new_assertion_for_each_request_and_its_key_is_not_sent() {
    let site = Site::new(numbered(3600));
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["desk-3".to_owned()]).unwrap();
    fs::write(site.file("cert.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
    fs::write(site.file("key.pem"), key.serialize_pem()).unwrap();
    let pair =
        ClientCertSettings { cert_file: site.file("cert.pem"), key_file: site.file("key.pem") };
    for _ in 0..2 {
        let client = client(&site.adfs, ClientAuthSettings::Assertion(pair.clone()));
        remote_of(&site.cm, client).record(record_id()).await.unwrap();
    }
    let forms: Vec<_> = site.adfs.seen().iter().map(form).collect();
    let field = |form: &Vec<(String, String)>, wanted: &str| {
        form.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.clone())
    };
    for form in &forms {
        let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
        assert_eq!(field(form, "client_assertion_type").as_deref(), Some(kind));
        assert_eq!(field(form, "client_secret"), None);
        // What is in it, and its signature, is tested where it is made.
        assert_eq!(field(form, "client_assertion").unwrap().split('.').count(), 3);
    }
    assert_ne!(field(&forms[0], "client_assertion"), field(&forms[1], "client_assertion"));
}

#[tokio::test]
async fn view_shows_client_and_token_expiry() {
    let site = Site::new(numbered(3600));
    let before = site.remote.authenticator();
    assert_eq!((before.method.as_str(), before.identity.as_deref()), ("oauth2", Some(CLIENT)));
    assert_eq!((before.valid_until, before.renewal_error), (None, None));
    site.call().await.unwrap();
    let left = site.remote.authenticator().valid_until.unwrap().duration_since(Timestamp::now());
    assert!((3590..=3600).contains(&left.as_secs()), "{left:?}");
    let site = Site::new(|_| Reply::Answer(adfs("invalid-client.http")));
    site.call().await.unwrap_err();
    let error = site.remote.authenticator().renewal_error.unwrap();
    assert!(error.contains("MSIS9622"), "{error}");
}

#[tokio::test]
async fn fifty_cards_at_once_cost_one_token_request() {
    let site = Site::new(numbered(3600));
    let lookups: Vec<_> = (0..50)
        .map(|_| {
            let remote = site.remote.clone();
            tokio::spawn(async move { remote.lookup(&identity()).await })
        })
        .collect();
    for lookup in lookups {
        assert!(lookup.await.unwrap().unwrap().records.is_some());
    }
    assert_eq!(site.cm.seen().len(), 150);
    assert_eq!(site.adfs.seen().len(), 1);
}

#[tokio::test]
async fn a_401_gets_a_new_token_once_and_the_call_is_made_again() {
    let site = Site::with_cm(numbered(3600), |seen| {
        if seen.headers.contains(&"authorization: bearer token-1".to_owned()) {
            return Reply::Answer(answer("401 Unauthorized", "", ""));
        }
        cm(CARD)(seen)
    });
    assert_eq!(
        site.remote.set_status(&decision()).await,
        Ok(SetStatusResult::Confirmed(CardStatus::new(6)))
    );
    assert_eq!(site.shown(), ["bearer token-1", "bearer token-2"]);
    assert_eq!(site.adfs.seen().len(), 2);
}

#[tokio::test]
async fn rejected_fresh_token_costs_no_request_per_call() {
    let challenge = "WWW-Authenticate: Bearer error=\"invalid_token\", error_description=\"no token-2 here\"\r\n";
    let site = Site::with_cm(numbered(3600), move |_| {
        Reply::Answer(answer("401 Unauthorized", challenge, ""))
    });
    let detail = assert_away(site.call().await, UnavailableReason::Unauthorized);
    assert_eq!(
        detail,
        "CM rejects a fresh token (Bearer error=\"invalid_token\", error_description=\"no [hidden] \
         here\"): check cm.auth.resource and cm.auth.scope, and on the server the Relying Party or \
         Web API and the account of the client"
    );
    let started = std::time::Instant::now();
    for _ in 0..20 {
        assert_away(site.call().await, UnavailableReason::Unauthorized);
    }
    // One for the first refusal, and one for each distance that has passed on a slow machine.
    let distances = usize::try_from(started.elapsed().as_secs()).unwrap();
    assert!(site.adfs.seen().len() <= 2 + distances, "{}", site.adfs.seen().len());
}

#[test]
fn a_token_url_that_others_can_read_along_is_refused() {
    let (adfs, cm) = (Server::start(numbered(1)), Server::start(cm(CARD)));
    let options = |token_url: &str| {
        let proof = ClientAuthSettings::Secret { file: "/nonexistent".into() };
        let client = OAuth2Settings { token_url: token_url.to_owned(), ..client(&adfs, proof) };
        let url = format!("http://{}", cm.address);
        new_client(CmSettings { auth: AuthSettings::OAuth2(client), ..options(url) })
    };
    for good in ["https://adfs.example.com/x", "http://localhost:1/x", "http://[::1]:1/x"] {
        assert!(options(good).is_ok(), "{good}");
    }
    for bad in ["http://adfs.example.com/x", "ftp://127.0.0.1/x", "adfs", ""] {
        let Err(problem) = options(bad) else { panic!("{bad} was taken") };
        assert!(problem.what.starts_with("cm.auth.token_url "), "{problem}");
    }
    let Err(error) = options("https://user:s3cret@adfs.example.com/x") else { panic!("taken") };
    assert!(!format!("{error} {error:?}").contains("s3cret"));
}
