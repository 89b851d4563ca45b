//! TCP connections inside another process's network namespace.
//!
//! A private pcscd keeps its virtual readers in a network namespace of its own.
//! Root enters it with a short-lived thread. Without privileges a thread of
//! this process may not: entering would need a user namespace, which a process
//! with several threads cannot join. There, `bash` is sent in by `nsenter`,
//! connects, and this process takes a copy of bash's descriptor.

use std::io::{BufRead as _, BufReader};
use std::net::TcpStream;
use std::os::fd::AsFd as _;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, geteuid, pidfd_getfd, pidfd_open};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::process::Process;

/// A place to connect from.
#[derive(Clone, Debug, Default)]
enum Place {
    /// None at the moment.
    #[default]
    Nowhere,
    /// The network namespace of a process, to its own loopback.
    Inside(u32),
    /// This process's own network, to a host.
    Here(String),
}

/// The network namespace of whatever process stands for it at the moment.
///
/// Clones share the process, so a card finds its reader again after pcscd was
/// restarted in a new namespace.
#[derive(Clone, Debug, Default)]
pub struct Namespace {
    place: Arc<Mutex<Place>>,
}

impl Namespace {
    /// The namespace of process `pid`.
    #[must_use]
    pub fn of(pid: u32) -> Self {
        let namespace = Self::default();
        namespace.set_owner(Some(pid));
        namespace
    }

    /// This process's own namespace, as the place of `host`.
    #[must_use]
    pub fn own(host: &str) -> Self {
        let namespace = Self::default();
        *namespace.lock() = Place::Here(host.to_owned());
        namespace
    }

    /// Names the process whose namespace it is; `None` while there is none.
    pub fn set_owner(&self, pid: Option<u32>) {
        *self.lock() = pid.map_or(Place::Nowhere, Place::Inside);
    }

    /// Connects to `port` inside the namespace.
    pub fn connect(&self, port: u16) -> Result<TcpStream> {
        let place = self.lock().clone();
        match place {
            Place::Nowhere => bail!("no process owns the namespace"),
            Place::Here(host) => Ok(TcpStream::connect((host, port))?),
            Place::Inside(pid) if geteuid().is_root() => connect_as_root(pid, port),
            Place::Inside(pid) => connect_through_bash(pid, port),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn connect_as_root(pid: u32, port: u16) -> Result<TcpStream> {
    let link = std::fs::File::open(format!("/proc/{pid}/ns/net"))?;
    let visitor = thread::spawn(move || -> Result<TcpStream> {
        move_into_link_name_space(link.as_fd(), Some(LinkNameSpaceType::Network))?;
        Ok(TcpStream::connect(("127.0.0.1", port))?)
    });
    visitor.join().ok().context("the visiting thread panicked")?
}

fn connect_through_bash(pid: u32, port: u16) -> Result<TcpStream> {
    const DESCRIPTOR: i32 = 9;
    let script =
        format!("exec {DESCRIPTOR}<>/dev/tcp/127.0.0.1/{port} && echo connected && read -r _");
    let mut command = Command::new("nsenter");
    command
        .args(["-t", &pid.to_string(), "-U", "-n", "--preserve-credentials"])
        .args(["bash", "-c", &script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut bash = Process::spawn(command)?;
    let mut line = String::new();
    let stdout = bash.take_stdout().context("bash has no stdout")?;
    BufReader::new(stdout).read_line(&mut line)?;
    if line != "connected\n" {
        bail!("nothing listens on port {port} in the namespace of {pid}");
    }
    let id = i32::try_from(bash.pid()).ok().and_then(Pid::from_raw);
    let pidfd = pidfd_open(id.context("not a process id")?, PidfdFlags::empty())?;
    let socket = pidfd_getfd(&pidfd, DESCRIPTOR, PidfdGetfdFlags::empty())
        .context("cannot take over bash's socket")?;
    Ok(TcpStream::from(socket))
}
