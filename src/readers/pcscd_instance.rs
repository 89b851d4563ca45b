//! Which pcscd it is that answers, in which boot of the machine.
//!
//! pcscd's protocol has no word for that, and with socket activation the peer of its socket is the
//! service manager. But every pcscd writes its process id into `pcscd.pid` beside its socket before it
//! takes the first connection, and so leaves a new modification time there. Together with the boot id
//! that is one run of pcscd and no other. A USB reader that is plugged in again begins to count anew
//! within the same pcscd, so the USB devices that may be readers belong to the evidence as well.
//!
//! Where any of it cannot be had, nothing is certain, and there is no instance.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

use super::pcscd_socket;
use crate::domain::PcscdInstance;

/// The kernel's id of this boot.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The same, from the service manager: the unit's `ProcSubset=pid` hides the file.
const BOOT_ID_VARIABLE: &str = "BOOT_ID";

/// pcscd's process id, in the directory of its socket.
const PID_FILE: &str = "pcscd.pid";

/// The USB devices and their interfaces.
const USB: &str = "/sys/bus/usb/devices";

/// Classes of USB interfaces that a reader may have: CCID, and the vendor's own.
const READER_CLASSES: [&str; 2] = ["0b", "ff"];

/// One run of pcscd in one boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PcscdProcess(String);

impl PcscdProcess {
    /// The run of the pcscd to which a connection was just established. It is that one's if the
    /// connection still works afterwards.
    pub(super) fn of_pcscd() -> Option<Self> {
        Self::at(&pcscd_socket::path(), &boot_id()?)
    }

    fn at(socket: &Path, boot: &str) -> Option<Self> {
        let pid_file = socket.parent()?.join(PID_FILE);
        let written = fs::metadata(&pid_file).ok()?;
        let pid = pid_in(&fs::read_to_string(&pid_file).ok()?)?;
        // A file that a dead pcscd left behind says nothing of the one that answers.
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

    /// The instance that the readers are watched through now.
    pub(super) fn instance(&self) -> PcscdInstance {
        let mut evidence = self.0.clone();
        evidence.push_str(" usb");
        for (device, number) in usb_devices(Path::new(USB)) {
            evidence.extend([" ", &device, "=", &number]);
        }
        PcscdInstance::new(evidence)
    }
}

/// The kernel's id of this boot, where it can be had.
#[must_use]
pub fn boot_id() -> Option<String> {
    let from_kernel = fs::read_to_string(BOOT_ID).ok();
    let id = from_kernel.or_else(|| std::env::var(BOOT_ID_VARIABLE).ok())?;
    let id = id.trim();
    (!id.is_empty()).then(|| id.to_owned())
}

/// pcscd writes the number, a line feed and a NUL; what a longer number left behind it follows.
fn pid_in(text: &str) -> Option<Pid> {
    let digits = text.split(|char: char| !char.is_ascii_digit()).next()?;
    Pid::from_raw(digits.parse().ok()?)
}

/// The USB devices that may be readers, each with the number that its bus gave it when it was
/// plugged in.
fn usb_devices(directory: &Path) -> Vec<(String, String)> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let read = |name: &str, file: &str| {
        fs::read_to_string(directory.join(name).join(file)).map(|text| text.trim().to_owned())
    };
    let mut devices = Vec::new();
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        // An interface is called after its device: `1-2:1.0` belongs to `1-2`.
        let Some((device, _)) = name.split_once(':') else { continue };
        let class = read(&name, "bInterfaceClass").unwrap_or_default();
        if READER_CLASSES.contains(&class.as_str()) {
            devices.push((device.to_owned(), read(device, "devnum").unwrap_or_default()));
        }
    }
    devices.sort();
    devices.dedup();
    devices
}

#[cfg(test)]
mod tests {
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
    fn a_run_of_pcscd_is_the_same_until_its_files_are_written_again() {
        let place = pcscd();
        let before = run(place.path()).unwrap();
        assert_eq!(run(place.path()), Some(before.clone()));
        let elsewhere = PcscdProcess::at(&place.path().join("pcscd.comm"), "boot-2");
        assert_ne!(elsewhere, Some(before.clone()), "another boot");
        let pid_file = fs::File::options().write(true).open(place.path().join(PID_FILE)).unwrap();
        let later = std::time::SystemTime::now() + std::time::Duration::from_secs(1);
        pid_file.set_modified(later).unwrap();
        assert_ne!(run(place.path()), Some(before), "the same process id, written again");
    }

    #[test]
    fn without_the_process_id_of_a_live_pcscd_nothing_is_certain() {
        let place = pcscd();
        for text in ["", "pcscd", "0", "4194305\n", "99999999999999999999"] {
            fs::write(place.path().join(PID_FILE), text).unwrap();
            assert_eq!(run(place.path()), None, "{text:?}");
        }
        fs::remove_file(place.path().join(PID_FILE)).unwrap();
        assert_eq!(run(place.path()), None);
    }

    #[test]
    fn a_shorter_process_id_over_a_longer_one_is_read_up_to_the_line_feed() {
        assert_eq!(pid_in("123\n\x0056\n").map(Pid::as_raw_nonzero).map(i32::from), Some(123));
    }

    #[test]
    fn a_reader_that_was_plugged_in_again_is_another_instance_and_a_mouse_is_not() {
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
}
