//! The pcscd process: which one answers, in which boot of the machine, and its socket.
//!
//! pcscd's protocol does not identify the process, and with socket activation the peer of its socket is
//! the service manager. But every pcscd writes its process id to `pcscd.pid` beside its socket before it
//! accepts a connection, and so changes the modification time. With the boot id that identifies one run of
//! pcscd. A USB reader that is connected again counts from 0 within the same pcscd, so the USB devices that
//! may be readers belong to the instance too. Where any of it is missing, there is no instance.
//!
//! A pcscd that starts makes its socket, in a directory that may be missing before. So the nearest existing
//! directory is watched (inotify(7)): a card that is inserted for a second just after pcscd came back
//! must not wait for the next attempt.

use std::ffi::{OsStr, OsString};
use std::fs::{self, Metadata};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

use crate::domain::PcscdInstance;

use super::thread::{CancelToken, WakeCause};

/// The socket's path, by the variable that libpcsclite reads, or by default.
const SOCKET_VARIABLE: &str = "PCSCLITE_CSOCK_NAME";
const DEFAULT_SOCKET: &str = "/run/pcscd/pcscd.comm";

/// pcscd's process id, in the directory of its socket.
const PID_FILE: &str = "pcscd.pid";

/// The kernel's id of this boot, also from the service manager: the unit's `ProcSubset=pid` hides the file.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const BOOT_ID_VARIABLE: &str = "BOOT_ID";

const USB: &str = "/sys/bus/usb/devices";

/// Classes of USB interfaces that a reader may have: CCID, and vendor-specific.
const READER_CLASSES: [&str; 2] = ["0b", "ff"];

/// Events of a name in the directory, and of the directory's end.
const WATCH_MASK: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR);
const END_MASK: ReadFlags = ReadFlags::DELETE_SELF
    .union(ReadFlags::MOVE_SELF)
    .union(ReadFlags::IGNORED)
    .union(ReadFlags::QUEUE_OVERFLOW);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PcscdProcess(String);

impl PcscdProcess {
    /// The run of the pcscd to which a connection was just opened, if the connection still works after.
    pub(super) fn current() -> Option<Self> {
        Self::at(&socket_path(), &boot_id()?)
    }

    fn at(socket: &Path, boot: &str) -> Option<Self> {
        let pid_file = socket.parent()?.join(PID_FILE);
        let written = fs::metadata(&pid_file).ok()?;
        let pid = pid_in(&fs::read_to_string(&pid_file).ok()?)?;
        // The file of a dead pcscd does not identify the one that answers.
        if test_kill_process(pid).is_err_and(|error| error != Errno::PERM) {
            return None;
        }
        let made = fs::metadata(socket).ok()?;
        Some(Self(format!(
            "boot {boot} pid {} {}:{} {}.{:09} socket {}:{} {}.{:09}",
            pid.as_raw_nonzero(),
            written.dev(),
            written.ino(),
            written.mtime(),
            written.mtime_nsec(),
            made.dev(),
            made.ino(),
            made.ctime(),
            made.ctime_nsec(),
        )))
    }

    /// The instance by which the readers are watched now.
    pub(super) fn instance(&self) -> PcscdInstance {
        let mut evidence = format!("{} usb", self.0);
        for (device, number) in usb_devices(Path::new(USB)) {
            evidence.extend([" ", &device, "=", &number]);
        }
        PcscdInstance::new(evidence)
    }
}

#[must_use]
pub fn boot_id() -> Option<String> {
    let from_kernel = fs::read_to_string(BOOT_ID).ok();
    let id = from_kernel.or_else(|| std::env::var(BOOT_ID_VARIABLE).ok())?;
    Some(id.trim().to_owned()).filter(|id| !id.is_empty())
}

/// pcscd writes the number, a line feed and a NUL; the rest of a longer number may follow.
fn pid_in(text: &str) -> Option<Pid> {
    let digits = text.split(|char: char| !char.is_ascii_digit()).next()?;
    Pid::from_raw(digits.parse().ok()?)
}

/// The USB devices that may be readers, each with the number that its bus gave it when it was connected.
fn usb_devices(directory: &Path) -> Vec<(String, String)> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let read = |name: &str, file: &str| {
        let text = fs::read_to_string(directory.join(name).join(file)).unwrap_or_default();
        text.trim().to_owned()
    };
    let mut devices = Vec::new();
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        // An interface has its device's name: `1-2:1.0` belongs to `1-2`.
        let Some((device, _)) = name.split_once(':') else { continue };
        if READER_CLASSES.contains(&read(&name, "bInterfaceClass").as_str()) {
            devices.push((device.to_owned(), read(device, "devnum")));
        }
    }
    devices.sort();
    devices.dedup();
    devices
}

