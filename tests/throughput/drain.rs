//! How fast a full outbox is drained, beside a bare loop of the same calls: `tests/measure drain`.
//!
//! Nothing passes or fails by time. CM is a loopback server that does what this needs and
//! nothing else, and limits the rate by answering each call late.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a program that measures, for its user, and ends where something is not as expected"
)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cardbridge::domain::{
    Candidate, CardEvent, CardIdentity, Family, IdRule, Serial, Stage, Trigger,
};
use cardbridge::outbox::{self, AppendRequest, OutboxOptions};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const ATR: &str = "3b8d0180fba000000397425446590301c8";
const API: &str = "/CertificateManagement/api/v1.0";
/// As many as `cm.concurrency` has by default.
const CONCURRENCY: usize = 4;
/// Open requests that CM lists at a time: those of the next cards.
const LISTED: usize = 24;

/// What CM does with cards 0, 1, 2 …, drained in that order.
struct Cm {
    delay: Duration,
    done: AtomicUsize,
}

fn main() {
    rustls::crypto::ring::default_provider().install_default().unwrap();
    let mut arguments = std::env::args().skip(1);
    let agent = PathBuf::from(arguments.next().unwrap()).canonicalize().unwrap();
    let mut number = |default| arguments.next().map_or(default, |text| text.parse().unwrap());
    let (entries, runs) = (number(10_000), number(3));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for delay in [10, 5, 0].map(Duration::from_millis) {
        for run in 1..=runs {
            let ours = runtime.block_on(drain(&agent, entries, delay));
            println!("  {ours:.0} entries/s");
            let bare = runtime.block_on(bare(entries, delay));
            println!(
                "CM answers after {delay:?}, run {run}: {ours:.0} entries/s, bare {bare:.0}/s: {:.0} %",
                100.0 * ours / bare
            );
        }
    }
}

