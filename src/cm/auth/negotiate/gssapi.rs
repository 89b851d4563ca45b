//! The system's GSSAPI, and the few things that are wanted of it.
//!
//! MIT Kerberos is loaded when it is first needed, so that a station that is let in otherwise needs
//! no library. This is the only code of the agent that may be unsafe: [`ffi`] is the C interface,
//! [`handles`] the types that hold what the library hands out and give it back, and [`exit_guard`] keeps all
//! calls out of it once the process ends. Outside of here no
//! pointer is seen.
//!
//! Everything here blocks. Only [`Credential::from_keytab`] and the first [`SecurityContext`] for a service
//! ask the KDC, and each of the two may take half a minute and more when that is silent.

mod exit_guard;
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

/// What is loaded: once a process, and never unloaded, for the library leaves threads' data behind.
static LIBRARY: OnceLock<Library> = OnceLock::new();

/// The library, loaded.
#[derive(Clone, Copy)]
pub(super) struct Gssapi {
    library: &'static Library,
}

/// What the tokens of a context are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mechanism {
    /// Kerberos itself: says truly what is wrong.
    Kerberos,
    /// Kerberos negotiated: what servers want on HTTP. It says for every failure that there is no
    /// mechanism.
    Spnego,
}

/// What the library says about a failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct GssError {
    /// The mechanism's own words, or else GSSAPI's.
    message: String,
    /// The mechanism's own number.
    code: i32,
}

impl Gssapi {
    /// Loads the library; what is missing can be installed later.
    pub(super) fn load() -> Result<Self, String> {
        if let Some(library) = LIBRARY.get() {
            return Ok(Self { library });
        }
        let library = Library::load().map_err(|error| single_line(&error.to_string()))?;
        // Loaded twice at the same moment it is still one library.
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
    /// A failure that the library has no number for.
    fn internal(words: &str) -> Self {
        Self { message: words.to_owned(), code: 0 }
    }

    /// GSSAPI's words and the mechanism's: these where they say anything.
    fn from_texts(gssapi: &str, mechanism: &str, code: i32) -> Self {
        let (gssapi, mechanism) = (single_line(gssapi), single_line(mechanism));
        let words = match mechanism.as_str() {
            "" | "Success" | "Unknown error" if !gssapi.is_empty() => gssapi,
            _ if gssapi.is_empty() || gssapi == mechanism => mechanism,
            _ => format!("{mechanism} ({gssapi})"),
        };
        Self { message: words, code }
    }

    /// The error's number in libkrb5's table; what comes through SPNEGO has others.
    pub(super) const fn code(&self) -> i32 {
        self.code
    }
}

impl fmt::Display for GssError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Text that C can read.
fn c_string(text: &str) -> Result<CString, GssError> {
    CString::new(text).map_err(|_| GssError::internal("a name holds a NUL"))
}

/// Bytes that C wrote, as far as they are text.
fn text(bytes: &[u8]) -> String {
    // Some texts of MIT's end in a NUL.
    let bytes = CStr::from_bytes_until_nul(bytes).map_or(bytes, CStr::to_bytes);
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests;
