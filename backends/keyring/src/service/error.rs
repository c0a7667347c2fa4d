//! What a bus or a service refuses, in keyhaul's words.

use std::io;

use keyhaul_core::{Error, ErrorKind};
use secret_service::Error as Source;
use zbus::DBusError as _;

/// An operation that failed: already in keyhaul's words, or still in the service's.
#[derive(Debug)]
pub(super) enum Failure {
    Told(Error),
    Asked(Source),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Told(error)
    }
}

impl From<Source> for Failure {
    fn from(source: Source) -> Self {
        Self::Asked(source)
    }
}

impl Failure {
    /// Whether the service that was talked to is not there any more, or not the one that it was.
    pub(super) fn is_stale(&self) -> bool {
        matches!(
            self.name(),
            Some(
                "org.freedesktop.Secret.Error.NoSession"
                    | "org.freedesktop.DBus.Error.ServiceUnknown"
                    | "org.freedesktop.DBus.Error.NameHasNoOwner"
                    | "org.freedesktop.DBus.Error.NoReply"
                    | "org.freedesktop.DBus.Error.Disconnected"
            )
        ) || self.io().is_some()
    }

    /// Whether the request was refused because something it named was gone, so that it can be made
    /// again from its beginning.
    pub(super) fn is_moved(&self) -> bool {
        matches!(
            self.name(),
            Some(
                "org.freedesktop.Secret.Error.NoSession"
                    | "org.freedesktop.Secret.Error.NoSuchObject"
                    | "org.freedesktop.DBus.Error.ServiceUnknown"
                    | "org.freedesktop.DBus.Error.NameHasNoOwner"
                    | "org.freedesktop.DBus.Error.UnknownObject"
                    | "org.freedesktop.DBus.Error.UnknownMethod"
                    | "org.freedesktop.DBus.Error.UnknownInterface"
            )
        ) || self
            .io()
            // The bus has gone. What was asked of it can be asked twice: a write writes the same.
            .is_some_and(|io| io.kind() == io::ErrorKind::BrokenPipe)
    }

    pub(super) fn into_error(self) -> Error {
        let source = match self {
            Self::Told(error) => return error,
            Self::Asked(Source::Locked) => return locked(),
            Self::Asked(Source::Prompt) => return dismissed(),
            Self::Asked(source) => source,
        };
        let failure = Self::Asked(source);
        if let Some(name) = failure.name() {
            return of_name(name);
        }
        if let Some(io) = failure.io() {
            return of_io(io.kind());
        }
        match failure {
            Self::Asked(Source::PromptDisconnected) => of_io(io::ErrorKind::BrokenPipe),
            Self::Asked(Source::Crypto(rule)) => Error::new(
                ErrorKind::Corrupt,
                format!("the value did not cross the encrypted session whole: {rule}"),
            )
            .with_advice("try again; where it stays, restart the keyring's service"),
            // What a foreign service answers is its own affair, and stays out.
            _ => Error::new(
                ErrorKind::Unavailable,
                "the service's answer is none of a Secret Service",
            )
            .with_advice("see which program it is: busctl --user status org.freedesktop.secrets"),
        }
    }

    fn zbus(&self) -> Option<&zbus::Error> {
        match self {
            Self::Asked(Source::Zbus(error)) => Some(error),
            Self::Asked(Source::ZbusFdo(zbus::fdo::Error::ZBus(error))) => Some(error),
            _ => None,
        }
    }

    /// The D-Bus name of the error, where the other end gave one.
    fn name(&self) -> Option<&str> {
        match (self, self.zbus()) {
            (_, Some(zbus::Error::MethodError(name, ..))) => Some(name.as_str()),
            (_, Some(zbus::Error::FDO(error))) => fdo_name(error),
            (Self::Asked(Source::ZbusFdo(error)), None) => fdo_name(error),
            _ => None,
        }
    }

    fn io(&self) -> Option<&io::Error> {
        match self.zbus()? {
            zbus::Error::InputOutput(error) => Some(error),
            zbus::Error::Connection(error, _) => Some(error),
            _ => None,
        }
    }
}

