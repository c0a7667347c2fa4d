//! Reading: values, what is known of them, and names.

use keyhaul_core::{Field, Result};
use serde::{Deserialize, Serialize};

use super::super::Problem;
use super::{MetadataBody, Stat};

bodies! {
    /// Asks for values.
    request ReadRequest {
        /// The asking process' public key, X25519, in base64.
        key: String,
        /// 16 fresh random bytes in base64: what answers this request answers no other.
        nonce: String,
        /// What is asked for.
        items: Vec<ReadItem>,
    }
    /// One secret that is asked for.
    request ReadItem {
        /// `SCOPE/NAME`.
        secret: String,
        /// A version other than the current one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        version: Option<String>,
        /// A field of a map; `*` for the whole map.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        field: Option<String>,
        /// Whether an expired secret will do.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        expired: bool,
    }
    /// Values, in the order they were asked for.
    answer ReadAnswer {
        /// The seal's encapsulated key, in base64.
        enc: String,
        /// What makes the key of this answer, 16 bytes in base64.
        salt: String,
        /// An outcome for each item.
        items: Vec<Outcome<SealedValue>>,
    }
    /// A value, sealed.
    answer SealedValue {
        /// The ciphertext with its tag, in base64.
        value: String,
        /// What is known of it.
        metadata: MetadataBody,
    }
    /// Asks for metadata. About many at once, like [`ReadRequest`].
    request StatRequest {
        /// What is asked about.
        items: Vec<ReadItem>,
    }
    /// Metadata, in order.
    answer StatAnswer {
        /// An outcome for each item.
        items: Vec<Outcome<Stat>>,
    }
    /// A page of names.
    answer ListAnswer {
        /// Secrets, in byte order.
        secrets: Vec<String>,
        /// Folders, in byte order, of a shallow listing.
        folders: Vec<String>,
        /// Where the next page begins.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next: Option<String>,
    }
}

/// One item's outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Outcome<T> {
    /// It failed.
    Problem {
        /// How.
        problem: Problem,
    },
    /// It worked.
    Done(T),
}

impl<T> From<Result<T>> for Outcome<T> {
    fn from(result: Result<T>) -> Self {
        match result {
            Ok(done) => Self::Done(done),
            Err(error) => Self::Problem {
                problem: Problem::of(&error, None),
            },
        }
    }
}

/// A field by its text; `*` is the whole map.
///
/// # Errors
/// `InvalidReference` with the rule.
pub fn field(text: &str) -> Result<Field> {
    match text {
        Field::ALL => Ok(Field::all()),
        text => Field::new(text),
    }
}
