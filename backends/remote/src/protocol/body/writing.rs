//! Writing: setting a value, having one made, deleting and restoring.

use std::collections::BTreeMap;
use std::time::SystemTime;

use jiff::Timestamp;
use keyhaul_core::{Alphabet, Error, ErrorKind, PutMode, PutOptions, Recipe, Result, Version};
use serde::{Deserialize, Serialize};

use super::field;

bodies! {
    /// Writes a value.
    request WriteRequest {
        /// `SCOPE/NAME`.
        secret: String,
        /// The server's key that the value is sealed to, as [`ServiceAnswer::key`](super::ServiceAnswer::key).
        key: String,
        /// The seal's encapsulated key, in base64.
        enc: String,
        /// What makes the key of this value, 16 bytes in base64.
        salt: String,
        /// The ciphertext with its tag, in base64.
        value: String,
        /// What may be there already.
        #[serde(default)]
        mode: Mode,
        /// The version that must be current, where the mode is `update`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expect: Option<String>,
        /// The field of a map that is written; `*` for the whole map.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        field: Option<String>,
        /// Labels.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        labels: BTreeMap<String, String>,
        /// When the store stops giving it out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expires: Option<Timestamp>,
    }
    /// Has a value made.
    request GenerateRequest {
        /// `SCOPE/NAME`.
        secret: String,
        /// What it is made of.
        alphabet: AlphabetBody,
        /// How long it is, in characters or bytes.
        length: usize,
        /// What may be there already.
        #[serde(default)]
        mode: Mode,
        /// The version that must be current, where the mode is `update`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expect: Option<String>,
        /// The field of a map that is written.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        field: Option<String>,
        /// Labels.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        labels: BTreeMap<String, String>,
        /// When the store stops giving it out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expires: Option<Timestamp>,
        /// Even where a node holds the scope, and the mode may replace what it uses.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        force: bool,
    }
    /// Deletes a secret.
    request DeleteRequest {
        /// `SCOPE/NAME`.
        secret: String,
        /// Only where this is the current version.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        version: Option<String>,
        /// Even where a node holds the scope.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        force: bool,
    }
    /// What was deleted.
    answer DeleteAnswer {
        /// Until when it can be brought back; none where it is gone, or was not there.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        restorable_until: Option<Timestamp>,
    }
    /// Brings a deleted secret back.
    request RestoreRequest {
        /// `SCOPE/NAME`.
        secret: String,
    }
}

/// How a secret shall be written: what both requests that write say of it.
///
/// They have no such struct in them, flattened: serde cannot refuse unknown keys then.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    /// What may be there already.
    pub mode: Mode,
    /// The version that must be current, where the mode is `update`.
    pub expect: Option<&'a str>,
    /// The field of a map that is written; `*` for the whole map.
    pub field: Option<&'a str>,
    /// Labels.
    pub labels: &'a BTreeMap<String, String>,
    /// When the store stops giving it out.
    pub expires: Option<Timestamp>,
}

impl Terms<'_> {
    /// The contract's options.
    ///
    /// # Errors
    /// `InvalidReference` where mode and `expect` do not go together, or a text is not what it
    /// must be.
    pub fn options(&self) -> Result<PutOptions> {
        Ok(PutOptions::default()
            .mode(self.mode.with(self.expect)?)
            .field(self.field.map(field).transpose()?)
            .labels(self.labels.clone())
            .expires(self.expires.map(SystemTime::from)))
    }
}

impl WriteRequest {
    /// How the value shall be written.
    pub fn terms(&self) -> Terms<'_> {
        Terms {
            mode: self.mode,
            expect: self.expect.as_deref(),
            field: self.field.as_deref(),
            labels: &self.labels,
            expires: self.expires,
        }
    }
}

/// What may be there already when a secret is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Nothing.
    #[default]
    Create,
    /// Anything or nothing.
    Overwrite,
    /// Exactly the version of `expect`.
    Update,
}

impl Mode {
    /// A mode as the contract has it, with its `expect`; none where this version of the protocol
    /// has no word for it.
    pub fn of(mode: &PutMode) -> Option<(Self, Option<String>)> {
        match mode {
            PutMode::Create => Some((Self::Create, None)),
            PutMode::Overwrite => Some((Self::Overwrite, None)),
            PutMode::Update(version) => Some((Self::Update, Some(version.as_str().to_owned()))),
            _ => None,
        }
    }

    /// The contract's mode.
    ///
    /// # Errors
    /// `InvalidReference` where `expect` is missing, not called for, or no version.
    pub fn with(self, expect: Option<&str>) -> Result<PutMode> {
        match (self, expect) {
            (Self::Create, None) => Ok(PutMode::Create),
            (Self::Overwrite, None) => Ok(PutMode::Overwrite),
            (Self::Update, Some(version)) => Ok(PutMode::Update(Version::new(version)?)),
            (Self::Update, None) => Err(invalid("mode `update` takes `expect`, a version")),
            (_, Some(_)) => Err(invalid("`expect` belongs to mode `update`")),
        }
    }
}

/// What a value is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AlphabetBody {
    /// `[A-Za-z0-9]`.
    Alphanumeric,
    /// Any byte.
    Bytes,
    /// `[0-9a-f]`.
    Hex,
}

impl AlphabetBody {
    /// The alphabet of a recipe; none where this version of the protocol has no word for it.
    pub fn of(recipe: &Recipe) -> Option<Self> {
        match recipe.alphabet() {
            Alphabet::Alphanumeric => Some(Self::Alphanumeric),
            Alphabet::Bytes => Some(Self::Bytes),
            Alphabet::Hex => Some(Self::Hex),
            _ => None,
        }
    }
}

impl GenerateRequest {
    /// How the value shall be written.
    pub fn terms(&self) -> Terms<'_> {
        Terms {
            mode: self.mode,
            expect: self.expect.as_deref(),
            field: self.field.as_deref(),
            labels: &self.labels,
            expires: self.expires,
        }
    }

    /// The recipe.
    ///
    /// # Errors
    /// `InvalidReference` where the length is none that can be made.
    pub fn recipe(&self) -> Result<Recipe> {
        let alphabet = match self.alphabet {
            AlphabetBody::Alphanumeric => Alphabet::Alphanumeric,
            AlphabetBody::Bytes => Alphabet::Bytes,
            AlphabetBody::Hex => Alphabet::Hex,
        };
        Recipe::new(alphabet, self.length).map_err(|error| invalid(error.message().to_owned()))
    }
}

fn invalid(rule: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidReference, rule)
}
