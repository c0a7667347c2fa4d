//! The end of a panic.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Does `work` for a plugin that calls. A panic of ours or of a library's cannot pass through the
/// plugin, and would end the process: it ends here, with `otherwise`.
pub(crate) fn contained<T>(otherwise: T, work: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        // What it brought could panic again when it is dropped.
        std::mem::forget(panic);
        otherwise
    })
}
