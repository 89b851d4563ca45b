//! What a test needs of the machine.

use std::net::{Ipv6Addr, TcpListener};
use std::path::Path;
use std::process::Command;

use crate::print;

/// Set where a test must not be skipped: `.ci/run` sets it.
const REQUIRE_ALL: &str = "TESTS_REQUIRE_ALL";

/// The value of a `Result`; where a prerequisite is missing, the test ends as in
/// [`skipped`].
#[macro_export]
macro_rules! require {
    ($result:expr) => {
        match $result {
            Ok(value) => value,
            Err(reason) => return $crate::require::skipped(&reason),
        }
    };
}

/// Prints that the test is skipped.
///
/// # Panics
///
/// Where nothing may be skipped: the test fails.
pub fn skipped(reason: &str) {
    assert!(std::env::var_os(REQUIRE_ALL).is_none(), "a prerequisite is missing: {reason}");
    print("SKIPPED", reason);
}

/// A file of a package.
pub fn file(path: &str, package: &str) -> Result<(), String> {
    let found = Path::new(path).exists();
    found.then_some(()).ok_or_else(|| format!("{path} is missing (package {package})"))
}

/// A program of a package.
pub fn program(name: &str, package: &str) -> Result<(), String> {
    let found = Command::new("sh").args(["-c", "command -v \"$0\"", name]).output();
    let found = found.is_ok_and(|output| output.status.success());
    found.then_some(()).ok_or_else(|| format!("{name} is missing (package {package})"))
}

/// The rights of root.
pub fn root() -> Result<(), String> {
    let root = rustix::process::geteuid().is_root();
    root.then_some(()).ok_or_else(|| "the test has to run as root".to_owned())
}

/// IPv6 on the loopback interface.
pub fn ipv6() -> Result<(), String> {
    let bound = TcpListener::bind((Ipv6Addr::LOCALHOST, 0));
    bound.map(drop).map_err(|error| format!("no IPv6 on loopback: {error}"))
}

/// strace, and the right to trace.
pub fn strace() -> Result<(), String> {
    runs(Command::new("strace").args(["-f", "-qq", "-e", "trace=none", "true"]), "strace")
}

/// libfaketime; returns its path.
pub fn faketime() -> Result<&'static str, String> {
    const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";
    file(LIBRARY, "faketime").map(|()| LIBRARY)
}

/// A command that succeeds; `what` is what it tries.
pub fn runs(command: &mut Command, what: &str) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{what}: {error}"))?;
    let message = || format!("{what}: {}", String::from_utf8_lossy(&output.stderr).trim());
    output.status.success().then_some(()).ok_or_else(message)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Output};

    use super::REQUIRE_ALL;

    #[test]
    #[ignore = "run by the next test"]
    fn needs_what_is_missing() {
        require!(super::file("/nonexistent", "none"));
        unreachable!("the test has ended");
    }

    #[test]
    fn missing_prerequisite_skips_and_fails_in_ci() {
        let run = |all: Option<&str>| -> Output {
            let mut test = Command::new(std::env::current_exe().unwrap());
            test.args(["--ignored", "--exact", "require::tests::needs_what_is_missing"]);
            test.env_remove(REQUIRE_ALL).envs(all.map(|value| (REQUIRE_ALL, value)));
            test.output().unwrap()
        };
        let elsewhere = run(None);
        let message = String::from_utf8_lossy(&elsewhere.stderr);
        assert!(elsewhere.status.success(), "{message}");
        assert_eq!(message, "SKIPPED: /nonexistent is missing (package none)\n");
        let ci = run(Some("1"));
        assert_eq!(ci.status.code(), Some(101));
        let message = String::from_utf8_lossy(&ci.stdout);
        assert!(message.contains("a prerequisite is missing: /nonexistent"), "{message}");
    }
}
