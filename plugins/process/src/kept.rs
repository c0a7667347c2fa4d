//! What a store keeps while its plugin comes and goes.

use std::fmt;
use std::sync::{Arc, Mutex};

use keyhaul_core::credential::CredentialSource;
use keyhaul_core::{Error, ErrorKind, Result, SecretBytes};
use tokio::task::spawn_blocking;

use crate::error::lost;
use crate::redact::Redactor;

/// What one life of a plugin leaves to the next.
#[derive(Default)]
pub(crate) struct Kept {
    /// Knows what has passed: a plugin that was started again may speak of what it was told before.
    redactor: Option<Arc<Mutex<Redactor>>>,
    /// Credentials that can be read only once.
    read: Vec<(CredentialSource, SecretBytes)>,
}

impl Kept {
    /// The redactor of all the plugin's lives.
    ///
    /// # Errors
    /// `Internal` where the system has no randomness to give.
    pub(crate) fn redactor(&mut self) -> Result<Arc<Mutex<Redactor>>> {
        match &self.redactor {
            Some(redactor) => Ok(redactor.clone()),
            None => Ok(self.redactor.insert(Redactor::shared()?).clone()),
        }
    }

    /// The credential from `source`: anew from where it can be read again, so that one that was
    /// renewed is found; as it was from a descriptor, since a pipe gives it out once.
    ///
    /// # Errors
    /// As [`CredentialSource::read`]; `InvalidConfig` where a descriptor gives none.
    pub(crate) async fn credential(&mut self, source: CredentialSource) -> Result<SecretBytes> {
        let known = self.read.iter().find(|(known, _)| *known == source);
        if let Some((_, value)) = known {
            return Ok(SecretBytes::copy_from(value.expose()));
        }
        let from = source.clone();
        let value = spawn_blocking(move || from.read()).await.map_err(lost)??;
        if let CredentialSource::Fd(_) = source {
            if value.is_empty() {
                return Err(empty(&source));
            }
            let value = SecretBytes::copy_from(value.expose());
            self.read.push((source, value));
        }
        Ok(value)
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").finish_non_exhaustive()
    }
}

/// Most likely somebody has read it before: with an empty one, a token would count a wrong PIN.
fn empty(source: &CredentialSource) -> Error {
    let rule = format!("the credential {source} is empty");
    Error::new(ErrorKind::InvalidConfig, rule)
        .with_advice("a pipe is read once: start keyhaul anew with it, or name a file:PATH")
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::fd::AsRawFd as _;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[tokio::test]
    async fn a_descriptor_is_read_once_and_a_file_each_time() {
        let (read, mut write) = std::io::pipe().expect("pipe");
        write.write_all(b"1234").expect("written");
        drop(write);
        let pipe = CredentialSource::Fd(read.as_raw_fd());
        let mut kept = Kept::default();
        for _ in 0..3 {
            let pin = kept.credential(pipe.clone()).await.expect("there");
            assert_eq!(pin.expose(), b"1234");
        }
        // The control: the pipe itself has nothing more to give, and that is no PIN.
        assert!(pipe.read().expect("read").is_empty());
        let error = Kept::default().credential(pipe).await.expect_err("empty");
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("pin");
        for pin in ["1234", "5678"] {
            std::fs::write(&path, pin).expect("written");
            let private = std::fs::Permissions::from_mode(0o600);
            std::fs::set_permissions(&path, private).expect("mode");
            let file = CredentialSource::File(path.clone());
            let read = kept.credential(file).await.expect("there");
            assert_eq!(read.expose(), pin.as_bytes());
        }
    }
}
