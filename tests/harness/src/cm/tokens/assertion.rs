//! Signed assertions of clients (`private_key_jwt`).

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, RSA_PKCS1_2048_8192_SHA256,
    UnparsedPublicKey, VerificationAlgorithm,
};
use serde_json::Value;

use crate::pki::{Identity, Signing};

/// An assertion that is good for longer than this is no assertion of now.
const LONGEST: u64 = 3600;

/// A client's certificate, as far as assertions need it.
#[derive(Debug)]
pub(super) struct Registered {
    thumbprint: String,
    signing: Signing,
    key: Vec<u8>,
}

impl Registered {
    pub(super) fn of(identity: &Identity) -> Self {
        Self {
            thumbprint: URL_SAFE_NO_PAD.encode(identity.thumbprint()),
            signing: identity.signing(),
            key: identity.public_key().to_vec(),
        }
    }

    fn algorithm(&self) -> (&'static str, &'static dyn VerificationAlgorithm) {
        match self.signing {
            Signing::RsaSha256 => ("RS256", &RSA_PKCS1_2048_8192_SHA256),
            Signing::EcdsaSha256 => ("ES256", &ECDSA_P256_SHA256_FIXED),
            Signing::EcdsaSha384 => ("ES384", &ECDSA_P384_SHA384_FIXED),
        }
    }
}

/// What an assertion must be.
pub(super) struct Expected<'a> {
    pub(super) registered: &'a Registered,
    pub(super) client_id: &'a str,
    /// The endpoint's URL without its scheme: TLS may end before it.
    pub(super) audience: &'a str,
}

/// The assertion's own id, or what is wrong with it.
pub(super) fn check(assertion: &str, expected: &Expected<'_>) -> Result<String, String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|error| error.to_string())?;
    check_at(assertion, expected, now.as_secs())
}

fn check_at(assertion: &str, expected: &Expected<'_>, now: u64) -> Result<String, String> {
    let (signed, signature) = assertion.rsplit_once('.').ok_or("not a JWT")?;
    let (header, claims) = signed.split_once('.').ok_or("not a JWT")?;
    let (header, claims) = (object(header)?, object(claims)?);
    let text = |object: &Value, name: &str| {
        object.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let time = |name: &str| claims.get(name).and_then(Value::as_u64);
    let (algorithm, verification) = expected.registered.algorithm();
    let signature = decode(signature)?;
    let key = UnparsedPublicKey::new(verification, &expected.registered.key);
    let exp = time("exp").ok_or("exp is missing")?;
    let id = text(&claims, "jti");
    let wrong = [
        (text(&header, "alg") != algorithm, "alg"),
        (text(&header, "x5t") != expected.registered.thumbprint, "x5t"),
        (key.verify(signed.as_bytes(), &signature).is_err(), "signature"),
        (text(&claims, "iss") != expected.client_id, "iss"),
        (text(&claims, "sub") != expected.client_id, "sub"),
        (!text(&claims, "aud").ends_with(expected.audience), "aud"),
        (exp <= now, "exp is past"),
        (exp > now + LONGEST, "exp is too far"),
        (time("nbf").is_some_and(|nbf| nbf > now), "nbf is to come"),
        (id.is_empty(), "jti is missing"),
    ];
    match wrong.into_iter().find(|(wrong, _)| *wrong) {
        Some((_, what)) => Err(format!("wrong assertion: {what}")),
        None => Ok(id),
    }
}

fn decode(part: &str) -> Result<Vec<u8>, String> {
    URL_SAFE_NO_PAD.decode(part).map_err(|error| format!("not base64url: {error}"))
}

fn object(part: &str) -> Result<Value, String> {
    serde_json::from_slice(&decode(part)?).map_err(|error| format!("not JSON: {error}"))
}
