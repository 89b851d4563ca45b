//! Programs that serve on a port, as private instances in the foreground.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::Signal;

use crate::process::{Process, wait_until};

const START_LIMIT: Duration = Duration::from_secs(20);
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// A server that can be stopped, started again on its port, and frozen.
#[derive(Debug)]
pub(crate) struct Server {
    name: &'static str,
    process: Option<Process>,
    address: SocketAddr,
    output: PathBuf,
    /// Bound, never listening: while the server is away no other program gets its
    /// port.
    _port: OwnedFd,
}

impl Server {
    /// A server that is still to be started; what it prints goes to a file in
    /// `dir`.
    pub(crate) fn new(name: &'static str, dir: &Path, port: (OwnedFd, SocketAddr)) -> Self {
        let output = dir.join(format!("{name}.out"));
        Self { name, process: None, address: port.1, output, _port: port.0 }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Starts it and waits until it takes connections.
    pub(crate) fn launch(&mut self, mut command: Command) -> Result<()> {
        let name = self.name;
        ensure!(self.process.is_none(), "{name} runs already");
        let output = File::options().create(true).append(true).open(&self.output)?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let mut process = Process::spawn(command)?;
        let mut ended = None;
        let ready = wait_until("a server takes connections", START_LIMIT, || {
            ended = process.ended().ok().flatten();
            ended.is_some() || TcpStream::connect(self.address).is_ok()
        });
        if let Some(status) = ended {
            bail!("{name} did not start ({status}):\n{}", self.output());
        }
        ready.with_context(|| format!("{name} printed:\n{}", self.output()))?;
        self.process = Some(process);
        Ok(())
    }

    /// Ends it: its port refuses connections.
    pub(crate) fn stop(&mut self) -> Result<()> {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        process.signal(Signal::CONT)?;
        process.signal(Signal::TERM)?;
        let ended = process.wait_end(STOP_LIMIT)?;
        ended.with_context(|| format!("{} does not end on SIGTERM", self.name))?;
        Ok(())
    }

    /// Holds it where it is: the kernel takes what arrives, and no answer comes.
    pub(crate) fn freeze(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// What it has printed.
    pub(crate) fn output(&self) -> String {
        text(&self.output)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let process = self.process.as_ref();
        process.with_context(|| format!("{} does not run", self.name))?.signal(signal)
    }
}

/// A log as far as it is written; empty before it is.
pub(crate) fn text(file: &Path) -> String {
    String::from_utf8_lossy(&fs::read(file).unwrap_or_default()).into_owned()
}

/// Runs a tool to its end and returns what it printed.
pub(crate) fn run(mut command: Command) -> Result<String> {
    let what = format!("{command:?}");
    let output = command.stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("cannot run {what}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{what} failed ({}): {}", output.status, said.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
