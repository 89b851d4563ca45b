//! Owners of the library's objects.

#![expect(unsafe_code, reason = "calls a C library: docs/decisions/0015-negotiate.md")]

use std::ffi::CString;
use std::fmt;
use std::path::Path;
use std::ptr;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::ffi::{
    Buffer, ChannelBindings, ContextBody, CredentialBody, GATE, KeyValue, KeyValueSet, Library,
    NameBody, Oid, OidSet,
};
use super::{GssError, Gssapi, Mechanism, c_string, text};

/// `GSS_KRB5_NT_PRINCIPAL_NAME`, 1.2.840.113554.1.2.2.1: a literal name, without a lookup.
const PRINCIPAL_NAME: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x12, 0x01, 0x02, 0x02, 0x01];
/// `GSS_C_INITIATE`
const INITIATE: i32 = 1;
/// `GSS_C_MUTUAL_FLAG`
const MUTUAL: u32 = 2;
/// `GSS_S_CONTINUE_NEEDED`
const CONTINUE_NEEDED: u32 = 1;
/// `GSS_ERROR`
const ERRORS: u32 = 0xffff_0000;
/// `GSS_S_FAILURE`: the mechanism has the cause.
const FAILURE: u32 = 13 << 16;
/// `GSS_C_GSS_CODE` and `GSS_C_MECH_CODE`
const KINDS_OF_STATUS: [i32; 2] = [1, 2];

/// The name of a principal or a service.
pub(in super::super) struct GssName {
    library: &'static Library,
    handle: *mut NameBody,
}

/// A private credential cache in memory.
pub(in super::super) struct CredentialCache {
    library: &'static Library,
    name: CString,
}

pub(in super::super) struct Credential {
    library: &'static Library,
    handle: *mut CredentialBody,
    /// Outlives the credential.
    _cache: Arc<CredentialCache>,
    /// In seconds.
    life: u32,
}

pub(in super::super) struct SecurityContext {
    library: &'static Library,
    handle: *mut ContextBody,
    mechanism: Mechanism,
    credential: Arc<Credential>,
    service: Arc<GssName>,
    bindings: Option<Arc<[u8]>>,
}

pub(in super::super) struct InitiatedContext {
    pub(in super::super) context: SecurityContext,
    /// For the service.
    pub(in super::super) token: Vec<u8>,
    /// Of the service's ticket, in seconds.
    pub(in super::super) lifetime: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum ContextState {
    /// The service has proved its identity.
    Established,
    ContinueNeeded,
}

/// Bytes of the library.
struct OwnedBuffer {
    library: &'static Library,
    buffer: Buffer,
}

// SAFETY: nothing below is bound to the thread that made it. MIT Kerberos is thread-safe: a name
// is not changed once it is made, and a credential has a lock of its own.
unsafe impl Send for GssName {}
// SAFETY: see above.
unsafe impl Sync for GssName {}
// SAFETY: see above.
unsafe impl Send for Credential {}
// SAFETY: see above.
unsafe impl Sync for Credential {}
// SAFETY: a context may be used by one thread after the other; it is not `Sync`, and changes need
// exclusive access.
unsafe impl Send for SecurityContext {}

impl Gssapi {
    /// Calls a function of GSSAPI, and turns its two statuses into an error.
    fn check(
        library: &'static Library,
        mechanism: Mechanism,
        call: impl FnOnce(*mut u32) -> u32,
    ) -> Result<u32, GssError> {
        let _inside = GATE.enter();
        let mut minor = 0;
        let major = call(&raw mut minor);
        if major & ERRORS == 0 {
            return Ok(major);
        }
        let [gssapi, own] = KINDS_OF_STATUS;
        let text = |value, kind| status_text(library, value, kind, mechanism);
        // GSSAPI's text for this one is only that it has none.
        let general = if major & ERRORS == FAILURE { String::new() } else { text(major, gssapi) };
        Err(GssError::from_texts(&general, &text(minor, own), minor.cast_signed()))
    }
}

/// The whole text of a status.
fn status_text(library: &'static Library, value: u32, kind: i32, mechanism: Mechanism) -> String {
    let (mut status, mut position) = (String::new(), 0);
    let mechanism = Oid::of(mechanism.oid());
    loop {
        let mut message = OwnedBuffer::new(library);
        let mut minor = 0;
        // SAFETY: every pointer is to a value that outlives the call; the library only reads the
        // mechanism.
        let major = unsafe {
            (library.display_status)(
                &raw mut minor,
                value,
                kind,
                &raw const mechanism,
                &raw mut position,
                &raw mut message.buffer,
            )
        };
        if major & ERRORS != 0 {
            return status;
        }
        status.push_str(&text(message.bytes()));
        if position == 0 {
            return status;
        }
        status.push(' ');
    }
}

impl GssName {
    /// `service/host@REALM`; without a realm after the `@`, the KDC decides.
    pub(in super::super) fn new(gssapi: Gssapi, name: &str) -> Result<Self, GssError> {
        let Gssapi { library } = gssapi;
        let (bytes, kind) = (Buffer::of(name.as_bytes()), Oid::of(PRINCIPAL_NAME));
        let mut handle = ptr::null_mut();
        Gssapi::check(library, Mechanism::Kerberos, |minor| {
            // SAFETY: the library copies the name and reads the type; both outlive the call.
            unsafe {
                (library.import_name)(minor, &raw const bytes, &raw const kind, &raw mut handle)
            }
        })?;
        Ok(Self { library, handle })
    }
}

impl CredentialCache {
    /// A cache with a name of its own; the library creates it with the first ticket.
    pub(in super::super) fn new(gssapi: Gssapi) -> Result<Self, GssError> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = c_string(&format!("MEMORY:cardbridge-{number}"))?;
        Ok(Self { library: gssapi.library, name })
    }
}

