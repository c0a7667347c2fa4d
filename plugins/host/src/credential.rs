//! An option that is a credential: the host reads it, and lends its bytes while a store opens.

use keyhaul_core::credential::CredentialSource;
use keyhaul_core::{Result, SecretBytes};

/// An option that is a credential.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Credential {
    /// Its name.
    pub(crate) name: String,
    /// Where it comes from.
    pub(crate) source: CredentialSource,
    /// Where it stands in the policy.
    pub(crate) place: String,
}

impl Credential {
    /// Its bytes.
    ///
    /// # Errors
    /// The source's, with the option's place.
    pub(crate) fn read(&self) -> Result<SecretBytes> {
        let read = self.source.read();
        read.map_err(|error| error.with_place(&self.place))
    }
}
