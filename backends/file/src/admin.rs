//! What `keyhaul store …` does: making a store, and saying who may open it.
//!
//! These functions block: they are for a person at a command line.

use std::path::Path;

use age::x25519;
use keyhaul_core::credential::CredentialSource;
use keyhaul_core::{Error, ErrorKind, Result, StoreConfig};
use serde::{Deserialize, Serialize};

use crate::config::{self, Settings, parse_recipients};
use crate::encrypted::{KEY_FILE, MAX_KEY_FILE, SECRETS, key_lost, not_made, read_key};
use crate::error::{corrupt, internal};
use crate::identity::{Identity, refuse_under_root};
use crate::keys::StoreKey;
use crate::lock::Lock;
use crate::tree::Folder;

const RECIPIENTS_FILE: &str = "recipients.json";
const LONGEST_LIST: usize = 256 * 1024;

/// What [`initialise`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Initialised {
    /// Whether the store was made now; otherwise it was there.
    pub store_made: bool,
    /// Whether the identity's file was made now.
    pub identity_made: bool,
    /// To whom the store key is wrapped: `age1…`.
    pub recipients: Vec<String>,
}

/// What [`rewrap`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rewrapped {
    /// Whether the host's identity was missing and has been made now.
    pub identity_made: bool,
    /// Who can open the store from now on.
    pub recipients: Vec<String>,
    /// Who could open it before, and cannot any more. Whoever kept the store key, or an old copy of
    /// the root, still can open what was written until now.
    pub removed: Vec<String>,
}

/// The clear-text list of recipients: age's own format names none.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    format: u32,
    recipients: Vec<String>,
}

/// Makes a store: its root, its identity where that is a `file:` that is missing, and its key. A
/// store that is there already is left as it is.
///
/// # Errors
/// `InvalidConfig` for a wrong configuration, `Unauthenticated` where the store is there and the
/// identity does not open it, and what file systems say.
pub fn initialise(config: &StoreConfig) -> Result<Initialised> {
    let settings = match Settings::new(config)? {
        Settings::Encrypted(settings) => settings,
        Settings::Plain(settings) => {
            let store_made = Folder::root(&settings.root)?.is_none();
            Folder::make_root(&settings.root)?;
            return Ok(Initialised {
                store_made,
                identity_made: false,
                recipients: Vec::new(),
            });
        }
    };
    refuse_under_root(&settings.identity, &settings.root)?;
    let root = Folder::make_root(&settings.root)?;
    let lock = Lock::acquire(&root, None)?;
    if read_key(&root, &settings)?.is_some() {
        return Ok(Initialised {
            store_made: false,
            identity_made: false,
            recipients: listed(&root)?,
        });
    }
    lock.begin()?;
    let identity_made = make_store(&root, &settings)?;
    lock.done()?;
    Ok(Initialised {
        store_made: true,
        identity_made,
        recipients: listed(&root)?,
    })
}

/// Wraps the store key anew: to the host's identity, which is made where its file is missing, and
/// to `recipients`, or where that is none to the policy's. `identity` opens the key: the host's own where it is
/// none, a recovery identity where that is lost.
///
/// The store key stays the same, so running processes and old secrets go on working.
///
/// # Errors
/// `Unauthenticated` where `identity` does not open the key, `InvalidConfig` for a wrong recipient or
/// a clear-text store, `Unavailable` where there is no store, and what file systems say. The old
/// wrapping stays then.
pub fn rewrap(
    config: &StoreConfig,
    identity: Option<&CredentialSource>,
    recipients: Option<&[String]>,
) -> Result<Rewrapped> {
    let settings = encrypted(config)?;
    let recovery = match recipients {
        Some(texts) => parse_recipients(texts)?,
        None => settings.recipients.clone(),
    };
    let root = Folder::root(&settings.root)?.ok_or_else(|| not_made(&settings.root))?;
    let lock = Lock::acquire(&root, None)?;
    let file = root.path().join(KEY_FILE);
    let wrapped = root
        .read(KEY_FILE, MAX_KEY_FILE)?
        .ok_or_else(|| key_lost(&root))?;
    let opener = Identity::read(identity.unwrap_or(&settings.identity), &settings.root)?;
    let key = StoreKey::unwrap(&wrapped, &opener, &file)?;
    // A damaged list is no reason to refuse what mends it.
    let before = listed(&root).unwrap_or_default();

    let identity_made = make_missing_identity(&settings)?;
    let host = Identity::read(&settings.identity, &settings.root)?;
    let recipients = with_host(&host, recovery)?;
    let wrapped = key.wrap(&recipients)?;
    // The old wrapping goes only once the new one is known to open.
    if StoreKey::unwrap(&wrapped, &host, &file)? != key {
        return Err(internal(
            "the new wrapping does not give the store key back",
        ));
    }
    lock.begin()?;
    root.replace(KEY_FILE, &wrapped)?;
    write_list(&root, &recipients)?;
    lock.done()?;
    let recipients = texts(&recipients);
    Ok(Rewrapped {
        identity_made,
        removed: before
            .into_iter()
            .filter(|one| !recipients.contains(one))
            .collect(),
        recipients,
    })
}

