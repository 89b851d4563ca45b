//! What a change has to pass: nothing is passed over in silence.

#![expect(clippy::unwrap_used, reason = "a test fails where something is not as expected")]

use std::io::Write as _;
use std::process::{Command, Output};

const MAY: &str = "SKIPPED: cargo-deny is not installed; licences and sources were not checked";

/// What `.ci/run` makes of a log.
fn judge(log: &str) -> Output {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(log.as_bytes()).unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/.ci/run");
    Command::new(script).arg("--judge").arg(file.path()).output().unwrap()
}

#[test]
fn listed_or_no_skips_pass() {
    for (log, count) in [("", 0), ("test a ... ok\n", 0), (MAY, 1), (&format!("{MAY}\n{MAY}\n"), 2)]
    {
        let output = judge(log);
        assert!(output.status.success(), "{log:?}: {output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), format!("skipped: {count}\n"));
    }
}

#[test]
fn unlisted_skip_fails_and_is_named() {
    let other = "SKIPPED: opensc-tool is missing (package opensc)";
    for log in [
        format!("{other}\n"),
        format!("{MAY}\ntest a ... ok\n{other}\ntest b ... ok\n"),
        // As it appears where tests run one by one.
        format!("test a ... {other}\nok\n"),
        // One that only begins like what may be skipped.
        format!("{MAY}, nor anything else\n"),
        "SKIPPED:\n".to_owned(),
        format!("\u{0}\u{1}binary\n{other}"),
    ] {
        let output = judge(&log);
        assert_eq!(output.status.code(), Some(1), "{log:?}: {output:?}");
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(message.contains("SKIPPED:") && message.contains("not in the list"), "{message}");
    }
}

#[test]
fn missing_log_fails() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/.ci/run");
    let output = Command::new(script).args(["--judge", "/nonexistent"]).output().unwrap();
    assert!(!output.status.success());
}
