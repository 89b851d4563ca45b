//! What is counted, as a monitoring system reads it.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::Command;

use cardbridge_harness::cards::GidsCard;
use cardbridge_harness::cm::Fault;

use super::*;

/// Reads a page with the parser of Prometheus' own client library and prints each sample.
const JUDGE: &str = "
import sys
from prometheus_client.parser import text_string_to_metric_families as parse
for family in parse(sys.stdin.read()):
    assert family.documentation, family.name
    assert family.type in ('counter', 'gauge', 'summary'), (family.name, family.type)
    for sample in family.samples:
        assert (family.type == 'counter') == sample.name.endswith('_total'), sample.name
        labels = ','.join(f'{k}={v}' for k, v in sorted(sample.labels.items()) if v)
        print(f'{sample.name}{{{labels}}}', sample.value)
";

/// Another card than the seed's.
const OTHER: &str = "7c1d0e52-9b3a-4f6e-8d27-3e9a51c4b806";

type Samples = BTreeMap<String, f64>;

fn ask(mut stream: impl std::io::Read + std::io::Write) -> String {
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    body.to_owned()
}

fn page(world: &World) -> String {
    ask(UnixStream::connect(world.control_path()).unwrap())
}

/// Every sample of a page, by the judge's reading; none where it cannot be had.
fn judged(page: &str) -> Result<Samples, String> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), page).unwrap();
    let mut judge = Command::new("/usr/bin/python3");
    judge.args(["-c", JUDGE]).stdin(file.reopen().unwrap());
    let output = judge.output().map_err(|error| format!("python3: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if said.contains("No module named 'prometheus_client'") {
        return Err("python3-prometheus-client is missing".to_owned());
    }
    assert!(output.status.success(), "{said}{page}");
    let text = String::from_utf8(output.stdout).unwrap();
    let sample = |line: &str| {
        let (name, value) = line.rsplit_once(' ').unwrap();
        (name.to_owned(), value.parse().unwrap())
    };
    let samples: Vec<_> = text.lines().map(sample).collect();
    let count = samples.len();
    let samples = Samples::from_iter(samples);
    assert_eq!(samples.len(), count, "no sample is there twice: {page}");
    Ok(samples)
}

/// HELP and TYPE come once, before the samples, and no name is another program's.
fn is_in_order(page: &str) {
    let mut known = Vec::new();
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let name = rest.split(' ').next().unwrap().to_owned();
            assert!(name.starts_with("cardbridge_") && !known.contains(&name), "{line}");
            known.push(name);
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            assert_eq!(rest.split(' ').next(), known.last().map(String::as_str), "{line}");
        } else {
            assert!(line.starts_with(known.last().unwrap()), "{line} in {known:?}");
        }
    }
    assert!(known.len() > 15, "{known:?}");
}

#[test]
fn metrics_count_what_happened() {
    let mut world = require!(world()).start().unwrap();
    let before = page(&world);
    is_in_order(&before);
    let card = world.insert(0, GidsCard::seed()).unwrap();
    world.wait_for_outcomes(1, LONG).unwrap();
    drop(card);
    let removed = || page(&world).contains("\ncardbridge_card_removals_total 1\n");
    world.wait_until("the card to be out", LONG, removed).unwrap();
    world.cm.set_fault(Fault::Reset);
    let _other = world.insert(1, GidsCard::new(cardid(OTHER))).unwrap();
    let waits = || page(&world).contains("\ncardbridge_cm_up 0\n");
    world.wait_until("CM to be away", LONG, waits).unwrap();
    world.pcscd.kill9().unwrap();
    let lost = || page(&world).contains("\ncardbridge_pcsc_errors_total{code=\"NoService\"}");
    world.wait_until("pcscd to be unavailable", LONG, lost).unwrap();

    let page = page(&world);
    is_in_order(&page);
    for secret in [CARD, RECORD, REQUEST, OTHER, "Virtual PCD", "harness"] {
        assert!(!page.contains(secret), "{secret}: {page}");
    }
    let before = require!(judged(&before));
    let samples = require!(judged(&page));
    assert!(!before.contains_key("cardbridge_cm_up{}"), "CM had not been called");
    let is = |name: &str, value: f64| {
        let seen = samples.get(name).copied();
        assert!(seen.is_some_and(|seen| (seen - value).abs() < 1e-9), "{name}: {seen:?}: {page}");
    };
    is("cardbridge_build_info{version=0.2.0}", 1.0);
    is("cardbridge_card_insertions_total{}", 2.0);
    is("cardbridge_card_removals_total{}", 1.0);
    is("cardbridge_card_probes_total{family=gids,result=identified}", 2.0);
    is("cardbridge_card_probes_total{family=unknown,result=timeout}", 0.0);
    is("cardbridge_cm_calls_total{operation=lookup,result=ok}", 1.0);
    is("cardbridge_cm_calls_total{operation=set-status,result=ok}", 1.0);
    is("cardbridge_cm_call_duration_seconds_count{operation=set-status}", 1.0);
    is("cardbridge_cm_outages_total{}", 1.0);
    is("cardbridge_entries_settled_total{outcome=updated}", 1.0);
    is("cardbridge_outbox_entries{state=waiting}", 1.0);
    is("cardbridge_outbox_writable{}", 1.0);
    is("cardbridge_pcscd_disconnects_total{}", 1.0);
    is("cardbridge_pcscd_up{}", 0.0);
    is("cardbridge_readers{}", 0.0);
    let at_least = |name: &str, value: f64| {
        assert!(samples.get(name).is_some_and(|seen| *seen >= value), "{name}: {page}");
    };
    at_least("cardbridge_cm_calls_total{operation=lookup,result=unreachable}", 1.0);
    at_least("cardbridge_start_time_seconds{}", 1.7e9);
    at_least("cardbridge_pcsc_errors_total{code=NoService}", 1.0);
    world.finish().unwrap();
}

#[test]
fn occupied_metrics_port_delays_no_card() {
    let mut world =
        require!(world()).config_set("control.metrics_listen", "\"127.0.0.1:0\"").start().unwrap();
    // It listens on the control socket before.
    let started = || world.daemon_log().contains("Metrics listener started");
    world.wait_until("the port of the metrics", LONG, started).unwrap();
    let log = world.daemon_log();
    let line = log.lines().find(|line| line.contains("Metrics listener started")).unwrap();
    let address: SocketAddr = line.rsplit_once("address=").unwrap().1.parse().unwrap();
    let has_readers =
        || ask(TcpStream::connect(address).unwrap()).contains("cardbridge_readers 2\n");
    world.wait_until("two readers among the metrics", LONG, has_readers).unwrap();

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let config = std::fs::read_to_string(world.config_path()).unwrap();
    let address = taken.local_addr().unwrap().to_string();
    std::fs::write(world.config_path(), config.replace("127.0.0.1:0", &address)).unwrap();
    world.reload_daemon().unwrap();
    let waits = || world.daemon_log().contains("key=\"control.metrics_listen\"");
    world.wait_until("the key to wait for a start", LONG, waits).unwrap();
    world.stop_daemon().unwrap();
    world.expect_error("Metrics listener could not start; /metrics stays on the control socket");
    world.start_daemon().unwrap();
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["updated"]);
    world.finish().unwrap();
}
