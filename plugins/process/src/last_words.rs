//! What a plugin wrote last, for those who ask why it failed.

use keyhaul_core::SecretBytes;

use crate::redact::CONTEXT;
use crate::session::Session;

/// How many lines are told, and of how many characters.
const LINES: usize = 10;
const LONGEST: usize = 1000;

/// How much of the end is kept: some lines, and before them what a value may have begun in.
const KEPT: usize = 4096 + CONTEXT;

/// The end of a plugin's stderr. It is kept as it came, and looked into only where the plugin fails:
/// by then more values may be known.
pub(crate) struct LastWords {
    end: SecretBytes,
    len: usize,
    /// Whether there was more before.
    cut: bool,
}

impl LastWords {
    pub(crate) fn new() -> Self {
        Self {
            end: SecretBytes::init_with(KEPT, |_| {}),
            len: 0,
            cut: false,
        }
    }

    /// Keeps the end of what there is and `bytes`.
    pub(crate) fn take(&mut self, bytes: &[u8]) {
        let new = &bytes[bytes.len().saturating_sub(KEPT)..];
        let stay = self.len.min(KEPT - new.len());
        self.cut |= stay < self.len || new.len() < bytes.len();
        let end = self.end.expose_mut();
        end.copy_within(self.len - stay..self.len, 0);
        end[stay..][..new.len()].copy_from_slice(new);
        self.len = stay + new.len();
    }

    /// Tells the log why the plugin failed, where it did, and what it wrote last.
    pub(crate) fn tell(&self, session: &Session) {
        let Some((_, error)) = session.failed() else {
            return;
        };
        let store = session.store();
        tracing::warn!(store, %error, "the plugin has failed");
        // Who sees each line as it comes need not see these again.
        if !tracing::enabled!(tracing::Level::INFO) {
            for text in self.lines(session) {
                tracing::warn!(store, "the plugin, before: {text}");
            }
        }
    }

    fn lines(&self, session: &Session) -> Vec<String> {
        let end = &self.end.expose()[..self.len];
        // A value may be broken over lines, and is recognised where there is none.
        let lines = end.split(|byte| *byte == b'\n');
        let (mut parts, mut at) = (Vec::new(), 0);
        for line in lines.clone() {
            parts.push(at..at + line.len());
            at += line.len();
        }
        let words = SecretBytes::init_with(at, |words| {
            for (line, part) in lines.zip(&parts) {
                words[part.clone()].copy_from_slice(line);
            }
        });
        // The first one has lost its beginning.
        let whole = parts.split_off(usize::from(self.cut && parts.len() > 1));
        let mut last: Vec<_> = whole.into_iter().filter(|part| !part.is_empty()).collect();
        let last = last.split_off(last.len().saturating_sub(LINES));
        last.into_iter()
            .map(|part| session.talk.clean(words.expose(), part, LONGEST))
            .collect()
    }
}
