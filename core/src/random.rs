//! Random bytes that are no secret: ids, IVs, names of temporary files.

use crate::{Error, ErrorKind, Result};

/// Fills `bytes` from the operating system.
///
/// # Errors
/// `Internal` where the system has no randomness to give.
pub fn fill(bytes: &mut [u8]) -> Result<()> {
    getrandom::fill(bytes).map_err(|error| {
        Error::new(
            ErrorKind::Internal,
            "the operating system gave no random bytes",
        )
        .with_source(std::io::Error::from(error))
    })
}

/// `bytes` random bytes as lower-case hex, for names.
///
/// # Errors
/// As [`fill`].
pub fn hex(bytes: usize) -> Result<String> {
    let mut random = vec![0; bytes];
    fill(&mut random)?;
    Ok(base16ct::lower::encode_string(&random))
}
