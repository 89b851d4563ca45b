//! A whole station: the real binary between a private pcscd and a simulated
//! CM, everything in one temporary directory.
//!
//! A scenario inserts cards, breaks things and waits for what should come of
//! it. Where it fails, the logs of all three are printed; an ERROR in the
//! agent's log that the scenario did not announce fails it too.

mod agent;
mod config;
mod log;
mod user;

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::cards::{Card, Faults, InsertedCard};
use crate::cm::{Cm, CmOptions, Store};
use crate::pcscd::{Double, Pcscd, PcscdOptions};
use crate::process::{Process, hold_pid, signal_pid, wait_until};

pub use agent::Output;
use config::Config;
use user::User;

/// How long a start may take: debug builds under strace on a busy machine are
/// slow.
const START_LIMIT: Duration = Duration::from_secs(30);

/// SIGTERM is answered within this time, says the contract.
const STOP_LIMIT: Duration = Duration::from_secs(2);

/// A world to be started.
#[derive(Debug)]
pub struct WorldBuilder {
    binary: PathBuf,
    pcscd: PcscdOptions,
    cm: CmOptions,
    running_cm: Option<Cm>,
    config: Config,
    environment: Vec<(String, OsString)>,
    user: Option<User>,
    daemon: bool,
}

impl WorldBuilder {
    /// Sets the number of readers; 2 if not called.
    #[must_use]
    pub fn readers(mut self, count: usize) -> Self {
        self.pcscd.readers = count;
        self
    }

    /// Has a pcscd that was built with polkit ask it, which lets no agent without privileges in.
    #[must_use]
    pub fn with_polkit(mut self) -> Self {
        self.pcscd.polkit = true;
        self
    }

    /// Sets what stands in for readers and pcscd; vpcd if not called.
    #[must_use]
    pub fn double(mut self, double: Double) -> Self {
        self.pcscd.double = double;
        self
    }

    /// Sets the simulator up; the seed's CM over plain HTTP if not called.
    #[must_use]
    pub fn cm(mut self, options: CmOptions) -> Self {
        self.cm = options;
        self
    }

    /// Takes a simulator that runs already, because a server stands before it.
    #[must_use]
    pub fn running_cm(mut self, cm: Cm) -> Self {
        self.running_cm = Some(cm);
        self
    }

    /// Sends the agent to another address than the simulator's own, for example
    /// to the server that stands before it.
    #[must_use]
    pub fn cm_url(self, url: &str) -> Self {
        self.config_set("cm.url", &config::quoted(url))
    }

    /// Names the CA behind that address.
    #[must_use]
    pub fn ca_file(self, file: &Path) -> Self {
        self.config_set("cm.ca_file", &config::quoted(&file.display().to_string()))
    }

    /// Sets a variable in the environment of the agent and its commands.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Sets a key of the agent's configuration, as `section.key` and a TOML
    /// value.
    #[must_use]
    pub fn config_set(mut self, key: &str, value: &str) -> Self {
        self.config.set(key, value);
        self
    }

    /// Appends TOML to the agent's configuration. A table that the harness
    /// writes too (`station`, `cm`, `cm.auth`, `outbox`, `control`, `log`)
    /// cannot be opened twice: use [`Self::config_set`] for those.
    #[must_use]
    pub fn config_extra(mut self, toml: &str) -> Self {
        self.config.append(toml);
        self
    }

    /// Runs the agent as the harness's own user. Else a harness that is root
    /// runs it as a user without privileges; commands are run as root.
    #[must_use]
    pub fn as_own_user(mut self) -> Self {
        self.user = None;
        self
    }

    /// Leaves the agent to be started by the scenario.
    #[must_use]
    pub fn without_daemon(mut self) -> Self {
        self.daemon = false;
        self
    }

    /// Starts pcscd, the simulator and the agent, and waits until the agent
    /// answers on its control socket.
    pub fn start(mut self) -> Result<World> {
        let dir = tempfile::Builder::new().prefix("cw-").tempdir()?;
        let cm = match self.running_cm {
            Some(cm) => cm,
            None => Cm::start(self.cm)?,
        };
        self.config.complete(dir.path(), &cm)?;
        let mut binary = self.binary;
        if let Some(user) = self.user {
            user.own(dir.path())?;
            binary = user::reachable(&binary, dir.path())?;
            for path in self.config.texts().chain(self.environment.iter().map(|(_, v)| v.clone())) {
                user::open_up(&path)?;
            }
        }
        let mut world = World {
            daemon: None,
            binary,
            pcscd: Pcscd::start(self.pcscd)?,
            cm,
            environment: self.environment,
            user: self.user,
            expected_errors: Vec::new(),
            finished: false,
            dir,
        };
        std::fs::write(world.config_path(), self.config.to_string())?;
        if self.daemon {
            world.start_daemon()?;
        }
        Ok(world)
    }
}