#[cfg(test)]
impl CredentialCache {
    /// Another handle of the same cache.
    pub(super) fn again(&self) -> Self {
        Self { library: self.library, name: self.name.clone() }
    }
}

impl Credential {
    /// Logs a principal in with its key: asks the KDC, and stores the ticket in the cache.
    pub(in super::super) fn from_keytab(
        principal: &GssName,
        keytab: &Path,
        cache: &Arc<CredentialCache>,
    ) -> Result<Self, GssError> {
        let keytab = keytab
            .to_str()
            .ok_or_else(|| GssError::internal("the path of the keytab is no text in UTF-8"))?;
        let keytab = c_string(&format!("FILE:{keytab}"))?;
        Self::acquire(principal, Mechanism::Kerberos, Some(&keytab), cache)
    }

    /// The same principal for another mechanism, with the ticket of the cache.
    pub(in super::super) fn from_cache(
        principal: &GssName,
        mechanism: Mechanism,
        cache: &Arc<CredentialCache>,
    ) -> Result<Self, GssError> {
        Self::acquire(principal, mechanism, None, cache)
    }

    fn acquire(
        principal: &GssName,
        mechanism: Mechanism,
        keytab: Option<&CString>,
        cache: &Arc<CredentialCache>,
    ) -> Result<Self, GssError> {
        let library = principal.library;
        let keytab =
            keytab.map(|file| KeyValue { key: c"client_keytab".as_ptr(), value: file.as_ptr() });
        let cache_at = KeyValue { key: c"ccache".as_ptr(), value: cache.name.as_ptr() };
        let pairs: Vec<_> = [cache_at].into_iter().chain(keytab).collect();
        // No more than two.
        let count = u32::try_from(pairs.len()).unwrap_or_default();
        let store = KeyValueSet { count, elements: pairs.as_ptr() };
        let oid = Oid::of(mechanism.oid());
        let mechanisms = OidSet { count: 1, elements: &raw const oid };
        let (mut handle, mut life) = (ptr::null_mut(), 0);
        Gssapi::check(library, mechanism, |minor| {
            // SAFETY: the library reads name, mechanisms and store, none of which ends before the
            // call does, and copies what it keeps. It writes to `handle` and `life`; null means
            // that the mechanisms are not wanted.
            unsafe {
                (library.acquire_cred_from)(
                    minor,
                    principal.handle,
                    u32::MAX,
                    &raw const mechanisms,
                    INITIATE,
                    &raw const store,
                    &raw mut handle,
                    ptr::null_mut(),
                    &raw mut life,
                )
            }
        })?;
        Ok(Self { library, handle, _cache: Arc::clone(cache), life })
    }

    /// In seconds, from its creation.
    pub(in super::super) const fn life(&self) -> u32 {
        self.life
    }
}

impl SecurityContext {
    /// Asks the KDC for the service's ticket, unless the cache has it.
    pub(in super::super) fn start(
        credential: &Arc<Credential>,
        service: &Arc<GssName>,
        mechanism: Mechanism,
        bindings: Option<Arc<[u8]>>,
    ) -> Result<InitiatedContext, GssError> {
        let mut context = Self {
            library: credential.library,
            handle: ptr::null_mut(),
            mechanism,
            credential: Arc::clone(credential),
            service: Arc::clone(service),
            bindings,
        };
        let (_, token, life) = context.advance(None)?;
        Ok(InitiatedContext { context, token, lifetime: life })
    }

