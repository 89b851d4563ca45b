//! An HTTP client of a few lines, which sees answers as they are.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use cardbridge_harness::cm::{BASE_PATH, Cm};
use serde_json::Value;

const READ_LIMIT: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("the body is JSON")
    }

    pub(crate) fn is_html(&self) -> bool {
        self.head.contains("Content-Type: text/html") && self.body.starts_with(b"<!DOCTYPE")
    }
}

pub(crate) fn talk(mut wire: impl Read + Write, call: &str) -> io::Result<Reply> {
    wire.write_all(call.as_bytes())?;
    let mut bytes = Vec::new();
    let end = wire.read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let Some((head, _)) = text.split_once("\r\n\r\n") else {
        return Err(end.err().unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into()));
    };
    let status = head.get(9..12).and_then(|code| code.parse().ok());
    Ok(Reply {
        status: status.expect("a status line"),
        body: bytes.split_off(head.len() + 4),
        head: head.to_owned(),
    })
}

pub(crate) fn call_text(method: &str, path: &str, body: &str, more: &str) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n{more}\r\n{body}",
        body.len()
    )
}

pub(crate) fn connect(cm: &Cm) -> io::Result<TcpStream> {
    let wire = TcpStream::connect(cm.address())?;
    wire.set_read_timeout(Some(READ_LIMIT))?;
    Ok(wire)
}

pub(crate) fn try_call(cm: &Cm, method: &str, path: &str, body: &str) -> io::Result<Reply> {
    let path = format!("{BASE_PATH}{path}");
    let wire = connect(cm)?;
    talk(wire, &call_text(method, &path, body, ""))
}
