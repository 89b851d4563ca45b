//! No secret of a run is anywhere that users and programs read: every place is searched for every
//! secret, in each of its forms.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};

use cardbridge_harness::cm::Certificate;
use cardbridge_harness::proxy::{self, Proxy, ProxyOptions};

use super::*;

/// What must not be seen.
pub(super) struct Hidden {
    pub(super) name: &'static str,
    pub(super) text: String,
    /// Whether the daemon's memory may have it: because it is needed again, or because no code can
    /// use it any more.
    pub(super) kept: bool,
}

/// What is looked at, by name; what is no text in it is of no interest.
type Places = Vec<(String, String)>;

/// Runs a card through, with trouble on both servers, and searches everywhere.
pub(super) fn assert_kept(
    world: WorldBuilder,
    adfs: &Adfs,
    secrets: impl FnOnce(&World) -> Vec<Hidden>,
) {
    let world = world.config_set("log.level", "\"trace\"").start().unwrap();
    adfs.cm.set_fault(Fault::OauthError { error: "invalid_client".to_owned() }.times(1));
    world.cm.set_fault(Fault::Unauthorized.times(4));
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["updated"]);
    let mut places = asked(&world);
    places.extend(files(&world));
    assert!(places[0].1.contains(" DEBUG "), "{}", places[0].1);
    let memory = ("the daemon's memory".to_owned(), memory(&world));
    let secrets = secrets(&world);
    for Hidden { name, text, kept } in &secrets {
        let memory = (!kept).then_some(&memory);
        for form in forms(text) {
            for (place, content) in places.iter().chain(memory) {
                assert!(!content.contains(&form), "{name} is in {place}, as {form}");
            }
        }
    }
    world.finish().unwrap();
}

/// What the daemon and its commands say.
fn asked(world: &World) -> Places {
    let mut places = vec![("the log".to_owned(), world.daemon_log())];
    for command in [
        "config show",
        "config show --json",
        "status",
        "status --json",
        "outbox list --json",
        "audit --format json",
        "check --json",
        "check",
    ] {
        let parts: Vec<_> = command.split(' ').collect();
        let output = world.cli(&parts).unwrap();
        places.push((command.to_owned(), output.stdout + &output.stderr));
    }
    for route in ["/v1/status", "/v1/outbox", "/v1/audit", "/v1/audit/verify", "/metrics", "/none"]
    {
        places.push((route.to_owned(), control(&world.control_path(), route)));
    }
    assert!(places.iter().all(|(_, bytes)| !bytes.is_empty()), "every place has something in it");
    places
}

/// What is on the disk, the daemon's own directory but for the secrets themselves.
fn files(world: &World) -> Places {
    let entries = fs::read_dir(world.dir()).unwrap().map(|entry| entry.unwrap().path());
    let files = entries.filter(|path| path.is_file() && !path.ends_with("token"));
    let read = |path: PathBuf| (path.display().to_string(), text(&fs::read(&path).unwrap()));
    let files: Places = files.map(read).collect();
    assert!(files.iter().any(|(name, _)| name.ends_with("outbox.db")));
    files
}

/// The whole answer of the control socket.
fn control(socket: &Path, route: &str) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    write!(stream, "GET {route} HTTP/1.1\r\nHost: cardbridge\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    text(&answer)
}

