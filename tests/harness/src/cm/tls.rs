//! Certificates for the simulator's HTTPS, made anew at each start.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};
use rustls::pki_types::PrivateKeyDer;
use tokio_rustls::TlsAcceptor;

/// Which certificate the simulator shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certificate {
    /// One that is right for localhost and 127.0.0.1.
    Good,
    /// One for another host.
    WrongName,
    /// One that has expired.
    Expired,
}

/// Writes the CA to `ca_file` and prepares the server's side.
pub(super) fn acceptor(certificate: Certificate, ca_file: &Path) -> Result<TlsAcceptor> {
    let ca_key = KeyPair::generate()?;
    let mut ca = CertificateParams::new(Vec::new())?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    ca.distinguished_name.push(DnType::CommonName, "CM simulator's CA");
    let ca_pem = ca.self_signed(&ca_key)?.pem();
    fs::write(ca_file, ca_pem).with_context(|| format!("cannot write {}", ca_file.display()))?;

    let names = match certificate {
        Certificate::Good | Certificate::Expired => ["localhost", "127.0.0.1"],
        Certificate::WrongName => ["other.example.com", "192.0.2.1"],
    };
    let mut leaf = CertificateParams::new(names.map(str::to_owned))?;
    leaf.distinguished_name.push(DnType::CommonName, "CM simulator");
    if certificate == Certificate::Expired {
        leaf.not_before = date_time_ymd(2001, 1, 1);
        leaf.not_after = date_time_ymd(2002, 1, 1);
    }
    let key = KeyPair::generate()?;
    let issuer = Issuer::new(ca, ca_key);
    let leaf = leaf.signed_by(&key, &issuer)?;

    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(
            vec![leaf.der().clone()],
            PrivateKeyDer::Pkcs8(key.serialize_der().into()),
        )?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
