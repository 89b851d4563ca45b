//! The C interface: `gssapi/gssapi.h` and `gssapi/gssapi_ext.h` of MIT Kerberos 1.11 and later,
//! and the four functions of libkrb5 that end a credential cache.

#![expect(unsafe_code, reason = "loads a C library: docs/decisions/0015-negotiate.md")]

use std::ffi::{c_char, c_int, c_void};
use std::ptr;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// MIT's; Heimdal has another interface under another name.
const LIBRARY: &str = "libgssapi_krb5.so.2";

/// `gss_buffer_desc`
#[repr(C)]
pub(super) struct Buffer {
    pub(super) length: usize,
    pub(super) value: *mut c_void,
}

/// `gss_OID_desc`
#[repr(C)]
pub(super) struct Oid {
    pub(super) length: u32,
    pub(super) elements: *const c_void,
}

/// `gss_OID_set_desc`
#[repr(C)]
pub(super) struct OidSet {
    pub(super) count: usize,
    pub(super) elements: *const Oid,
}

/// `gss_key_value_element_desc`
#[repr(C)]
pub(super) struct KeyValue {
    pub(super) key: *const c_char,
    pub(super) value: *const c_char,
}

/// `gss_key_value_set_desc`
#[repr(C)]
pub(super) struct KeyValueSet {
    pub(super) count: u32,
    pub(super) elements: *const KeyValue,
}

/// `struct gss_channel_bindings_struct`
#[repr(C)]
pub(super) struct ChannelBindings {
    pub(super) initiator_addrtype: u32,
    pub(super) initiator_address: Buffer,
    pub(super) acceptor_addrtype: u32,
    pub(super) acceptor_address: Buffer,
    pub(super) application_data: Buffer,
}

// SAFETY: the declaration is that of `stdlib.h`; any function that takes nothing may be given.
unsafe extern "C" {
    /// Registers a function that runs at exit, before the destructors of libraries.
    safe fn atexit(function: extern "C" fn()) -> c_int;
}

extern "C" fn at_exit() {
    GATE.shut();
}

