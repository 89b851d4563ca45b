//! The functions that pcscd calls to use a reader, as `ifdhandler.h` of pcsc-lite declares them.

use std::ffi::{CStr, c_char, c_long, c_uchar, c_ulong};
use std::time::Duration;
use std::{ptr, slice};

use crate::link::{Channel, Want};

type Dword = c_ulong;
type Code = c_long;

const SUCCESS: Code = 0;
const UNKNOWN_TAG: Code = 600;
const NOT_SUPPORTED: Code = 606;
const COMMUNICATION_ERROR: Code = 612;

const POWER_UP: Dword = 500;
const POWER_DOWN: Dword = 501;
const RESET: Dword = 502;

const TAG_ATR: Dword = 0x0303;
const TAG_SLOT_THREAD_SAFE: Dword = 0x0FAC;
const TAG_THREAD_SAFE: Dword = 0x0FAD;
const TAG_SLOTS: Dword = 0x0FAE;
const TAG_SIMULTANEOUS_ACCESS: Dword = 0x0FAF;
const TAG_POLLING_THREAD_KILLABLE: Dword = 0x0FB1;
const TAG_STOP_POLLING_THREAD: Dword = 0x0FB2;
const TAG_POLLING_THREAD_WITH_TIMEOUT: Dword = 0x0FB3;
const ATTRIBUTE_VENDOR: Dword = 0x0001_0100;
const ATTRIBUTE_SERIAL: Dword = 0x0001_0103;
const ATTRIBUTE_ATR: Dword = 0x0009_0303;

/// How many readers one copy of this driver can have: more than pcscd.
const READERS: u8 = 64;

/// Protocol and length of an exchange.
#[repr(C)]
#[derive(Clone, Copy)]
struct IoHeader {
    protocol: Dword,
    length: Dword,
}

/// pcscd's name of a device ends in its node on the bus, which ends in the reader's number.
#[unsafe(no_mangle)]
unsafe extern "C" fn IFDHCreateChannelByName(lun: Dword, device: *const c_char) -> Code {
    // SAFETY: pcscd hands over a string that lives as long as this call.
    let device = unsafe { CStr::from_ptr(device) }.to_string_lossy();
    let number = device.rsplit('/').next().and_then(|number| number.parse().ok());
    match number.map(|reader| Channel::open(lun, reader)) {
        Some(Ok(())) => SUCCESS,
        Some(Err(_)) | None => COMMUNICATION_ERROR,
    }
}

/// Readers of this driver have names.
#[unsafe(no_mangle)]
extern "C" fn IFDHCreateChannel(_lun: Dword, _channel: Dword) -> Code {
    COMMUNICATION_ERROR
}

