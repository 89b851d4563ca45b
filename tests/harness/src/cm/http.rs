//! HTTP/1.1, as much as a client of CM needs and as broken as a fault wants.

use std::io;
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::answer::{Answer, Origin, reason};

/// A plain or a TLS connection.
pub(super) trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

/// A call as received.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) method: String,
    pub(super) target: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    /// The bytes before the body.
    pub(super) head_length: usize,
    /// The connection's number.
    pub(super) connection: u64,
    /// The thumbprint of the client's certificate.
    pub(super) client_certificate: Option<String>,
    /// How long the connection had waited for it; `None` for its first call.
    pub(super) idle: Option<Duration>,
}

impl Call {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let mut fields = self.headers.iter();
        let field = fields.find(|(known, _)| known.eq_ignore_ascii_case(name));
        field.map(|(_, value)| value.as_str())
    }

    /// Whether the client wants the connection closed after the answer.
    pub(super) fn is_last(&self) -> bool {
        let value = self.header("connection");
        value.is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}

/// Reads the next call; `None` once the client has closed the connection.
pub(super) async fn read_call(
    wire: &mut impl Wire,
    buffer: &mut Vec<u8>,
) -> io::Result<Option<Call>> {
    loop {
        if let Some((mut call, length)) = parse_head(buffer)? {
            buffer.drain(..length);
            call.body = read_body(wire, buffer, &call).await?;
            return Ok(Some(call));
        }
        if wire.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}

fn parse_head(buffer: &[u8]) -> io::Result<Option<(Call, usize)>> {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Request::new(&mut fields);
    let httparse::Status::Complete(length) = head.parse(buffer).map_err(io::Error::other)? else {
        return Ok(None);
    };
    let field = |field: &httparse::Header<'_>| {
        let value = String::from_utf8_lossy(field.value).into_owned();
        (field.name.to_owned(), value)
    };
    let call = Call {
        method: head.method.unwrap_or_default().to_owned(),
        target: head.path.unwrap_or_default().to_owned(),
        headers: head.headers.iter().map(field).collect(),
        body: Vec::new(),
        head_length: length,
        connection: 0,
        client_certificate: None,
        idle: None,
    };
    Ok(Some((call, length)))
}

async fn read_body(wire: &mut impl Wire, buffer: &mut Vec<u8>, call: &Call) -> io::Result<Vec<u8>> {
    if call.header("transfer-encoding").is_some() {
        return Err(io::Error::other("calls in chunks are not understood"));
    }
    let length = call.header("content-length").unwrap_or("0");
    let length: usize = length.parse().map_err(io::Error::other)?;
    if call.header("expect").is_some() {
        wire.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
    }
    while buffer.len() < length {
        if wire.read_buf(buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(buffer.drain(..length).collect())
}

/// Writes an answer to HEAD: all but the body.
pub(super) async fn write_head(wire: &mut impl Wire, answer: &Answer) -> io::Result<()> {
    wire.write_all(&head(answer, Some(answer.body.len() as u64))).await?;
    wire.flush().await
}

/// Writes an answer with its length.
pub(super) async fn write_answer(wire: &mut impl Wire, answer: &Answer) -> io::Result<()> {
    let mut bytes = head(answer, Some(answer.body.len() as u64));
    bytes.extend(&answer.body);
    wire.write_all(&bytes).await?;
    wire.flush().await
}

/// Writes an answer in chunks of a few bytes.
pub(super) async fn write_chunked(wire: &mut impl Wire, answer: &Answer) -> io::Result<()> {
    wire.write_all(&head(answer, None)).await?;
    for chunk in answer.body.chunks(61) {
        wire.write_all(format!("{:x}\r\n", chunk.len()).as_bytes()).await?;
        wire.write_all(chunk).await?;
        wire.write_all(b"\r\n").await?;
        wire.flush().await?;
    }
    wire.write_all(b"0\r\n\r\n").await?;
    wire.flush().await
}

/// Writes an answer in pieces of a few bytes, with a pause before each.
pub(super) async fn write_slowly(
    wire: &mut impl Wire,
    answer: &Answer,
    pause: Duration,
) -> io::Result<()> {
    wire.write_all(&head(answer, Some(answer.body.len() as u64))).await?;
    for piece in answer.body.chunks(61) {
        wire.flush().await?;
        tokio::time::sleep(pause).await;
        wire.write_all(piece).await?;
    }
    wire.flush().await
}

/// Writes an answer that promises its whole body and stops in the middle.
pub(super) async fn write_half(wire: &mut impl Wire, answer: &Answer) -> io::Result<()> {
    let mut bytes = head(answer, Some(answer.body.len() as u64));
    bytes.extend(answer.body.iter().take(answer.body.len() / 2));
    wire.write_all(&bytes).await?;
    wire.flush().await
}

/// Writes a JSON string of `size` bytes.
pub(super) async fn write_huge(wire: &mut impl Wire, size: u64) -> io::Result<()> {
    wire.write_all(&head(&Answer::json(200, ""), Some(size))).await?;
    wire.write_all(b"\"").await?;
    let block = vec![b'a'; 64 * 1024];
    let mut left = size.saturating_sub(2);
    while left > 0 {
        let count = usize::try_from(left).unwrap_or(block.len()).min(block.len());
        wire.write_all(block.get(..count).unwrap_or(&block)).await?;
        left -= count as u64;
    }
    wire.write_all(b"\"").await?;
    wire.flush().await
}

/// Status line and header fields; `None` for a body in chunks.
fn head(answer: &Answer, length: Option<u64>) -> Vec<u8> {
    let mut lines = vec![format!("HTTP/1.1 {} {}", answer.status, reason(answer.status))];
    lines.push("Cache-Control: no-cache".to_owned());
    if let Some(content_type) = answer.content_type {
        lines.push(format!("Content-Type: {content_type}"));
    }
    for (name, value) in &answer.headers {
        lines.push(format!("{name}: {value}"));
    }
    lines.push(format!("Date: {}", httpdate::fmt_http_date(SystemTime::now())));
    match answer.origin {
        Origin::Iis => {
            lines.push("Server: Microsoft-IIS/10.0".to_owned());
            lines.push("X-Powered-By: ASP.NET".to_owned());
        }
        Origin::Driver => {
            lines.push("Server: Microsoft-HTTPAPI/2.0".to_owned());
            lines.push("Connection: close".to_owned());
        }
    }
    match length {
        None => lines.push("Transfer-Encoding: chunked".to_owned()),
        // 204 has no body, and so no length.
        Some(_) if answer.status == 204 => (),
        Some(length) => lines.push(format!("Content-Length: {length}")),
    }
    lines.push("\r\n".to_owned());
    lines.join("\r\n").into_bytes()
}
