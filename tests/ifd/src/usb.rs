//! What pcscd uses of libudev, for a bus on which the harness plugs readers.
//!
//! pcscd hands libudev's objects back and never looks into them. So they are numbers here, dressed
//! up as pointers: of a device, its reader's number plus one, and above that what happened to it.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::io::Read as _;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::ptr;
use std::sync::{LazyLock, Mutex, OnceLock, PoisonError};

use crate::link::{Role, connect};

/// An object of libudev's.
type Object = *mut c_void;

const ADDED: usize = 1 << 8;
const REMOVED: usize = 2 << 8;

/// The harness, once pcscd listens for events.
static BUS: OnceLock<UnixStream> = OnceLock::new();

/// The readers that were on the bus at the first look.
static FOUND: Mutex<Vec<u8>> = Mutex::new(Vec::new());

/// What devices are called, by the reader's number.
static NAMES: LazyLock<Vec<Names>> = LazyLock::new(|| (0..=u8::MAX).map(Names::of).collect());

#[derive(Debug)]
struct Names {
    path: CString,
    interface: CString,
    node: CString,
    serial: CString,
}

impl Names {
    fn of(reader: u8) -> Self {
        let text = |text: String| CString::new(text).unwrap_or_default();
        Self {
            path: text(format!("/sys/cardbridge/{reader}")),
            interface: text(format!("cardbridge-{reader}:1.0")),
            node: text(format!("/dev/cardbridge/{reader}")),
            serial: text(format!("R{reader:02}")),
        }
    }

    fn of_device(device: Object) -> Option<&'static Self> {
        NAMES.get((device.addr() & 0xFF).checked_sub(1)?)
    }
}

fn device(reader: u8, event: usize) -> Object {
    ptr::without_provenance_mut((usize::from(reader) + 1) | event)
}

fn text(text: Option<&'static CStr>) -> *const c_char {
    text.map_or(ptr::null(), CStr::as_ptr)
}

#[unsafe(no_mangle)]
extern "C" fn udev_new() -> Object {
    ptr::without_provenance_mut(1)
}

#[unsafe(no_mangle)]
extern "C" fn udev_unref(_udev: Object) -> Object {
    ptr::null_mut()
}

#[unsafe(no_mangle)]
extern "C" fn udev_monitor_unref(_monitor: Object) -> Object {
    ptr::null_mut()
}

/// Connects to the harness; from here on no event is lost.
#[unsafe(no_mangle)]
extern "C" fn udev_monitor_new_from_netlink(_udev: Object, _name: *const c_char) -> Object {
    match connect(Role::Bus, 0, 0, 0) {
        Ok(stream) => {
            drop(BUS.set(stream));
            ptr::without_provenance_mut(1)
        }
        Err(_) => ptr::null_mut(),
    }
}

#[unsafe(no_mangle)]
extern "C" fn udev_monitor_filter_add_match_subsystem_devtype(
    _monitor: Object,
    _subsystem: *const c_char,
    _devtype: *const c_char,
) -> c_int {
    0
}

#[unsafe(no_mangle)]
extern "C" fn udev_monitor_enable_receiving(_monitor: Object) -> c_int {
    0
}

#[unsafe(no_mangle)]
extern "C" fn udev_monitor_get_fd(_monitor: Object) -> c_int {
    BUS.get().map_or(-1, AsRawFd::as_raw_fd)
}

#[unsafe(no_mangle)]
extern "C" fn udev_monitor_receive_device(_monitor: Object) -> Object {
    match receive() {
        Some([b'+', reader]) => device(reader, ADDED),
        Some([b'-', reader]) => device(reader, REMOVED),
        Some(_) | None => ptr::null_mut(),
    }
}

fn receive<const N: usize>() -> Option<[u8; N]> {
    let mut bytes = [0; N];
    BUS.get()?.read_exact(&mut bytes).ok()?;
    Some(bytes)
}

#[unsafe(no_mangle)]
extern "C" fn udev_enumerate_new(_udev: Object) -> Object {
    ptr::without_provenance_mut(1)
}

