//! Child processes that do not outlive the harness, and bounded waiting.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::{SignalKind, signal};

type Job = (Command, Sender<io::Result<Child>>);

/// The kernel's parent-death signal follows the *thread* that forked, so all
/// children are forked by one thread that lives as long as the process.
static SPAWNER: LazyLock<Sender<Job>> = LazyLock::new(|| {
    let (jobs, inbox) = channel::<Job>();
    thread::spawn(move || {
        for (mut command, reply) in inbox {
            drop(reply.send(command.spawn()));
        }
    });
    jobs
});

/// A command that the kernel kills when the harness dies, however it dies.
#[must_use]
pub fn mortal(program: impl AsRef<Path>) -> Command {
    mortal_as(&[], program)
}

/// The same, with more that `setpriv` is to do before.
pub(crate) fn mortal_as(setpriv: &[String], program: impl AsRef<Path>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).args(setpriv);
    command.arg("--").arg(program.as_ref());
    command
}

/// A running child, killed and reaped on drop.
#[derive(Debug)]
pub struct Process {
    child: Child,
}

impl Process {
    /// Starts `command` in a process group of its own, so that Ctrl-C reaches
    /// the harness only. A [`mortal`] one also dies with the harness.
    pub fn spawn(mut command: Command) -> Result<Self> {
        command.process_group(0);
        let program = command.get_program().to_string_lossy().into_owned();
        let (reply, answer) = channel();
        SPAWNER.send((command, reply)).ok().context("the spawning thread is gone")?;
        let child = answer
            .recv()
            .context("the spawning thread is gone")?
            .with_context(|| format!("cannot start {program}"))?;
        Ok(Self { child })
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        signal_pid(self.pid(), signal)
    }

    /// The exit status, once the process has ended.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits for the process to end by itself.
    pub fn wait_end(&mut self, timeout: Duration) -> Result<Option<ExitStatus>> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(status) = self.ended()? {
                return Ok(Some(status));
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Kills the process with SIGKILL and reaps it.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        self.child.kill()?;
        Ok(self.child.wait()?)
    }

    /// The piped standard input, once.
    pub fn take_stdin(&mut self) -> Option<std::process::ChildStdin> {
        self.child.stdin.take()
    }

    /// The piped standard output, once.
    pub fn take_stdout(&mut self) -> Option<std::process::ChildStdout> {
        self.child.stdout.take()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.kill());
    }
}

/// Turns true on the first SIGINT or SIGTERM, which then no longer end this
/// process: it can clean up.
pub fn interrupted() -> Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&flag);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let entered = runtime.enter();
    let mut int = signal(SignalKind::interrupt())?;
    let mut term = signal(SignalKind::terminate())?;
    drop(entered);
    thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = int.recv() => (),
                _ = term.recv() => (),
            }
        });
        seen.store(true, Ordering::SeqCst);
    });
    Ok(flag)
}

/// Sends a signal to a process id.
pub fn signal_pid(pid: u32, signal: Signal) -> Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let pid = pid.context("not a process id")?;
    kill_process(pid, signal).with_context(|| format!("cannot send {signal:?}"))
}

/// Holds a process where it is (SIGSTOP), and waits until each of its threads stands still.
pub fn hold_pid(pid: u32) -> Result<()> {
    signal_pid(pid, Signal::STOP)?;
    wait_until("a process to stand still", Duration::from_secs(5), || {
        let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let states =
            threads.filter_map(|thread| fs::read_to_string(thread.path().join("stat")).ok());
        // The state follows the name, which is in brackets.
        states
            .into_iter()
            .all(|stat| stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" T")))
    })
}

/// Checks `condition` every 20 ms until it holds; an error names `what` was
/// waited for.
pub fn wait_until(
    what: &str,
    timeout: Duration,
    mut condition: impl FnMut() -> bool,
) -> Result<()> {
    let deadline = Instant::now() + timeout;
    loop {
        if condition() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            bail!("not within {timeout:?}: {what}");
        }
        thread::sleep(Duration::from_millis(20));
    }
}
