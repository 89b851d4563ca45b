//! Free ports that remain reserved.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;

use anyhow::{Result, bail};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::net::{bind, getsockname, socket_with, sockopt};

/// Binds a socket that keeps the port; with "reuse address" the listener can
/// have it too.
pub(crate) fn reserve(address: SocketAddr) -> Result<(OwnedFd, SocketAddr)> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    // Not for the agent to inherit.
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    bind(&socket, &address)?;
    let address = SocketAddr::try_from(getsockname(&socket)?)?;
    Ok((socket, address))
}

/// A port on 127.0.0.1 that UDP can have too, kept for TCP only: as long as
/// nothing listens, UDP is refused as it is by a machine without the server.
pub(crate) fn reserve_for_both() -> Result<(OwnedFd, SocketAddr)> {
    for _ in 0..20 {
        let (port, address) = reserve(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        if UdpSocket::bind(address).is_ok() {
            return Ok((port, address));
        }
    }
    bail!("no port is free for both TCP and UDP");
}