/// Who can open the store: `age1…`, the host first. Needs no identity.
///
/// The list is kept in clear text beside the wrapped key and is as trustworthy as the root: it tells
/// a person which recovery identity to fetch.
///
/// # Errors
/// `Unavailable` where there is no store, `Corrupt` where the list is missing or does not fit the key.
pub fn recipients(config: &StoreConfig) -> Result<Vec<String>> {
    let settings = encrypted(config)?;
    let root = Folder::root(&settings.root)?.ok_or_else(|| not_made(&settings.root))?;
    listed(&root)
}

/// Makes an identity in a new file, readable by its owner only, and answers its recipient: `age1…`.
///
/// # Errors
/// `AlreadyExists` where there is a file; it is left alone.
pub fn generate_identity(path: &Path) -> Result<String> {
    if !Identity::make(path)? {
        return Err(Error::new(
            ErrorKind::AlreadyExists,
            format!("there is a file {} already", path.display()),
        ));
    }
    let source = CredentialSource::File(path.to_owned());
    Ok(Identity::load(&source)?.recipient()?.to_string())
}

/// Makes identity and store key, under the lock; whether the identity was made.
pub(crate) fn make_store(root: &Folder, settings: &config::Encrypted) -> Result<bool> {
    // A new key would not open what is there, and look as if it were all damaged.
    if root.enter(SECRETS)?.is_some() {
        return Err(key_lost(root));
    }
    refuse_under_root(&settings.identity, &settings.root)?;
    let identity_made = make_missing_identity(settings)?;
    let host = Identity::read(&settings.identity, &settings.root)?;
    let recipients = with_host(&host, settings.recipients.clone())?;
    let key = StoreKey::random()?;
    // The list first: a store that has a key has a list.
    write_list(root, &recipients)?;
    root.replace(KEY_FILE, &key.wrap(&recipients)?)?;
    Ok(identity_made)
}

fn make_missing_identity(settings: &config::Encrypted) -> Result<bool> {
    match Identity::is_missing_file(&settings.identity)? {
        Some(path) => Identity::make(&path),
        None => Ok(false),
    }
}

fn encrypted(config: &StoreConfig) -> Result<config::Encrypted> {
    match Settings::new(config)? {
        Settings::Encrypted(settings) => Ok(settings),
        Settings::Plain(_) => Err(Error::new(
            ErrorKind::InvalidConfig,
            "a clear-text store has no key and no recipients",
        )),
    }
}

/// The host's recipient, then the others, each once.
fn with_host(host: &Identity, others: Vec<x25519::Recipient>) -> Result<Vec<x25519::Recipient>> {
    let mut recipients = vec![host.recipient()?];
    for one in others {
        if !recipients.contains(&one) {
            recipients.push(one);
        }
    }
    Ok(recipients)
}

fn write_list(root: &Folder, recipients: &[x25519::Recipient]) -> Result<()> {
    let list = List {
        format: 1,
        recipients: texts(recipients),
    };
    let mut text = serde_json::to_vec_pretty(&list)
        .map_err(|_| internal("the list of recipients could not be written as JSON"))?;
    text.push(b'\n');
    root.replace(RECIPIENTS_FILE, &text)
}

fn listed(root: &Folder) -> Result<Vec<String>> {
    let path = root.path().join(RECIPIENTS_FILE);
    let damaged = |what| corrupt(&path, what).with_advice("write it anew: keyhaul store rewrap");
    let text = root
        .read(RECIPIENTS_FILE, LONGEST_LIST)?
        .ok_or_else(|| damaged("is missing"))?;
    let list: List = serde_json::from_slice(&text).map_err(|_| damaged("is damaged"))?;
    let wrapped = root.read(KEY_FILE, MAX_KEY_FILE)?.unwrap_or_default();
    if list.recipients.len() != stanzas(&wrapped) {
        return Err(damaged("names other recipients than the store key has"));
    }
    Ok(list.recipients)
}

/// How many recipients an age file has: its header has a line `-> X25519 …` for each.
fn stanzas(wrapped: &[u8]) -> usize {
    wrapped
        .split(|byte| *byte == b'\n')
        .take_while(|line| !line.starts_with(b"---"))
        .filter(|line| line.starts_with(b"-> X25519 "))
        .count()
}

fn texts(recipients: &[x25519::Recipient]) -> Vec<String> {
    recipients.iter().map(ToString::to_string).collect()
}
