//! The station's client certificate: which files it is in, and whether a server asked for it.
//!
//! The pair is read again when it changed, at the next handshake; what does not do then is told, and
//! the pair that did stays in force.

mod error;

use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SigningKey};
use zeroize::Zeroize as _;

use super::connection_check::PeerCertificate;
use super::file_contents::{FileContents, pem_lines};
use super::options::{
    AuthOptions, ClientAuthentication, ClientCertFiles, CmOptions, OAuth2Options,
};
use super::pem;
use super::proxy_connector;
use super::reloading_file::{self, FileVersion};

pub use error::ClientCertError;

/// More than any key in PEM form has, and any chain.
const FILE_LIMIT: u64 = 1 << 20;

/// How long before its end a certificate is warned about.
const SOON: SignedDuration = SignedDuration::from_hours(14 * 24);

/// What a server may ask for in the handshake.
pub(super) struct ClientCertResolver {
    pair: Option<CertKeyPair>,
    /// Whether the pair is there for something else, and TLS may do without.
    signing_only: bool,
    asked: AtomicBool,
}

/// What became of the client certificate in the handshakes so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClientCertStatus {
    /// There is none.
    NotConfigured,
    /// No server has asked for it.
    NotRequested,
    /// No server has asked for it, and none needs to: it is there to sign something else.
    SigningOnly,
    /// A server asked for it, and was shown it.
    Presented,
}

struct CertKeyPair {
    files: ClientCertFiles,
    last: Mutex<LoadedCert>,
}

struct LoadedCert {
    stamps: Option<[FileVersion; 2]>,
    key: Arc<CertifiedKey>,
}

impl ClientCertResolver {
    /// Reads the pair, where there is one.
    pub(super) fn new(options: &CmOptions) -> Result<Self, ClientCertError> {
        let signs = matches!(
            &options.auth,
            AuthOptions::OAuth2(OAuth2Options { proof: ClientAuthentication::Assertion(_), .. })
        );
        Self::of(options.client_certificate.as_ref(), signs)
    }

    fn of(files: Option<&ClientCertFiles>, spare: bool) -> Result<Self, ClientCertError> {
        let pair = files.cloned().map(CertKeyPair::load).transpose()?;
        Ok(Self { pair, signing_only: spare, asked: AtomicBool::new(false) })
    }

    pub(super) fn shown(&self) -> ClientCertStatus {
        match &self.pair {
            None => ClientCertStatus::NotConfigured,
            Some(_) if self.was_asked() => ClientCertStatus::Presented,
            Some(_) if self.signing_only => ClientCertStatus::SigningOnly,
            Some(_) => ClientCertStatus::NotRequested,
        }
    }

    /// Whether a server has asked for a client certificate in a handshake.
    pub(super) fn was_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }
}

impl ResolvesClientCert for ClientCertResolver {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        if proxy_connector::is_the_proxys() {
            return None;
        }
        self.asked.store(true, Ordering::Relaxed);
        // The server names the CAs that it likes, and some name the wrong ones: it may say so itself.
        self.pair.as_ref().map(CertKeyPair::reload_if_changed)
    }

    fn has_certs(&self) -> bool {
        self.pair.is_some()
    }
}

impl fmt::Debug for ClientCertResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientCert").field("shown", &self.shown()).finish_non_exhaustive()
    }
}

impl CertKeyPair {
    fn load(files: ClientCertFiles) -> Result<Self, ClientCertError> {
        let stamps = stamps(&files);
        let key = Arc::new(certified(&files)?);
        Ok(Self { files, last: Mutex::new(LoadedCert { stamps, key }) })
    }

    /// The pair as it is now, or as it was when it last did.
    fn reload_if_changed(&self) -> Arc<CertifiedKey> {
        let stamps = stamps(&self.files);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if stamps != last.stamps {
            // Told once for each change, not for each handshake.
            last.stamps = stamps;
            match certified(&self.files) {
                Ok(key) => last.key = Arc::new(key),
                Err(error) => {
                    let (remedy, cause) = (error.remedy(), std::error::Error::source(&error));
                    let cause = cause.map(ToString::to_string);
                    tracing::warn!(%error, cause, remedy, "New client certificate is unusable; keeping the previous one");
                }
            }
        }
        Arc::clone(&last.key)
    }
}

