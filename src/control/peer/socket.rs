//! What the kernel knows of the process that connected: Linux's socket options `SO_PEERGROUPS` and
//! `SO_PEERPIDFD` (socket(7), unix(7)).

#![expect(
    unsafe_code,
    reason = "no library has these options: docs/decisions/0029-access-groups.md"
)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Groups that a process usually has at most; more take a second question.
const USUAL: usize = 64;

/// The supplementary groups that the process had when it connected. From Linux 4.13 on.
pub(super) fn groups(socket: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut groups: Vec<libc::gid_t> = vec![0; USUAL];
    loop {
        let bytes = size_of_val(groups.as_slice());
        let mut length = libc::socklen_t::try_from(bytes).map_err(io::Error::other)?;
        // SAFETY: the descriptor is open for as long as `socket` is borrowed; the kernel writes at
        // most `length` bytes to the buffer, which has as many, and any bytes are a `gid_t`.
        let result = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        let needed = usize::try_from(length).unwrap_or_default() / size_of::<libc::gid_t>();
        if result == 0 {
            groups.truncate(needed);
            return Ok(groups);
        }
        let error = io::Error::last_os_error();
        // ERANGE: `length` is how many bytes it takes.
        if error.raw_os_error() != Some(libc::ERANGE) || needed <= groups.len() {
            return Err(error);
        }
        groups.resize(needed, 0);
    }
}

/// A descriptor of the process that connected, which no later process of its number has. From
/// Linux 6.5 on.
pub(super) fn process(socket: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mut process: RawFd = -1;
    let mut length = libc::socklen_t::try_from(size_of::<RawFd>()).map_err(io::Error::other)?;
    // SAFETY: as above, with a buffer of one descriptor.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERPIDFD,
            (&raw mut process).cast(),
            &raw mut length,
        )
    };
    if result != 0 || process < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel made this descriptor for us just now, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(process) })
}
