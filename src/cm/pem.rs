//! A private key out of a PEM file (RFC 7468). The TLS library reads those too, and leaves what it
//! read behind in memory, as a search of the daemon's memory showed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer};
use zeroize::Zeroizing;

use super::secret::Secret;

/// What makes a key of its DER.
type KeyConstructor = fn(Vec<u8>) -> PrivateKeyDer<'static>;

/// The forms that have no password: RFC 5958, RFC 8017 and RFC 5915.
const FORMS: [(&str, KeyConstructor); 3] = [
    ("PRIVATE KEY", |der| PrivatePkcs8KeyDer::from(der).into()),
    ("RSA PRIVATE KEY", |der| PrivatePkcs1KeyDer::from(der).into()),
    ("EC PRIVATE KEY", |der| PrivateSec1KeyDer::from(der).into()),
];

/// The key in this text, to be cleared by whoever gets it; `None` where there is none, or none that
/// can be read.
pub(super) fn private_key(pem: &Secret) -> Option<PrivateKeyDer<'static>> {
    FORMS.iter().find_map(|(label, make)| block(pem.expose(), label).map(make))
}

fn block(pem: &str, label: &str) -> Option<Vec<u8>> {
    let (_, rest) = pem.split_once(&format!("-----BEGIN {label}-----"))?;
    let (inside, _) = rest.split_once(&format!("-----END {label}-----"))?;
    let mut text = Zeroizing::new(Vec::with_capacity(inside.len()));
    text.extend(inside.bytes().filter(|byte| !byte.is_ascii_whitespace()));
    let mut der = Zeroizing::new(vec![0; inside.len()]);
    let length = STANDARD.decode_slice(&*text, &mut der).ok()?;
    der.truncate(length);
    Some(std::mem::take(&mut *der))
}
