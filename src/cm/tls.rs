//! TLS 1.2 and 1.3: whom a server has to be vouched for by, and what it is shown of ours.

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
use super::proxy_connector::NoSessions;
use super::reloading_file;
use super::setup::SetupError;

/// TLS for one server.
pub(super) struct TlsConfig {
    pub(super) config: ClientConfig,
    /// The same for a proxy on the way, which is shown nothing of the station's.
    pub(super) for_proxy: ClientConfig,
    /// What its certificate was; none where it is talked to without TLS.
    pub(super) witness: Option<Arc<RecordingVerifier>>,
}

impl TlsConfig {
    /// For the server at this URL.
    pub(super) fn of(
        url: &Url,
        ca_file: Option<&Path>,
        identity: &Arc<ClientCertResolver>,
    ) -> Result<Self, SetupError> {
        match (url.scheme(), url.host_str()) {
            ("https", Some(host)) => Self::new(ca_file, host, identity),
            _ => Self::none(identity),
        }
    }

    /// For a server that is talked to without TLS: nobody is trusted, and the system's roots are
    /// neither loaded for nothing nor missed.
    fn none(identity: &Arc<ClientCertResolver>) -> Result<Self, SetupError> {
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(SetupError::Tls)?
            .with_root_certificates(RootCertStore::empty())
            .with_client_cert_resolver(Arc::<ClientCertResolver>::clone(identity));
        Ok(Self { for_proxy: anonymous(&config), config, witness: None })
    }

    /// Trusts the system's roots and those of `ca_file`.
    fn new(
        ca_file: Option<&Path>,
        server: &str,
        identity: &Arc<ClientCertResolver>,
    ) -> Result<Self, SetupError> {
        let provider = Arc::new(ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(
            Arc::new(roots(ca_file)?),
            Arc::<CryptoProvider>::clone(&provider),
        )
        .build()
        .map_err(SetupError::Trust)?;
        let witness = Arc::new(RecordingVerifier::new(verifier, server));
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(SetupError::Tls)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::<RecordingVerifier>::clone(&witness))
            .with_client_cert_resolver(Arc::<ClientCertResolver>::clone(identity));
        if identity.shown() != ClientCertStatus::NotConfigured {
            // A session that is taken up again is one of whoever was shown when it began.
            config.resumption =
                Resumption::store(Arc::new(NoSessions)).tls12_resumption(Tls12Resumption::Disabled);
        }
        Ok(Self { for_proxy: anonymous(&config), config, witness: Some(witness) })
    }
}

/// The same configuration without a certificate to show.
fn anonymous(config: &ClientConfig) -> ClientConfig {
    let mut config = config.clone();
    config.client_auth_cert_resolver = Arc::new(NoCertificate);
    config
}

/// Has no certificate for anybody.
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

/// Whoever is trusted.
fn roots(ca_file: Option<&Path>) -> Result<RootCertStore, SetupError> {
    let mut roots = ca_file.map_or_else(|| Ok(RootCertStore::empty()), certificates)?;
    let system = rustls_native_certs::load_native_certs();
    for error in &system.errors {
        tracing::debug!(%error, "Some system root certificates could not be loaded");
    }
    roots.add_parsable_certificates(system.certs);
    if roots.is_empty() {
        return Err(SetupError::NoRoots);
    }
    Ok(roots)
}

/// The certificates of a PEM file, each one fit to be a root.
pub(super) fn certificates(path: &Path) -> Result<RootCertStore, SetupError> {
    let path = || path.to_owned();
    let not_pem = |holds| SetupError::CaFileNotPem { path: path(), holds };
    let bytes = reloading_file::read(&path())
        .map_err(|source| SetupError::CaFileUnreadable { path: path(), source })?;
    let pem = pem_lines(&bytes).map_err(not_pem)?;
    let mut roots = RootCertStore::empty();
    // Nothing that an administrator put there is passed over.
    if pem.contains("-----BEGIN TRUSTED CERTIFICATE-----") {
        return Err(not_pem(FileContents::Trusted));
    }
    for der in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let der = der.map_err(|_| not_pem(FileContents::Damaged))?;
        roots.add(der).map_err(|source| SetupError::CaFileNotUsable { path: path(), source })?;
    }
    if roots.is_empty() {
        return Err(not_pem(FileContents::instead_of_pem(&pem, "CERTIFICATE")));
    }
    Ok(roots)
}

/// Believes whom webpki believes, and remembers what the server showed: through a proxy the HTTP
/// client does not tell, and of what is not believed it tells nothing.
#[derive(Debug)]
pub(super) struct RecordingVerifier {
    verifier: Arc<WebPkiServerVerifier>,
    /// The server that is meant; a proxy may have a certificate, too.
    server: String,
    chain: Mutex<Vec<CertificateDer<'static>>>,
    verified: Mutex<Option<Vec<u8>>>,
}

impl RecordingVerifier {
    fn new(verifier: Arc<WebPkiServerVerifier>, server: &str) -> Self {
        let server = server.trim_matches(['[', ']']).to_owned();
        Self { verifier, server, chain: Mutex::default(), verified: Mutex::default() }
    }

    /// The server's certificate when it was last believed, as DER.
    pub(super) fn is_trusted(&self) -> Option<Vec<u8>> {
        self.verified.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What the server showed last, its own certificate first; also where it was not believed.
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
        let meant = name.to_str().eq_ignore_ascii_case(&self.server);
        if meant {
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
        if meant {
            let mut believed = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
            *believed = Some(end_entity.to_vec());
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
