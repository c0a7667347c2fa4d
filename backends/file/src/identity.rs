//! The host's identity: who may open the store key.

use std::fmt;
use std::path::{Path, PathBuf};

use age::secrecy::ExposeSecret;
use age::x25519;
use keyhaul_core::credential::CredentialSource;
use keyhaul_core::{Error, ErrorKind, Result, SecretBytes, SecretWriter};

use crate::error::internal;
use crate::tree::{Folder, make_private_folders};

/// The longest identity file: some keys and their comments.
const LONGEST: usize = 64 * 1024;

/// One or more age identities, and where they come from.
pub(crate) struct Identity {
    keys: Vec<x25519::Identity>,
    source: CredentialSource,
}

impl Identity {
    /// Reads the identity of a store at `root`.
    ///
    /// # Errors
    /// `InvalidConfig` where it lies under the root, is not there or is no identity;
    /// `PermissionDenied` where others can read it.
    pub(crate) fn read(source: &CredentialSource, root: &Path) -> Result<Self> {
        refuse_under_root(source, root)?;
        Self::load(source).map_err(|error| {
            error.with_advice(
                "if it is lost, open the store with a recovery identity: keyhaul store rewrap --identity file:PATH",
            )
        })
    }

    /// Reads an identity that belongs to no store yet.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub(crate) fn load(source: &CredentialSource) -> Result<Self> {
        Self::parse(&source.read()?, source)
    }

    /// Whether the identity is a file that is not there.
    pub(crate) fn is_missing_file(source: &CredentialSource) -> Result<Option<PathBuf>> {
        match source {
            CredentialSource::File(path) => match path.try_exists() {
                Ok(true) => Ok(None),
                Ok(false) => Ok(Some(path.clone())),
                Err(error) => Err(Error::io(format!("{source} cannot be read"), error)),
            },
            _ => Ok(None),
        }
    }

    /// Makes an identity file, readable by its owner only. One that somebody else makes at the
    /// same time wins, and is left alone.
    pub(crate) fn make(path: &Path) -> Result<bool> {
        // The parent of a bare name would be an empty path.
        let path = &std::path::absolute(path).map_err(|error| Error::io(path.display(), error))?;
        let (Some(folder), Some(name)) = (
            path.parent(),
            path.file_name().and_then(|name| name.to_str()),
        ) else {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                format!("{} cannot name an identity file", path.display()),
            ));
        };
        make_private_folders(folder)?;
        let text = generated()?;
        let folder = Folder::shared(folder)?;
        let made = folder.write_temporary(text.expose())?.place_new(name)?;
        folder.sync()?;
        Ok(made)
    }

    /// The keys, as age takes them.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &dyn age::Identity> {
        self.keys.iter().map(|key| key as &dyn age::Identity)
    }

    /// The recipient of the first key.
    pub(crate) fn recipient(&self) -> Result<x25519::Recipient> {
        self.keys
            .first()
            .map(x25519::Identity::to_public)
            .ok_or_else(|| internal("an identity without a key was read"))
    }

    /// The error for a store key that this identity does not open.
    pub(crate) fn opens_nothing(&self, file: &Path) -> Error {
        Error::new(
            ErrorKind::Unauthenticated,
            format!("the identity {} does not open {}", self.source, file.display()),
        )
        .with_advice(
            "name the identity that the store was made with, or add this one: keyhaul store rewrap --identity file:OLD-OR-RECOVERY-IDENTITY",
        )
    }

    fn parse(text: &SecretBytes, source: &CredentialSource) -> Result<Self> {
        let refuse = |rule: &str| {
            Error::new(
                ErrorKind::InvalidConfig,
                format!("{source} is no identity: {rule}"),
            )
            .with_advice("an identity file is what age-keygen writes: a line AGE-SECRET-KEY-1…")
        };
        if text.len() > LONGEST {
            return Err(refuse("it is too long"));
        }
        let text = std::str::from_utf8(text.expose()).map_err(|_| refuse("it is no text"))?;
        let keys = text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(|line| line.parse().map_err(refuse))
            .collect::<Result<Vec<_>>>()?;
        if keys.is_empty() {
            return Err(refuse("it holds no key"));
        }
        Ok(Self {
            keys,
            source: source.clone(),
        })
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.source)
    }
}

/// A new identity as the text of its file.
fn generated() -> Result<SecretBytes> {
    let identity = x25519::Identity::generate();
    let mut text = SecretWriter::with_limit(LONGEST);
    text.push(format!("# public key: {}\n", identity.to_public()).as_bytes())?;
    text.push(identity.to_string().expose_secret().as_bytes())?;
    text.push(b"\n")?;
    Ok(text.finish())
}

/// An identity beside the secrets it opens would be in every backup of them.
pub(crate) fn refuse_under_root(source: &CredentialSource, root: &Path) -> Result<()> {
    let Some(path) = source.path()? else {
        return Ok(());
    };
    if resolved(&path)?.starts_with(resolved(root)?) {
        return Err(Error::new(
            ErrorKind::InvalidConfig,
            format!(
                "the identity {source} lies under the store's own root {}, where every copy of the store would carry its key",
                root.display()
            ),
        )
        .with_advice("move it elsewhere, as to /etc/keyhaul/identity, and name it there"));
    }
    Ok(())
}

/// The path without links, as far as it exists.
fn resolved(path: &Path) -> Result<PathBuf> {
    match (path.canonicalize(), path.parent(), path.file_name()) {
        (Ok(path), _, _) => Ok(path),
        (Err(error), Some(parent), Some(name)) if error.kind() == std::io::ErrorKind::NotFound => {
            Ok(resolved(parent)?.join(name))
        }
        (Err(error), _, _) => Err(Error::io(
            format!("{} cannot be resolved", path.display()),
            error,
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_identity_reads_back_and_its_comment_names_its_recipient() {
        let source = CredentialSource::parse("file:/nowhere").expect("valid");
        let text = generated().expect("made");
        let identity = Identity::parse(&text, &source).expect("valid");
        let recipient = identity.recipient().expect("one").to_string();
        let text = std::str::from_utf8(text.expose()).expect("text");
        assert_eq!(
            text.lines().next(),
            Some(format!("# public key: {recipient}").as_str())
        );
        assert_eq!(format!("{identity:?}"), "Identity(file:/nowhere)");
    }

    #[test]
    fn what_is_no_identity_is_refused_without_being_repeated() {
        let source = CredentialSource::parse("file:/nowhere").expect("valid");
        for text in [
            "",
            "# only a comment\n",
            "hunter2",
            "AGE-SECRET-KEY-1HUNTER2",
            "\u{0}",
        ] {
            let error = Identity::parse(&SecretBytes::copy_from(text.as_bytes()), &source)
                .expect_err("no identity");
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
            assert!(!format!("{error:?}").to_lowercase().contains("hunter2"));
        }
    }
}
