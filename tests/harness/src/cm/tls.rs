//! Certificates for the simulator's HTTPS, made at each start.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
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

/// Whether clients are asked for a certificate, in the handshake.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientCertificates {
    /// They are not.
    #[default]
    NotAsked,
    /// They are, and may have none.
    Wanted,
    /// No handshake without one.
    Needed,
}

const NAMES: &[&str] = &["localhost", "127.0.0.1", "::1"];

/// Writes the CA to `ca_file` and prepares the server's side. The CA signs the
/// clients' certificates too.
pub(super) fn acceptor(
    certificate: Certificate,
    clients: ClientCertificates,
    ca_file: &Path,
) -> Result<(TlsAcceptor, Authority)> {
    let ca = Authority::new("CM simulator's CA", Signing::default())?;
    fs::write(ca_file, ca.pem()).with_context(|| format!("cannot write {}", ca_file.display()))?;
    let leaf = match certificate {
        Certificate::Good => ca.server(NAMES)?,
        Certificate::Expired => ca.expired_server(NAMES)?,
        Certificate::WrongName => ca.server(&["other.example.com", "192.0.2.1"])?,
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier(clients, &ca, provider)?)
        .with_single_cert(vec![leaf.certificate_der()], leaf.key_der())?;
    Ok((TlsAcceptor::from(Arc::new(config)), ca))
}

fn verifier(
    clients: ClientCertificates,
    ca: &Authority,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.pem().as_bytes())?)?;
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    Ok(match clients {
        ClientCertificates::NotAsked => WebPkiClientVerifier::no_client_auth(),
        ClientCertificates::Wanted => builder.allow_unauthenticated().build()?,
        ClientCertificates::Needed => builder.build()?,
    })
}
