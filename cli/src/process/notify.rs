//! What systemd is told of a service's life, where it asks to be: `Type=notify-reload`.

use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use rustix::time::{ClockId, clock_gettime};

/// A moment in a service's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// It serves.
    Ready,
    /// It reads its configuration anew.
    Reloading,
    /// It ends.
    Stopping,
}

/// Tells the service manager. Where there is none, or it does not listen, nothing is to be done.
pub fn notify(moment: Moment) {
    if let Some(socket) = std::env::var_os("NOTIFY_SOCKET") {
        let message = match moment {
            Moment::Ready => "READY=1".to_owned(),
            Moment::Reloading => {
                let now = clock_gettime(ClockId::Monotonic);
                let micros = now.tv_sec * 1_000_000 + now.tv_nsec / 1000;
                format!("RELOADING=1\nMONOTONIC_USEC={micros}")
            }
            Moment::Stopping => "STOPPING=1".to_owned(),
        };
        if let Err(error) = send(&socket, &message) {
            tracing::debug!(%error, "the service manager was not told");
        }
    }
}

fn send(socket: &OsStr, message: &str) -> std::io::Result<()> {
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(socket)?,
    };
    let sender = UnixDatagram::unbound()?;
    sender.set_nonblocking(true)?;
    sender.send_to_addr(message.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_socket_are_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let name = format!("keyhaul-{}", std::process::id());
        let abstracted = SocketAddr::from_abstract_name(&name).expect("a name");
        let at_path = UnixDatagram::bind(&path).expect("bound");
        let at_name = UnixDatagram::bind_addr(&abstracted).expect("bound");
        send(path.as_os_str(), "READY=1").expect("sent");
        send(OsStr::new(&format!("@{name}")), "STOPPING=1").expect("sent");
        let mut buffer = [0; 64];
        let length = at_path.recv(&mut buffer).expect("received");
        assert_eq!(&buffer[..length], b"READY=1");
        let length = at_name.recv(&mut buffer).expect("received");
        assert_eq!(&buffer[..length], b"STOPPING=1");
    }
}
