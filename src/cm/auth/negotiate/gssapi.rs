//! The system's GSSAPI: the functions that cardbridge needs.
//!
//! MIT Kerberos is loaded on first use, so that stations with other authentication need no library. All
//! pointers stay in here: [`ffi`] is the C interface, [`handles`] are types that own the library's objects.
//!
//! All functions block. Only [`Credential::from_keytab`] and the first [`SecurityContext`] for a service
//! ask the KDC: each may take half a minute and more if that is silent.

mod ffi;
mod handles;

use std::ffi::{CStr, CString};
use std::fmt;
use std::sync::OnceLock;

use crate::wire::cm::single_line;

use ffi::Library;
pub(super) use handles::{
    ContextState, Credential, CredentialCache, GssName, InitiatedContext, SecurityContext,
};

/// Loaded once per process, and never unloaded: the library leaves thread-local data behind.
static LIBRARY: OnceLock<Library> = OnceLock::new();

/// The library, loaded.
#[derive(Clone, Copy)]
pub(super) struct Gssapi {
    library: &'static Library,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mechanism {
    /// Its errors are precise.
    Kerberos,
    /// Negotiated Kerberos, for HTTP. Its only error is that there is no mechanism.
    Spnego,
}

/// An error of the library.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct GssError {
    /// The mechanism's text, or else GSSAPI's.
    message: String,
    /// The mechanism's number.
    code: i32,
}

impl Gssapi {
    /// Loads the library; a missing one can be installed later.
    pub(super) fn load() -> Result<Self, String> {
        if let Some(library) = LIBRARY.get() {
            return Ok(Self { library });
        }
        let library = Library::load().map_err(|error| single_line(&error.to_string()))?;
        // Loaded by two threads at once, it is still one library.
        Ok(Self { library: LIBRARY.get_or_init(|| library) })
    }
}

impl Mechanism {
    /// The object identifier, as DER has it.
    const fn oid(self) -> &'static [u8] {
        match self {
            // 1.2.840.113554.1.2.2
            Self::Kerberos => &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x12, 0x01, 0x02, 0x02],
            // 1.3.6.1.5.5.2
            Self::Spnego => &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x02],
        }
    }
}

impl GssError {
    /// An error without a number.
    fn internal(message: &str) -> Self {
        Self { message: message.to_owned(), code: 0 }
    }

    /// From the texts of GSSAPI and of the mechanism, which is preferred.
    fn from_texts(gssapi: &str, mechanism: &str, code: i32) -> Self {
        let (gssapi, mechanism) = (single_line(gssapi), single_line(mechanism));
        let message = match mechanism.as_str() {
            "" | "Success" | "Unknown error" if !gssapi.is_empty() => gssapi,
            _ if gssapi.is_empty() || gssapi == mechanism => mechanism,
            _ => format!("{mechanism} ({gssapi})"),
        };
        Self { message, code }
    }

    /// The number in libkrb5's table; errors of SPNEGO have others.
    pub(super) const fn code(&self) -> i32 {
        self.code
    }
}

impl fmt::Display for GssError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

fn c_string(text: &str) -> Result<CString, GssError> {
    CString::new(text).map_err(|_| GssError::internal("a name holds a NUL"))
}

fn text(bytes: &[u8]) -> String {
    // Some texts of MIT's end in a NUL.
    let bytes = CStr::from_bytes_until_nul(bytes).map_or(bytes, CStr::to_bytes);
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests;