pub(super) fn socket_path() -> PathBuf {
    let path = std::env::var_os(SOCKET_VARIABLE).filter(|path| !path.is_empty());
    path.unwrap_or_else(|| DEFAULT_SOCKET.into()).into()
}

/// Identifies a socket file, if there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SocketStamp(Option<(u64, u64, i64, i64)>);

impl SocketStamp {
    pub(super) fn of(socket: &Path) -> Self {
        let stamp = |file: Metadata| (file.dev(), file.ino(), file.ctime(), file.ctime_nsec());
        Self(fs::symlink_metadata(socket).ok().map(stamp))
    }
}

/// Waits until the socket appears, until `halt`, or until the timeout. Returns at once if the socket is
/// another one than `before`.
pub(super) fn wait_for_socket(
    socket: &Path,
    before: SocketStamp,
    halt: &CancelToken,
    timeout: Duration,
) -> WakeCause {
    let watch = SocketWatch::begin(socket);
    // A socket that appeared before the watch began causes no event.
    if SocketStamp::of(socket) != before && !halt.is_cancelled() {
        return WakeCause::Signalled;
    }
    match watch {
        Some(watch) => watch.wait(halt, timeout),
        None if halt.wait_timeout(timeout) => WakeCause::Cancelled,
        None => WakeCause::TimedOut,
    }
}

/// A watch on the nearest existing directory, for the name in it that leads to the socket. It serves once:
/// the next one may need another directory.
#[derive(Debug)]
struct SocketWatch {
    events: OwnedFd,
    awaited: OsString,
}