/// Entries a second through the real daemon.
async fn drain(agent: &Path, entries: usize, delay: Duration) -> f64 {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("outbox.db");
    fill(path.clone(), entries).await;
    let (cm, port) = serve(delay).await;
    std::fs::write(dir.path().join("cardbridge.toml"), configuration(dir.path(), port)).unwrap();
    let started = Instant::now();
    let mut daemon = run(agent, dir.path(), &["run"]);
    let socket = dir.path().join("control.sock");
    while std::os::unix::net::UnixStream::connect(&socket).is_err() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let ready = started.elapsed();
    let status = ask(agent, dir.path(), &["status", "--json"]).await;
    let list = ask(agent, dir.path(), &["outbox", "list", "--json"]).await;
    println!("  start-up {ready:.0?}, status {status:.0?}, list {list:.0?}");
    let (from, began) = (cm.done.load(Ordering::SeqCst), Instant::now());
    while cm.done.load(Ordering::SeqCst) < entries {
        assert!(daemon.try_wait().unwrap().is_none(), "the daemon ended");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let rate = rate(entries - from, began.elapsed());
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    rate
}

#[expect(clippy::cast_precision_loss, reason = "a count of cards")]
fn rate(entries: usize, time: Duration) -> f64 {
    entries as f64 / time.as_secs_f64()
}

fn run(agent: &Path, dir: &Path, args: &[&str]) -> Child {
    let mut command = Command::new(agent);
    command.args(args).arg("--config").arg(dir.join("cardbridge.toml"));
    // No readers: cards would be in the way.
    command.env("PCSCLITE_CSOCK_NAME", dir.join("no-pcscd"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

async fn ask(agent: &Path, dir: &Path, args: &[&str]) -> Duration {
    let started = Instant::now();
    let mut command = run(agent, dir, args);
    while command.try_wait().unwrap().is_none() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    started.elapsed()
}

fn configuration(dir: &Path, port: u16) -> String {
    let dir = dir.display();
    format!(
        "[cm]\nurl = \"http://127.0.0.1:{port}\"\n[cm.auth]\nmethod = \"none\"\n\
         [outbox]\npath = \"{dir}/outbox.db\"\n[control]\nsocket = \"{dir}/control.sock\"\n\
         [log]\nlevel = \"warn\"\n"
    )
}

async fn fill(path: PathBuf, entries: usize) {
    let now = jiff::Timestamp::now();
    let options = OutboxOptions { path, max_entries: 100_000, station: "desk-3".to_owned(), now };
    let (outbox, _) = outbox::open(options).unwrap();
    for number in 0..entries {
        let append = AppendRequest {
            card_event: draft(number),
            stage: Stage::Queued,
            instance: None,
            supersedes: Vec::new(),
        };
        outbox.append(append).await.unwrap();
    }
    outbox.close();
}

fn draft(number: usize) -> CardEvent {
    let first = Candidate::by_rule(id("bc88f13f", number).parse().unwrap(), IdRule::GidsCardid);
    let serial = Serial::from_bytes(&number.to_be_bytes());
    CardEvent {
        seen_at: jiff::Timestamp::now(),
        reader: "Reader".into(),
        label: "Reader".to_owned(),
        role: "desk".to_owned(),
        trigger: Trigger::Inserted,
        boot_moment: None,
        event_count: 1,
        atr: ATR.parse().unwrap(),
        identity: CardIdentity::new(Family::Gids, serial, first, Vec::new()),
    }
}

fn id(kind: &str, number: usize) -> String {
    format!("{kind}-0000-4000-8000-{number:012x}")
}

/// The same calls in the same order of cards, and nothing between them.
async fn bare(entries: usize, delay: Duration) -> f64 {
    let (_cm, port) = serve(delay).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let next = Arc::new(AtomicUsize::new(0));
    let started = Instant::now();
    let workers: Vec<_> = (0..CONCURRENCY)
        .map(|_| {
            let (client, next) = (client.clone(), Arc::clone(&next));
            tokio::spawn(async move {
                loop {
                    let card = next.fetch_add(1, Ordering::SeqCst);
                    if card >= entries {
                        break;
                    }
                    one(&client, &format!("http://127.0.0.1:{port}{API}"), card).await;
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.unwrap();
    }
    rate(entries, started.elapsed())
}

async fn one(client: &reqwest::Client, api: &str, card: usize) {
    let get = |path: String| async move {
        client.get(path).send().await.unwrap().bytes().await.unwrap().len()
    };
    tokio::join!(
        get(format!("{api}/smartcards?cardid={}", id("bc88f13f", card))),
        get(format!("{api}/requests?status=Approved")),
        get(format!("{api}/requests?status=Executing")),
    );
    let put =
        format!("{api}/requests/{}/smartcards/{}", id("b105403d", card), id("17cf063d", card));
    let put = client.put(put).header("content-type", "application/json");
    let answer = put.body(r#"{"status":"Retired"}"#).send().await.unwrap();
    assert!(answer.status().is_success());
    answer.bytes().await.unwrap();
}

async fn serve(delay: Duration) -> (Arc<Cm>, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let cm = Arc::new(Cm { delay, done: AtomicUsize::new(0) });
    let shared = Arc::clone(&cm);
    // A thread of its own: the bare loop must not share one with CM when the daemon does not.
    std::thread::spawn(move || {
        let listener = listener.into_std().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(converse(socket, Arc::clone(&shared)));
            }
        });
    });
    (cm, port)
}

async fn converse(mut socket: TcpStream, cm: Arc<Cm>) {
    socket.set_nodelay(true).unwrap();
    let mut buffer = Vec::new();
    loop {
        let Some(end) = head_end(&buffer) else {
            match socket.read_buf(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(_) => continue,
            }
        };
        let head = String::from_utf8_lossy(buffer.get(..end).unwrap()).to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let whole = end + length.map_or(0, |length| length.trim().parse::<usize>().unwrap());
        if buffer.len() < whole {
            if matches!(socket.read_buf(&mut buffer).await, Ok(0) | Err(_)) {
                return;
            }
            continue;
        }
        buffer.drain(..whole);
        if !cm.delay.is_zero() {
            tokio::time::sleep(cm.delay).await;
        }
        let body = cm.answer(head.lines().next().unwrap());
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        if socket.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

fn head_end(buffer: &[u8]) -> Option<usize> {
    buffer.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

impl Cm {
    fn answer(&self, line: &str) -> String {
        let target = line.split(' ').nth(1).unwrap();
        let number =
            |text: &str| usize::from_str_radix(text.rsplit('-').next().unwrap(), 16).unwrap();
        if line.starts_with("put ") {
            self.done.fetch_add(1, Ordering::SeqCst);
            record(number(target), 6)
        } else if target.contains("cardid=") {
            record(number(target), 2)
        } else if target.contains("approved") {
            // Those under way are not counted as done yet: a few more on both sides.
            let done = self.done.load(Ordering::SeqCst);
            let listed = done.saturating_sub(CONCURRENCY)..done + LISTED;
            format!("[{}]", listed.map(request).collect::<Vec<_>>().join(","))
        } else {
            "[]".to_owned()
        }
    }
}

fn record(card: usize, status: u32) -> String {
    format!(
        r#"{{"Uuid":"{}","Status":{status},"Flags":1,"SerialNumber":"{{{}}}","Middleware":"MSBaseCSP","Atr":"{ATR}"}}"#,
        id("17cf063d", card),
        id("bc88f13f", card)
    )
}

fn request(card: usize) -> String {
    format!(
        r#"{{"Uuid":"{}","RequestType":7,"Status":3,"Submitted":"2026-01-01T00:00:00Z","OldSmartcardUuid":"{}","NewSmartcardUuid":"{}"}}"#,
        id("b105403d", card),
        id("17cf063d", card),
        id("17cf063d", card)
    )
}
