//! TLS 1.2 and 1.3: the trusted roots, the client certificate, and the server's certificate.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use reqwest::Url;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption, Tls12Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::client_cert::{ClientCertResolver, ClientCertStatus};
use super::file_contents::{FileContents, pem_lines};
use super::peer::HostPort;
use super::proxy_connector::NoSessions;
use super::secret::{self, READABLE};
use crate::domain::Problem;

/// TLS for one server.
pub(super) struct TlsConfig {
    pub(super) config: ClientConfig,
    /// The same for a proxy, without the client certificate.
    pub(super) for_proxy: ClientConfig,
    /// Records the server's certificate; `None` without TLS.
    pub(super) verifier: Option<Arc<RecordingVerifier>>,
}

impl TlsConfig {
    /// Trusts the system's roots and those of `ca_file`. Plain HTTP trusts none, and needs none.
    pub(super) fn new(
        server: &Url,
        ca_file: Option<&Path>,
        client_cert: &Arc<ClientCertResolver>,
    ) -> Result<Self, Problem> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::<CryptoProvider>::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| {
                Problem::new(
                    format!("cannot set up TLS: {error}"),
                    "this is a bug in cardbridge; report it",
                )
            })?;
        let resolver = Arc::<ClientCertResolver>::clone(client_cert);
        if server.scheme() != "https" {
            let config = builder
                .with_root_certificates(RootCertStore::empty())
                .with_client_cert_resolver(resolver);
            return Ok(Self { for_proxy: anonymous(&config), config, verifier: None });
        }
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots(ca_file)?), provider)
                .build()
                .map_err(|error| {
                    Problem::new(
                        format!("cannot set up the TLS trust store: {error}"),
                        "check cm.ca_file, and reinstall ca-certificates",
                    )
                })?;
        let verifier = Arc::new(RecordingVerifier {
            verifier,
            server: HostPort::of(server).bare_host().to_owned(),
            chain: Mutex::default(),
            verified: Mutex::default(),
        });
        let mut config = builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::<RecordingVerifier>::clone(&verifier))
            .with_client_cert_resolver(resolver);
        if client_cert.status() != ClientCertStatus::NotConfigured {
            // A resumed session would keep the identity of its first handshake.
            config.resumption =
                Resumption::store(Arc::new(NoSessions)).tls12_resumption(Tls12Resumption::Disabled);
        }
        Ok(Self { for_proxy: anonymous(&config), config, verifier: Some(verifier) })
    }
}

/// The same configuration without a client certificate.
fn anonymous(config: &ClientConfig) -> ClientConfig {
    let mut config = config.clone();
    config.client_auth_cert_resolver = Arc::new(NoCertificate);
    config
}

#[derive(Debug)]
struct NoCertificate;

impl ResolvesClientCert for NoCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

fn roots(ca_file: Option<&Path>) -> Result<RootCertStore, Problem> {
    let mut roots = ca_file.map_or_else(|| Ok(RootCertStore::empty()), certificates)?;
    let system = rustls_native_certs::load_native_certs();
    for error in &system.errors {
        tracing::debug!(%error, "Some system root certificates could not be loaded");
    }
    roots.add_parsable_certificates(system.certs);
    if roots.is_empty() {
        return Err(Problem::new(
            "no trusted CA: the system store is empty and cm.ca_file is not set",
            "install ca-certificates, or set cm.ca_file to CM's CA certificate",
        ));
    }
    Ok(roots)
}

/// The certificates of a PEM file, each one usable as a root.
pub(super) fn certificates(path: &Path) -> Result<RootCertStore, Problem> {
    let shown = path.display();
    let not_pem = |contents: FileContents| {
        contents.not_pem(
            &format!("cm.ca_file {shown} has no PEM certificate"),
            "convert it to PEM: openssl x509 -inform der -in CA.cer -out CA.pem",
        )
    };
    let bytes = secret::read(path).map_err(|error| {
        Problem::new(format!("cannot read cm.ca_file {shown}: {error}"), READABLE)
    })?;
    let pem = pem_lines(&bytes).map_err(not_pem)?;
    let mut roots = RootCertStore::empty();
    // No block of the file is skipped.
    if pem.contains("-----BEGIN TRUSTED CERTIFICATE-----") {
        return Err(not_pem(FileContents::TRUSTED));
    }
    for der in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let der = der.map_err(|_| not_pem(FileContents::DAMAGED))?;
        roots.add(der).map_err(|error| {
            let what = format!("a certificate in cm.ca_file {shown} is not usable: {error}");
            Problem::new(what, "export the CA's certificate again")
        })?;
    }
    if roots.is_empty() {
        return Err(not_pem(FileContents::instead_of_pem(&pem, "CERTIFICATE")));
    }
    Ok(roots)
}

/// Verifies like webpki, and records the server's certificates: the HTTP client does not expose them
/// through a proxy, nor when they are untrusted.
#[derive(Debug)]
pub(super) struct RecordingVerifier {
    verifier: Arc<WebPkiServerVerifier>,
    /// Not the proxy, which may have a certificate too.
    server: String,
    chain: Mutex<Vec<CertificateDer<'static>>>,
    verified: Mutex<Option<Vec<u8>>>,
}

impl RecordingVerifier {
    /// The last trusted certificate of the server, as DER.
    pub(super) fn trusted_certificate(&self) -> Option<Vec<u8>> {
        self.verified.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The server's last chain, its own certificate first; also an untrusted one.
    pub(super) fn chain(&self) -> Vec<CertificateDer<'static>> {
        self.chain.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ServerCertVerifier for RecordingVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let is_server = name.to_str().eq_ignore_ascii_case(&self.server);
        if is_server {
            let chain = std::iter::once(end_entity).chain(intermediates);
            let chain = chain.map(|certificate| certificate.clone().into_owned()).collect();
            *self.chain.lock().unwrap_or_else(PoisonError::into_inner) = chain;
        }
        let verified = self.verifier.verify_server_cert(
            end_entity,
            intermediates,
            name,
            ocsp_response,
            now,
        )?;
        if is_server {
            *self.verified.lock().unwrap_or_else(PoisonError::into_inner) =
                Some(end_entity.to_vec());
        }
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}
