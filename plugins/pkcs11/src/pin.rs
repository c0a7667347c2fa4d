//! The PIN: from its source at each login, and never twice where the token refused it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use keyhaul_core::credential::CredentialSource;
use keyhaul_core::{Error, ErrorKind, Result, SecretBytes};

use crate::gate::{Door, Gate};

/// What tokens refused, by token: shared by the stores of a factory, so that two with one wrong PIN
/// do not try it twice.
#[derive(Clone, Debug, Default)]
pub(crate) struct Refusals(Arc<Mutex<BTreeMap<String, Arc<Refused>>>>);

/// The PINs that a token refused since it last took one.
#[derive(Debug, Default)]
pub(crate) struct Refused {
    pins: Mutex<Vec<SecretBytes>>,
    logins: Gate,
}

/// Where a store's PIN comes from.
#[derive(Debug)]
pub(crate) struct Pin {
    source: CredentialSource,
    /// A descriptor gives it once.
    kept: Option<SecretBytes>,
}

impl Refusals {
    pub(crate) fn of(&self, token: &str) -> Arc<Refused> {
        let mut tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(tokens.entry(token.to_owned()).or_default())
    }
}

impl Refused {
    /// Being the only one that logs in to the token: what one learns of a PIN, the next knows before
    /// it tries. Two libraries can lead to one token, so that the library's own door is not enough.
    ///
    /// # Errors
    /// `Unavailable` where a login does not come back.
    pub(crate) fn alone(&self) -> Result<Door<'_>> {
        self.logins.door("a login")
    }

    /// The token took a PIN, and with it gave all tries back.
    pub(crate) fn clear(&self) {
        self.pins().clear();
    }

    pub(crate) fn add(&self, pin: SecretBytes) {
        self.pins().push(pin);
    }

    fn pins(&self) -> MutexGuard<'_, Vec<SecretBytes>> {
        self.pins.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pin {
    pub(crate) fn new(source: CredentialSource) -> Self {
        Self { source, kept: None }
    }

    /// The PIN, where it may be tried.
    ///
    /// # Errors
    /// `Unauthenticated` where the token refused this very PIN before; those of the source.
    pub(crate) fn for_login(&mut self, refused: &Refused) -> Result<SecretBytes> {
        let pin = self.read()?;
        if pin.is_empty() {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                format!("the PIN in {} is empty", self.place()),
            ));
        }
        if refused.pins().contains(&pin) {
            return Err(self.refusal());
        }
        Ok(pin)
    }

    /// What to say where the token refused the PIN, now or before.
    pub(crate) fn refusal(&self) -> Error {
        let place = self.place();
        let advice = match self.source {
            CredentialSource::Fd(_) => format!("correct {place} and start keyhaul anew"),
            _ => format!("correct {place}"),
        };
        Error::new(
            ErrorKind::Unauthenticated,
            format!("the token refused the PIN in {place}"),
        )
        .with_advice(format!(
            "{advice}; this PIN is not tried again, so that the token does not lock"
        ))
    }

    /// The source in words. Of a descriptor, as a plugin is given one, the policy knows nothing.
    fn place(&self) -> String {
        match &self.source {
            CredentialSource::Fd(_) => "the source that `pin` names".to_owned(),
            source => source.to_string(),
        }
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
        let refusals = Refusals::default();
        let (refused, other) = (refusals.of("a"), refusals.of("b"));
        let mut pin = Pin::new(CredentialSource::File(path.clone()));
        let first = pin.for_login(&refused).expect("a pin");
        assert_eq!(first.expose(), b"1234");
        refused.add(first);
        for _ in 0..3 {
            let error = pin.for_login(&refused).expect_err("refused before");
            assert_eq!(error.kind(), ErrorKind::Unauthenticated);
            assert!(!format!("{error:?}{pin:?}{refused:?}").contains("1234"));
        }
        // It may be right for another token.
        pin.for_login(&other).expect("never refused there");
        std::fs::write(&path, "5678").expect("corrected");
        let second = pin.for_login(&refused).expect("another");
        assert_eq!(second.expose(), b"5678");
        refused.add(second);
        std::fs::write(&path, "1234").expect("the first again");
        pin.for_login(&refused).expect_err("both were refused");
        refused.clear();
        pin.for_login(&refused).expect("all tries are back");
        std::fs::write(&path, "\n").expect("emptied");
        let error = pin.for_login(&refused).expect_err("no pin at all");
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    }

    #[test]
    fn the_pin_of_a_descriptor_is_there_for_the_next_login_too() {
        let (read, mut write) = std::io::pipe().expect("a pipe");
        write.write_all(b"1234\n").expect("written");
        drop(write);
        let mut pin = Pin::new(CredentialSource::Fd(read.as_raw_fd()));
        let refused = Refused::default();
        for _ in 0..2 {
            let came = pin.for_login(&refused).expect("a pin");
            assert_eq!(came.expose(), b"1234");
        }
        refused.add(SecretBytes::copy_from(b"1234"));
        let error = pin.for_login(&refused).expect_err("refused");
        assert!(error.to_string().contains("`pin`"), "{error}");
    }
}
