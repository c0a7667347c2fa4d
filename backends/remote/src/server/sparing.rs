//! Lines of the log that a flood cannot multiply.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// For how long lines are counted together.
const SPAN: Duration = Duration::from_secs(60);
/// How many lines of one kind are written in that time.
const LINES: u32 = 10;

/// Warnings about connections: so many of a kind in a minute, then one that says how many there
/// were besides. No kind hides another.
#[derive(Clone, Debug, Default)]
pub(super) struct Sparing(Arc<Mutex<BTreeMap<&'static str, Span>>>);

#[derive(Debug)]
struct Span {
    end: Instant,
    written: u32,
    left_out: u64,
}

impl Sparing {
    /// Warns of `what`, unless that was written often enough by now.
    pub(super) fn warn(&self, what: &'static str, write: impl FnOnce()) {
        let end = {
            let mut spans = self.lock();
            let now = Instant::now();
            let fresh = || Span {
                end: now + SPAN,
                written: 0,
                left_out: 0,
            };
            let span = spans.entry(what).or_insert_with(fresh);
            if span.end <= now && span.left_out == 0 {
                *span = fresh();
            }
            if span.written < LINES {
                span.written += 1;
                drop(spans);
                return write();
            }
            span.left_out += 1;
            if span.left_out > 1 {
                return;
            }
            span.end
        };
        // Whoever is left out first sees to it that it is told, also where nothing comes after it.
        let all = self.clone();
        tokio::spawn(async move {
            sleep_until(end).await;
            all.tell(what);
        });
    }

    /// Tells how many were left out, so far.
    pub(super) fn tell_all(&self) {
        let kinds: Vec<_> = self.lock().keys().copied().collect();
        kinds.into_iter().for_each(|what| self.tell(what));
    }

    fn tell(&self, what: &'static str) {
        let span = self.lock().remove(what);
        if let Some(Span { left_out: 1.., .. }) = span {
            let left_out = span.map_or(0, |span| span.left_out);
            tracing::warn!(left_out, "{what}: further ones in the last minute");
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Span>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[tokio::test]
    async fn a_flood_of_one_kind_is_a_few_lines_and_hides_no_other() {
        let sparing = Sparing::default();
        let (many, one) = (Cell::new(0), Cell::new(0));
        for _ in 0..1000 {
            sparing.warn("many", || many.set(many.get() + 1));
        }
        sparing.warn("one", || one.set(one.get() + 1));
        assert_eq!((many.get(), one.get()), (LINES, 1));
        let left_out = sparing.lock()["many"].left_out;
        assert_eq!(left_out, 1000 - u64::from(LINES));
        // Once that was told, the next ones are written again.
        sparing.tell_all();
        sparing.warn("many", || many.set(many.get() + 1));
        assert_eq!(many.get(), LINES + 1);
    }
}