/// A running world; dropping it ends everything in it.
#[derive(Debug)]
pub struct World {
    // Dropped in this order: the agent before what it talks to.
    daemon: Option<Process>,
    binary: PathBuf,
    /// The private pcscd.
    pub pcscd: Pcscd,
    /// The simulated CM.
    pub cm: Cm,
    environment: Vec<(String, OsString)>,
    user: Option<User>,
    expected_errors: Vec<String>,
    finished: bool,
    dir: TempDir,
}

impl World {
    /// The agent's program, where the user that it runs as reaches it.
    #[must_use]
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    /// A world around this `cardbridge` binary.
    #[must_use]
    pub fn builder(binary: impl AsRef<Path>) -> WorldBuilder {
        WorldBuilder {
            user: User::for_agent(),
            binary: binary.as_ref().to_owned(),
            pcscd: PcscdOptions::default(),
            cm: CmOptions { store: Store::seed(), ..CmOptions::default() },
            running_cm: None,
            config: Config::default(),
            environment: Vec::new(),
            daemon: true,
        }
    }

    /// The world's directory: configuration, outbox, sockets, logs.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The agent's configuration file; a scenario may rewrite it.
    #[must_use]
    pub fn config_path(&self) -> PathBuf {
        self.dir().join("cardbridge.toml")
    }

    /// The agent's outbox.
    #[must_use]
    pub fn outbox_path(&self) -> PathBuf {
        self.dir().join("outbox.db")
    }

    /// The agent's control socket.
    #[must_use]
    pub fn control_path(&self) -> PathBuf {
        self.dir().join("control.sock")
    }

    /// Inserts a card.
    pub fn insert(&self, reader: usize, card: impl Card + 'static) -> Result<InsertedCard> {
        self.pcscd.insert(reader, card)
    }

    /// Inserts a card that has faults from the first moment on.
    pub fn insert_with(
        &self,
        reader: usize,
        card: impl Card + 'static,
        faults: Faults,
    ) -> Result<InsertedCard> {
        self.pcscd.insert_with(reader, card, faults)
    }

    /// Starts the agent and waits until it answers on its control socket.
    pub fn start_daemon(&mut self) -> Result<()> {
        self.start_daemon_under(&[])
    }

    /// Starts the agent under another program, for example
    /// `["strace", "-f", "-o", "trace"]`.
    pub fn start_daemon_under(&mut self, prefix: &[&str]) -> Result<()> {
        ensure!(!self.daemon_running(), "the agent runs already");
        let mut process = Process::spawn(self.daemon_command(prefix)?)?;
        let socket = self.control_path();
        let mut ended = None;
        let ready = wait_until("the agent's control socket", START_LIMIT, || {
            ended = process.ended().ok().flatten();
            ended.is_some() || std::os::unix::net::UnixStream::connect(&socket).is_ok()
        });
        if let Some(status) = ended {
            bail!("the agent did not start ({status}):\n{}", self.daemon_log());
        }
        ready.with_context(|| self.daemon_log())?;
        self.daemon = Some(process);
        Ok(())
    }

    /// Starts the agent and waits for nothing: for a scenario that ends it in
    /// the middle of its start.
    pub fn launch_daemon(&mut self) -> Result<()> {
        ensure!(!self.daemon_running(), "the agent runs already");
        self.daemon = Some(Process::spawn(self.daemon_command(&[])?)?);
        Ok(())
    }

    /// Ends the agent with SIGKILL.
    pub fn kill9_daemon(&mut self) -> Result<()> {
        let pid = self.daemon_pid()?;
        signal_pid(pid, Signal::KILL)?;
        self.wait_daemon_end(STOP_LIMIT).map(drop)
    }

    /// Ends the agent with SIGTERM; it must obey in time, and with success.
    pub fn stop_daemon(&mut self) -> Result<()> {
        let pid = self.daemon_pid()?;
        signal_pid(pid, Signal::TERM)?;
        let status = self.wait_daemon_end(STOP_LIMIT)?;
        ensure!(status.success(), "the agent ended with {status}");
        Ok(())
    }

    /// Sends the agent SIGHUP: read the configuration again.
    pub fn reload_daemon(&self) -> Result<()> {
        signal_pid(self.daemon_pid()?, Signal::HUP)
    }

    /// Holds the agent where it is (SIGSTOP).
    pub fn freeze_daemon(&self) -> Result<()> {
        hold_pid(self.daemon_pid()?)
    }