    /// Continues with a token of the service.
    pub(in super::super) fn step(&mut self, token: &[u8]) -> Result<ContextState, GssError> {
        self.advance(Some(token)).map(|(step, _, _)| step)
    }

    fn advance(&mut self, input: Option<&[u8]>) -> Result<(ContextState, Vec<u8>, u32), GssError> {
        let Self { library, mechanism, .. } = *self;
        let oid = Oid::of(mechanism.oid());
        let bindings = self.bindings.as_deref().map(ChannelBindings::of);
        let bindings = bindings.as_ref().map_or(ptr::null(), ptr::from_ref);
        let input = input.map(Buffer::of);
        let input = input.as_ref().map_or(ptr::null(), ptr::from_ref);
        let (mut output, mut life) = (OwnedBuffer::new(library), 0);
        let major = Gssapi::check(library, mechanism, |minor| {
            // SAFETY: credential and name are held by `self`; what the library reads outlives the
            // call, and it keeps none of it. `self.handle` is null or what the last call left
            // there, and has no other owner.
            unsafe {
                (library.init_sec_context)(
                    minor,
                    self.credential.handle,
                    &raw mut self.handle,
                    self.service.handle,
                    &raw const oid,
                    MUTUAL,
                    0,
                    bindings,
                    input,
                    ptr::null_mut(),
                    &raw mut output.buffer,
                    ptr::null_mut(),
                    &raw mut life,
                )
            }
        })?;
        let step = if major & CONTINUE_NEEDED == 0 {
            ContextState::Established
        } else {
            ContextState::ContinueNeeded
        };
        Ok((step, output.bytes().to_vec(), life))
    }
}

impl OwnedBuffer {
    const fn new(library: &'static Library) -> Self {
        Self { library, buffer: Buffer::EMPTY }
    }

    fn bytes(&self) -> &[u8] {
        if self.buffer.value.is_null() {
            return &[];
        }
        // SAFETY: the library says that so many bytes are there; they stay until `drop`.
        unsafe { slice::from_raw_parts(self.buffer.value.cast(), self.buffer.length) }
    }
}

impl Drop for OwnedBuffer {
    /// Only frees memory, and so needs no gate.
    fn drop(&mut self) {
        let mut minor = 0;
        // SAFETY: the buffer is empty or the library's, and is given back once.
        unsafe { (self.library.release_buffer)(&raw mut minor, &raw mut self.buffer) };
    }
}

impl Drop for GssName {
    fn drop(&mut self) {
        let _inside = GATE.enter();
        let mut minor = 0;
        // SAFETY: the handle is the library's, and is given back once.
        unsafe { (self.library.release_name)(&raw mut minor, &raw mut self.handle) };
    }
}

impl Drop for Credential {
    fn drop(&mut self) {
        let _inside = GATE.enter();
        let mut minor = 0;
        // SAFETY: the handle is the library's, and is given back once.
        unsafe { (self.library.release_cred)(&raw mut minor, &raw mut self.handle) };
    }
}

impl Drop for SecurityContext {
    fn drop(&mut self) {
        let _inside = GATE.enter();
        let mut minor = 0;
        // SAFETY: the handle is null, which does nothing, or the library's, and is given back
        // once; no token for the other side is wanted.
        unsafe {
            (self.library.delete_sec_context)(
                &raw mut minor,
                &raw mut self.handle,
                ptr::null_mut(),
            );
        }
    }
}

impl Drop for CredentialCache {
    /// Closing a cache leaves its tickets in memory: it must be destroyed.
    fn drop(&mut self) {
        let _inside = GATE.enter();
        let (mut krb5, mut cache) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: each pointer is used only after the call that sets it went well, and given back
        // once; `krb5_cc_destroy` ends the cache's handle too.
        unsafe {
            if (self.library.krb5_init_context)(&raw mut krb5) != 0 {
                return;
            }
            if (self.library.krb5_cc_resolve)(krb5, self.name.as_ptr(), &raw mut cache) == 0 {
                (self.library.krb5_cc_destroy)(krb5, cache);
            }
            (self.library.krb5_free_context)(krb5);
        }
    }
}

impl fmt::Debug for CredentialCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("name", &self.name).finish_non_exhaustive()
    }
}
