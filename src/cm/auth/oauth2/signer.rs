//! The key that signs assertions, and the certificate by which the token endpoint knows it.
//!
//! Both files are read for every assertion: what was replaced counts, and no key is kept for this.

use std::error::Error as _;
use std::path::PathBuf;

use jiff::Timestamp;
use rustls::SignatureScheme;
use rustls::pki_types::CertificateDer;
use rustls::sign::CertifiedKey;
use x509_cert::der::asn1::{AnyRef, UintRef};
use x509_cert::der::{Decode, Reader, SliceReader};

use super::super::super::ClientCertFiles;
use super::super::super::client_cert::{self, ClientCertError};
use super::super::super::connection_check::PeerCertificate;

/// Why nothing can be signed.
#[derive(Debug, thiserror::Error)]
pub(super) enum SignerError {
    /// It is the files.
    #[error(transparent)]
    Files(#[from] ClientCertError),
    /// The key is fit for TLS, and for none of the algorithms that token endpoints take.
    #[error("key type in cm.auth.client_key_file {} is not supported for client assertions", path.display())]
    Kind {
        /// The file.
        path: PathBuf,
    },
    /// It is the key.
    #[error("signing the client assertion failed")]
    Signing(#[source] rustls::Error),
}

/// A certificate, and its key.
pub(super) struct Signer {
    key: CertifiedKey,
    algorithm: Algorithm,
    /// What is odd about the certificate's dates, for people.
    dates: Option<String>,
}

/// How an assertion is signed (RFC 7518 section 3.1).
#[derive(Debug, Clone, Copy)]
struct Algorithm {
    name: &'static str,
    scheme: SignatureScheme,
    /// Of each of the two numbers of which a signature consists; RSA has one.
    number: Option<usize>,
}

const ALGORITHMS: [Algorithm; 3] = [
    Algorithm { name: "RS256", scheme: SignatureScheme::RSA_PKCS1_SHA256, number: None },
    Algorithm { name: "ES256", scheme: SignatureScheme::ECDSA_NISTP256_SHA256, number: Some(32) },
    Algorithm { name: "ES384", scheme: SignatureScheme::ECDSA_NISTP384_SHA384, number: Some(48) },
];

impl SignerError {
    /// What is wrong, why, and what somebody can do about it.
    pub(super) fn text(&self) -> String {
        let cause = self.source().map(|cause| format!(": {cause}")).unwrap_or_default();
        let remedy = match self {
            Self::Files(error) => error.remedy(),
            Self::Kind { .. } | Self::Signing(_) => {
                "have a certificate issued for an RSA key of 2048 to 4096 bits, or an ECDSA key on \
                 P-256 or P-384"
            }
        };
        format!("{self}{cause}; {remedy}")
    }
}

impl Signer {
    /// Reads both files.
    pub(super) fn read(files: &ClientCertFiles, now: Timestamp) -> Result<Self, SignerError> {
        let key = client_cert::certified(files)?;
        let fits = |algorithm: &&Algorithm| key.key.choose_scheme(&[algorithm.scheme]).is_some();
        let algorithm = *ALGORITHMS
            .iter()
            .find(fits)
            .ok_or_else(|| SignerError::Kind { path: files.key_file.clone() })?;
        let dates = key.end_entity_cert().ok().and_then(|certificate| dates(certificate, now));
        Ok(Self { key, algorithm, dates })
    }

    /// The certificate, as DER.
    pub(super) fn certificate(&self) -> &[u8] {
        self.key.end_entity_cert().map_or(&[], |certificate| certificate)
    }

    pub(super) const fn algorithm(&self) -> &'static str {
        self.algorithm.name
    }

    pub(super) fn dates(&self) -> Option<&str> {
        self.dates.as_deref()
    }

    /// The signature, as RFC 7518 sections 3.3 and 3.4 write it.
    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignerError> {
        let signer = self.key.key.choose_scheme(&[self.algorithm.scheme]);
        let signed = signer.map_or(Err(is_odd()), |signer| signer.sign(message));
        let signature = signed.map_err(SignerError::Signing)?;
        match self.algorithm.number {
            None => Ok(signature),
            Some(length) => side_by_side(&signature, length).ok_or(SignerError::Signing(is_odd())),
        }
    }
}

fn is_odd() -> rustls::Error {
    rustls::Error::General("the signature is not what it should be".to_owned())
}

/// Two numbers of a fixed length, out of the sequence that TLS has them in (RFC 3279 section 2.2.3).
fn side_by_side(signature: &[u8], length: usize) -> Option<Vec<u8>> {
    let sequence = AnyRef::from_der(signature).ok()?;
    let mut fields = SliceReader::new(sequence.value()).ok()?;
    let mut both = Vec::with_capacity(2 * length);
    for _ in 0..2 {
        let number = fields.decode::<UintRef<'_>>().ok()?;
        let bytes = number.as_bytes();
        let zeros = length.checked_sub(bytes.len())?;
        both.resize(both.len() + zeros, 0);
        both.extend_from_slice(bytes);
    }
    Some(both)
}

fn dates(certificate: &CertificateDer<'_>, now: Timestamp) -> Option<String> {
    let PeerCertificate { not_before: from, not_after: to, .. } =
        PeerCertificate::read(certificate)?;
    if now > to {
        Some(format!("the certificate ended on {to}"))
    } else if now < from {
        Some(format!("the certificate is not valid before {from}"))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_are_short_or_begin_with_a_zero_get_their_whole_length() {
        let two = |der: &[u8]| side_by_side(der, 4);
        assert_eq!(two(&[0x30, 6, 2, 1, 7, 2, 1, 9]).unwrap(), [0, 0, 0, 7, 0, 0, 0, 9]);
        let first_bit = [0x30, 12, 2, 5, 0, 0x80, 1, 2, 3, 2, 3, 0, 0xff, 1];
        assert_eq!(two(&first_bit).unwrap(), [0x80, 1, 2, 3, 0, 0, 0xff, 1]);
        for odd in
            [&[][..], &[0x30, 3, 2, 1, 7], &[0x30, 10, 2, 5, 1, 2, 3, 4, 5, 2, 1, 9], &[4, 0]]
        {
            assert_eq!(two(odd), None, "{odd:?}");
        }
    }
}
