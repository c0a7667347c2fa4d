//! The law of capabilities, for stores that know beforehand what they can do: what a request needs,
//! and the refusal where that is missing.

use crate::{
    Capability, DeleteOptions, Error, ErrorKind, GetOptions, PutMode, PutOptions, Result,
    SecretPath,
};

/// The most labels of a secret that is taken from a plugin.
pub const MOST_LABELS: usize = 1000;
/// The longest text of a label or of a lease from there, in bytes.
pub const LONGEST_TEXT: usize = 64 * 1024;
/// What all texts beside one value may have together there, in bytes.
pub const MOST_TEXT: usize = 1024 * 1024;
/// The longest cursor of a listing from there, in bytes.
pub const LONGEST_CURSOR: usize = 16 * 1024;

/// Whether all of `wanted` is among what a store `can` do.
///
/// # Errors
/// `Unsupported` with what is missing.
pub fn need(can: Capability, wanted: Capability) -> Result<()> {
    let missing = wanted - can;
    if missing.is_empty() {
        return Ok(());
    }
    let error = Error::new(
        ErrorKind::Unsupported,
        format!("this store has no {}", missing.names().join(", ")),
    );
    Err(if missing.contains(Capability::CREATE) {
        error.with_advice(
            "it cannot tell whether it was the first to write: `keyhaul generate` takes --overwrite, and `keyhaul set` goes without --create",
        )
    } else {
        error
    })
}

/// What reading so needs.
pub fn to_get(options: &GetOptions) -> Capability {
    let mut wanted = Capability::READ;
    wanted.set(Capability::VERSIONS, options.version.is_some());
    wanted.set(Capability::FIELDS, options.field.is_some());
    wanted
}

/// What writing so needs.
pub fn to_put(options: &PutOptions) -> Capability {
    let mut wanted = match options.mode {
        PutMode::Create => Capability::CREATE,
        PutMode::Update(_) => Capability::UPDATE,
        // Overwrite, and whatever is weaker.
        _ => Capability::WRITE,
    };
    wanted.set(Capability::LABELS, !options.labels.is_empty());
    wanted.set(Capability::EXPIRY, options.expires.is_some());
    if let Some(field) = &options.field {
        wanted |= Capability::FIELDS;
        if !field.is_all() {
            // To keep the siblings takes compare-and-set.
            wanted |= Capability::UPDATE;
        }
    }
    wanted
}

/// What deleting so needs.
pub fn to_delete(options: &DeleteOptions) -> Capability {
    let mut wanted = Capability::DELETE;
    wanted.set(Capability::UPDATE, options.version.is_some());
    wanted
}

/// The root is a place to list, not a secret.
///
/// # Errors
/// `InvalidReference` for the root.
pub fn not_root(path: &SecretPath) -> Result<()> {
    if path.is_root() {
        return Err(Error::new(
            ErrorKind::InvalidReference,
            "the root of a store is no secret",
        ));
    }
    Ok(())
}

/// Whether a value of `len` bytes is none too long where `most` fit.
///
/// # Errors
/// `TooLarge` with the limit.
pub fn fits(len: usize, most: usize) -> Result<()> {
    if len > most {
        return Err(Error::new(
            ErrorKind::TooLarge,
            format!("the value is over the store's limit of {most} bytes"),
        ));
    }
    Ok(())
}
