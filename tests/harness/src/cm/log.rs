//! What reached the simulator, and what became of it.

use std::fmt;
use std::time::SystemTime;

use serde::Serialize;

/// A call as it arrived and as it was answered.
#[derive(Clone, Debug, Serialize)]
pub struct LogEntry {
    /// Position in the log, from 0.
    pub id: usize,
    /// When it arrived.
    #[serde(serialize_with = "rfc3339")]
    pub at: SystemTime,
    /// The number of the connection, from 1.
    pub connection: u64,
    /// The thumbprint of the client's certificate (SHA-1 in hex), if it has
    /// shown one.
    pub client_certificate: Option<String>,
    /// HTTP method.
    pub method: String,
    /// Path and query, as sent.
    pub target: String,
    /// Header fields in order, names as sent.
    pub headers: Vec<(String, String)>,
    /// The body, as text.
    pub body: String,
    /// The status answered; `None` as long as, or if ever, nothing is.
    pub status: Option<u16>,
    /// Whether CM did what a PUT or POST asked for.
    pub applied: bool,
    /// Whether the call is over: answered, cut or reset.
    pub finished: bool,
    /// When CM looked at it, and did what was asked; `None` where a fault came
    /// between.
    #[serde(skip)]
    pub performed_at: Option<SystemTime>,
    /// When it was over.
    #[serde(skip)]
    pub finished_at: Option<SystemTime>,
    /// The faults it met.
    pub faults: Vec<String>,
}

impl LogEntry {
    /// A header field's value; the name in any case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut fields = self.headers.iter();
        let field = fields.find(|(known, _)| known.eq_ignore_ascii_case(name));
        field.map(|(_, value)| value.as_str())
    }
}

impl fmt::Display for LogEntry {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {}", self.method, self.target)?;
        if !self.body.is_empty() {
            write!(out, " {}", self.body)?;
        }
        match (self.status, self.finished) {
            (Some(status), _) => write!(out, " -> {status}")?,
            (None, true) => write!(out, " -> no answer")?,
            (None, false) => write!(out, " -> not answered yet")?,
        }
        if self.applied {
            write!(out, ", applied")?;
        }
        if !self.faults.is_empty() {
            write!(out, " (faults: {})", self.faults.join(", "))?;
        }
        Ok(())
    }
}

fn rfc3339<S: serde::Serializer>(at: &SystemTime, out: S) -> Result<S::Ok, S::Error> {
    out.collect_str(&humantime::format_rfc3339_millis(*at))
}
