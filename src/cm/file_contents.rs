//! What a file holds in place of what its key is for: named by its kind, and never quoted.

use zeroize::Zeroizing;

const BOM: &[u8] = "\u{feff}".as_bytes();

/// Something else than what is wanted, and what to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FileContents {
    /// No bytes, or white space alone.
    #[error("it is empty")]
    Empty,
    /// Text in UTF-16, with or without a byte order mark.
    #[error("it is text in UTF-16")]
    Utf16,
    /// Text with NUL bytes, as a crash may leave it.
    #[error("it has NUL bytes in it")]
    Nul,
    /// Bytes that are no UTF-8.
    #[error("it is no text in UTF-8")]
    NoText,
    /// JSON with the value somewhere in it.
    #[error("it holds JSON, and not the value alone")]
    Json,
    /// A web page.
    #[error("it holds a web page")]
    Page,
    /// A whole `Authorization` value.
    #[error("it holds a scheme such as Bearer in front of the token")]
    Scheme,
    /// PKCS#12 (RFC 7292).
    #[error("it is PKCS#12 (.pfx, .p12), and not PEM")]
    Pkcs12,
    /// PKCS#7 (RFC 2315), binary or as PEM.
    #[error("it is PKCS#7 (.p7b), and not certificates in PEM form")]
    Pkcs7,
    /// A Java key store.
    #[error("it is a Java key store, and not PEM")]
    KeyStore,
    /// Another binary structure (X.690).
    #[error("it is binary (DER), and not PEM")]
    Der,
    /// OpenSSL's own form, with trust settings behind the certificate.
    #[error("it holds TRUSTED CERTIFICATE blocks, which only OpenSSL reads")]
    Trusted,
    /// A certificate, where something else is wanted.
    #[error("it holds a certificate")]
    Certificate,
    /// A private key, where something else is wanted.
    #[error("it holds a private key")]
    Key,
    /// A public key.
    #[error("it holds a public key")]
    PublicKey,
    /// A certificate signing request.
    #[error("it holds a certificate request")]
    Request,
    /// A revocation list.
    #[error("it holds a revocation list")]
    Crl,
    /// A key of OpenSSH's or PGP's own form.
    #[error("it holds a key in a form of OpenSSH or PGP")]
    OtherKey,
    /// A PEM block that cannot be read to its end.
    #[error("its PEM block is damaged or cut off")]
    Damaged,
    /// Text without a PEM block.
    #[error("it has no PEM block")]
    NoPem,
}