#[unsafe(no_mangle)]
extern "C" fn udev_enumerate_unref(_enumerate: Object) -> Object {
    ptr::null_mut()
}

#[unsafe(no_mangle)]
extern "C" fn udev_enumerate_add_match_subsystem(
    _enumerate: Object,
    _subsystem: *const c_char,
) -> c_int {
    0
}

/// Takes in what the harness says first: the readers that are there.
#[unsafe(no_mangle)]
extern "C" fn udev_enumerate_scan_devices(_enumerate: Object) -> c_int {
    let Some([count]) = receive() else { return -1 };
    let found = (0..count).map_while(|_| receive().map(|[reader]| reader)).collect();
    *FOUND.lock().unwrap_or_else(PoisonError::into_inner) = found;
    0
}

#[unsafe(no_mangle)]
extern "C" fn udev_enumerate_get_list_entry(_enumerate: Object) -> Object {
    entry(0)
}

/// An entry of the list is its position plus one.
fn entry(position: usize) -> Object {
    let count = FOUND.lock().unwrap_or_else(PoisonError::into_inner).len();
    if position < count { ptr::without_provenance_mut(position + 1) } else { ptr::null_mut() }
}

#[unsafe(no_mangle)]
extern "C" fn udev_list_entry_get_next(list_entry: Object) -> Object {
    entry(list_entry.addr())
}

#[unsafe(no_mangle)]
extern "C" fn udev_list_entry_get_name(list_entry: Object) -> *const c_char {
    let found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    let reader = list_entry.addr().checked_sub(1).and_then(|position| found.get(position));
    let names = reader.and_then(|reader| NAMES.get(usize::from(*reader)));
    text(names.map(|names| names.path.as_c_str()))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn udev_device_new_from_syspath(_udev: Object, path: *const c_char) -> Object {
    // SAFETY: pcscd hands back what udev_list_entry_get_name gave it.
    let path = unsafe { CStr::from_ptr(path) };
    let reader = (0..=u8::MAX).zip(NAMES.iter()).find(|(_, names)| names.path.as_c_str() == path);
    reader.map_or(ptr::null_mut(), |(reader, _)| device(reader, 0))
}

#[unsafe(no_mangle)]
extern "C" fn udev_device_unref(_device: Object) -> Object {
    ptr::null_mut()
}

/// The device is its own parent: interface and device are one.
#[unsafe(no_mangle)]
extern "C" fn udev_device_get_parent_with_subsystem_devtype(
    child: Object,
    _subsystem: *const c_char,
    _devtype: *const c_char,
) -> Object {
    child
}

#[unsafe(no_mangle)]
extern "C" fn udev_device_get_action(device: Object) -> *const c_char {
    text(match device.addr() & !0xFF {
        ADDED => Some(c"add"),
        REMOVED => Some(c"remove"),
        _ => None,
    })
}

#[unsafe(no_mangle)]
extern "C" fn udev_device_get_devnode(device: Object) -> *const c_char {
    text(Names::of_device(device).map(|names| names.node.as_c_str()))
}

#[unsafe(no_mangle)]
extern "C" fn udev_device_get_sysname(device: Object) -> *const c_char {
    text(Names::of_device(device).map(|names| names.interface.as_c_str()))
}

/// No rule was made for the device. Asked for by pcscd from 2.0 on.
#[unsafe(no_mangle)]
extern "C" fn udev_device_get_property_value(
    _device: Object,
    _property: *const c_char,
) -> *const c_char {
    ptr::null()
}

#[unsafe(no_mangle)]
unsafe extern "C" fn udev_device_get_sysattr_value(
    device: Object,
    attribute: *const c_char,
) -> *const c_char {
    // SAFETY: pcscd hands over a string of its own.
    let attribute = unsafe { CStr::from_ptr(attribute) };
    text(match attribute.to_bytes() {
        b"idVendor" => Some(c"1209"),
        b"idProduct" => Some(c"cb1d"),
        b"serial" => Names::of_device(device).map(|names| names.serial.as_c_str()),
        _ => None,
    })
}
