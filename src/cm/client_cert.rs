//! The station's client certificate: its files, and whether a server asked for it.
//!
//! Each handshake reads the pair again if it has changed. If the new pair is unusable, cardbridge logs
//! that and keeps the previous one.

use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer,
};
use rustls::sign::{CertifiedKey, SigningKey};
use zeroize::{Zeroize as _, Zeroizing};

use super::file_contents::{FileContents, pem_lines};
use super::peer::{CertValidity, PeerCertificate};
use super::proxy_connector;
use super::secret::{self, FileError, FileVersion, READABLE, Secret};
use crate::config::{
    AuthSettings, ClientAuthSettings, ClientCertSettings, CmSettings, OAuth2Settings,
};
use crate::domain::{ClientCertFault, Problem};

/// More than any key or chain in PEM form.
const FILE_LIMIT: u64 = 1 << 20;

/// The remedy for a key of a kind that cardbridge cannot use.
pub(super) const KEY_TYPES: &str = "have a certificate issued for an RSA key of 2048 to 4096 bits, or \
                                    an ECDSA key on P-256 or P-384";

/// Gives the client certificate to servers that ask for one in the handshake.
pub(super) struct ClientCertResolver {
    pair: Option<CertKeyPair>,
    /// Whether the pair is there to sign assertions, and TLS may go without it.
    signing_only: bool,
    requested: AtomicBool,
}

/// The use of the client certificate in the handshakes so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum ClientCertStatus {
    #[default]
    NotConfigured,
    NotRequested,
    /// Not requested, and not expected to be: the pair signs assertions.
    SigningOnly,
    Presented,
}

struct CertKeyPair {
    files: ClientCertSettings,
    last: Mutex<LoadedCert>,
}

struct LoadedCert {
    /// `None` while a file is missing.
    versions: Option<[FileVersion; 2]>,
    key: Arc<CertifiedKey>,
}

impl ClientCertStatus {
    /// The fault of a server that requests a certificate after the handshake, or not at all.
    pub(super) const fn late_request(self) -> ClientCertFault {
        match self {
            Self::NotConfigured => ClientCertFault::Required,
            Self::NotRequested | Self::SigningOnly | Self::Presented => {
                ClientCertFault::RequestedLate
            }
        }
    }
}

impl ClientCertResolver {
    /// Reads the pair, if one is configured.
    pub(super) fn new(settings: &CmSettings) -> Result<Self, Problem> {
        let signs = matches!(
            &settings.auth,
            AuthSettings::OAuth2(OAuth2Settings { proof: ClientAuthSettings::Assertion(_), .. })
        );
        Self::of(settings.client_certificate.as_ref(), signs)
    }

    fn of(files: Option<&ClientCertSettings>, signing_only: bool) -> Result<Self, Problem> {
        let pair = files.cloned().map(CertKeyPair::load).transpose()?;
        Ok(Self { pair, signing_only, requested: AtomicBool::new(false) })
    }

    pub(super) fn status(&self) -> ClientCertStatus {
        match &self.pair {
            None => ClientCertStatus::NotConfigured,
            Some(_) if self.was_requested() => ClientCertStatus::Presented,
            Some(_) if self.signing_only => ClientCertStatus::SigningOnly,
            Some(_) => ClientCertStatus::NotRequested,
        }
    }

    /// Whether a server has asked for a client certificate in a handshake.
    pub(super) fn was_requested(&self) -> bool {
        self.requested.load(Ordering::Relaxed)
    }
}

impl ResolvesClientCert for ClientCertResolver {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        if proxy_connector::is_proxys_handshake() {
            return None;
        }
        self.requested.store(true, Ordering::Relaxed);
        // Some servers name the wrong CAs: the server decides whether it accepts the certificate.
        self.pair.as_ref().map(CertKeyPair::reload_if_changed)
    }

    fn has_certs(&self) -> bool {
        self.pair.is_some()
    }
}

impl fmt::Debug for ClientCertResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientCertResolver").field("status", &self.status()).finish_non_exhaustive()
    }
}

impl CertKeyPair {
    fn load(files: ClientCertSettings) -> Result<Self, Problem> {
        let versions = versions(&files);
        let key = Arc::new(certified_key(&files)?);
        Ok(Self { files, last: Mutex::new(LoadedCert { versions, key }) })
    }

    /// The pair as it is now, or the last usable one.
    fn reload_if_changed(&self) -> Arc<CertifiedKey> {
        let versions = versions(&self.files);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if versions != last.versions {
            // Logged once for each change, not for each handshake.
            last.versions = versions;
            match certified_key(&self.files) {
                Ok(key) => last.key = Arc::new(key),
                Err(Problem { what, remedy }) => {
                    tracing::warn!(error = %what, remedy, "New client certificate is unusable; keeping the previous one");
                }
            }
        }
        Arc::clone(&last.key)
    }
}

fn versions(files: &ClientCertSettings) -> Option<[FileVersion; 2]> {
    Some([FileVersion::of(&files.cert_file).ok()?, FileVersion::of(&files.key_file).ok()?])
}

