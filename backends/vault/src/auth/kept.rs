//! Logins that last longer than a process: tokens in the kernel's keyring.
//!
//! They live in the *user keyring*, which all processes of a user share whatever their session,
//! until the token's lease ends, the user logs out, or the machine is shut down. Nothing is on a
//! disk, and other users, root aside, reach none of it. Processes of the same user do, as they
//! would reach `~/.vault-token`.

use std::time::Duration;

use keyhaul_core::{Error, ErrorKind, Result, SecretBytes};
use linux_keyutils::{
    Key, KeyError, KeyPermissionsBuilder, KeyRing, KeyRingIdentifier, Permission,
};

use super::method::Method;
use crate::http::Http;

/// Most tokens fit: this much of locked memory costs no mapping of its own.
const USUAL: usize = 4096;
/// The longest payload of a key.
const MOST: usize = 32767;

/// The place of one kept login.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// Server, namespace, mount and who: what makes two stores the same identity. No secrets.
    description: String,
}

impl Place {
    /// The place of logins by `method` at the server of `http`.
    pub(super) fn new(http: &Http, method: &Method) -> Self {
        let settings = http.settings();
        let namespace = settings.namespace.as_deref().unwrap_or_default();
        Self {
            description: format!(
                "keyhaul:login:{} {namespace} {} {} {}",
                settings.address,
                method.name(),
                method.mount,
                method.who()
            ),
        }
    }

    /// The token that is kept, if any.
    pub(super) fn read(&self) -> Option<SecretBytes> {
        let key = self.key()?;
        let mut length = USUAL;
        loop {
            let mut buffer = SecretBytes::init_with(length, |_| ());
            let found = key.read(&mut buffer.expose_mut()).ok()?;
            match buffer.expose().get(..found) {
                Some([]) => return None,
                Some(token) => return Some(SecretBytes::copy_from(token)),
                // The kernel tells how long it is, and has not filled the buffer.
                None if length < MOST => length = MOST,
                None => return None,
            }
        }
    }

    /// Keeps a token for as long as its lease.
    ///
    /// # Errors
    /// `Unsupported` where there is no keyring, `StorageFull` where the user's quota is used up.
    pub(super) fn write(&self, token: &SecretBytes, lease: Option<Duration>) -> Result<()> {
        let ring = KeyRing::from_special_id(KeyRingIdentifier::User, true).map_err(refused)?;
        let key = ring
            .add_key(&self.description, token.expose())
            .map_err(refused)?;
        let limited = permit(key).and_then(|()| expire(key, lease));
        limited.map_err(|error| {
            self.forget();
            refused(error)
        })
    }

    /// Moves the end, after a renewal.
    pub(super) fn extend(&self, lease: Option<Duration>) {
        // Where it fails, the login is forgotten early, which costs another one.
        let _ = self.key().map(|key| expire(key, lease));
    }

    /// Forgets the token; whether there was one.
    pub(super) fn forget(&self) -> bool {
        self.key().is_some_and(|key| key.invalidate().is_ok())
    }

    fn key(&self) -> Option<Key> {
        // Not made where it is not there, and expired and revoked keys are none.
        let ring = KeyRing::from_special_id(KeyRingIdentifier::User, false).ok()?;
        ring.search(&self.description).ok()
    }
}

/// For its user alone. A session that does not have the user keyring in it holds none of its keys,
/// so that the user's own right counts there.
fn permit(key: Key) -> Result<(), KeyError> {
    let all = || {
        Permission::VIEW
            | Permission::READ
            | Permission::WRITE
            | Permission::SEARCH
            | Permission::SETATTR
    };
    let permissions = KeyPermissionsBuilder::builder()
        .posessor(all())
        .user(all())
        .build();
    key.set_perms(permissions)
}

fn expire(key: Key, lease: Option<Duration>) -> Result<(), KeyError> {
    // 0 would mean for ever, which is right for a token without an end only.
    let seconds = lease.map_or(0, |lease| lease.as_secs().max(1));
    // The kernel counts in 32 bits.
    key.set_timeout(u32::try_from(seconds).unwrap_or(u32::MAX) as usize)
}

fn refused(error: KeyError) -> Error {
    let told = match error {
        KeyError::QuotaExceeded => Error::new(
            ErrorKind::StorageFull,
            "the user's quota of kernel keys is used up",
        )
        .with_advice("see /proc/key-users, and unlink keys that are not needed: keyctl show @u"),
        _ => Error::new(
            ErrorKind::Unsupported,
            "the kernel's keyring takes no login here",
        )
        .with_advice("in a container its filter may forbid it: use a token, or another method"),
    };
    told.with_source(error)
}
