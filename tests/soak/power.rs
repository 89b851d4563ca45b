//! Power cuts at random moments: the outbox on a file system of its own, whose image is copied
//! while the writer is held. What the copy has after its journal was replayed is what a machine
//! would find after the power came back.
//!
//! The kernel writes to the image what was synced, and little else; a disk that loses its own
//! cache is not simulated. That the method finds loss is shown by the same writer with an
//! `fsync` that does nothing.

mod ledger;
mod writer;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use cardbridge_harness::process::{Process, mortal, signal_pid, wait_until};
use cardbridge_harness::require;
use fastrand::Rng;
use rustix::process::Signal;
use tempfile::TempDir;

use super::{LONG, report, seeds};
use ledger::Ledger;

/// Cuts in a round: one writer, which goes on after each.
const CUTS: usize = 8;
/// The image's size: room for a round, and small enough to be copied at once.
const IMAGE_BYTES: u64 = 48 << 20;

/// Everything of one round.
struct Bench {
    dir: TempDir,
    writer: Process,
    pid: u32,
}

#[test]
fn acknowledged_entries_survive_power_cut() {
    require!(available());
    for seed in seeds(1) {
        let (cuts, acknowledged, lost) = play(seed, &[]);
        report(&format!("power: SOAK_SEED={seed}, {cuts} cuts, {acknowledged} acknowledged"));
        assert!(lost.is_empty(), "SOAK_SEED={seed}: {}", lost.join("\n"));
        assert!(acknowledged > 0, "the writer wrote nothing");
    }
}

#[test]
fn power_cut_without_fsync_is_detected() {
    require!(available());
    let lie = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync", "-e"];
    let lie = [&lie[..], &["inject=fsync,fdatasync:retval=0"]].concat();
    let (cuts, acknowledged, lost) = play(1, &lie);
    assert!(!lost.is_empty(), "{acknowledged} acknowledged, and none is missed");
    report(&format!("power: without fsync {} losses in {cuts} cuts", lost.len()));
}

/// How many cuts, what was acknowledged by the last, and everything that was lost in any.
fn play(seed: u64, under: &[&str]) -> (usize, usize, Vec<String>) {
    let mut random = Rng::with_seed(seed);
    let bench = Bench::start(seed, under);
    let mut lost = Vec::new();
    let mut acknowledged = 0;
    for _ in 0..CUTS {
        // The moment of the cut: nothing is waited for.
        std::thread::sleep(Duration::from_micros(random.u64(1_000..250_000)));
        let copy = bench.cut();
        let ledger = Ledger::read(&bench.ledger());
        acknowledged = ledger.acknowledged();
        let found = open_copy(&copy, bench.dir.path());
        lost.extend(ledger.compare(&found));
        signal_pid(bench.pid, Signal::CONT).unwrap();
    }
    (CUTS, acknowledged, lost)
}

impl Bench {
    fn start(seed: u64, under: &[&str]) -> Self {
        let dir = tempfile::Builder::new().prefix("cut-").tempdir().unwrap();
        make_image(dir.path());
        let mut command = mounting(&dir.path().join("image"), dir.path());
        command.args(under).arg(std::env::current_exe().unwrap());
        command.args(["--exact", "power::writer::writes_until_it_is_killed"]);
        command.env(writer::TO, dir.path()).env(writer::SEED, seed.to_string());
        command.stdout(Stdio::null()).stderr(fs::File::create(dir.path().join("stderr")).unwrap());
        let mut writer = Process::spawn(command).unwrap();
        let mut pid = None;
        let begun = wait_until("the writer's first entries", LONG, || {
            pid = Ledger::pid(&dir.path().join("ledger"));
            pid.is_some() || writer.ended().unwrap().is_some()
        });
        let trouble = fs::read_to_string(dir.path().join("stderr")).unwrap();
        begun.unwrap();
        Self { dir, writer, pid: pid.unwrap_or_else(|| panic!("no writer: {trouble}")) }
    }

    fn ledger(&self) -> PathBuf {
        self.dir.path().join("ledger")
    }

    /// Holds the writer and copies what the disk has at this moment.
    fn cut(&self) -> PathBuf {
        signal_pid(self.pid, Signal::STOP).unwrap();
        wait_until("the writer is held", LONG, || is_held(self.pid)).unwrap();
        let copy = self.dir.path().join("copy");
        fs::copy(self.dir.path().join("image"), &copy).unwrap();
        copy
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // strace does not take what it traces along.
        drop(signal_pid(self.pid, Signal::KILL));
        drop(self.writer.kill());
    }
}

/// Whether every thread of a process is stopped.
fn is_held(pid: u32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    threads.flatten().all(|thread| {
        let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
        matches!(state, Some('T' | 't'))
    })
}

/// Mounts the copy, which replays its journal, and returns what the outbox in it has.
fn open_copy(copy: &Path, dir: &Path) -> ledger::Found {
    let mut command = mounting(copy, dir);
    command.arg(std::env::current_exe().unwrap());
    command.args(["--exact", "power::writer::prints_outbox_contents", "--nocapture"]);
    command.env(writer::FROM, dir);
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find_map(|line| line.split_once(writer::MARK));
    let (_, found) = line.unwrap_or_else(|| panic!("{output:?}"));
    serde_json::from_str(found).unwrap()
}

/// A command line that goes on in a mount namespace of its own, with the image at `disk`.
fn mounting(image: &Path, dir: &Path) -> Command {
    let mut command = mortal("unshare");
    command.args(["-m", "--propagation", "private", "--", "sh", "-c"]);
    // Commits of the file system's journal come from syncs alone: one in the middle of the
    // copying would make a disk that never was.
    command.arg(
        r#"mount -o loop,commit=600 "$1" "$2" && shift 2 && exec setpriv --pdeathsig KILL -- "$@""#,
    );
    command.arg("sh").arg(image).arg(dir.join("disk"));
    command
}

fn make_image(dir: &Path) {
    fs::create_dir(dir.join("disk")).unwrap();
    fs::File::create(dir.join("image")).unwrap().set_len(IMAGE_BYTES).unwrap();
    let made = run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(dir.join("image")));
    assert!(made.is_ok(), "{made:?}");
}

/// Whether there can be a power cut here.
fn available() -> Result<(), String> {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("disk")).unwrap();
    let image = dir.path().join("image");
    fs::File::create(&image).unwrap().set_len(IMAGE_BYTES).unwrap();
    require::runs(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image), "no power cuts")?;
    require::runs(mounting(&image, dir.path()).arg("true"), "no power cuts")
}

fn run(command: &mut Command) -> Result<Output, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(output) } else { Err(stderr) }
}
