//! What a file holds instead of the wanted content: named by its kind, and never quoted.

use zeroize::Zeroizing;

use crate::domain::Problem;

const BOM: &[u8] = "\u{feff}".as_bytes();

const EACH_KEY: &str = "name the certificate's file and the key's file each by its own key";
const PLAIN: &str = "write it again, as plain text in UTF-8";

/// A kind of wrong content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileContents {
    what: &'static str,
    /// `None` where it depends on the wanted content.
    remedy: Option<&'static str>,
}

impl FileContents {
    /// No bytes, or white space alone.
    const EMPTY: Self = Self::new("it is empty", Some("write the content into it"));
    /// With or without a byte order mark.
    const UTF16: Self = Self::new(
        "it is text in UTF-16",
        Some("save it as UTF-8: iconv -f UTF-16 -t UTF-8 FILE > NEW"),
    );
    /// As a crash may leave it.
    const NUL: Self = Self::new("it has NUL bytes in it", Some(PLAIN));
    pub(super) const NOT_UTF8: Self = Self::new("it is no text in UTF-8", Some(PLAIN));
    /// With the value somewhere in it.
    const JSON: Self = Self::new(
        "it holds JSON, and not the value alone",
        Some("write the value alone, as with: jq -r .access_token FILE > NEW"),
    );
    const PAGE: Self = Self::new(
        "it holds a web page",
        Some("get it again: a proxy or a log-in page answered in its place"),
    );
    /// A whole `Authorization` value.
    pub(super) const SCHEME: Self = Self::new(
        "it holds a scheme such as Bearer in front of the token",
        Some("write the token alone"),
    );
    /// RFC 7292.
    const PKCS12: Self = Self::new(
        "it is PKCS#12 (.pfx, .p12), and not PEM",
        Some(
            "convert it: openssl pkcs12 -in FILE -nokeys -out client.pem, and openssl pkcs12 \
                     -in FILE -nocerts -noenc -out client.key",
        ),
    );
    /// RFC 2315, binary or as PEM.
    const PKCS7: Self = Self::new(
        "it is PKCS#7 (.p7b), and not certificates in PEM form",
        Some(
            "convert it: openssl pkcs7 -print_certs -in FILE -out NEW.pem, with -inform der \
                     where it is binary",
        ),
    );
    const KEY_STORE: Self = Self::new(
        "it is a Java key store, and not PEM",
        Some(
            "convert it: keytool -importkeystore -srckeystore FILE -destkeystore NEW.p12 \
                     -deststoretype PKCS12, then as PKCS#12",
        ),
    );
    /// Another binary structure (X.690).
    const DER: Self = Self::new("it is binary (DER), and not PEM", None);
    /// OpenSSL's own form, with trust settings behind the certificate.
    pub(super) const TRUSTED: Self = Self::new(
        "it holds TRUSTED CERTIFICATE blocks, which only OpenSSL reads",
        Some("convert it: openssl x509 -in FILE -out NEW.pem"),
    );
    const CERTIFICATE: Self = Self::new("it holds a certificate", Some(EACH_KEY));
    const KEY: Self = Self::new("it holds a private key", Some(EACH_KEY));
    const PUBLIC_KEY: Self = Self::new(
        "it holds a public key",
        Some("name the file with the whole certificate, or with its private key"),
    );
    const REQUEST: Self = Self::new(
        "it holds a certificate request",
        Some("have the CA issue the certificate, and name that"),
    );
    const CRL: Self = Self::new(
        "it holds a revocation list",
        Some("name the CA's certificate; revocation lists are not read"),
    );
    const OTHER_KEY: Self = Self::new(
        "it holds a key in a form of OpenSSH or PGP",
        Some("convert it: ssh-keygen -p -m PEM -f COPY"),
    );
    pub(super) const DAMAGED: Self =
        Self::new("its PEM block is damaged or cut off", Some("export it again"));
    const NO_PEM: Self = Self::new("it has no PEM block", None);

    const fn new(what: &'static str, remedy: Option<&'static str>) -> Self {
        Self { what, remedy }
    }

    /// The problem of a file that should hold a text.
    pub(super) fn problem(self) -> Problem {
        Problem::new(self.what, self.remedy.unwrap_or("write the content alone into it"))
    }

    /// The problem of a file that should hold PEM; `intro` names the file, `convert` is the remedy
    /// for binary content and other text.
    pub(super) fn not_pem(self, intro: &str, convert: &str) -> Problem {
        Problem::new(format!("{intro}: {}", self.what), self.remedy.unwrap_or(convert))
    }

    /// The kind of binary content; `None` for text.
    pub(super) fn binary(bytes: &[u8]) -> Option<Self> {
        if bytes.starts_with(&[0xFF, 0xFE]) || bytes.starts_with(&[0xFE, 0xFF]) || is_utf16(bytes) {
            Some(Self::UTF16)
        } else if bytes.starts_with(&[0xFE, 0xED, 0xFE, 0xED]) {
            Some(Self::KEY_STORE)
        } else if is_der(bytes) {
            Some(of_der(bytes))
        } else if str::from_utf8(bytes).is_err() {
            Some(Self::NOT_UTF8)
        } else {
            bytes.contains(&0).then_some(Self::NUL)
        }
    }

