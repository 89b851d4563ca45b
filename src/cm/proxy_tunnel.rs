//! A way through a proxy by CONNECT (RFC 9110 section 9.3.6), taken by hand: for whoever wants to know
//! what the proxy says, which the HTTP client keeps to itself.

use std::io;
use std::sync::Arc;

use reqwest::header::HeaderValue;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::proxy::ProxyRoute;
use super::{CallError, UnavailableReason, away};
use crate::domain::ProxyFault;

/// The longest head of an answer that is read.
const HEAD_LIMIT: usize = 8 << 10;

/// A connection, whatever it is made of.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Has a proxy lead a connection on to `server`, `host:port`.
pub(super) async fn connect(
    proxy: &ProxyRoute,
    server: &str,
    tls: &ClientConfig,
    stream: TcpStream,
) -> Result<Box<dyn Stream>, CallError> {
    let login = proxy.login()?;
    let mut stream = encrypted(proxy, tls, stream).await.map_err(|error| {
        let detail = format!("no TLS with the proxy {}: {error}", proxy.name());
        away(UnavailableReason::Proxy(ProxyFault::Unreachable), proxy.proxy_text(&detail))
    })?;
    let head = ask(&mut stream, server, login.as_ref()).await;
    let head = head.map_err(|error| connect_rejected(proxy, &error.to_string()))?;
    let first = head.lines().next().unwrap_or_default();
    match first.split_whitespace().nth(1) {
        Some("200") => Ok(stream),
        // 401 is what tinyproxy says to a wrong login.
        Some("407" | "401") => {
            let detail = format!("the proxy {} wants a login: {first}", proxy.name());
            Err(away(UnavailableReason::Proxy(ProxyFault::AuthRequired), proxy.proxy_text(&detail)))
        }
        Some(_) | None => Err(connect_rejected(proxy, first)),
    }
}

/// The proxy does not lead on.
pub(super) fn connect_rejected(proxy: &ProxyRoute, why: &str) -> CallError {
    let detail = format!("the proxy {} gives no way to CM: {why}", proxy.name());
    away(UnavailableReason::Proxy(ProxyFault::ConnectRejected), proxy.proxy_text(&detail))
}

async fn encrypted(
    proxy: &ProxyRoute,
    tls: &ClientConfig,
    stream: TcpStream,
) -> io::Result<Box<dyn Stream>> {
    if proxy.url().scheme() != "https" {
        return Ok(Box::new(stream));
    }
    let host = proxy.url().host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let name = ServerName::try_from(host).map_err(io::Error::other)?;
    let connector = TlsConnector::from(Arc::new(tls.clone()));
    Ok(Box::new(connector.connect(name, stream).await?))
}

/// The head of the proxy's answer. Nothing comes after it: the server waits to be spoken to.
async fn ask(
    stream: &mut Box<dyn Stream>,
    server: &str,
    login: Option<&HeaderValue>,
) -> io::Result<String> {
    let mut request = format!("CONNECT {server} HTTP/1.1\r\nHost: {server}\r\n").into_bytes();
    if let Some(login) = login {
        request.extend_from_slice(b"Proxy-Authorization: ");
        request.extend_from_slice(login.as_bytes());
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    stream.write_all(&request).await?;
    stream.flush().await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && head.len() < HEAD_LIMIT {
        // Byte by byte: what follows is not ours to take, and the head is short.
        head.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}
