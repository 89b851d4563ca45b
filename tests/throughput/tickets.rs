//! What a Kerberos ticket with every call costs: `tests/measure tickets`.
//!
//! Nothing passes or fails by time. The calls go through the same Apache to the same simulator,
//! once with Negotiate and once without.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a program that measures, for its user, and ends where something is not as expected"
)]

use std::env;
use std::fs;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use cardbridge::cm::CmClient;
use cardbridge::config::{AuthSettings, CmSettings, KerberosSettings, ProxySettings};
use cardbridge::domain::{CmEnums, RecordId};
use cardbridge_harness::apache::{Apache, ApacheOptions, Negotiate};
use cardbridge_harness::cm::Cm;
use cardbridge_harness::kdc::{Kdc, KdcOptions};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

const STATION: &str = "desk-3";
const RECORD: &str = "17cf063d-e337-4aa9-a822-346554ddd3c9";

/// How long each token took, in microseconds, from the loop to its thread and back.
static TOKENS: Mutex<Vec<u64>> = Mutex::new(Vec::new());

/// Takes the times of tokens from the log.
struct Times;

impl<S: Subscriber> Layer<S> for Times {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        event.record(&mut Self);
    }
}

impl Visit for Times {
    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "elapsed_us" {
            TOKENS.lock().unwrap().push(value);
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}

/// With four arguments it is the client, in a process of its own.
fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.as_slice() {
        [plain, negotiate, keytab, calls] => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(client(plain, negotiate, keytab, calls.parse().unwrap()));
        }
        arguments => servers(arguments.first().map_or("1000", String::as_str)),
    }
}

fn servers(calls: &str) {
    let kdc = Kdc::start(KdcOptions::default()).unwrap();
    kdc.add_principal(STATION).unwrap();
    let cm = Cm::seed().unwrap();
    let before = || ApacheOptions::before(cm.address());
    let plain = Apache::start(&before()).unwrap();
    let negotiate = Some(Negotiate::of(&kdc).unwrap());
    let negotiate = Apache::start(&ApacheOptions { negotiate, ..before() }).unwrap();
    let client = Command::new(env::current_exe().unwrap())
        .args([plain.url(), negotiate.url()])
        .arg(kdc.keytab(STATION).unwrap())
        .arg(calls)
        .env("KRB5_CONFIG", kdc.krb5_conf())
        .status();
    assert!(client.unwrap().success());
    let requests = kdc.requests();
    println!("the KDC gave {} logins and {} tickets", requests.as_issued, requests.tgs_issued);
}

async fn client(plain: &str, negotiate: &str, keytab: &str, calls: usize) {
    tracing_subscriber::registry().with(Times).init();
    let none = remote(plain, AuthSettings::None);
    run("without", &none, calls).await;
    let before = memory();
    let auth = AuthSettings::Negotiate(KerberosSettings {
        keytab: PathBuf::from(keytab),
        principal: None,
        spn: None,
        channel_bindings: true,
    });
    let kerberos = remote(negotiate, auth);
    let started = Instant::now();
    kerberos.record(record()).await.unwrap();
    println!("the first call, with login and ticket: {:.1?}", started.elapsed());
    println!("memory of the process: {before} before, {} after it", memory());
    for _ in 0..3 {
        run("with a token each", &kerberos, calls).await;
        run("without", &none, calls).await;
    }
    println!("memory of the process: {}", memory());
    let mut tokens = std::mem::take(&mut *TOKENS.lock().unwrap());
    tokens.sort_unstable();
    let at = |part: usize| tokens[(tokens.len() - 1) * part / 100];
    println!("{} tokens: p50 {} us, p99 {} us", tokens.len(), at(50), at(99));
}

fn remote(url: &str, auth: AuthSettings) -> CmClient {
    let settings = CmSettings {
        url: url.to_owned(),
        api_path: "/CertificateManagement/api/v1.0".to_owned(),
        timeout: Duration::from_secs(20),
        connect_timeout: Duration::from_secs(10),
        ca_file: None,
        proxy: ProxySettings::None,
        auth,
        client_certificate: None,
        concurrency: NonZeroUsize::MIN,
    };
    CmClient::new(settings, CmEnums::default()).unwrap()
}

async fn run(name: &str, remote: &CmClient, calls: usize) {
    let mut times = Vec::with_capacity(calls);
    for _ in 0..calls {
        let started = Instant::now();
        remote.record(record()).await.unwrap();
        times.push(started.elapsed());
    }
    times.sort();
    let at = |part: usize| times[(calls - 1) * part / 100];
    println!("{calls} calls {name}: p50 {:.2?}, p99 {:.2?}", at(50), at(99));
}

fn record() -> RecordId {
    RECORD.parse().unwrap()
}

/// Resident memory, and what of it no other process can share.
fn memory() -> String {
    let rollup = fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let of = |name: &str| {
        let line = rollup.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().to_owned()
    };
    format!("{} ({} private)", of("Rss:"), of("Private_Dirty:"))
}
