//! Certificates for the simulator's HTTPS, made anew at each start.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use tokio_rustls::TlsAcceptor;

use crate::pki::{Authority, Signing};

/// Which certificate the simulator shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certificate {
    /// One that is right for localhost, 127.0.0.1 and `[::1]`.
    Good,
    /// One for another host.
    WrongName,
    /// One that has expired.
    Expired,
}

const NAMES: &[&str] = &["localhost", "127.0.0.1", "::1"];

/// Writes the CA to `ca_file` and prepares the server's side.
pub(super) fn acceptor(certificate: Certificate, ca_file: &Path) -> Result<TlsAcceptor> {
    let ca = Authority::new("CM simulator's CA", Signing::default())?;
    fs::write(ca_file, ca.pem()).with_context(|| format!("cannot write {}", ca_file.display()))?;
    let leaf = match certificate {
        Certificate::Good => ca.server(NAMES)?,
        Certificate::Expired => ca.expired_server(NAMES)?,
        Certificate::WrongName => ca.server(&["other.example.com", "192.0.2.1"])?,
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![leaf.certificate_der()], leaf.key_der())?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