    /// What the text of a secret is instead: a structure with the secret in it, a page, a key.
    pub(super) fn instead_of_secret(text: &str) -> Option<Self> {
        let text = text.trim();
        let structured = text.starts_with(['{', '[', '"']);
        let whole = structured && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
        // Also a truncated one, and jq's output for a missing property.
        let begun = text.strip_prefix('{').is_some_and(|rest| rest.trim_start().starts_with('"'));
        if whole || begun || text == "null" {
            return Some(Self::JSON);
        }
        let start: String = text.chars().take(16).collect::<String>().to_ascii_lowercase();
        if ["<!doctype", "<html", "<?xml"].iter().any(|page| start.starts_with(page)) {
            return Some(Self::PAGE);
        }
        text.starts_with("-----BEGIN ").then(|| Self::instead_of_pem(text, ""))
    }

    /// What text without a block of this label holds.
    pub(super) fn instead_of_pem(text: &str, wanted: &str) -> Self {
        const LABELS: [(&str, FileContents); 9] = [
            ("TRUSTED CERTIFICATE", FileContents::TRUSTED),
            ("CERTIFICATE REQUEST", FileContents::REQUEST),
            ("PRIVATE KEY", FileContents::KEY),
            ("X509 CRL", FileContents::CRL),
            ("PKCS7", FileContents::PKCS7),
            ("CMS", FileContents::PKCS7),
            ("PUBLIC KEY", FileContents::PUBLIC_KEY),
            ("X509 CERTIFICATE", FileContents::CERTIFICATE),
            ("CERTIFICATE", FileContents::CERTIFICATE),
        ];
        if text.trim().is_empty() {
            return Self::EMPTY;
        }
        let labels: Vec<_> = text
            .split("-----BEGIN ")
            .skip(1)
            .filter_map(|rest| rest.split_once("-----").map(|(label, _)| label))
            .collect();
        if labels.iter().any(|label| !wanted.is_empty() && label.ends_with(wanted)) {
            let trusted = labels.contains(&"TRUSTED CERTIFICATE");
            return if trusted { Self::TRUSTED } else { Self::DAMAGED };
        }
        if labels.iter().any(|label| label.starts_with("OPENSSH ") || label.starts_with("PGP ")) {
            return Self::OTHER_KEY;
        }
        let known =
            LABELS.iter().find(|(known, _)| labels.iter().any(|label| label.ends_with(known)));
        match known {
            Some((_, contents)) => *contents,
            None if labels.is_empty() && text.trim_start().starts_with('<') => Self::PAGE,
            None => Self::NO_PEM,
        }
    }
}

/// The text of a file.
pub(crate) fn utf8(bytes: Vec<u8>) -> Result<String, Problem> {
    match FileContents::binary(&bytes) {
        Some(contents) => Err(contents.problem()),
        None => String::from_utf8(bytes).map_err(|_| FileContents::NOT_UTF8.problem()),
    }
}

/// The text without a byte order mark, and without white space around its lines: some editors and
/// mail programs add those, and PEM (RFC 7468 section 2) has none.
pub(super) fn pem_lines(bytes: &[u8]) -> Result<Zeroizing<String>, FileContents> {
    if let Some(contents) = FileContents::binary(bytes) {
        return Err(contents);
    }
    let text = str::from_utf8(without_bom(bytes)).map_err(|_| FileContents::NOT_UTF8)?;
    let mut lines = Zeroizing::new(String::with_capacity(text.len() + 1));
    for line in text.lines() {
        lines.push_str(line.trim());
        lines.push('\n');
    }
    Ok(lines)
}

pub(super) fn without_bom(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(BOM).unwrap_or(bytes)
}

/// Latin text in UTF-16 without a mark: nearly every other byte is zero.
fn is_utf16(bytes: &[u8]) -> bool {
    let zeros = |first| bytes.iter().skip(first).step_by(2).filter(|byte| **byte == 0).count();
    let (even, odd) = (zeros(0), zeros(1));
    let half = bytes.len() / 2;
    half >= 2 && even.max(odd) * 10 >= half * 8 && even.min(odd) * 10 <= half
}

/// A `SEQUENCE` (X.690 section 8.9).
fn is_der(bytes: &[u8]) -> bool {
    match bytes {
        [0x30, 0x80..=0x84, ..] => true,
        // A short one, such as an EC key: it begins with a number.
        [0x30, length, 2, ..] => usize::from(*length) + 2 == bytes.len(),
        _ => false,
    }
}

/// The kind of structure, by its first element: a version and contents for PKCS#12, the name
/// `pkcs7-signedData` (1.2.840.113549.1.7.2) for PKCS#7.
fn of_der(bytes: &[u8]) -> FileContents {
    const SIGNED_DATA: &[u8] = &[6, 9, 0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 7, 2];
    let [_, length, rest @ ..] = bytes else { return FileContents::DER };
    let further = if *length < 0x80 { 0 } else { usize::from(length & 0x7F) };
    let inner = rest.get(further..).unwrap_or_default();
    if inner.starts_with(&[2, 1, 3, 0x30]) {
        FileContents::PKCS12
    } else if inner.starts_with(SIGNED_DATA) {
        FileContents::PKCS7
    } else {
        FileContents::DER
    }
}

#[cfg(test)]
mod tests;
