//! Waiting for conditions, and addresses at which nobody is.
//!
//! Nothing here ever listens: what another test is just starting has a copy of all that is open, and a
//! copy of a listener takes connections until that has become its program.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// Asks until `condition` holds, and panics with `what` when it does not within `limit`.
pub fn eventually(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < limit, "{what}: not within {limit:?}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// A port on loopback that was free a moment ago. Another process can still take it: whoever
/// starts a server on it tries again with the next.
pub fn free_port() -> u16 {
    bound(0).expect("a free port on loopback").1
}

/// The first of two free ports that follow each other.
pub fn two_free_ports() -> u16 {
    loop {
        let (_first, port) = bound(0).expect("a free port on loopback");
        if port.checked_add(1).is_some_and(|next| bound(next).is_ok()) {
            return port;
        }
    }
}

/// A socket with this port on loopback, or with any where it is 0.
fn bound(port: u16) -> rustix::io::Result<(OwnedFd, u16)> {
    let socket = stream(AddressFamily::INET);
    rustix::net::bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))?;
    let address = SocketAddr::try_from(rustix::net::getsockname(&socket)?)?;
    Ok((socket, address.port()))
}

/// The socket that a server leaves behind when it dies: its file, and nobody who listens.
pub fn dead_socket(path: &Path) {
    let address = SocketAddrUnix::new(path).expect("a short path");
    rustix::net::bind(stream(AddressFamily::UNIX), &address).expect("bound");
}

fn stream(family: AddressFamily) -> OwnedFd {
    rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .expect("a socket")
}
