//! The real pcscd in mount and network namespaces of its own. Root unshares
//! directly, other users through a user namespace.

use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Signal, geteuid};

use super::vpcd;
use crate::netns::Namespace;
use crate::process::{Process, wait_until};
use crate::require;

/// A pcscd that can be started in a directory.
#[derive(Debug)]
pub(super) struct Private {
    namespace: Namespace,
    process: Option<Process>,
    dir: PathBuf,
    /// Shell commands before it becomes pcscd.
    exports: String,
    /// Whether it may ask polkit.
    polkit: bool,
}

const PCSCD: &str = "/usr/sbin/pcscd";

/// The socket of a pcscd that lives in this directory.
pub(super) fn socket(dir: &Path) -> PathBuf {
    dir.join("run/pcscd.comm")
}

/// Whether this machine can run a private pcscd.
pub fn available() -> Result<(), String> {
    vpcd::available()?;
    require::file(PCSCD, "pcscd")?;
    require::runs(unshare().arg("true"), "no namespaces")
}

/// Whether the system's pcscd was built with polkit.
#[must_use]
pub fn has_polkit() -> bool {
    about("--version").split_whitespace().any(|feature| feature == "polkit")
}

/// The option that keeps pcscd from asking polkit, where it has one: some are built with polkit and
/// have none.
fn without_polkit() -> &'static str {
    const OPTION: &str = "--disable-polkit";
    if about("--help").contains(OPTION) { OPTION } else { "" }
}

/// What pcscd prints about itself; nothing, where it cannot be run.
fn about(option: &str) -> String {
    let output = Command::new(PCSCD).arg(option).output();
    output.map_or_else(
        |_| String::new(),
        |output| String::from_utf8_lossy(&output.stdout).into_owned(),
    )
}

impl Private {
    /// Makes the directories: `conf` for entries of serial readers, `drivers`
    /// for bundles of USB readers, `run` for the socket.
    pub(super) fn prepare(dir: &Path, polkit: bool) -> Result<Self> {
        for name in ["run", "conf", "drivers"] {
            fs::create_dir(dir.join(name))?;
        }
        let (namespace, dir) = (Namespace::default(), dir.to_owned());
        Ok(Self { namespace, process: None, dir, exports: String::new(), polkit })
    }

    /// Has pcscd start with a library before all others.
    pub(super) fn preload(&mut self, library: &Path, (name, value): (&str, &Path)) {
        let (library, value) = (library.display(), value.display());
        self.exports = format!("export {name}='{value}' LD_PRELOAD='{library}'\n");
    }

    pub(super) fn namespace(&self) -> Namespace {
        self.namespace.clone()
    }

    pub(super) fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }

    pub(super) fn kill9(&mut self) -> Result<()> {
        self.namespace.set_owner(None);
        if let Some(mut process) = self.process.take() {
            process.kill()?;
        }
        Ok(())
    }

    pub(super) fn stop(&mut self) -> Result<()> {
        self.namespace.set_owner(None);
        if let Some(mut process) = self.process.take() {
            process.signal(Signal::TERM)?;
            let ended = process.wait_end(Duration::from_secs(5))?;
            ended.context("pcscd does not end on SIGTERM")?;
        }
        Ok(())
    }

    pub(super) fn signal(&self, signal: Signal) -> Result<()> {
        let process = self.process.as_ref().context("pcscd does not run")?;
        process.signal(signal)
    }

    pub(super) fn log(&self) -> String {
        let bytes = fs::read(self.log_path()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn log_path(&self) -> PathBuf {
        self.dir.join("pcscd.log")
    }

    /// Starts it, and waits until it takes clients and the readers are ready.
    pub(super) fn launch(&mut self, readers_are_ready: impl Fn(u32) -> bool) -> Result<()> {
        let script = self.dir.join("start");
        fs::write(&script, self.start_script())?;
        let log = File::options().create(true).append(true).open(self.log_path())?;
        let mut command = unshare();
        command
            .args(["setpriv", "--pdeathsig", "KILL", "sh"])
            .arg(script)
            .arg(std::process::id().to_string())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let process = self.process.insert(Process::spawn(command)?);
        let pid = process.pid();
        let socket = socket(&self.dir);
        let mut ended = None;
        let ready = wait_until("pcscd takes clients", Duration::from_secs(10), || {
            ended = process.ended().ok().flatten();
            ended.is_some() || (readers_are_ready(pid) && UnixStream::connect(&socket).is_ok())
        });
        if let Some(status) = ended {
            self.process = None;
            bail!("pcscd did not start ({status}):\n{}", self.log());
        }
        ready.with_context(|| self.log())?;
        self.namespace.set_owner(Some(pid));
        Ok(())
    }

    /// Runs inside the new namespaces and becomes pcscd. A driver directory of
    /// its own keeps real USB readers out; a parent that has died meanwhile
    /// would send no death signal any more, hence the check.
    fn start_script(&self) -> String {
        let (dir, exports) = (self.dir.display(), &self.exports);
        let option = if self.polkit { "" } else { without_polkit() };
        format!(
            r#"set -e
[ "$PPID" = "$1" ]
ip link set lo up
mount --bind '{dir}/drivers' /usr/lib/pcsc/drivers
[ -d /run/pcscd ] || {{ mount -t tmpfs none /run; mkdir /run/pcscd; }}
mount --bind '{dir}/run' /run/pcscd
rm -f /run/pcscd/pcscd.pid /run/pcscd/pcscd.comm
{exports}exec {PCSCD} --foreground --config '{dir}/conf' {option}
"#
        )
    }
}

fn unshare() -> Command {
    let mut command = Command::new("unshare");
    if !geteuid().is_root() {
        command.args(["-U", "-r"]);
    }
    command.args(["-m", "-n", "--propagation", "private", "--"]);
    command
}