fn fdo_name(error: &zbus::fdo::Error) -> Option<&'static str> {
    use zbus::fdo::Error as Fdo;
    // The ones that are told apart here, by names that live as long as the program.
    Some(match error {
        Fdo::AccessDenied(_) => "org.freedesktop.DBus.Error.AccessDenied",
        Fdo::Disconnected(_) => "org.freedesktop.DBus.Error.Disconnected",
        Fdo::NameHasNoOwner(_) => "org.freedesktop.DBus.Error.NameHasNoOwner",
        Fdo::NoReply(_) => "org.freedesktop.DBus.Error.NoReply",
        Fdo::ServiceUnknown(_) => "org.freedesktop.DBus.Error.ServiceUnknown",
        Fdo::UnknownInterface(_) => "org.freedesktop.DBus.Error.UnknownInterface",
        Fdo::UnknownMethod(_) => "org.freedesktop.DBus.Error.UnknownMethod",
        Fdo::UnknownObject(_) => "org.freedesktop.DBus.Error.UnknownObject",
        Fdo::ZBus(_) => return None,
        other if other.name().as_str().contains("Spawn") => {
            "org.freedesktop.DBus.Error.Spawn.Failed"
        }
        _ => "org.freedesktop.DBus.Error.Failed",
    })
}

fn of_name(name: &str) -> Error {
    let error = |kind, message: &str| Error::new(kind, message.to_owned());
    match name {
        "org.freedesktop.Secret.Error.IsLocked" => locked(),
        "org.freedesktop.DBus.Error.ServiceUnknown"
        | "org.freedesktop.DBus.Error.NameHasNoOwner" => error(
            ErrorKind::Unavailable,
            "there is no Secret Service on the session bus",
        )
        .with_advice(
            "install and start one: gnome-keyring-daemon, KWallet 5.97 or later, or KeePassXC with its Secret Service enabled",
        ),
        "org.freedesktop.DBus.Error.NoReply" | "org.freedesktop.DBus.Error.Disconnected" => error(
            ErrorKind::Unavailable,
            "the Secret Service ended before it answered",
        )
        .with_advice("see why in its log: journalctl --user -b"),
        "org.freedesktop.DBus.Error.AccessDenied" => error(
            ErrorKind::PermissionDenied,
            "the bus or the service does not let this process ask",
        )
        .with_advice("sandboxes filter the bus: allow org.freedesktop.secrets"),
        name if name.starts_with("org.freedesktop.DBus.Error.Spawn") => error(
            ErrorKind::Unavailable,
            "the bus could not start a Secret Service",
        )
        .with_advice("start it by hand to see why: gnome-keyring-daemon --foreground --components=secrets"),
        name => Error::new(
            ErrorKind::Unavailable,
            format!("the Secret Service refused with {name}"),
        )
        .with_advice("see why in its log: journalctl --user -b"),
    }
}

fn of_io(kind: io::ErrorKind) -> Error {
    if kind == io::ErrorKind::TimedOut {
        return no_answer();
    }
    Error::new(
        ErrorKind::Unavailable,
        "the connection to the session bus ended",
    )
    .with_advice("it ends with the login session: log in anew, or name another by `bus`")
}

/// No answer in time.
pub(super) fn no_answer() -> Error {
    Error::new(
        ErrorKind::Timeout,
        "the Secret Service did not answer in time",
    )
    .with_advice("it may hang, or wait for a person at the screen: look there, or restart it")
}

/// A collection that a person must unlock.
pub(super) fn locked() -> Error {
    Error::new(
        ErrorKind::Unauthenticated,
        "the keyring's collection is locked",
    )
    .with_advice(
        "log in at the desktop, unlock it in Passwords and Keys (seahorse), or without one: gnome-keyring-daemon --unlock <FILE; prompt = true in the policy has the desktop ask",
    )
}

/// A person said no, or there was nobody who could be asked.
pub(super) fn dismissed() -> Error {
    Error::new(
        ErrorKind::Unauthenticated,
        "the prompt to unlock the keyring was dismissed",
    )
    .with_advice(
        "answer it next time; where no screen is there to show it, unlock the keyring beforehand",
    )
}
