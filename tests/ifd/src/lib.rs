//! A reader driver for pcscd (IFD handler 3.0) that has no will of its own: what a reader does is
//! decided by the test harness, at the other end of a Unix socket.
//!
//! It is two things in one library. `handler` is the driver: each call of pcscd's goes to the
//! harness and its answer comes back. `usb` stands in for libudev, and so is the USB bus on which
//! the harness plugs readers in and out: Debian's pcscd has no other way to lose a reader or to get
//! a new one. Preloaded into pcscd, it is the bus; named in a driver bundle, it is loaded as the
//! driver of what is on that bus.
//!
//! It knows nothing of cards, keeps no state but its connections, and starts no thread.
//!
//! # The connections
//!
//! The socket's path is in the environment (`link::SOCKET`). A connection begins with ten bytes:
//! its role, the number of the reader, the reader's LUN as pcscd has it, and a number that is the
//! same for both connections of one opening, both little endian.
//!
//! | Role | From the harness | To the harness |
//! |---|---|---|
//! | `U`, the bus | how many readers there are and their numbers; then `+` or `-` and a number, as readers come and go | |
//! | `C`, calls of one reader | code and length, four bytes each, and data | what is wanted (one byte), length, data |
//! | `E`, events of one reader | a byte for each change | |
//! | `W`, a byte for the thread that waits for events of one reader | | |

#![expect(
    unsafe_code,
    reason = "pcscd is written in C: its drivers export C functions and are handed pointers"
)]

mod handler;
mod link;
mod usb;
