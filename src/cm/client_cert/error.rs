//! What is wrong with the files of the client certificate.

use std::io;
use std::path::PathBuf;

use super::super::file_contents::FileContents;

/// Why there is no client certificate to show: all of it in the two files.
#[derive(Debug, thiserror::Error)]
pub enum ClientCertError {
    /// The certificate cannot be read.
    #[error("cannot read cm.auth.client_cert_file {}", path.display())]
    CertUnreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// There is no certificate in PEM form.
    #[error("cm.auth.client_cert_file {} has no PEM certificate: {holds}", path.display())]
    CertNotPem {
        /// The file.
        path: PathBuf,
        /// What it holds.
        holds: FileContents,
    },
    /// The certificate is none that TLS can show.
    #[error("the certificate in cm.auth.client_cert_file {} is not usable", path.display())]
    CertNotUsable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: rustls::Error,
    },
    /// The key cannot be read.
    #[error("cannot read cm.auth.client_key_file {}", path.display())]
    KeyUnreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The key is encrypted, and there is nobody to ask for the passphrase.
    #[error("the key in cm.auth.client_key_file {} is encrypted", path.display())]
    KeyEncrypted {
        /// The file.
        path: PathBuf,
    },
    /// There is no key in PEM form.
    #[error("cm.auth.client_key_file {} has no PEM private key: {holds}", path.display())]
    KeyNotPem {
        /// The file.
        path: PathBuf,
        /// What it holds.
        holds: FileContents,
    },
    /// The key is none that TLS can sign with.
    #[error("the key in cm.auth.client_key_file {} is not usable", path.display())]
    KeyNotUsable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: rustls::Error,
    },
    /// The key is another certificate's.
    #[error(
        "private key in cm.auth.client_key_file {} does not match the certificate in {}",
        key.display(),
        cert.display()
    )]
    Mismatch {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
}

impl ClientCertError {
    /// What somebody can do about it.
    #[must_use]
    pub const fn remedy(&self) -> &'static str {
        match self {
            Self::CertUnreadable { .. } | Self::KeyUnreadable { .. } => {
                "check that the file is there and that the user cardbridge may read it"
            }
            Self::CertNotPem { holds, .. } => match holds.remedy() {
                Some(remedy) => remedy,
                None => {
                    "convert it: openssl x509 -inform der -in CLIENT.cer -out client.pem, or openssl \
                     pkcs12 -in CLIENT.pfx -nokeys -out client.pem"
                }
            },
            Self::CertNotUsable { .. } => "export the certificate again",
            Self::KeyEncrypted { .. } => {
                "decrypt it: openssl pkey -in ENCRYPTED.key -out client.key, and let only the user \
                 cardbridge read the result"
            }
            Self::KeyNotPem { holds, .. } => match holds.remedy() {
                Some(remedy) => remedy,
                None => {
                    "convert it: openssl pkey -inform der -in CLIENT.der -out client.key, or openssl \
                     pkcs12 -in CLIENT.pfx -nocerts -noenc -out client.key"
                }
            },
            Self::KeyNotUsable { .. } => {
                "have a certificate issued for an RSA key of 2048 to 4096 bits, or an ECDSA key on \
                 P-256 or P-384"
            }
            Self::Mismatch { .. } => {
                "the two have to say the same: openssl x509 -noout -pubkey -in client.pem, openssl \
                 pkey -pubout -in client.key; the station's own certificate comes first in its file"
            }
        }
    }
}
