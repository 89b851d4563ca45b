//! The assertion that a key signs in place of a secret (RFC 7523 section 2.2), as a JWT (RFC 7519).
//!
//! AD FS finds the certificate by its thumbprint: `kid` has it in hex as Windows shows it, `x5t` in
//! base64url (RFC 7515 section 4.1.7).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use serde::Serialize;
use uuid::Uuid;

use super::super::super::secret::Secret;
use super::signer::{Signer, SignerError};

/// How long an assertion is good for: one request.
const LIFE: SignedDuration = SignedDuration::from_mins(5);

/// How far a server's clock may be behind.
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

/// A new assertion of this client's for this token endpoint.
pub(super) fn assertion(
    signer: &Signer,
    client_id: &str,
    token_url: &str,
    now: Timestamp,
) -> Result<Secret, SignerError> {
    let sha1 = digest(&SHA1_FOR_LEGACY_USE_ONLY, signer.certificate());
    let header = JwtHeader {
        alg: signer.algorithm(),
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
