//! The assertion that a key signs instead of a secret (RFC 7523 section 2.2), as a JWT (RFC 7519).
//!
//! AD FS finds the certificate by its thumbprint: `kid` has it in hex as Windows shows it, `x5t` in
//! base64url (RFC 7515 section 4.1.7).

use std::fmt::Display;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use rustls::SignatureScheme;
use rustls::pki_types::CertificateDer;
use rustls::sign::CertifiedKey;
use serde::Serialize;
use uuid::Uuid;
use x509_cert::der::asn1::{AnyRef, UintRef};
use x509_cert::der::{Decode, Reader, SliceReader};

use crate::cm::client_cert::{KEY_TYPES, certified_key};
use crate::cm::peer::{CertValidity, PeerCertificate};
use crate::cm::secret::Secret;
use crate::config::ClientCertSettings;
use crate::domain::Problem;

/// The validity of an assertion: it serves one request.
const LIFE: SignedDuration = SignedDuration::from_mins(5);

/// How far the server's clock may be behind.
const LEEWAY: SignedDuration = SignedDuration::from_secs(60);

#[derive(Serialize)]
struct JwtHeader<'a> {
    alg: &'a str,
    typ: &'a str,
    kid: &'a str,
    x5t: &'a str,
    #[serde(rename = "x5t#S256")]
    x5t_s256: &'a str,
}

#[derive(Serialize)]
struct JwtClaims<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a str,
    jti: Uuid,
    nbf: i64,
    exp: i64,
}

/// A new assertion of this client for this token endpoint.
pub(super) fn assertion(
    signer: &Signer,
    client_id: &str,
    token_url: &str,
    now: Timestamp,
) -> Result<Secret, Problem> {
    let sha1 = digest(&SHA1_FOR_LEGACY_USE_ONLY, signer.certificate());
    let header = JwtHeader {
        alg: signer.algorithm.name,
        typ: "JWT",
        kid: &hex::encode_upper(sha1.as_ref()),
        x5t: &URL_SAFE_NO_PAD.encode(sha1.as_ref()),
        x5t_s256: &URL_SAFE_NO_PAD.encode(digest(&SHA256, signer.certificate()).as_ref()),
    };
    let claims = JwtClaims {
        iss: client_id,
        sub: client_id,
        aud: token_url,
        jti: Uuid::new_v4(),
        nbf: (now - LEEWAY).as_second(),
        exp: (now + LIFE).as_second(),
    };
    let message = part(&header) + "." + &part(&claims);
    let signature = signer.sign(message.as_bytes())?;
    let mut signed = Secret::with_room(message.len() + 2 * signature.len());
    let text = signed.expose_mut();
    text.push_str(&message);
    text.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, text);
    Ok(signed)
}

fn part(value: &impl Serialize) -> String {
    URL_SAFE_NO_PAD.encode(serde_json::json!(value).to_string())
}

/// A certificate and its key. Both files are read for every assertion: a replaced one counts, and no key
/// stays in memory.
pub(super) struct Signer {
    key: CertifiedKey,
    algorithm: Algorithm,
    /// An expired or not yet valid certificate.
    dates: Option<String>,
}

/// How an assertion is signed (RFC 7518 section 3.1).
#[derive(Debug, Clone, Copy)]
struct Algorithm {
    name: &'static str,
    scheme: SignatureScheme,
    /// The length of each of the two numbers of a signature; RSA has one.
    number: Option<usize>,
}

const ALGORITHMS: [Algorithm; 3] = [
    Algorithm { name: "RS256", scheme: SignatureScheme::RSA_PKCS1_SHA256, number: None },
    Algorithm { name: "ES256", scheme: SignatureScheme::ECDSA_NISTP256_SHA256, number: Some(32) },
    Algorithm { name: "ES384", scheme: SignatureScheme::ECDSA_NISTP384_SHA384, number: Some(48) },
];

impl Signer {
    /// Reads both files.
    pub(super) fn read(files: &ClientCertSettings, now: Timestamp) -> Result<Self, Problem> {
        let key = certified_key(files)?;
        let fits = |algorithm: &&Algorithm| key.key.choose_scheme(&[algorithm.scheme]).is_some();
        let algorithm = *ALGORITHMS.iter().find(fits).ok_or_else(|| {
            let what = format!(
                "key type in cm.auth.client_key_file {} is not supported for client assertions",
                files.key_file.display()
            );
            Problem::new(what, KEY_TYPES)
        })?;
        let dates = key.end_entity_cert().ok().and_then(|certificate| dates(certificate, now));
        Ok(Self { key, algorithm, dates })
    }

    /// As DER.
    fn certificate(&self) -> &[u8] {
        self.key.end_entity_cert().map_or(&[], |certificate| certificate)
    }

    pub(super) fn dates(&self) -> Option<&str> {
        self.dates.as_deref()
    }

    /// The signature, as RFC 7518 sections 3.3 and 3.4 write it.
    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Problem> {
        let failed = |cause: &dyn Display| {
            Problem::new(format!("signing the client assertion failed: {cause}"), KEY_TYPES)
        };
        let signer = self.key.key.choose_scheme(&[self.algorithm.scheme]);
        let signer = signer.ok_or_else(|| failed(&"the algorithm is not available"))?;
        let signature = signer.sign(message).map_err(|error| failed(&error))?;
        match self.algorithm.number {
            None => Ok(signature),
            Some(length) => side_by_side(&signature, length)
                .ok_or_else(|| failed(&"the signature is malformed")),
        }
    }
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

/// A possible cause of a refusal.
fn dates(certificate: &CertificateDer<'_>, now: Timestamp) -> Option<String> {
    let certificate = PeerCertificate::read(certificate)?;
    match certificate.validity(now) {
        CertValidity::Expired => {
            Some(format!("the certificate ended on {}", certificate.not_after))
        }
        CertValidity::NotYetValid => {
            Some(format!("the certificate is not valid before {}", certificate.not_before))
        }
        CertValidity::Valid | CertValidity::ExpiresSoon => None,
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
