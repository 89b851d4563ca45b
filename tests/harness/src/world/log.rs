//! Errors in the agent's log.

use serde_json::Value;

/// The lines that report an error, or a panic, that was not announced.
pub(super) fn unexpected_errors(log: &str, expected: &[String]) -> Vec<String> {
    let announced = |line: &str| expected.iter().any(|part| line.contains(part));
    let lines = log.lines().filter(|line| is_error(line) && !announced(line));
    lines.map(str::to_owned).collect()
}

/// Text has the level after the time, and systemd's and journald's formats in
/// front of it; JSON has it as a field.
fn is_error(line: &str) -> bool {
    if line.contains("panicked at") {
        return true;
    }
    if let Ok(event) = serde_json::from_str::<Value>(line) {
        return event.get("level").and_then(Value::as_str) == Some("ERROR");
    }
    line.split_whitespace().take(3).any(|word| word == "ERROR")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unexpected_errors_are_found_in_text_and_json() {
        let log = "2026-01-01T00:00:00Z  INFO cardbridge: Started\n\
                   2026-01-01T00:00:00Z ERROR cardbridge::outbox: Disk full\n\
                   {\"timestamp\":\"2026\",\"level\":\"ERROR\",\"fields\":{}}\n\
                   2026-01-01T00:00:00Z  WARN x: the word ERROR further on\n\
                   thread 'main' panicked at src/main.rs:1:1:\n";
        assert_eq!(unexpected_errors(log, &[]).len(), 3);
        let left = unexpected_errors(log, &["Disk full".to_owned()]);
        assert_eq!(left.len(), 2);
    }
}
