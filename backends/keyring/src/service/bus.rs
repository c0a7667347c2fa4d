//! The way to the service: which bus, one connection, one session.

use std::borrow::Cow;
use std::env;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use keyhaul_core::{Error, ErrorKind, Result};
use secret_service::{EncryptionType, SecretService};
use tokio::net::UnixStream;
use tokio::sync::Mutex;
use zbus::address::transport::{Transport, UnixSocket};
use zbus::connection::Builder;

use super::error::{self, Failure};

/// How long one request to the bus or the service may take. The bus starts a service that is asked
/// for, which takes its time; and below the ten seconds of the layers,
/// so that it is this store that says what to do.
pub(super) const CALL: Duration = Duration::from_secs(8);

/// A connection, made when it is first needed and kept, with a session to carry values.
///
/// It lives on the runtime that it was made on.
pub(super) struct Bus {
    address: Option<String>,
    encrypted: bool,
    service: Mutex<Option<Arc<SecretService<'static>>>>,
}

impl Bus {
    pub(super) fn new(address: Option<String>, encrypted: bool) -> Self {
        Self {
            address,
            encrypted,
            service: Mutex::new(None),
        }
    }

    /// The service, connected to where it is not yet.
    pub(super) async fn service(&self) -> Result<Arc<SecretService<'static>>, Failure> {
        let mut kept = self.service.lock().await;
        if let Some(service) = &*kept {
            return Ok(Arc::clone(service));
        }
        let service = Arc::new(self.connect().await?);
        *kept = Some(Arc::clone(&service));
        Ok(service)
    }

    /// Lets go of a service that is gone, unless another has taken its place.
    pub(super) async fn forget(&self, gone: &Arc<SecretService<'static>>) {
        let mut kept = self.service.lock().await;
        if kept.as_ref().is_some_and(|kept| Arc::ptr_eq(kept, gone)) {
            *kept = None;
        }
    }

    async fn connect(&self) -> Result<SecretService<'static>, Failure> {
        let address = self.address()?;
        let building = async {
            let building = match socket(&address)? {
                Some(path) => Builder::unix_stream(UnixStream::connect(path).await?),
                None => Builder::address(address.as_ref())?,
            };
            building.method_timeout(CALL).build().await
        };
        let connection = match tokio::time::timeout(CALL, building).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(source)) => return Err(unreachable(source).into()),
            Err(_) => {
                return Err(Error::new(
                    ErrorKind::Timeout,
                    "the session bus did not answer in time",
                )
                .with_advice("see whether it runs: busctl --user list")
                .into());
            }
        };
        let encryption = if self.encrypted {
            EncryptionType::Dh
        } else {
            EncryptionType::Plain
        };
        Ok(SecretService::connect_with_existing(encryption, connection).await?)
    }

    /// The address of the bus, as other programs find it, save that nothing is started to have one.
    fn address(&self) -> Result<Cow<'_, str>> {
        if let Some(address) = &self.address {
            return Ok(address.into());
        }
        match env::var("DBUS_SESSION_BUS_ADDRESS") {
            Ok(address) if address.starts_with("unix:") => return Ok(address.into()),
            Ok(address) if !address.is_empty() => {
                return Err(Error::new(
                    ErrorKind::InvalidConfig,
                    "$DBUS_SESSION_BUS_ADDRESS names no socket on this host",
                )
                .with_advice("values cross a bus on this host only: name a unix: address by the store's option `bus`"));
            }
            _ => {}
        }
        match env::var("XDG_RUNTIME_DIR") {
            // Dots and letters, slashes and dashes need no escape; anything else does.
            Ok(folder) if !folder.is_empty() => Ok(format!("unix:path={}/bus", escaped(&folder)).into()),
            _ => Err(Error::new(
                ErrorKind::Unavailable,
                "there is no D-Bus session: neither DBUS_SESSION_BUS_ADDRESS nor XDG_RUNTIME_DIR is set",
            )
            .with_advice(
                "run it in a login session, under `dbus-run-session`, or name the bus by the store's option `bus`; sudo and cron do not pass it on",
            )),
        }
    }
}

/// The socket of an address, where it is a file. zbus would connect to it on a thread of its own,
/// which costs as much as a request, and which a bus that takes no connections keeps from ending.
fn socket(address: &str) -> zbus::Result<Option<PathBuf>> {
    let address: zbus::Address = address.parse()?;
    let Transport::Unix(unix) = address.transport() else {
        return Ok(None);
    };
    Ok(match unix.path() {
        UnixSocket::File(path) => Some(path.clone()),
        _ => None,
    })
}

/// A path as D-Bus addresses write it.
fn escaped(path: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_/.\\*".contains(&byte);
    path.bytes()
        .map(|byte| match plain(byte) {
            true => char::from(byte).to_string(),
            false => format!("%{byte:02x}"),
        })
        .collect()
}

fn unreachable(source: zbus::Error) -> Error {
    use std::io::ErrorKind as Io;
    let refused = match &source {
        zbus::Error::Address(_) => {
            return Error::new(
                ErrorKind::InvalidConfig,
                "the address of the session bus is none that D-Bus knows",
            )
            .with_advice("write it as unix:path=/run/user/1000/bus");
        }
        zbus::Error::Handshake(_) => Io::ConnectionReset,
        zbus::Error::InputOutput(error) | zbus::Error::Connection(error, _) => error.kind(),
        _ => return Failure::from(secret_service::Error::Zbus(source)).into_error(),
    };
    match refused {
        // It took the connection and hung up: the socket is not what it does not like.
        Io::BrokenPipe | Io::ConnectionReset | Io::UnexpectedEof => Error::new(
            ErrorKind::PermissionDenied,
            "the session bus did not accept this user",
        )
        .with_advice("a bus serves the user whose session it is: run keyhaul as that user"),
        Io::PermissionDenied => Error::new(
            ErrorKind::PermissionDenied,
            "the socket of the session bus is not open to this user",
        )
        .with_advice("a bus serves the user whose session it is: run keyhaul as that user"),
        Io::TimedOut => error::no_answer(),
        _ => Error::new(
            ErrorKind::Unavailable,
            "there is no D-Bus session bus at the address given",
        )
        .with_advice(
            "the session has ended, or never began: log in, or run under `dbus-run-session`, and compare $DBUS_SESSION_BUS_ADDRESS",
        ),
    }
}
