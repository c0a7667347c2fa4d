//! Causes below errors.

use std::error::Error;
use std::io;

/// The first `T` under an error, or the error itself. What an I/O error carries is not its source,
/// and is looked into all the same.
pub fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    if let Some(found) = error.downcast_ref::<T>() {
        return Some(found);
    }
    let inside = error
        .downcast_ref::<io::Error>()
        .and_then(io::Error::get_ref)
        .and_then(|inside| find(inside));
    inside.or_else(|| error.source().and_then(find))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_io_error_carries_is_found_through_it() {
        let inner = rustls::Error::HandshakeNotComplete;
        let middle = io::Error::other(inner.clone());
        let outer = io::Error::other(middle);
        assert_eq!(find::<rustls::Error>(&outer), Some(&inner));
        let first = find::<io::Error>(&outer).expect("itself");
        assert!(std::ptr::eq(first, &raw const outer));
        // The control: what is not there is not found.
        assert!(find::<std::fmt::Error>(&outer).is_none());
    }
}
