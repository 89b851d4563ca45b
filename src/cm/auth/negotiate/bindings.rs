//! Channel bindings: a token is bound to its TLS channel (RFC 5929, `tls-server-end-point`), so that no
//! relay can use it. Windows calls it Extended Protection.

use std::sync::Arc;

use ring::digest;
use x509_cert::der::asn1::{AnyRef, BitStringRef, ContextSpecific};
use x509_cert::der::{Decode, Error, Reader, SliceReader, TagNumber};
use x509_cert::spki::{AlgorithmIdentifierRef, ObjectIdentifier};

const PREFIX: &[u8] = b"tls-server-end-point:";

const fn oid(text: &str) -> ObjectIdentifier {
    ObjectIdentifier::new_unwrap(text)
}

const RSA_PSS: ObjectIdentifier = oid("1.2.840.113549.1.1.10");

/// The hash function for each signature algorithm of certificates: its own, or SHA-256 instead of MD5
/// and SHA-1 (RFC 5929 section 4.1). The last ones of each list are the functions themselves, as RSA-PSS
/// names them.
const SHA256: [ObjectIdentifier; 8] = [
    oid("1.2.840.113549.1.1.4"),
    oid("1.2.840.113549.1.1.5"),
    oid("1.2.840.113549.1.1.11"),
    oid("1.2.840.10045.4.1"),
    oid("1.2.840.10045.4.3.2"),
    oid("1.2.840.113549.2.5"),
    SHA1,
    oid("2.16.840.1.101.3.4.2.1"),
];
const SHA384: [ObjectIdentifier; 3] =
    [oid("1.2.840.113549.1.1.12"), oid("1.2.840.10045.4.3.3"), oid("2.16.840.1.101.3.4.2.2")];
const SHA512: [ObjectIdentifier; 3] =
    [oid("1.2.840.113549.1.1.13"), oid("1.2.840.10045.4.3.4"), oid("2.16.840.1.101.3.4.2.3")];
const SHA1: ObjectIdentifier = oid("1.3.14.3.2.26");

/// Why a channel has no bindings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoBinding {
    /// RFC 5929 requires an algorithm with one hash function, unlike Ed25519 and Ed448.
    #[error("no channel binding is defined for certificate signature algorithm {0}")]
    Undefined(ObjectIdentifier),
    #[error("cannot parse the server certificate: {0}")]
    Unreadable(Error),
}

/// The bindings of a channel to the server with this certificate.
pub(super) fn binding(certificate: &[u8]) -> Result<Arc<[u8]>, NoBinding> {
    let algorithm = signature_algorithm(certificate).map_err(NoBinding::Unreadable)?;
    let hash = hash_of(&algorithm)?;
    let hash = digest::digest(hash, certificate);
    Ok([PREFIX, hash.as_ref()].concat().into())
}

/// Reads only the outermost parts: the TLS library has verified the signed one.
fn signature_algorithm(certificate: &[u8]) -> Result<AlgorithmIdentifierRef<'_>, Error> {
    let mut reader = SliceReader::new(certificate)?;
    let algorithm = reader.sequence(|certificate| {
        AnyRef::decode(certificate)?;
        let algorithm = AlgorithmIdentifierRef::decode(certificate)?;
        BitStringRef::decode(certificate)?;
        Ok::<_, Error>(algorithm)
    })?;
    reader.finish()?;
    Ok(algorithm)
}

fn hash_of(
    algorithm: &AlgorithmIdentifierRef<'_>,
) -> Result<&'static digest::Algorithm, NoBinding> {
    let deciding = if algorithm.oid == RSA_PSS {
        pss_hash(algorithm.parameters).map_err(NoBinding::Unreadable)?
    } else {
        algorithm.oid
    };
    let tables: [(&[_], _); 3] =
        [(&SHA256, &digest::SHA256), (&SHA384, &digest::SHA384), (&SHA512, &digest::SHA512)];
    let found = tables.into_iter().find(|(table, _)| table.contains(&deciding));
    found.map(|(_, hash)| hash).ok_or(NoBinding::Undefined(deciding))
}

/// The hash function among RSA-PSS's parameters (RFC 4055 section 3.1), SHA-1 where none is named.
fn pss_hash(parameters: Option<AnyRef<'_>>) -> Result<ObjectIdentifier, Error> {
    let Some(parameters) = parameters else { return Ok(SHA1) };
    parameters.sequence(|reader| {
        let hash =
            ContextSpecific::<AlgorithmIdentifierRef<'_>>::decode_explicit(reader, TagNumber(0))?;
        while !reader.is_finished() {
            AnyRef::decode(reader)?;
        }
        Ok(hash.map_or(SHA1, |hash| hash.value.oid))
    })
}

#[cfg(test)]
mod tests;
