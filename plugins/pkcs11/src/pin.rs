//! The PIN: from its source at each login, and never twice where the token refused it.

use keyhaul_core::credential::CredentialSource;
use keyhaul_core::{Error, ErrorKind, Result, SecretBytes};

/// Where the PIN comes from, and what the token said of it.
#[derive(Debug)]
pub(crate) struct Pin {
    source: CredentialSource,
    /// A descriptor gives it once.
    kept: Option<SecretBytes>,
    refused: Option<SecretBytes>,
}

impl Pin {
    pub(crate) fn new(source: CredentialSource) -> Self {
        Self {
            source,
            kept: None,
            refused: None,
        }
    }

    /// The PIN, where it may be tried.
    ///
    /// # Errors
    /// `Unauthenticated` where the token refused this very PIN before; those of the source.
    pub(crate) fn for_login(&mut self) -> Result<SecretBytes> {
        let pin = self.read()?;
        if pin.is_empty() {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                format!("the PIN in {} is empty", self.source),
            ));
        }
        if self.refused.as_ref() == Some(&pin) {
            return Err(self.refusal().with_advice(format!(
                "correct {}: until it says another PIN, the token is not asked again, so that it does not lock",
                self.source
            )));
        }
        Ok(pin)
    }

    /// The token took the PIN.
    pub(crate) fn accept(&mut self) {
        self.refused = None;
    }

    /// The token refused `pin`: it is not tried again.
    pub(crate) fn refuse(&mut self, pin: SecretBytes) -> Error {
        self.refused = Some(pin);
        self.refusal().with_advice(format!(
            "correct {}; keyhaul does not try this PIN again",
            self.source
        ))
    }

    fn read(&mut self) -> Result<SecretBytes> {
        if let Some(kept) = &self.kept {
            return Ok(copy(kept.expose()));
        }
        let read = self.source.read()?;
        let bytes = read.expose();
        let pin = copy(bytes.strip_suffix(b"\n").unwrap_or(bytes));
        if matches!(self.source, CredentialSource::Fd(_)) {
            self.kept = Some(copy(pin.expose()));
        }
        Ok(pin)
    }

    fn refusal(&self) -> Error {
        Error::new(
            ErrorKind::Unauthenticated,
            format!("the token refused the PIN of {}", self.source),
        )
    }
}

fn copy(bytes: &[u8]) -> SecretBytes {
    SecretBytes::copy_from(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::fd::AsRawFd as _;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_refused_pin_is_given_out_again_only_once_it_is_another() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("pin");
        std::fs::write(&path, "1234\n").expect("written");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("a mode");
        let mut pin = Pin::new(CredentialSource::File(path.clone()));
        let first = pin.for_login().expect("a pin");
        assert_eq!(first.expose(), b"1234");
        let error = pin.refuse(first);
        assert_eq!(error.kind(), ErrorKind::Unauthenticated);
        for _ in 0..3 {
            let error = pin.for_login().expect_err("refused before");
            assert_eq!(error.kind(), ErrorKind::Unauthenticated);
            assert!(!format!("{error:?}{pin:?}").contains("1234"));
        }
        std::fs::write(&path, "5678").expect("corrected");
        assert_eq!(pin.for_login().expect("another").expose(), b"5678");
        std::fs::write(&path, "\n").expect("emptied");
        let error = pin.for_login().expect_err("no pin at all");
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    }

    #[test]
    fn the_pin_of_a_descriptor_is_there_for_the_next_login_too() {
        let (read, mut write) = std::io::pipe().expect("a pipe");
        write.write_all(b"1234\n").expect("written");
        drop(write);
        let mut pin = Pin::new(CredentialSource::Fd(read.as_raw_fd()));
        for _ in 0..2 {
            assert_eq!(pin.for_login().expect("a pin").expose(), b"1234");
        }
    }
}