macro_rules! opaque {
    ($($(#[$doc:meta])* $name:ident)*) => {
        $($(#[$doc])*
        #[repr(C)]
        pub(super) struct $name {
            _private: [u8; 0],
        })*
    };
}

opaque! {
    /// What `gss_name_t` points to.
    NameBody
    /// What `gss_cred_id_t` points to.
    CredentialBody
    /// What `gss_ctx_id_t` points to.
    ContextBody
    /// What `krb5_context` points to.
    KrbContext
    /// What `krb5_ccache` points to.
    KrbCache
}

macro_rules! functions {
    ($($(#[$doc:meta])* $name:ident = $symbol:literal: fn($($argument:ty),*) $(-> $result:ty)?;)*) => {
        /// The functions, and the library that they are in.
        pub(super) struct Library {
            $($(#[$doc])* pub(super) $name: unsafe extern "C" fn($($argument),*) $(-> $result)?,)*
            _handle: libloading::Library,
        }

        impl Library {
            /// Loads the library and its functions.
            pub(super) fn load() -> Result<Self, libloading::Error> {
                // SAFETY: MIT's libraries have no more to do when they are loaded than to set
                // up their own locks and error tables, and may be loaded by any thread.
                let handle = unsafe { libloading::Library::new(LIBRARY) }?;
                // Without room for it, the exit is unprotected.
                atexit(at_exit);
                // SAFETY: each type below is the one that the header gives the function. The
                // pointers live as long as `handle`, which this structure keeps. Those of
                // libkrb5 are found because libgssapi_krb5 depends on it.
                unsafe {
                    Ok(Self {
                        $($name: *handle.get(concat!($symbol, "\0"))?,)*
                        _handle: handle,
                    })
                }
            }
        }
    };
}

functions! {
    /// Status, name, type, result.
    import_name = "gss_import_name":
        fn(*mut u32, *const Buffer, *const Oid, *mut *mut NameBody) -> u32;
    release_name = "gss_release_name": fn(*mut u32, *mut *mut NameBody) -> u32;
    /// Status, name, life, mechanisms, usage, store, result, mechanisms, life.
    acquire_cred_from = "gss_acquire_cred_from":
        fn(*mut u32, *mut NameBody, u32, *const OidSet, c_int, *const KeyValueSet,
           *mut *mut CredentialBody, *mut *mut OidSet, *mut u32) -> u32;
    release_cred = "gss_release_cred": fn(*mut u32, *mut *mut CredentialBody) -> u32;
    /// Status, credential, context, target, mechanism, flags, life, bindings, token in,
    /// mechanism, token out, flags, life.
    init_sec_context = "gss_init_sec_context":
        fn(*mut u32, *mut CredentialBody, *mut *mut ContextBody, *mut NameBody, *const Oid, u32,
           u32, *const ChannelBindings, *const Buffer, *mut *mut Oid, *mut Buffer, *mut u32,
           *mut u32) -> u32;
    delete_sec_context = "gss_delete_sec_context":
        fn(*mut u32, *mut *mut ContextBody, *mut Buffer) -> u32;
    release_buffer = "gss_release_buffer": fn(*mut u32, *mut Buffer) -> u32;
    /// Status, value, kind, mechanism, where to go on, result.
    display_status = "gss_display_status":
        fn(*mut u32, u32, c_int, *const Oid, *mut u32, *mut Buffer) -> u32;
    krb5_init_context = "krb5_init_context": fn(*mut *mut KrbContext) -> i32;
    krb5_free_context = "krb5_free_context": fn(*mut KrbContext);
    krb5_cc_resolve = "krb5_cc_resolve":
        fn(*mut KrbContext, *const c_char, *mut *mut KrbCache) -> i32;
    krb5_cc_destroy = "krb5_cc_destroy": fn(*mut KrbContext, *mut KrbCache) -> i32;
}

impl Buffer {
    pub(super) const EMPTY: Self = Self { length: 0, value: ptr::null_mut() };

    /// For the library to read, while `bytes` exist.
    pub(super) const fn of(bytes: &[u8]) -> Self {
        Self { length: bytes.len(), value: bytes.as_ptr().cast_mut().cast() }
    }
}

impl Oid {
    pub(super) fn of(bytes: &'static [u8]) -> Self {
        // Ours have eleven bytes at most.
        let length = u32::try_from(bytes.len()).unwrap_or_default();
        Self { length, elements: bytes.as_ptr().cast() }
    }
}

impl ChannelBindings {
    /// RFC 5929 names no addresses: zero is `GSS_C_AF_UNSPEC`.
    pub(super) const fn of(application_data: &[u8]) -> Self {
        Self {
            initiator_addrtype: 0,
            initiator_address: Buffer::EMPTY,
            acceptor_addrtype: 0,
            acceptor_address: Buffer::EMPTY,
            application_data: Buffer::of(application_data),
        }
    }
}

/// How long the exit waits for active calls. Most take less than a millisecond; those that wait for a
/// silent KDC take no lock.
const PATIENCE: Duration = Duration::from_millis(300);

pub(super) static GATE: ExitGuard = ExitGuard::new();

/// Blocks calls of the library while the process exits.
///
/// At exit, the C library runs the destructors of every library while other threads continue. libkrb5
/// destroys its locks, and aborts the process if a thread takes one afterwards. So every call passes this
/// gate, which is shut first: later calls wait until the process has ended.
pub(super) struct ExitGuard {
    calls: Mutex<CallCount>,
    changed: Condvar,
}

struct CallCount {
    active: usize,
    shut: bool,
}

/// An active call.
pub(super) struct CallGuard<'a>(&'a ExitGuard);

impl ExitGuard {
    const fn new() -> Self {
        let calls = Mutex::new(CallCount { active: 0, shut: false });
        Self { calls, changed: Condvar::new() }
    }

    /// Begins a call; blocks forever once the gate is shut.
    pub(super) fn enter(&self) -> CallGuard<'_> {
        let mut calls = self
            .changed
            .wait_while(self.calls(), |calls| calls.shut)
            .unwrap_or_else(PoisonError::into_inner);
        calls.active += 1;
        CallGuard(self)
    }

    /// Blocks new calls, and waits a little for active ones.
    pub(super) fn shut(&self) {
        let mut calls = self.calls();
        calls.shut = true;
        drop(self.changed.wait_timeout_while(calls, PATIENCE, |calls| calls.active > 0));
    }

    fn calls(&self) -> MutexGuard<'_, CallCount> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for CallGuard<'_> {
    fn drop(&mut self) {
        self.0.calls().active -= 1;
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::thread;
    use std::time::Instant;

    use super::*;

    #[test]
    fn the_end_waits_for_a_call_active_and_lets_no_other_begin() {
        static GATE: ExitGuard = ExitGuard::new();
        let inside = GATE.enter();
        let (shut, seen) = channel();
        thread::spawn(move || {
            GATE.shut();
            shut.send(()).unwrap();
        });
        while !GATE.calls().shut {
            thread::yield_now();
        }
        let (entered, never) = channel();
        thread::spawn(move || {
            let _inside = GATE.enter();
            entered.send(()).unwrap();
        });
        drop(inside);
        seen.recv().unwrap();
        assert!(never.recv_timeout(Duration::from_millis(50)).is_err());
    }

    #[test]
    fn the_end_does_not_wait_for_ever() {
        static GATE: ExitGuard = ExitGuard::new();
        let _stuck = GATE.enter();
        let started = Instant::now();
        GATE.shut();
        assert!(started.elapsed() >= PATIENCE);
    }
}