/// How both files look; `None` while one of them is not there.
fn stamps(files: &ClientCertFiles) -> Option<[FileVersion; 2]> {
    Some([FileVersion::of(&files.cert_file).ok()?, FileVersion::of(&files.key_file).ok()?])
}

/// The certificate with its chain, and the key that belongs to it.
pub(super) fn certified(files: &ClientCertFiles) -> Result<CertifiedKey, ClientCertError> {
    let chain = chain(&files.cert_file)?;
    let signing = signing(&files.key_file)?;
    if let Some(first) = chain.first() {
        warn_of_expiry(&files.cert_file, first);
    }
    let certified = CertifiedKey::new(chain, signing);
    match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {
            Ok(certified)
        }
        Err(rustls::Error::InconsistentKeys(_)) => {
            let (cert, key) = (files.cert_file.clone(), files.key_file.clone());
            Err(ClientCertError::Mismatch { cert, key })
        }
        Err(source) => {
            let path = files.cert_file.clone();
            Err(ClientCertError::CertNotUsable { path, source })
        }
    }
}

/// The key in a file, ready to sign.
pub(super) fn signing(path: &Path) -> Result<Arc<dyn SigningKey>, ClientCertError> {
    let mut key = key(path)?;
    let signing = any_supported_type(&key);
    key.zeroize();
    signing.map_err(|source| ClientCertError::KeyNotUsable { path: path.to_owned(), source })
}

/// The certificates in a file.
pub(super) fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, ClientCertError> {
    let at = || path.to_owned();
    let not_pem = |holds| ClientCertError::CertNotPem { path: at(), holds };
    let bytes = reloading_file::read(path)
        .map_err(|source| ClientCertError::CertUnreadable { path: at(), source })?;
    let text = pem_lines(&bytes).map_err(not_pem)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    match chain {
        Ok(_) if text.contains("-----BEGIN TRUSTED CERTIFICATE-----") => {
            Err(not_pem(FileContents::Trusted))
        }
        Ok(chain) if !chain.is_empty() => Ok(chain),
        Ok(_) | Err(_) => Err(not_pem(FileContents::instead_of_pem(&text, "CERTIFICATE"))),
    }
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, ClientCertError> {
    let at = || path.to_owned();
    let text = match reloading_file::secret(path, FILE_LIMIT) {
        Ok(text) => text,
        Err(source) => {
            return Err(match reloading_file::holds(&source) {
                Some(holds) => ClientCertError::KeyNotPem { path: at(), holds },
                None => ClientCertError::KeyUnreadable { path: at(), source },
            });
        }
    };
    // By its label (PKCS #8, RFC 7468 section 11), or by a header of its own (RFC 1421).
    let encrypted = ["-----BEGIN ENCRYPTED PRIVATE KEY-----", "4,ENCRYPTED"];
    if encrypted.iter().any(|mark| text.expose().contains(mark)) {
        return Err(ClientCertError::KeyEncrypted { path: at() });
    }
    pem::private_key(&text).ok_or_else(|| {
        let holds = FileContents::instead_of_pem(text.expose(), "PRIVATE KEY");
        ClientCertError::KeyNotPem { path: at(), holds }
    })
}

fn warn_of_expiry(path: &Path, certificate: &CertificateDer<'_>) {
    let Some(shown) = PeerCertificate::read(certificate) else { return };
    let (file, from, to) = (path.display(), shown.not_before, shown.not_after);
    match CertValidity::of(&shown, Timestamp::now()) {
        CertValidity::Valid => {}
        CertValidity::Expired => {
            tracing::warn!(%file, not_after = %to, "Client certificate has expired");
        }
        CertValidity::EndsSoon => {
            tracing::warn!(%file, not_after = %to, "Client certificate expires soon");
        }
        CertValidity::NotYetValid => {
            tracing::warn!(%file, %from, "Client certificate is not valid yet; check the system clock");
        }
    }
}

/// How far a certificate is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CertValidity {
    NotYetValid,
    Valid,
    EndsSoon,
    Expired,
}

impl CertValidity {
    fn of(certificate: &PeerCertificate, now: Timestamp) -> Self {
        let left = certificate.not_after.duration_since(now);
        if left.is_negative() {
            Self::Expired
        } else if now < certificate.not_before {
            Self::NotYetValid
        } else if left < SOON {
            Self::EndsSoon
        } else {
            Self::Valid
        }
    }
}

#[cfg(test)]
mod tests;
