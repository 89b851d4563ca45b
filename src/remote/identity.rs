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

use super::contents::{Holds, pem_lines};
use super::file::{self, Stamp};
use super::legs;
use super::options::{Auth, ClientCertificate, OAuth2, Options, Proof};
use super::pem;
use super::way::ShownCertificate;

pub use error::IdentityError;

/// More than any key in PEM form has, and any chain.
const FILE_LIMIT: u64 = 1 << 20;

/// How long before its end a certificate is warned about.
const SOON: SignedDuration = SignedDuration::from_hours(14 * 24);

/// What a server may ask for in the handshake.
pub(super) struct Identity {
    pair: Option<Pair>,
    /// Whether the pair is there for something else, and TLS may do without.
    spare: bool,
    asked: AtomicBool,
}

/// What became of the client certificate in the handshakes so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    /// There is none.
    None,
    /// No server has asked for it.
    NotAsked,
    /// No server has asked for it, and none needs to: it is there to sign something else.
    Spare,
    /// A server asked for it, and was shown it.
    Asked,
}

struct Pair {
    files: ClientCertificate,
    last: Mutex<Loaded>,
}

struct Loaded {
    stamps: Option<[Stamp; 2]>,
    key: Arc<CertifiedKey>,
}

impl Identity {
    /// Reads the pair, where there is one.
    pub(super) fn new(options: &Options) -> Result<Self, IdentityError> {
        let signs =
            matches!(&options.auth, Auth::OAuth2(OAuth2 { proof: Proof::Assertion(_), .. }));
        Self::of(options.client_certificate.as_ref(), signs)
    }

    fn of(files: Option<&ClientCertificate>, spare: bool) -> Result<Self, IdentityError> {
        let pair = files.cloned().map(Pair::load).transpose()?;
        Ok(Self { pair, spare, asked: AtomicBool::new(false) })
    }

    pub(super) fn shown(&self) -> Shown {
        match &self.pair {
            None => Shown::None,
            Some(_) if self.was_asked() => Shown::Asked,
            Some(_) if self.spare => Shown::Spare,
            Some(_) => Shown::NotAsked,
        }
    }

    /// Whether a server has asked for a client certificate in a handshake.
    pub(super) fn was_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }
}

impl ResolvesClientCert for Identity {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        if legs::is_the_proxys() {
            return None;
        }
        self.asked.store(true, Ordering::Relaxed);
        // The server names the CAs that it likes, and some name the wrong ones: it may say so itself.
        self.pair.as_ref().map(Pair::fresh)
    }

    fn has_certs(&self) -> bool {
        self.pair.is_some()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("shown", &self.shown()).finish_non_exhaustive()
    }
}

impl Pair {
    fn load(files: ClientCertificate) -> Result<Self, IdentityError> {
        let stamps = stamps(&files);
        let key = Arc::new(certified(&files)?);
        Ok(Self { files, last: Mutex::new(Loaded { stamps, key }) })
    }

    /// The pair as it is now, or as it was when it last did.
    fn fresh(&self) -> Arc<CertifiedKey> {
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
                    tracing::warn!(%error, cause, remedy, "Client certificate has changed and does not do; the old one stays");
                }
            }
        }
        Arc::clone(&last.key)
    }
}

/// How both files look; `None` while one of them is not there.
fn stamps(files: &ClientCertificate) -> Option<[Stamp; 2]> {
    Some([Stamp::of(&files.cert_file).ok()?, Stamp::of(&files.key_file).ok()?])
}

/// The certificate with its chain, and the key that belongs to it.
pub(super) fn certified(files: &ClientCertificate) -> Result<CertifiedKey, IdentityError> {
    let chain = chain(&files.cert_file)?;
    let signing = signing(&files.key_file)?;
    if let Some(first) = chain.first() {
        warn_of_age(&files.cert_file, first);
    }
    let certified = CertifiedKey::new(chain, signing);
    match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {
            Ok(certified)
        }
        Err(rustls::Error::InconsistentKeys(_)) => {
            let (cert, key) = (files.cert_file.clone(), files.key_file.clone());
            Err(IdentityError::Mismatch { cert, key })
        }
        Err(source) => {
            let path = files.cert_file.clone();
            Err(IdentityError::CertNotUsable { path, source })
        }
    }
}

/// The key in a file, ready to sign.
pub(super) fn signing(path: &Path) -> Result<Arc<dyn SigningKey>, IdentityError> {
    let mut key = key(path)?;
    let signing = any_supported_type(&key);
    key.zeroize();
    signing.map_err(|source| IdentityError::KeyNotUsable { path: path.to_owned(), source })
}

/// The certificates in a file.
pub(super) fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let at = || path.to_owned();
    let not_pem = |holds| IdentityError::CertNotPem { path: at(), holds };
    let bytes =
        file::read(path).map_err(|source| IdentityError::CertUnreadable { path: at(), source })?;
    let text = pem_lines(&bytes).map_err(not_pem)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    match chain {
        Ok(_) if text.contains("-----BEGIN TRUSTED CERTIFICATE-----") => {
            Err(not_pem(Holds::Trusted))
        }
        Ok(chain) if !chain.is_empty() => Ok(chain),
        Ok(_) | Err(_) => Err(not_pem(Holds::instead_of_pem(&text, "CERTIFICATE"))),
    }
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, IdentityError> {
    let at = || path.to_owned();
    let text = match file::secret(path, FILE_LIMIT) {
        Ok(text) => text,
        Err(source) => {
            return Err(match file::holds(&source) {
                Some(holds) => IdentityError::KeyNotPem { path: at(), holds },
                None => IdentityError::KeyUnreadable { path: at(), source },
            });
        }
    };
    // By its label (PKCS #8, RFC 7468 section 11), or by a header of its own (RFC 1421).
    let encrypted = ["-----BEGIN ENCRYPTED PRIVATE KEY-----", "4,ENCRYPTED"];
    if encrypted.iter().any(|mark| text.expose().contains(mark)) {
        return Err(IdentityError::KeyEncrypted { path: at() });
    }
    pem::private_key(&text).ok_or_else(|| {
        let holds = Holds::instead_of_pem(text.expose(), "PRIVATE KEY");
        IdentityError::KeyNotPem { path: at(), holds }
    })
}

fn warn_of_age(path: &Path, certificate: &CertificateDer<'_>) {
    let Some(shown) = ShownCertificate::read(certificate) else { return };
    let (file, from, to) = (path.display(), shown.not_before, shown.not_after);
    match Age::of(&shown, Timestamp::now()) {
        Age::Good => {}
        Age::Expired => tracing::warn!(%file, until = %to, "Client certificate has expired"),
        Age::EndsSoon => tracing::warn!(%file, until = %to, "Client certificate expires soon"),
        Age::Future => {
            tracing::warn!(%file, %from, "Client certificate is not valid yet; is the clock right?");
        }
    }
}

/// How far a certificate is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Age {
    Future,
    Good,
    EndsSoon,
    Expired,
}

impl Age {
    fn of(certificate: &ShownCertificate, now: Timestamp) -> Self {
        let left = certificate.not_after.duration_since(now);
        if left.is_negative() {
            Self::Expired
        } else if now < certificate.not_before {
            Self::Future
        } else if left < SOON {
            Self::EndsSoon
        } else {
            Self::Good
        }
    }
}

#[cfg(test)]
mod tests;
