//! A private pcscd: its own mount and network namespace, its own virtual
//! readers, its own socket.
//!
//! Clients find it through `PCSCLITE_CSOCK_NAME` set to
//! [`Pcscd::socket_path`]; the machine's own pcscd, its USB readers and
//! `/run/pcscd` are never touched. Root unshares directly, other users through
//! a user namespace.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Signal, geteuid};
use tempfile::TempDir;

use crate::cards::{Card, Faults, InsertedCard};
use crate::netns::Namespace;
use crate::process::{Process, wait_until};

/// vpcd's default port, of the first slot of the first reader.
pub const FIRST_PORT: u16 = 35963;

/// pcscd drops what goes beyond 16 readers without a word.
const MOST_READERS: usize = 16;

const DRIVER: &str = "/usr/lib/pcsc/drivers/serial/libifdvpcd.so";

/// What a private pcscd looks like.
#[derive(Clone, Copy, Debug)]
pub struct PcscdOptions {
    /// Number of readers, at most 16; rounded up to an even number, because
    /// every virtual device has two slots.
    pub readers: usize,
}

impl Default for PcscdOptions {
    fn default() -> Self {
        Self { readers: 2 }
    }
}

/// A running private pcscd; dropping it ends it and removes its files.
#[derive(Debug)]
pub struct Pcscd {
    namespace: Namespace,
    process: Option<Process>,
    readers: usize,
    dir: TempDir,
}

impl Pcscd {
    /// Starts a pcscd and waits until it takes clients and cards.
    pub fn start(options: PcscdOptions) -> Result<Self> {
        let readers = options.readers.next_multiple_of(2);
        ensure!(readers <= MOST_READERS, "pcscd has room for 16 readers");
        let dir = tempfile::Builder::new().prefix("cb-").tempdir()?;
        // An agent that runs as another user passes through it to the socket.
        fs::set_permissions(dir.path(), Permissions::from_mode(0o711))?;
        let mut pcscd = Self { namespace: Namespace::default(), process: None, readers, dir };
        // libpcsclite cuts a longer path silently and then finds nothing.
        let length = pcscd.socket_path().as_os_str().len();
        ensure!(length < 108, "the socket's path is too long; set TMPDIR");
        pcscd.write_files()?;
        pcscd.launch()?;
        Ok(pcscd)
    }

    /// The socket for `PCSCLITE_CSOCK_NAME`.
    #[must_use]
    pub fn socket_path(&self) -> PathBuf {
        self.dir.path().join("run/pcscd.comm")
    }

    /// The PC/SC names of the readers, by index.
    #[must_use]
    pub fn reader_names(&self) -> Vec<String> {
        (0..self.readers).map(reader_name).collect()
    }

    /// The process id, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }

    /// The network namespace of the readers.
    #[must_use]
    pub fn namespace(&self) -> Namespace {
        self.namespace.clone()
    }

    /// Inserts a card into a reader.
    pub fn insert(&self, reader: usize, card: impl Card + 'static) -> Result<InsertedCard> {
        self.insert_with(reader, card, Faults::default())
    }

    /// Inserts a card that has faults from the first moment on.
    pub fn insert_with(
        &self,
        reader: usize,
        card: impl Card + 'static,
        faults: Faults,
    ) -> Result<InsertedCard> {
        ensure!(reader < self.readers, "there is no reader {reader}");
        InsertedCard::insert(self.namespace(), port(reader)?, Box::new(card), faults)
    }

    /// Ends pcscd with SIGKILL: its socket file stays behind, as in a crash.
    pub fn kill9(&mut self) -> Result<()> {
        self.namespace.set_owner(None);
        if let Some(mut process) = self.process.take() {
            process.kill()?;
        }
        Ok(())
    }

    /// Ends pcscd with SIGTERM, so that it removes its socket file.
    pub fn stop(&mut self) -> Result<()> {
        self.namespace.set_owner(None);
        if let Some(mut process) = self.process.take() {
            process.signal(Signal::TERM)?;
            let ended = process.wait_end(Duration::from_secs(5))?;
            ended.context("pcscd does not end on SIGTERM")?;
        }
        Ok(())
    }

    /// Starts pcscd again on the same socket, killing it first where it still
    /// runs; inserted cards come back in their readers by themselves.
    pub fn restart(&mut self) -> Result<()> {
        self.kill9()?;
        self.launch()
    }

