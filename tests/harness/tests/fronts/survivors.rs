//! Nothing is left of a harness that is killed, whatever it had started.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use cardbridge_harness::acceptor::{self, Acceptor, AcceptorOptions};
use cardbridge_harness::apache::{self, Apache, ApacheOptions, Negotiate};
use cardbridge_harness::cm::Cm;
use cardbridge_harness::kdc::{self, Kdc, KdcOptions};
use cardbridge_harness::pki::Signing;
use cardbridge_harness::process::{Process, wait_until};
use cardbridge_harness::proxy::{self, Proxy, ProxyOptions};
use cardbridge_harness::require;

use super::LONG;

/// Names the directory in which this program, started by the test below, is the
/// harness that gets killed.
const VICTIM: &str = "CARDBRIDGE_TEST_VICTIM";

#[test]
fn victim() {
    let Some(dir) = std::env::var_os(VICTIM) else { return };
    let kdc = Kdc::start(KdcOptions::default()).unwrap();
    let negotiate = Negotiate::of(&kdc).unwrap();
    let upstream = Cm::seed().unwrap().address();
    let options =
        ApacheOptions { negotiate: Some(negotiate.clone()), ..ApacheOptions::before(upstream) };
    let _apache = Apache::start(&options).unwrap();
    let signing = Signing::default();
    let _acceptor = Acceptor::start(AcceptorOptions { upstream, negotiate, signing }).unwrap();
    let _proxy = Proxy::start(&ProxyOptions::default()).unwrap();
    fs::write(Path::new(&dir).join("ready"), "").unwrap();
    loop {
        std::thread::park();
    }
}

#[test]
fn no_server_outlives_a_harness_that_is_killed() {
    require!(kdc::available());
    require!(apache::available());
    require!(acceptor::available());
    require!(proxy::available());
    let dir = tempfile::tempdir().unwrap();
    // Apache gives root's rights up and has to get there all the same.
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "survivors::victim"]).stdout(Stdio::null());
    command.env(VICTIM, dir.path()).env("TMPDIR", dir.path());
    let mut victim = Process::spawn(command).unwrap();
    let ready = dir.path().join("ready");
    wait_until("the servers run", LONG, || ready.exists()).unwrap();
    let marker = format!("{VICTIM}={}", dir.path().display());
    let running = || {
        let processes = fs::read_dir("/proc").unwrap().flatten();
        let environments =
            processes.filter_map(|process| fs::read(process.path().join("environ")).ok());
        environments.filter(|text| String::from_utf8_lossy(text).contains(&marker)).count()
    };
    assert!(running() >= 5, "the harness and four servers");
    victim.kill().unwrap();
    wait_until("all are gone", LONG, || running() == 0).unwrap();
}
