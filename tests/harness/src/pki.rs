//! Certificate authorities of the harness, and what they sign.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384,
    PKCS_RSA_SHA256, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::server::run;

/// How an authority signs: the hash in a channel binding follows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Signing {
    /// ECDSA on P-256 with SHA-256.
    #[default]
    EcdsaSha256,
    /// ECDSA on P-384 with SHA-384.
    EcdsaSha384,
    /// RSA with SHA-256.
    RsaSha256,
}

/// An authority with a key of its own.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    signing: Signing,
    pem: String,
}

impl Authority {
    /// A new authority, whose leaves have keys of the same kind as its own.
    pub fn new(name: &str, signing: Signing) -> Result<Self> {
        let key = new_key(signing)?;
        let mut ca = CertificateParams::new(Vec::new())?;
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        ca.distinguished_name.push(DnType::CommonName, name);
        let pem = ca.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(ca, key), signing, pem })
    }

    /// Its certificate.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A server's certificate for these names and addresses.
    pub fn server(&self, names: &[&str]) -> Result<Identity> {
        self.identity(names, "server", ExtendedKeyUsagePurpose::ServerAuth, false)
    }

    /// A server's certificate that has expired.
    pub fn expired_server(&self, names: &[&str]) -> Result<Identity> {
        self.identity(names, "server", ExtendedKeyUsagePurpose::ServerAuth, true)
    }

    /// A client's certificate with this common name.
    pub fn client(&self, name: &str) -> Result<Identity> {
        self.identity(&[], name, ExtendedKeyUsagePurpose::ClientAuth, false)
    }

    /// A client's certificate that has expired.
    pub fn expired_client(&self, name: &str) -> Result<Identity> {
        self.identity(&[], name, ExtendedKeyUsagePurpose::ClientAuth, true)
    }

    fn identity(
        &self,
        names: &[&str],
        common_name: &str,
        usage: ExtendedKeyUsagePurpose,
        expired: bool,
    ) -> Result<Identity> {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut leaf = CertificateParams::new(names)?;
        leaf.distinguished_name.push(DnType::CommonName, common_name);
        leaf.extended_key_usages.push(usage);
        // Python from 3.13 on refuses a certificate without it.
        leaf.use_authority_key_identifier_extension = true;
        if expired {
            leaf.not_before = date_time_ymd(2001, 1, 1);
            leaf.not_after = date_time_ymd(2002, 1, 1);
        }
        let key = new_key(self.signing)?;
        let certificate = leaf.signed_by(&key, &self.issuer)?;
        Ok(Identity { certificate, key, signing: self.signing })
    }
}

/// A certificate and its key.
#[derive(Debug)]
pub struct Identity {
    certificate: Certificate,
    key: KeyPair,
    signing: Signing,
}

impl Identity {
    /// The certificate.
    #[must_use]
    pub fn certificate_pem(&self) -> String {
        self.certificate.pem()
    }

    /// The certificate in DER.
    #[must_use]
    pub fn certificate_der(&self) -> CertificateDer<'static> {
        self.certificate.der().clone()
    }

    /// The private key, as PKCS#8.
    #[must_use]
    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// The private key in DER.
    #[must_use]
    pub fn key_der(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.key.serialize_der().into())
    }

    /// The public key as ring wants it: a point, or PKCS#1.
    pub(crate) fn public_key(&self) -> &[u8] {
        self.key.public_key_raw()
    }

    /// What its key signs with.
    #[must_use]
    pub fn signing(&self) -> Signing {
        self.signing
    }

    /// The certificate's SHA-1 thumbprint, by which Windows knows it.
    #[must_use]
    pub fn thumbprint(&self) -> [u8; 20] {
        thumbprint(&self.certificate_der())
    }

    /// Writes certificate and key to a file each.
    pub fn write(&self, certificate: &Path, key: &Path) -> Result<()> {
        let write = |path: &Path, text: String| {
            fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
        };
        write(certificate, self.certificate_pem())?;
        write(key, self.key_pem())
    }
}

fn new_key(signing: Signing) -> Result<KeyPair> {
    let key = match signing {
        Signing::EcdsaSha256 => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?,
        Signing::EcdsaSha384 => KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384)?,
        Signing::RsaSha256 => {
            // ring signs with RSA and makes no keys for it.
            let mut openssl = Command::new("openssl");
            openssl.args(["genpkey", "-quiet", "-algorithm", "RSA"]);
            openssl.args(["-pkeyopt", "rsa_keygen_bits:2048"]);
            KeyPair::from_pkcs8_pem_and_sign_algo(&run(openssl)?, &PKCS_RSA_SHA256)?
        }
    };
    Ok(key)
}

/// The SHA-1 of a certificate.
pub(crate) fn thumbprint(certificate: &[u8]) -> [u8; 20] {
    let digest = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, certificate);
    let mut thumbprint = [0; 20];
    thumbprint.copy_from_slice(digest.as_ref());
    thumbprint
}
