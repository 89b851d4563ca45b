//! pcscd's socket, and the wait for it to appear: a card that is in for a second just after pcscd
//! came back must not wait for the next try.
//!
//! A pcscd that starts makes its socket anew, in a directory that may have to be made first. So what
//! is watched is the directory nearest to the socket that is there (inotify(7)).

use std::ffi::{OsStr, OsString};
use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;

use super::cancel::{CancelToken, WakeCause};

/// What libpcsclite takes the path of the socket from.
const VARIABLE: &str = "PCSCLITE_CSOCK_NAME";

/// Where pcscd listens otherwise.
const DEFAULT: &str = "/run/pcscd/pcscd.comm";

/// A name that appears, or becomes accessible, in the directory; and the end of the directory.
const WATCH_MASK: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR);

/// Room for some events with the longest of names.
const EVENTS_SPACE: usize = 4096;

/// A watch on the nearest directory, for what leads on to the socket.
#[derive(Debug)]
struct SocketWatch {
    events: OwnedFd,
    awaited: OsString,
}

/// The path of pcscd's socket.
pub(super) fn path() -> PathBuf {
    let named = std::env::var_os(VARIABLE).filter(|path| !path.is_empty());
    named.map_or_else(|| PathBuf::from(DEFAULT), PathBuf::from)
}

/// Which socket file it is, if there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SocketStamp(Option<(u64, u64, i64, i64)>);

impl SocketStamp {
    pub(super) fn of(socket: &Path) -> Self {
        let made = fs::symlink_metadata(socket).ok();
        Self(made.map(|file| (file.dev(), file.ino(), file.ctime(), file.ctime_nsec())))
    }
}

/// Waits for as long as asked, until `halt` is called, or until the socket appears; at once where it is
/// another one than it was before the last try.
pub(super) fn wait_for(
    socket: &Path,
    before: SocketStamp,
    halt: &CancelToken,
    patience: Duration,
) -> WakeCause {
    let watch = SocketWatch::begin(socket);
    // One that appeared between the last try and the watch is no event any more.
    if SocketStamp::of(socket) != before && !halt.is_cancelled() {
        return WakeCause::Signalled;
    }
    match watch {
        Some(watch) => watch.wait(halt, patience),
        None if halt.wait_timeout(patience) => WakeCause::Cancelled,
        None => WakeCause::TimedOut,
    }
}

impl SocketWatch {
    /// Begins to watch; nothing where the kernel has no watch left.
    fn begin(socket: &Path) -> Option<Self> {
        let events = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).ok()?;
        let mut awaited = socket;
        loop {
            let directory = awaited.parent()?;
            match inotify::add_watch(&events, directory, WATCH_MASK) {
                Ok(_) => break,
                Err(Errno::NOENT | Errno::NOTDIR) => awaited = directory,
                Err(_) => return None,
            }
        }
        let awaited = awaited.file_name()?.to_owned();
        Some(Self { events, awaited })
    }

    /// Waits until something appeared that may lead to the socket, for as long as asked; or until
    /// `halt` is called. The watch has done its service once something appeared: the next one may
    /// have to be on another directory.
    fn wait(&self, halt: &CancelToken, patience: Duration) -> WakeCause {
        let end = Instant::now() + patience;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match halt.wait_for_signal(&self.events, left) {
                WakeCause::Signalled if self.has_event() => return WakeCause::Signalled,
                WakeCause::Signalled => {}
                woken @ (WakeCause::Cancelled | WakeCause::TimedOut) => return woken,
            }
        }
    }

    /// Takes every event that is there, and tells whether one of them matters.
    fn has_event(&self) -> bool {
        let mut space = [MaybeUninit::uninit(); EVENTS_SPACE];
        let mut reader = inotify::Reader::new(&self.events, &mut space);
        let mut news = false;
        while let Ok(event) = reader.next() {
            let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()));
            let awaited = name == Some(self.awaited.as_os_str());
            let ended = event.events().intersects(
                ReadFlags::DELETE_SELF
                    | ReadFlags::MOVE_SELF
                    | ReadFlags::IGNORED
                    | ReadFlags::QUEUE_OVERFLOW,
            );
            news |= awaited || ended;
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;

    const LONG: Duration = Duration::from_mins(1);

    fn directory() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn a_socket_that_appears_ends_the_wait() {
        let directory = directory();
        let socket = directory.path().join("pcscd.comm");
        for _ in 0..2 {
            let watch = SocketWatch::begin(&socket).unwrap();
            let path = socket.clone();
            let bound = thread::spawn(move || UnixListener::bind(path).unwrap());
            assert_eq!(watch.wait(&CancelToken::default(), LONG), WakeCause::Signalled);
            drop(bound.join().unwrap());
            // A pcscd that was killed leaves its socket behind; the next one makes it anew.
            fs::remove_file(&socket).unwrap();
        }
    }

    #[test]
    fn the_directories_may_have_to_be_made_first() {
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
            "it looks elsewhere then"
        );
    }

    #[test]
    fn other_files_end_no_wait() {
        let directory = directory();
        let watch = SocketWatch::begin(&directory.path().join("pcscd.comm")).unwrap();
        fs::write(directory.path().join("pcscd.pid"), "1").unwrap();
        assert_eq!(
            watch.wait(&CancelToken::default(), Duration::from_millis(50)),
            WakeCause::TimedOut
        );
    }

    #[test]
    fn a_socket_that_appeared_between_the_last_try_and_the_wait_is_not_waited_for() {
        let directory = directory();
        let socket = directory.path().join("pcscd.comm");
        let halt = CancelToken::default();
        let none = SocketStamp::of(&socket);
        drop(UnixListener::bind(&socket).unwrap());
        assert_eq!(wait_for(&socket, none, &halt, LONG), WakeCause::Signalled);
        // A killed pcscd left that one; the next one made it again in the same moment.
        let stale = SocketStamp::of(&socket);
        assert_eq!(wait_for(&socket, stale, &halt, Duration::ZERO), WakeCause::TimedOut);
        fs::remove_file(&socket).unwrap();
        let _socket = UnixListener::bind(&socket).unwrap();
        assert_eq!(wait_for(&socket, stale, &halt, LONG), WakeCause::Signalled);
        halt.cancel();
        assert_eq!(wait_for(&socket, stale, &halt, LONG), WakeCause::Cancelled);
    }

    #[test]
    fn a_halt_ends_the_wait_at_any_time() {
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
