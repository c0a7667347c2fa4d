use std::time::Duration;

use linux_keyutils::{
    Key, KeyError, KeyPermissionsBuilder, KeyRing, KeyRingIdentifier, KeySerialId, Permission,
};

use super::KeySource;
use super::session::join_fresh_session;
use crate::qemu::MasterKey;
use crate::{Error, ErrorKind, Result};

/// How every key of ours is described: by this, and random digits.
const DESCRIPTION: &str = "keyhaul:master-key:";
/// The session keyring of a user's processes that have none of their own.
const USER_SESSION: &str = "_uid_ses.";

/// The master key as a key of the kernel: never in a file system, and gone with the session.
///
/// QEMU can read it when it *possesses* it, that is, when the key can be found from its session
/// keyring. Being root, or of the same user, does not help anybody else. The payload is the 32 raw
/// bytes: QEMU's reading of base64 from a key fails for one length in three.
#[derive(Debug)]
pub struct KeyringChannel {
    key: Key,
    ring: KeyRing,
    armed: bool,
}

impl KeyringChannel {
    /// Puts the key into a new session keyring.
    ///
    /// **The session belongs to the calling thread** and to what it starts: QEMU must be started
    /// from this thread, which must also drop the channel. The user keyring is linked into the
    /// new session, so that what lives there is still found.
    ///
    /// It is the same for every user that QEMU may run as: possession survives a change of user.
    ///
    /// # Errors
    /// `StorageFull` where the user's quota of keys is used up, `Unsupported` where the kernel or
    /// a container's filter has no keyrings.
    pub fn create(master: &MasterKey) -> Result<Self> {
        join_fresh_session().map_err(|error| {
            Error::new(
                ErrorKind::Unsupported,
                "this system gives no session keyring",
            )
            .with_source(error)
            .with_advice("use --channel pipe or --channel file")
        })?;
        let ring = session().map_err(|error| refused("opening the session keyring", error))?;
        // Without a user keyring, there is nothing to keep reachable.
        let _ = ring.link_keyring_id(KeyRingIdentifier::User);
        let possessor = Permission::SEARCH | Permission::READ;
        Self::add(master, ring, possessor, None)
    }

    /// Puts the key into the caller's existing session keyring, for another process to read, and
    /// lets the kernel take it away after `timeout`.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn in_session(master: &MasterKey, timeout: Duration) -> Result<Self> {
        let ring = existing_session()?;
        // Whoever releases it looks at its description first.
        let possessor = Permission::SEARCH | Permission::READ | Permission::VIEW;
        Self::add(master, ring, possessor, Some(timeout))
    }

    fn add(
        master: &MasterKey,
        ring: KeyRing,
        possessor: Permission,
        timeout: Option<Duration>,
    ) -> Result<Self> {
        let description = format!("{DESCRIPTION}{}", crate::random::hex(8)?);
        let key = ring
            .add_key(&description, master.expose())
            .map_err(|error| refused("adding the key to the keyring", error))?;
        let channel = Self {
            key,
            ring,
            armed: true,
        };
        let failed = |error| refused("limiting the key", error);
        if let Some(timeout) = timeout {
            // 0 would mean for ever.
            let seconds = usize::try_from(timeout.as_secs()).unwrap_or(usize::MAX);
            key.set_timeout(seconds.max(1)).map_err(failed)?;
        }
        let permissions = KeyPermissionsBuilder::builder().posessor(possessor).build();
        key.set_perms(permissions).map_err(failed)?;
        Ok(channel)
    }

    /// The key's serial number.
    pub fn serial(&self) -> i32 {
        self.key.get_id().as_raw_id()
    }

    /// What the master key's object says.
    pub fn property(&self) -> KeySource {
        KeySource::Serial(self.serial())
    }

    /// Leaves the key in the session, until its timeout, [`release_serial`], or the session's end.
    pub fn leave(mut self) -> i32 {
        self.armed = false;
        self.serial()
    }
}

impl Drop for KeyringChannel {
    fn drop(&mut self) {
        if self.armed {
            // There is nobody to tell, and a key that is gone is as good.
            let _ = take_away(self.key, self.ring);
        }
    }
}

/// Takes away a key that was [left](KeyringChannel::leave) in the caller's session.
///
/// # Errors
/// `NotFound` where there is no such key any more, `PermissionDenied` where the caller's session
/// does not hold it, `InvalidConfig` where it is none of keyhaul's.
pub fn release_serial(serial: i32) -> Result<()> {
    let key = Key::from_id(KeySerialId::new(serial));
    let failed = |error| refused(&format!("releasing the key {serial}"), error);
    let metadata = key.metadata().map_err(failed)?;
    if !metadata.get_description().starts_with(DESCRIPTION) {
        return Err(Error::new(
            ErrorKind::InvalidConfig,
            format!("the key {serial} is none of keyhaul's"),
        )
        .with_advice("give the serial number that `keyhaul resolve` printed"));
    }
    let ring = existing_session()?;
    take_away(key, ring).map_err(failed)
}

/// Invalidating ends the key at once for everybody. Unlinking is what is left where that is
/// refused.
fn take_away(key: Key, ring: KeyRing) -> Result<(), KeyError> {
    key.invalidate().or_else(|_| ring.unlink_key(key))
}

fn session() -> Result<KeyRing, KeyError> {
    KeyRing::from_special_id(KeyRingIdentifier::Session, false)
}

/// The keyring that the caller and what it starts later share. Adding to "the session" of a
/// process that has none would make one that ends with the process.
fn existing_session() -> Result<KeyRing> {
    let failed = |error| refused("opening the session keyring", error);
    let ring = session().map_err(failed)?;
    let shared = ring
        .metadata()
        .is_ok_and(|metadata| metadata.get_description().starts_with(USER_SESSION));
    if shared {
        return KeyRing::from_special_id(KeyRingIdentifier::UserSession, false).map_err(failed);
    }
    Ok(ring)
}

fn refused(what: &str, error: KeyError) -> Error {
    let (kind, why) = match error {
        KeyError::AccessDenied | KeyError::PermissionDenied => {
            (ErrorKind::PermissionDenied, "the kernel refuses access")
        }
        KeyError::QuotaExceeded => (
            ErrorKind::StorageFull,
            "the user's quota of keys is used up",
        ),
        KeyError::OperationNotSupported | KeyError::Unknown(libc::ENOSYS) => {
            (ErrorKind::Unsupported, "the kernel has no keyrings")
        }
        KeyError::KeyDoesNotExist
        | KeyError::KeyExpired
        | KeyError::KeyRevoked
        | KeyError::KeyringDoesNotExist => (ErrorKind::NotFound, "there is no such key"),
        _ => (ErrorKind::Unavailable, "the kernel refuses"),
    };
    Error::new(kind, format!("{what}: {why}")).with_source(error)
}