#[unsafe(no_mangle)]
extern "C" fn IFDHCloseChannel(lun: Dword) -> Code {
    Channel::close(lun);
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn IFDHGetCapabilities(
    lun: Dword,
    tag: Dword,
    length: *mut Dword,
    value: *mut c_uchar,
) -> Code {
    let Some(answer) = capability(lun, tag) else { return UNKNOWN_TAG };
    // SAFETY: pcscd hands over room for `*length` bytes.
    unsafe { give(&answer, value, length) }
}

fn capability(lun: Dword, tag: Dword) -> Option<Vec<u8>> {
    let channel = Channel::find(lun)?;
    Some(match tag {
        TAG_ATR | ATTRIBUTE_ATR => channel.atr(),
        TAG_SLOTS | TAG_THREAD_SAFE | TAG_SLOT_THREAD_SAFE => vec![1],
        TAG_SIMULTANEOUS_ACCESS => vec![READERS],
        TAG_POLLING_THREAD_KILLABLE => vec![0],
        TAG_STOP_POLLING_THREAD => function(stop_waiting as *const ()),
        TAG_POLLING_THREAD_WITH_TIMEOUT => function(wait as *const ()),
        ATTRIBUTE_VENDOR => b"cardbridge\0".to_vec(),
        ATTRIBUTE_SERIAL => format!("R{:02}\0", channel.reader()).into_bytes(),
        _ => return None,
    })
}

fn function(address: *const ()) -> Vec<u8> {
    address.addr().to_ne_bytes().to_vec()
}

#[unsafe(no_mangle)]
extern "C" fn IFDHSetCapabilities(
    _lun: Dword,
    _tag: Dword,
    _length: Dword,
    _value: *const c_uchar,
) -> Code {
    NOT_SUPPORTED
}

#[unsafe(no_mangle)]
extern "C" fn IFDHSetProtocolParameters(
    lun: Dword,
    protocol: Dword,
    _flags: c_uchar,
    _pts1: c_uchar,
    _pts2: c_uchar,
    _pts3: c_uchar,
) -> Code {
    ask(lun, Want::Protocol, &protocol.to_le_bytes()).0
}

#[unsafe(no_mangle)]
unsafe extern "C" fn IFDHPowerICC(
    lun: Dword,
    action: Dword,
    atr: *mut c_uchar,
    length: *mut Dword,
) -> Code {
    let want = match action {
        POWER_UP => Want::PowerUp,
        POWER_DOWN => Want::PowerDown,
        RESET => Want::Reset,
        _ => return NOT_SUPPORTED,
    };
    let (code, answer) = ask(lun, want, &[]);
    if let Some(channel) = Channel::find(lun) {
        channel.keep_atr(&answer);
    }
    // SAFETY: pcscd hands over room for `*length` bytes.
    let given = unsafe { give(&answer, atr, length) };
    if code == SUCCESS { given } else { code }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn IFDHTransmitToICC(
    lun: Dword,
    send_pci: IoHeader,
    command: *const c_uchar,
    command_length: Dword,
    answer: *mut c_uchar,
    answer_length: *mut Dword,
    receive_pci: *mut IoHeader,
) -> Code {
    // SAFETY: pcscd hands over a command of this length.
    let command = unsafe { take(command, command_length) };
    let (code, bytes) = ask(lun, Want::Transmit, command);
    if !receive_pci.is_null() {
        // SAFETY: it is pcscd's own header then.
        unsafe { receive_pci.write(send_pci) };
    }
    // SAFETY: pcscd hands over room for `*answer_length` bytes.
    let given = unsafe { give(&bytes, answer, answer_length) };
    if code == SUCCESS { given } else { code }
}

#[unsafe(no_mangle)]
extern "C" fn IFDHICCPresence(lun: Dword) -> Code {
    ask(lun, Want::Presence, &[]).0
}

/// There are no control codes.
#[unsafe(no_mangle)]
unsafe extern "C" fn IFDHControl(
    _lun: Dword,
    _code: Dword,
    _command: *const c_uchar,
    _command_length: Dword,
    _answer: *mut c_uchar,
    _room: Dword,
    returned: *mut Dword,
) -> Code {
    if !returned.is_null() {
        // SAFETY: it is pcscd's own variable then.
        unsafe { returned.write(0) };
    }
    NOT_SUPPORTED
}

/// pcscd waits here between two looks at the reader.
extern "C" fn wait(lun: Dword, milliseconds: i32) -> Code {
    let patience = Duration::from_millis(milliseconds.unsigned_abs().into());
    match Channel::find(lun).map(|channel| channel.wait(patience)) {
        Some(Ok(())) => SUCCESS,
        Some(Err(_)) | None => COMMUNICATION_ERROR,
    }
}

extern "C" fn stop_waiting(lun: Dword) -> Code {
    if let Some(channel) = Channel::find(lun) {
        channel.stop_waiting();
    }
    SUCCESS
}

/// The harness' answer; a harness that is gone is a reader that does not answer.
fn ask(lun: Dword, want: Want, data: &[u8]) -> (Code, Vec<u8>) {
    match Channel::find(lun).map(|channel| channel.call(want, data)) {
        Some(Ok((code, answer))) => (Code::from(code), answer),
        Some(Err(_)) | None => (COMMUNICATION_ERROR, Vec::new()),
    }
}

/// The bytes that the caller hands over.
///
/// # Safety
/// There are `length` of them, for as long as the result is used.
unsafe fn take<'a>(bytes: *const c_uchar, length: Dword) -> &'a [u8] {
    match usize::try_from(length) {
        Ok(length) if length > 0 && !bytes.is_null() => {
            // SAFETY: as the caller promised.
            unsafe { slice::from_raw_parts(bytes, length) }
        }
        Ok(_) | Err(_) => &[],
    }
}

/// Fills the caller's room with bytes, if there is enough of it, and says how many they are.
///
/// # Safety
/// There is room for `*length` bytes.
unsafe fn give(bytes: &[u8], room: *mut c_uchar, length: *mut Dword) -> Code {
    // SAFETY: as the caller promised.
    let space = usize::try_from(unsafe { *length }).unwrap_or(0);
    let fits = bytes.len() <= space && !room.is_null();
    let given = if fits { bytes } else { &[] };
    // SAFETY: so many bytes fit, and no other code uses the room.
    unsafe {
        ptr::copy_nonoverlapping(given.as_ptr(), room, given.len());
        *length = Dword::try_from(given.len()).unwrap_or(0);
    }
    if fits { SUCCESS } else { COMMUNICATION_ERROR }
}
