//! One keyring of the kernel: keys by their descriptions, directly in it.

use keyhaul_core::{Error, ErrorKind, Result, SecretBytes};
use linux_keyutils::{Key, KeyError, KeyRing, KeyRingIdentifier, KeySerialId};

use super::error;
use super::sys::{self, Serial};
use crate::config::Keyring;

/// A keyring that this thread possesses.
///
/// Whoever possesses a key has the rights that `keyctl` gives by default; the same user without
/// possession has almost none. A process whose session does not link the user's keyring, as under
/// `keyctl session` or in a service, would see its keys and read none. The link that changes this is
/// the thread's own, and nobody else sees it.
pub(super) struct Ring {
    ring: KeyRing,
    number: Serial,
    thread: KeyRing,
}

/// How often something is done again that others change under our hands: some tens of milliseconds
/// beside writers that never pause.
const TRIES: usize = 1000;

/// What came of writing.
pub(super) enum Put {
    Done,
    /// One is there, and none was to be.
    Exists,
}

impl Ring {
    /// Opens a keyring. Threads of a pool differ, so that each operation does it.
    pub(super) fn open(keyring: Keyring) -> Result<Self> {
        if keyring == Keyring::Session {
            refuse_shared_session()?;
        }
        let open = || {
            let thread = KeyRing::from_special_id(KeyRingIdentifier::Thread, true)?;
            let (ring, number) = match keyring {
                Keyring::Persistent => (
                    KeyRing::get_persistent(KeyRingIdentifier::Thread)?,
                    sys::persistent()?,
                ),
                Keyring::Session => special(KeyRingIdentifier::Session)?,
                Keyring::User => {
                    thread.link_keyring_id(KeyRingIdentifier::User)?;
                    special(KeyRingIdentifier::User)?
                }
            };
            Ok(Self {
                ring,
                number,
                thread,
            })
        };
        open().map_err(error::of_keyring)
    }

    /// The key of this description, which is directly here; in a keyring below does not count.
    pub(super) fn find(&self, description: &str) -> Result<Option<Key>> {
        let mut before = None;
        for _ in 0..TRIES {
            let key = match self.ring.search(description) {
                Err(KeyError::KeyDoesNotExist) => return Ok(None),
                found => found.map_err(|source| error::of("the key", source))?,
            };
            // The search looks here first, and then below.
            if self.links()?.contains(&key.get_id().as_raw_id()) {
                return Ok(Some(key));
            }
            // Below, or displaced meanwhile, which another search tells.
            if before == Some(key) {
                return Ok(None);
            }
            before = Some(key);
        }
        Err(too_fast())
    }

    /// Does `work` with the key of this description; none where there is none. Where another has
    /// taken its place meanwhile, what came of it counts for nothing, and the other has its turn.
    pub(super) fn with<T>(
        &self,
        description: &str,
        work: impl Fn(Key) -> Result<T>,
    ) -> Result<Option<T>> {
        for _ in 0..TRIES {
            let Some(key) = self.find(description)? else {
                return Ok(None);
            };
            let done = work(key);
            if self.find(description)? == Some(key) {
                return done.map(Some);
            }
            // To a writer that waits for this very processor, to end what it began.
            std::thread::yield_now();
        }
        Err(too_fast())
    }

    /// Everything of type `user` here, by description. What cannot be described is left out: it has
    /// expired, was revoked, or is not for us.
    pub(super) fn descriptions(&self) -> Result<Vec<String>> {
        let links = self.links()?.into_iter();
        let described = links.filter_map(|key| sys::describe(key).ok());
        Ok(described
            .filter(|(kind, _)| kind == "user")
            .map(|(_, description)| description)
            .collect())
    }

    /// Writes a key in one step: it is made apart, with its expiry, `prepare` sees it, and then it is
    /// linked, which displaces one of the same description.
    pub(super) fn put(
        &self,
        description: &str,
        payload: &[u8],
        seconds: Option<u32>,
        exclusively: bool,
        prepare: impl FnOnce(Key) -> Result<()>,
    ) -> Result<Put> {
        let of_key = |source| error::of("the key", source);
        let key = self.thread.add_key(description, payload).map_err(of_key)?;
        let placed = || {
            if let Some(seconds) = seconds {
                key.set_timeout(seconds as usize).map_err(of_key)?;
            }
            prepare(key)?;
            if !exclusively {
                self.ring.link_key(key).map_err(of_key)?;
                return Ok(Put::Done);
            }
            Ok(if self.move_in(key).map_err(of_key)? {
                Put::Done
            } else {
                Put::Exists
            })
        };
        let put = placed();
        // Moved already, or not needed here any more; what is linked elsewhere lives on.
        let _ = self.thread.unlink_key(key);
        put
    }

    /// Takes a key out. It is gone with its last link.
    pub(super) fn remove(&self, key: Key) -> Result<()> {
        match self.ring.unlink_key(key) {
            // Somebody else was first.
            Ok(()) | Err(KeyError::MissingFileOrDirectory | KeyError::KeyDoesNotExist) => Ok(()),
            Err(source) => Err(error::of("the key", source)),
        }
    }

    fn links(&self) -> Result<Vec<Serial>> {
        sys::links(self.number).map_err(error::of_keyring)
    }

    /// Moves a key in where none of its description is. One that has expired is in the way until
    /// the kernel sweeps it up, some minutes later: we do not wait for that.
    fn move_in(&self, key: Key) -> Result<bool, KeyError> {
        let number = key.get_id().as_raw_id();
        if sys::move_exclusively(number, self.number)? {
            return Ok(true);
        }
        let dead = |key: &Serial| {
            matches!(
                sys::describe(*key),
                Err(KeyError::KeyExpired | KeyError::KeyRevoked)
            )
        };
        for dead in sys::links(self.number)?.into_iter().filter(dead) {
            // Gone already is as well.
            let _ = self.ring.unlink_key(Key::from_id(KeySerialId::new(dead)));
        }
        sys::move_exclusively(number, self.number)
    }
}

/// A key's payload, read straight into locked memory.
pub(super) fn read(key: Key) -> Result<SecretBytes> {
    let read = |buffer: &mut [u8]| {
        let mut buffer = buffer;
        key.read(&mut buffer)
            .map_err(|source| error::of("the key", source))
    };
    // Another program can change it in place at any time, and with it the length.
    for _ in 0..TRIES {
        let len = read(&mut [])?;
        let mut now = 0;
        let value = SecretBytes::try_init_with(len, |bytes| {
            now = read(bytes)?;
            Ok::<_, Error>(())
        })?;
        if now == len {
            return Ok(value);
        }
    }
    Err(too_fast())
}

fn too_fast() -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "the key changes faster than it can be read",
    )
}

fn special(id: KeyRingIdentifier) -> Result<(KeyRing, Serial), KeyError> {
    Ok((KeyRing::from_special_id(id, false)?, sys::keyring(id)?))
}

/// A process without a session keyring of its own has that of all the user's such processes, and
/// what it seems to write to "its" session is anybody's guess.
fn refuse_shared_session() -> Result<()> {
    let number = |id| sys::keyring(id).map_err(error::of_keyring);
    if number(KeyRingIdentifier::Session)? != number(KeyRingIdentifier::UserSession)? {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::InvalidConfig,
        "this process has no session keyring of its own",
    )
    .with_advice(
        "start it by `keyctl session - PROGRAM`, have PAM make one (pam_keyinit), or use keyring+kernel:user",
    ))
}
