//! The agent as a process: how it is started and how its commands are run.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::World;
use super::user::User;
use crate::process::{Process, mortal, mortal_as};

/// A command that takes longer hangs.
const COMMAND_LIMIT: Duration = Duration::from_secs(30);

/// What a command of the agent printed and how it ended.
#[derive(Clone, Debug)]
pub struct Output {
    /// The exit code; `None` where a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Output {
    /// Standard output as one JSON value.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.stdout).with_context(|| format!("not JSON: {self:?}"))
    }
}

impl World {
    pub(super) fn daemon_command(&self, prefix: &[&str]) -> Result<Command> {
        let log = File::options().create(true).append(true).open(self.log_path())?;
        let user = self.user.map(User::arguments).unwrap_or_default();
        let mut command = match prefix {
            [] => mortal_as(&user, &self.binary),
            // The agent must also die with the program it runs under.
            [program, args @ ..] => {
                let mut command = mortal(program);
                command.args(args).args(["setpriv", "--pdeathsig", "KILL"]).args(user);
                command.arg("--").arg(&self.binary);
                command
            }
        };
        command.args(["run", "--config"]).arg(self.config_path());
        self.set_environment(&mut command);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Ok(command)
    }

    /// `cardbridge ARGS --config FILE`, to be run as the caller likes.
    #[must_use]
    pub fn cli_command(&self, args: &[&str]) -> Command {
        let mut command = mortal(&self.binary);
        command.args(args).arg("--config").arg(self.config_path());
        self.set_environment(&mut command);
        command.stdin(Stdio::null());
        command
    }

    fn set_environment(&self, command: &mut Command) {
        command
            .current_dir(self.dir())
            .env("PCSCLITE_CSOCK_NAME", self.pcscd.socket_path())
            .env("NO_COLOR", "1");
        // Neither may settings of the machine replace the scenario's, nor a
        // proxy stand in front of the simulator.
        let names = std::env::vars_os().map(|(name, _)| name);
        let settings = |name: &OsString| {
            let name = name.to_string_lossy();
            name.starts_with("CARDBRIDGE_") || name.starts_with("KRB5")
        };
        for name in names.filter(settings) {
            command.env_remove(name);
        }
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"] {
            command.env_remove(name).env_remove(name.to_lowercase());
        }
        // Nor may a service manager take the agent for the process that it started.
        for name in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "JOURNAL_STREAM"] {
            command.env_remove(name);
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
    }
}

/// Runs a command to its end, its output in files so that it can never block.
pub(super) fn run(mut command: Command) -> Result<Output> {
    let dir = tempfile::tempdir()?;
    let (stdout, stderr) = (dir.path().join("out"), dir.path().join("err"));
    command.stdout(File::create(&stdout)?).stderr(File::create(&stderr)?);
    let text = format!("{command:?}");
    let ended = Process::spawn(command)?.wait_end(COMMAND_LIMIT)?;
    let read = |path: &Path| fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into());
    let (stdout, stderr): (String, String) = (read(&stdout)?, read(&stderr)?);
    let status = ended.with_context(|| format!("{text} hangs; so far: {stdout}{stderr}"))?;
    Ok(Output { code: status.code(), stdout, stderr })
}

/// The process that runs `binary`, among `pid` and its descendants.
pub(super) fn find(pid: u32, binary: &Path) -> Option<u32> {
    if fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == binary) {
        return Some(pid);
    }
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    let mut children = children.split_whitespace();
    children.find_map(|child| find(child.parse().ok()?, binary))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::wait_until;
    use crate::require;

    #[test]
    fn the_agent_is_found_under_another_program() {
        require!(require::strace());
        let mut command = mortal("strace");
        command.args(["-f", "-o", "/dev/null", "setpriv", "--pdeathsig", "KILL", "sleep", "60"]);
        command.stderr(Stdio::null());
        let mut strace = Process::spawn(command).unwrap();
        let sleep = fs::canonicalize("/usr/bin/sleep").unwrap();
        let mut found = None;
        let limit = Duration::from_secs(10);
        wait_until("the traced program", limit, || {
            found = find(strace.pid(), &sleep);
            found.is_some()
        })
        .unwrap();
        assert_ne!(found, Some(strace.pid()));
        strace.kill().unwrap();
        let gone = || !Path::new(&format!("/proc/{}", found.unwrap())).exists();
        wait_until("the traced program dies with strace", limit, gone).unwrap();
    }
}