/// The certificate with its chain, and the key that belongs to it.
pub(super) fn certified_key(files: &ClientCertSettings) -> Result<CertifiedKey, Problem> {
    let ClientCertSettings { cert_file, key_file } = files;
    let chain = chain(cert_file)?;
    let key = signing_key(key_file)?;
    if let Some(first) = chain.first() {
        warn_of_expiry(cert_file, first);
    }
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {
            Ok(certified)
        }
        Err(rustls::Error::InconsistentKeys(_)) => Err(Problem::new(
            format!(
                "private key in cm.auth.client_key_file {} does not match the certificate in {}",
                key_file.display(),
                cert_file.display()
            ),
            "compare the public keys: openssl x509 -noout -pubkey -in client.pem, openssl pkey -pubout \
             -in client.key; the station's own certificate comes first in its file",
        )),
        Err(error) => Err(Problem::new(
            format!(
                "the certificate in cm.auth.client_cert_file {} is not usable: {error}",
                cert_file.display()
            ),
            "export the certificate again",
        )),
    }
}

pub(super) fn signing_key(path: &Path) -> Result<Arc<dyn SigningKey>, Problem> {
    let mut key = private_key(path)?;
    let signing = any_supported_type(&key);
    key.zeroize();
    signing.map_err(|error| {
        let what =
            format!("the key in cm.auth.client_key_file {} is not usable: {error}", path.display());
        Problem::new(what, KEY_TYPES)
    })
}

/// The certificates in a file.
pub(super) fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, Problem> {
    let shown = path.display();
    let not_pem = |contents: FileContents| {
        contents.not_pem(
            &format!("cm.auth.client_cert_file {shown} has no PEM certificate"),
            "convert it: openssl x509 -inform der -in CLIENT.cer -out client.pem, or openssl pkcs12 \
             -in CLIENT.pfx -nokeys -out client.pem",
        )
    };
    let bytes = secret::read(path).map_err(|error| {
        Problem::new(format!("cannot read cm.auth.client_cert_file {shown}: {error}"), READABLE)
    })?;
    let text = pem_lines(&bytes).map_err(not_pem)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    match chain {
        Ok(_) if text.contains("-----BEGIN TRUSTED CERTIFICATE-----") => {
            Err(not_pem(FileContents::TRUSTED))
        }
        Ok(chain) if !chain.is_empty() => Ok(chain),
        Ok(_) | Err(_) => Err(not_pem(FileContents::instead_of_pem(&text, "CERTIFICATE"))),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, Problem> {
    let shown = path.display();
    let not_pem = |contents: FileContents| {
        contents.not_pem(
            &format!("cm.auth.client_key_file {shown} has no PEM private key"),
            "convert it: openssl pkey -inform der -in CLIENT.der -out client.key, or openssl pkcs12 \
             -in CLIENT.pfx -nocerts -noenc -out client.key",
        )
    };
    let text = secret::secret(path, FILE_LIMIT).map_err(|error| match error {
        FileError::Contents(contents) => not_pem(contents),
        FileError::Io(error) => {
            Problem::new(format!("cannot read cm.auth.client_key_file {shown}: {error}"), READABLE)
        }
    })?;
    // By its label (PKCS #8, RFC 7468 section 11), or by a header of its own (RFC 1421).
    let encrypted = ["-----BEGIN ENCRYPTED PRIVATE KEY-----", "4,ENCRYPTED"];
    if encrypted.iter().any(|mark| text.expose().contains(mark)) {
        return Err(Problem::new(
            format!("the key in cm.auth.client_key_file {shown} is encrypted"),
            "decrypt it: openssl pkey -in ENCRYPTED.key -out client.key, and let only the user \
             cardbridge read the result",
        ));
    }
    decode_private_key(&text)
        .ok_or_else(|| not_pem(FileContents::instead_of_pem(text.expose(), "PRIVATE KEY")))
}

/// The key in PEM text (RFC 7468), in a form without a password: RFC 5958, RFC 8017 or RFC 5915.
///
/// The TLS library could read it too, but a search of the daemon's memory found what it left there.
fn decode_private_key(pem: &Secret) -> Option<PrivateKeyDer<'static>> {
    let block = |label| pem_block(pem.expose(), label);
    block("PRIVATE KEY")
        .map(|der| PrivatePkcs8KeyDer::from(der).into())
        .or_else(|| block("RSA PRIVATE KEY").map(|der| PrivatePkcs1KeyDer::from(der).into()))
        .or_else(|| block("EC PRIVATE KEY").map(|der| PrivateSec1KeyDer::from(der).into()))
}

fn pem_block(pem: &str, label: &str) -> Option<Vec<u8>> {
    let (_, rest) = pem.split_once(&format!("-----BEGIN {label}-----"))?;
    let (inside, _) = rest.split_once(&format!("-----END {label}-----"))?;
    let mut text = Zeroizing::new(Vec::with_capacity(inside.len()));
    text.extend(inside.bytes().filter(|byte| !byte.is_ascii_whitespace()));
    let mut der = Zeroizing::new(vec![0; inside.len()]);
    let length = STANDARD.decode_slice(&*text, &mut der).ok()?;
    der.truncate(length);
    Some(std::mem::take(&mut *der))
}

fn warn_of_expiry(path: &Path, certificate: &CertificateDer<'_>) {
    let Some(certificate) = PeerCertificate::read(certificate) else { return };
    let (file, from, to) = (path.display(), certificate.not_before, certificate.not_after);
    match certificate.validity(Timestamp::now()) {
        CertValidity::Valid => {}
        CertValidity::Expired => {
            tracing::warn!(%file, not_after = %to, "Client certificate has expired");
        }
        CertValidity::ExpiresSoon => {
            tracing::warn!(%file, not_after = %to, "Client certificate expires soon");
        }
        CertValidity::NotYetValid => {
            tracing::warn!(%file, %from, "Client certificate is not valid yet; check the system clock");
        }
    }
}

#[cfg(test)]
mod tests;