impl SocketWatch {
    /// `None` where the kernel has no watch left.
    fn begin(socket: &Path) -> Option<Self> {
        let events = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).ok()?;
        let mut awaited = socket;
        loop {
            let directory = awaited.parent()?;
            match inotify::add_watch(&events, directory, WATCH_MASK) {
                Ok(_) => return Some(Self { events, awaited: awaited.file_name()?.to_owned() }),
                Err(Errno::NOENT | Errno::NOTDIR) => awaited = directory,
                Err(_) => return None,
            }
        }
    }

    fn wait(&self, halt: &CancelToken, timeout: Duration) -> WakeCause {
        let end = Instant::now() + timeout;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let cause = halt.wait_for_signal(&self.events, left);
            if cause != WakeCause::Signalled || self.has_event() {
                return cause;
            }
        }
    }

    /// Reads all pending events; whether one of them matters.
    fn has_event(&self) -> bool {
        let mut space = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.events, &mut space);
        let mut matters = false;
        while let Ok(event) = reader.next() {
            let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()));
            let is_awaited = name == Some(self.awaited.as_os_str());
            matters |= is_awaited || event.events().intersects(END_MASK);
        }
        matters
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;

    fn run(place: &Path) -> Option<PcscdProcess> {
        PcscdProcess::at(&place.join("pcscd.comm"), "boot-1")
    }

    /// The files of a pcscd, which is this very process.
    fn pcscd() -> tempfile::TempDir {
        let place = tempfile::tempdir().unwrap();
        fs::write(place.path().join("pcscd.comm"), "").unwrap();
        fs::write(place.path().join(PID_FILE), format!("{}\n\0", std::process::id())).unwrap();
        place
    }

    #[test]
    fn pcscd_process_changes_with_its_files() {
        let place = pcscd();
        let before = run(place.path()).unwrap();
        assert_eq!(run(place.path()), Some(before.clone()));
        let elsewhere = PcscdProcess::at(&place.path().join("pcscd.comm"), "boot-2");
        assert_ne!(elsewhere, Some(before.clone()), "another boot");
        let pid_file = fs::File::options().write(true).open(place.path().join(PID_FILE)).unwrap();
        let later = std::time::SystemTime::now() + Duration::from_secs(1);
        pid_file.set_modified(later).unwrap();
        assert_ne!(run(place.path()), Some(before), "the same process id, written again");
    }

    #[test]
    fn missing_live_process_id_returns_no_process() {
        let place = pcscd();
        for text in ["", "pcscd", "0", "4194305\n", "99999999999999999999"] {
            fs::write(place.path().join(PID_FILE), text).unwrap();
            assert_eq!(run(place.path()), None, "{text:?}");
        }
        fs::remove_file(place.path().join(PID_FILE)).unwrap();
        assert_eq!(run(place.path()), None);
    }

    #[test]
    fn process_id_ends_at_line_feed() {
        assert_eq!(pid_in("123\n\x0056\n").map(Pid::as_raw_nonzero).map(i32::from), Some(123));
    }

    #[test]
    fn reconnected_usb_reader_changes_devices() {
        let usb = tempfile::tempdir().unwrap();
        let write = |name: &str, file: &str, text: &str| {
            fs::create_dir_all(usb.path().join(name)).unwrap();
            fs::write(usb.path().join(name).join(file), text).unwrap();
        };
        write("1-2", "devnum", "5\n");
        write("1-2:1.0", "bInterfaceClass", "0b\n");
        write("1-3", "devnum", "6\n");
        write("1-3:1.0", "bInterfaceClass", "03\n");
        let device = |number: &str| vec![("1-2".to_owned(), number.to_owned())];
        assert_eq!(usb_devices(usb.path()), device("5"));
        write("1-2", "devnum", "7\n");
        assert_eq!(usb_devices(usb.path()), device("7"));
    }

    const LONG: Duration = Duration::from_mins(1);

    fn directory() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn new_socket_ends_wait() {
        let directory = directory();
        let socket = directory.path().join("pcscd.comm");
        for _ in 0..2 {
            let watch = SocketWatch::begin(&socket).unwrap();
            let path = socket.clone();
            let bound = thread::spawn(move || UnixListener::bind(path).unwrap());
            assert_eq!(watch.wait(&CancelToken::default(), LONG), WakeCause::Signalled);
            drop(bound.join().unwrap());
            // A pcscd that was killed leaves its socket behind; the next one makes it again.
            fs::remove_file(&socket).unwrap();
        }
    }

    #[test]
    fn new_directory_of_socket_ends_wait() {
        let directory = directory();
        let run = directory.path().join("run");
        let socket = run.join("pcscd/pcscd.comm");
        let watch = SocketWatch::begin(&socket).unwrap();
        fs::create_dir(&run).unwrap();
        assert_eq!(watch.wait(&CancelToken::default(), LONG), WakeCause::Signalled);
        let watch = SocketWatch::begin(&socket).unwrap();
        fs::create_dir(run.join("pcscd")).unwrap();
        assert_eq!(watch.wait(&CancelToken::default(), LONG), WakeCause::Signalled);
        let watch = SocketWatch::begin(&socket).unwrap();
        fs::remove_dir(run.join("pcscd")).unwrap();
        assert_eq!(
            watch.wait(&CancelToken::default(), LONG),
            WakeCause::Signalled,
            "another directory is watched then"
        );
    }

    #[test]
    fn other_files_do_not_end_wait() {
        let directory = directory();
        let watch = SocketWatch::begin(&directory.path().join("pcscd.comm")).unwrap();
        fs::write(directory.path().join("pcscd.pid"), "1").unwrap();
        assert_eq!(
            watch.wait(&CancelToken::default(), Duration::from_millis(50)),
            WakeCause::TimedOut
        );
    }

    #[test]
    fn socket_made_before_watch_ends_wait_immediately() {
        let directory = directory();
        let socket = directory.path().join("pcscd.comm");
        let halt = CancelToken::default();
        let none = SocketStamp::of(&socket);
        drop(UnixListener::bind(&socket).unwrap());
        assert_eq!(wait_for_socket(&socket, none, &halt, LONG), WakeCause::Signalled);
        // A killed pcscd left that one; the next one made it again in the same moment.
        let stale = SocketStamp::of(&socket);
        assert_eq!(wait_for_socket(&socket, stale, &halt, Duration::ZERO), WakeCause::TimedOut);
        fs::remove_file(&socket).unwrap();
        let _socket = UnixListener::bind(&socket).unwrap();
        assert_eq!(wait_for_socket(&socket, stale, &halt, LONG), WakeCause::Signalled);
        halt.cancel();
        assert_eq!(wait_for_socket(&socket, stale, &halt, LONG), WakeCause::Cancelled);
    }

    #[test]
    fn cancellation_ends_socket_wait() {
        let directory = directory();
        let watch = SocketWatch::begin(&directory.path().join("pcscd.comm")).unwrap();
        let halt = CancelToken::default();
        let caller = thread::spawn({
            let halt = halt.clone();
            move || halt.cancel()
        });
        assert_eq!(watch.wait(&halt, LONG), WakeCause::Cancelled);
        caller.join().unwrap();
        assert_eq!(
            watch.wait(&halt, LONG),
            WakeCause::Cancelled,
            "also one that was called before"
        );
    }
}
