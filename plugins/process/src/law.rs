//! The law of capabilities: a plugin is never asked for what it does not declare.

use keyhaul_core::{
    Capabilities, Capability, DeleteOptions, Error, ErrorKind, GetOptions, PutMode, PutOptions,
    Result, SecretPath,
};

/// What a store can do whose plugin declares `own`.
pub(crate) fn capabilities(mut own: Capabilities) -> Capabilities {
    if own.can.intersects(Capability::WRITE | Capability::CREATE) {
        // The host makes what the plugin does not.
        own.can |= Capability::GENERATE;
    }
    own
}

/// `Unsupported` unless all of `wanted` is among what a store `can` do.
pub(crate) fn need(can: Capability, wanted: Capability) -> Result<()> {
    let missing = wanted - can;
    if missing.is_empty() {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Unsupported,
        format!("the plugin has no {}", missing.names().join(", ")),
    ))
}

/// What reading so needs.
pub(crate) fn to_get(options: &GetOptions) -> Capability {
    let mut wanted = Capability::READ;
    wanted.set(Capability::VERSIONS, options.version.is_some());
    wanted.set(Capability::FIELDS, options.field.is_some());
    wanted
}

/// What writing so needs.
pub(crate) fn to_put(options: &PutOptions) -> Capability {
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
        // To keep the siblings takes compare-and-set.
        wanted |= if field.is_all() {
            Capability::empty()
        } else {
            Capability::UPDATE
        };
    }
    wanted
}

/// What deleting so needs.
pub(crate) fn to_delete(options: &DeleteOptions) -> Capability {
    let mut wanted = Capability::DELETE;
    wanted.set(Capability::UPDATE, options.version.is_some());
    wanted
}

/// The root is a place to list, not a secret.
pub(crate) fn not_root(path: &SecretPath) -> Result<()> {
    if path.is_root() {
        return Err(Error::new(
            ErrorKind::InvalidReference,
            "the root of a store is no secret",
        ));
    }
    Ok(())
}

/// `TooLarge` for a value of `len` bytes where `most` fit.
pub(crate) fn fits(len: usize, most: usize) -> Result<()> {
    if len > most {
        return Err(Error::new(
            ErrorKind::TooLarge,
            format!("the value is over the plugin's limit of {most} bytes"),
        ));
    }
    Ok(())
}