    /// Lets a held agent go on (SIGCONT).
    pub fn thaw_daemon(&self) -> Result<()> {
        signal_pid(self.daemon_pid()?, Signal::CONT)
    }

    /// Waits for the agent to end by itself.
    pub fn wait_daemon_end(&mut self, timeout: Duration) -> Result<ExitStatus> {
        let process = self.daemon.as_mut().context("the agent does not run")?;
        let status = process.wait_end(timeout)?;
        let status = status.with_context(|| format!("the agent still runs after {timeout:?}"))?;
        self.daemon = None;
        Ok(status)
    }

    /// Whether the agent runs.
    pub fn daemon_running(&mut self) -> bool {
        let daemon = self.daemon.as_mut();
        daemon.is_some_and(|process| matches!(process.ended(), Ok(None)))
    }

    /// The agent's process id, also under another program.
    pub fn daemon_pid(&self) -> Result<u32> {
        let process = self.daemon.as_ref().context("the agent does not run")?;
        let binary = std::fs::canonicalize(&self.binary)?;
        Ok(agent::find(process.pid(), &binary).unwrap_or(process.pid()))
    }

    /// What the agent has written to stderr, over all its starts.
    #[must_use]
    pub fn daemon_log(&self) -> String {
        let bytes = std::fs::read(self.log_path()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Runs `cardbridge ARGS --config FILE` to its end.
    pub fn cli(&self, args: &[&str]) -> Result<Output> {
        agent::run(self.cli_command(args))
    }

    /// The audit trail, a value a line.
    pub fn audit(&self) -> Result<Vec<Value>> {
        let output = self.cli(&["audit", "--format", "json"])?;
        ensure!(output.code == Some(0), "cardbridge audit failed: {output:?}");
        let lines = output.stdout.lines().filter(|line| !line.trim().is_empty());
        let parse = |line| serde_json::from_str(line).with_context(|| format!("not JSON: {line}"));
        lines.map(parse).collect()
    }

    /// The outcomes in the audit trail, in order.
    pub fn outcomes(&self) -> Result<Vec<String>> {
        let audit = self.audit()?;
        let outcome = |line: &Value| Some(line.get("outcome")?.as_str()?.to_owned());
        Ok(audit.iter().filter_map(outcome).collect())
    }

    /// Waits until the audit trail has `count` outcomes, and returns them.
    pub fn wait_for_outcomes(&self, count: usize, timeout: Duration) -> Result<Vec<String>> {
        let mut last = Err(anyhow::anyhow!("never asked"));
        let enough = wait_until("outcomes in the audit trail", timeout, || {
            last = self.outcomes();
            last.as_ref().is_ok_and(|outcomes| outcomes.len() >= count)
        });
        enough.with_context(|| format!("wanted {count} outcomes, have {last:?}"))?;
        last
    }

    /// Waits until a condition holds; it is looked at every 20 ms.
    pub fn wait_until(
        &self,
        what: &str,
        timeout: Duration,
        condition: impl FnMut() -> bool,
    ) -> Result<()> {
        wait_until(what, timeout, condition)
    }

    /// Announces an ERROR whose line contains `part`.
    pub fn expect_error(&mut self, part: &str) {
        self.expected_errors.push(part.to_owned());
    }

    /// Ends the agent and fails on an ERROR that was not announced. Dropping
    /// the world does the same and panics.
    pub fn finish(mut self) -> Result<()> {
        self.finished = true;
        let result = self.verdict();
        if result.is_err() {
            self.print_logs();
        }
        result
    }

    fn verdict(&mut self) -> Result<()> {
        if self.daemon_running() {
            self.stop_daemon()?;
        }
        let errors = log::unexpected_errors(&self.daemon_log(), &self.expected_errors);
        ensure!(errors.is_empty(), "unexpected errors:\n{}", errors.join("\n"));
        Ok(())
    }

    /// Prints what is needed to understand a failure.
    #[expect(clippy::print_stderr, reason = "the report of a failed test")]
    fn print_logs(&self) {
        eprintln!("--- agent's log\n{}", self.daemon_log());
        eprintln!("--- calls to CM\n{}", self.cm.story());
        eprintln!("--- pcscd's log\n{}", self.pcscd.log());
    }

    fn log_path(&self) -> PathBuf {
        self.dir().join("daemon.log")
    }
}

impl Drop for World {
    #[expect(clippy::panic, reason = "a scenario with unexpected errors must fail")]
    fn drop(&mut self) {
        if thread::panicking() {
            self.print_logs();
        } else if !self.finished
            && let Err(error) = self.verdict()
        {
            self.print_logs();
            panic!("{error:#}");
        }
    }
}