/// A secret as it is, in hex, in base64 of each kind and at each offset, and as forms and JSON have it.
fn forms(secret: &str) -> Vec<String> {
    let mut forms = vec![
        secret.to_owned(),
        hex::encode(secret),
        hex::encode_upper(secret),
        form_urlencoded::byte_serialize(secret.as_bytes()).collect(),
        serde_json::Value::from(secret).to_string().trim_matches('"').to_owned(),
        format!("{secret:?}").trim_matches('"').to_owned(),
    ];
    for engine in [&STANDARD, &STANDARD_NO_PAD, &URL_SAFE, &URL_SAFE_NO_PAD] {
        forms.push(engine.encode(secret));
        for offset in 1..3 {
            // Behind other bytes; what hangs together with its neighbours is left out.
            let shifted = engine.encode(format!("{}{secret}", "x".repeat(offset)));
            forms.push(shifted.chars().skip(4).take(4 * (secret.len() / 3 - 1)).collect());
        }
    }
    forms
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The daemon's own memory: what a core dump would have.
fn memory(world: &World) -> String {
    let pid = world.daemon_pid().unwrap();
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let memory = fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    let mut all = String::new();
    for line in maps.lines() {
        let mut parts = line.split_whitespace();
        let (range, rights) = (parts.next().unwrap(), parts.next().unwrap());
        // What is written to, and no file's.
        if !rights.starts_with("rw") || line.contains(".so") {
            continue;
        }
        let (from, to) = range.split_once('-').unwrap();
        let [from, to] = [from, to].map(|hex| u64::from_str_radix(hex, 16).unwrap());
        let mut bytes = vec![0; usize::try_from(to - from).unwrap()];
        if std::os::unix::fs::FileExt::read_exact_at(&memory, &mut bytes, from).is_ok() {
            all.push_str(&text(&bytes));
        }
    }
    all
}

/// The tokens that CM was shown.
pub(super) fn shown(world: &World) -> Vec<Hidden> {
    let headers = world.cm.log();
    let headers = headers.iter().filter_map(|call| call.header("authorization"));
    let tokens: std::collections::BTreeSet<_> =
        headers.filter_map(|line| line.strip_prefix("Bearer ")).map(str::to_owned).collect();
    assert!(!tokens.is_empty());
    tokens.into_iter().map(|text| Hidden { name: "a token", text, kept: true }).collect()
}

#[test]
fn bearer_token_does_not_leak() {
    let builder = require!(world());
    let token = "bearer-3f9a0d2c71e84b55";
    let options = CmOptions { bearer: Some(token.to_owned()), ..cm_with(&[]) };
    let adfs = Adfs::start();
    assert_kept(builder.cm(options), &adfs, |world| {
        assert_eq!(shown(world)[0].text, token);
        shown(world)
    });
}

#[test]
fn client_secret_and_tokens_do_not_leak() {
    let builder = require!(world());
    let adfs = Adfs::with_secret();
    let world = adfs.world(builder, &[]);
    assert_kept(world, &adfs, |world| {
        let secret = Hidden { name: "the client secret", text: SECRET.to_owned(), kept: false };
        shown(world).into_iter().chain([secret]).collect()
    });
}

#[test]
fn client_key_assertions_and_tokens_do_not_leak() {
    for signing in [Signing::RsaSha256, Signing::EcdsaSha256] {
        let builder = require!(world());
        let adfs = Adfs::with_certificate(signing);
        let world = adfs.world(builder, &[]);
        assert_kept(world, &adfs, |world| {
            let mut secrets = shown(world);
            let key = fs::read_to_string(adfs.file("key.pem")).unwrap();
            // Both have the public key, which is no secret.
            let certificate = fs::read_to_string(adfs.file("cert.pem")).unwrap().replace('\n', "");
            let lines = key.lines().filter(|line| !line.starts_with("---"));
            let lines = lines.filter(|line| !certificate.contains(line));
            let hidden = |name, text: &str, kept| Hidden { name, text: text.to_owned(), kept };
            secrets.extend(lines.map(|line| hidden("a line of the key", line, false)));
            let log = adfs.cm.log();
            for call in log.iter().filter(|call| call.target == TOKEN_PATH) {
                let form = form_urlencoded::parse(call.body.as_bytes());
                let assertion = form.into_iter().find(|(name, _)| name == "client_assertion");
                let assertion = assertion.unwrap().1.into_owned();
                secrets.push(hidden("a signature", assertion.rsplit_once('.').unwrap().1, true));
                secrets.push(hidden("an assertion", &assertion, true));
            }
            secrets
        });
    }
}

#[test]
fn proxy_password_does_not_leak() {
    let builder = require!(world());
    require!(proxy::available());
    let password = "pr0xy-w0rd-5b1c";
    let credentials = Some(("station".to_owned(), password.to_owned()));
    let proxy = Proxy::start(&ProxyOptions { credentials }).unwrap();
    let adfs = Adfs::start();
    fs::write(adfs.file("login"), format!("station:{password}")).unwrap();
    let options = CmOptions {
        tls: Some(Certificate::Good),
        bearer: Some("bearer-a61d09".to_owned()),
        ..cm_with(&[])
    };
    let builder = builder
        .cm(options)
        .config_set("cm.proxy", &format!("{:?}", proxy.url()))
        .config_set("cm.proxy_credentials_file", &quoted(&adfs.file("login")));
    assert_kept(builder, &adfs, |world| {
        assert!(!proxy.requests().is_empty());
        let hidden = |name, text: &str| Hidden { name, text: text.to_owned(), kept: true };
        let login = hidden("the proxy's login", &format!("station:{password}"));
        shown(world).into_iter().chain([login, hidden("its password", password)]).collect()
    });
}