    /// Freezes pcscd (SIGSTOP): its clients hang.
    pub fn freeze(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets a frozen pcscd go on (SIGCONT).
    pub fn thaw(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// What pcscd has printed.
    #[must_use]
    pub fn log(&self) -> String {
        let bytes = fs::read(self.log_path()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let process = self.process.as_ref().context("pcscd does not run")?;
        process.signal(signal)
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("pcscd.log")
    }

    fn write_files(&self) -> Result<()> {
        let dir = self.dir.path();
        for name in ["run", "conf", "empty"] {
            fs::create_dir(dir.join(name))?;
        }
        for device in 0..self.readers / 2 {
            // One copy of the driver a device: two devices on one copy would
            // share its globals, and so each other's cards.
            let driver = dir.join(format!("vpcd{device}.so"));
            fs::copy(DRIVER, &driver).with_context(|| format!("no driver {DRIVER}"))?;
            fs::write(dir.join(format!("conf/device{device}")), device_entry(device, &driver)?)?;
        }
        fs::write(dir.join("start"), start_script(dir))?;
        Ok(())
    }

    fn launch(&mut self) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.log_path())?;
        let mut command = unshare();
        command
            .args(["setpriv", "--pdeathsig", "KILL", "sh"])
            .arg(self.dir.path().join("start"))
            .arg(std::process::id().to_string())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let process = self.process.insert(Process::spawn(command)?);
        let pid = process.pid();
        let socket = self.dir.path().join("run/pcscd.comm");
        let readers = self.readers;
        let mut ended = None;
        let ready = wait_until("pcscd takes clients", Duration::from_secs(10), || {
            ended = process.ended().ok().flatten();
            ended.is_some() || (listening(pid) == readers && UnixStream::connect(&socket).is_ok())
        });
        if let Some(status) = ended {
            self.process = None;
            bail!("pcscd did not start ({status}):\n{}", self.log());
        }
        ready.with_context(|| self.log())?;
        self.namespace.set_owner(Some(pid));
        Ok(())
    }
}

impl Drop for Pcscd {
    fn drop(&mut self) {
        drop(self.kill9());
    }
}

/// Why no private pcscd can run on this machine, if so: tests then say
/// SKIPPED.
#[must_use]
pub fn unavailable() -> Option<String> {
    if !Path::new(DRIVER).exists() {
        return Some(format!("{DRIVER} is missing (package vsmartcard-vpcd)"));
    }
    if !Path::new("/usr/sbin/pcscd").exists() {
        return Some("/usr/sbin/pcscd is missing (package pcscd)".to_owned());
    }
    let output = unshare().arg("true").output();
    match output {
        Err(error) => Some(format!("cannot run unshare: {error}")),
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(format!(
            "namespaces are forbidden here: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )),
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

fn port(reader: usize) -> Result<u16> {
    Ok(FIRST_PORT + u16::try_from(reader)?)
}

fn reader_name(reader: usize) -> String {
    format!("Virtual PCD {} 00 {:02X}", reader / 2 + 1, reader % 2)
}

/// pcscd reads CHANNELID before LIBPATH or not at all.
fn device_entry(device: usize, driver: &Path) -> Result<String> {
    let port = port(2 * device)?;
    Ok(format!(
        "FRIENDLYNAME \"Virtual PCD {}\"\nCHANNELID 0x{port:X}\n\
         DEVICENAME /dev/null:0x{port:X}\nLIBPATH {}\n",
        device + 1,
        driver.display()
    ))
}

/// Runs inside the new namespaces and becomes pcscd. The empty driver
/// directory keeps real USB readers out; a parent that has died meanwhile would
/// send no death signal any more, hence the look at it.
fn start_script(dir: &Path) -> String {
    let dir = dir.display();
    format!(
        r#"set -e
[ "$PPID" = "$1" ]
ip link set lo up
mount --bind '{dir}/empty' /usr/lib/pcsc/drivers
[ -d /run/pcscd ] || {{ mount -t tmpfs none /run; mkdir /run/pcscd; }}
mount --bind '{dir}/run' /run/pcscd
rm -f /run/pcscd/pcscd.pid /run/pcscd/pcscd.comm
exec /usr/sbin/pcscd --foreground --config '{dir}/conf'
"#
    )
}

/// The number of listening TCP sockets in the network namespace of a process.
fn listening(pid: u32) -> usize {
    let table = fs::read_to_string(format!("/proc/{pid}/net/tcp")).unwrap_or_default();
    let state = |line: &str| line.split_whitespace().nth(3) == Some("0A");
    table.lines().filter(|line| state(line)).count()
}