impl FileContents {
    /// The next step; `None` where the one of what is wanted does.
    #[must_use]
    pub const fn remedy(self) -> Option<&'static str> {
        match self {
            Self::Empty => Some("write the content into it"),
            Self::Utf16 => Some("save it as UTF-8: iconv -f UTF-16 -t UTF-8 FILE > NEW"),
            Self::Nul | Self::NoText => Some("write it again, as plain text in UTF-8"),
            Self::Json => Some("write the value alone, as with: jq -r .access_token FILE > NEW"),
            Self::Page => Some("get it again: a proxy or a log-in page answered in its place"),
            Self::Scheme => Some("write the token alone"),
            Self::Pkcs12 => Some(
                "convert it: openssl pkcs12 -in FILE -nokeys -out client.pem, and openssl pkcs12 -in \
                 FILE -nocerts -noenc -out client.key",
            ),
            Self::Pkcs7 => Some(
                "convert it: openssl pkcs7 -print_certs -in FILE -out NEW.pem, with -inform der where \
                 it is binary",
            ),
            Self::KeyStore => Some(
                "convert it: keytool -importkeystore -srckeystore FILE -destkeystore NEW.p12 \
                 -deststoretype PKCS12, then as PKCS#12",
            ),
            Self::Trusted => Some("convert it: openssl x509 -in FILE -out NEW.pem"),
            Self::Certificate | Self::Key => {
                Some("name the certificate's file and the key's file each by its own key")
            }
            Self::PublicKey => {
                Some("name the file with the whole certificate, or with its private key")
            }
            Self::Request => Some("have the CA issue the certificate, and name that"),
            Self::Crl => Some("name the CA's certificate; revocation lists are not read"),
            Self::OtherKey => Some("convert it: ssh-keygen -p -m PEM -f COPY"),
            Self::Damaged => Some("export it again"),
            Self::Der | Self::NoPem => None,
        }
    }

    /// Both in one sentence.
    pub(super) fn description(self) -> String {
        self.remedy().map_or_else(|| self.to_string(), |remedy| format!("{self}; {remedy}"))
    }

    /// What binary content is, or why it is no text.
    pub(super) fn binary(bytes: &[u8]) -> Option<Self> {
        if bytes.starts_with(&[0xFF, 0xFE]) || bytes.starts_with(&[0xFE, 0xFF]) || is_utf16(bytes) {
            return Some(Self::Utf16);
        }
        if bytes.starts_with(&[0xFE, 0xED, 0xFE, 0xED]) {
            return Some(Self::KeyStore);
        }
        if is_der(bytes) {
            return Some(of_der(bytes));
        }
        if str::from_utf8(bytes).is_err() {
            return Some(Self::NoText);
        }
        bytes.contains(&0).then_some(Self::Nul)
    }

    /// What the text of a secret is in place of one: a structure with the secret in it, a page, a key.
    pub(super) fn instead_of_secret(text: &str) -> Option<Self> {
        let text = text.trim();
        let structured = text.starts_with(['{', '[', '"']);
        let whole = structured && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
        // Also one that was cut off, and what jq prints where there is no such property.
        let begun = text.strip_prefix('{').is_some_and(|rest| rest.trim_start().starts_with('"'));
        if whole || begun || text == "null" {
            return Some(Self::Json);
        }
        let start: String = text.chars().take(16).collect::<String>().to_ascii_lowercase();
        if start.starts_with("<!doctype")
            || start.starts_with("<html")
            || start.starts_with("<?xml")
        {
            return Some(Self::Page);
        }
        text.starts_with("-----BEGIN ").then(|| Self::instead_of_pem(text, ""))
    }

    /// What text without a block of this label holds.
    pub(super) fn instead_of_pem(text: &str, wanted: &str) -> Self {
        const LABELS: [(&str, FileContents); 9] = [
            ("TRUSTED CERTIFICATE", FileContents::Trusted),
            ("CERTIFICATE REQUEST", FileContents::Request),
            ("PRIVATE KEY", FileContents::Key),
            ("X509 CRL", FileContents::Crl),
            ("PKCS7", FileContents::Pkcs7),
            ("CMS", FileContents::Pkcs7),
            ("PUBLIC KEY", FileContents::PublicKey),
            ("X509 CERTIFICATE", FileContents::Certificate),
            ("CERTIFICATE", FileContents::Certificate),
        ];
        if text.trim().is_empty() {
            return Self::Empty;
        }
        let labels: Vec<_> = text
            .split("-----BEGIN ")
            .skip(1)
            .filter_map(|rest| rest.split_once("-----").map(|(label, _)| label))
            .collect();
        if labels.iter().any(|label| !wanted.is_empty() && label.ends_with(wanted)) {
            let trusted = labels.contains(&"TRUSTED CERTIFICATE");
            return if trusted { Self::Trusted } else { Self::Damaged };
        }
        if labels.iter().any(|label| label.starts_with("OPENSSH ") || label.starts_with("PGP ")) {
            return Self::OtherKey;
        }
        let known =
            LABELS.iter().find(|(known, _)| labels.iter().any(|label| label.ends_with(known)));
        match known {
            Some((_, holds)) => *holds,
            None if labels.is_empty() && text.trim_start().starts_with('<') => Self::Page,
            None => Self::NoPem,
        }
    }
}

/// The text without a byte order mark, and without white space around its lines: some editors and
/// mails put those there, and PEM (RFC 7468 section 2) has none.
pub(super) fn pem_lines(bytes: &[u8]) -> Result<Zeroizing<String>, FileContents> {
    if let Some(holds) = FileContents::binary(bytes) {
        return Err(holds);
    }
    let text = str::from_utf8(without_bom(bytes)).map_err(|_| FileContents::NoText)?;
    let mut lines = Zeroizing::new(String::with_capacity(text.len() + 1));
    for line in text.lines() {
        lines.push_str(line.trim());
        lines.push('\n');
    }
    Ok(lines)
}

/// The bytes behind a byte order mark of UTF-8.
pub(super) fn without_bom(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(BOM).unwrap_or(bytes)
}

/// Latin text in UTF-16 without a mark: nearly every other byte is zero.
fn is_utf16(bytes: &[u8]) -> bool {
    let zeros = |first| {
        let every = bytes.iter().skip(first).step_by(2);
        every.filter(|byte| **byte == 0).count()
    };
    let (even, odd) = (zeros(0), zeros(1));
    let half = bytes.len() / 2;
    half >= 2 && even.max(odd) * 10 >= half * 8 && even.min(odd) * 10 <= half
}

/// A `SEQUENCE` (X.690 section 8.9).
fn is_der(bytes: &[u8]) -> bool {
    match bytes {
        [0x30, 0x80..=0x84, ..] => true,
        // Short, as keys on curves are: a number comes first.
        [0x30, length, 2, ..] => usize::from(*length) + 2 == bytes.len(),
        _ => false,
    }
}

/// Which structure, by what comes first in it: a version and contents are PKCS#12's, the name
/// `pkcs7-signedData` (1.2.840.113549.1.7.2) is PKCS#7's.
fn of_der(bytes: &[u8]) -> FileContents {
    const SIGNED_DATA: &[u8] = &[6, 9, 0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 7, 2];
    let [_, length, rest @ ..] = bytes else { return FileContents::Der };
    let further = if *length < 0x80 { 0 } else { usize::from(length & 0x7F) };
    let inner = rest.get(further..).unwrap_or_default();
    if inner.starts_with(&[2, 1, 3, 0x30]) {
        FileContents::Pkcs12
    } else if inner.starts_with(SIGNED_DATA) {
        FileContents::Pkcs7
    } else {
        FileContents::Der
    }
}

#[cfg(test)]
mod tests;
