//! What a plugin says, and what it means: its hello, answers to what it was asked, values.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use keyhaul_core::{Error, ErrorKind, Result};

use crate::redact::Redactor;
use crate::requests::{Open, Requests};
use crate::wire::{self, Answer, Hello, Reply};

/// The longest message or advice of a plugin.
const LONGEST_WORDS: usize = 500;

/// What is said between the host and one running plugin.
pub(crate) struct Talk {
    hello: OnceLock<Hello>,
    requests: Mutex<Requests>,
    redactor: Arc<Mutex<Redactor>>,
}

/// What a line was.
pub(crate) enum Heard {
    Hello,
    /// A part of an answer.
    Part,
    /// The rest of the answer to this.
    Whole(Open),
}

impl Talk {
    /// Nothing is said yet. `redactor` may know what was, to the same plugin in its life before.
    pub(crate) fn new(redactor: Arc<Mutex<Redactor>>) -> Self {
        Self {
            hello: OnceLock::new(),
            requests: Mutex::new(Requests::new()),
            redactor,
        }
    }

    /// Takes a line of the plugin.
    ///
    /// # Errors
    /// `Internal` where it breaks the protocol, `InvalidConfig` for a first line that is no hello.
    pub(crate) fn take(&self, line: &[u8]) -> Result<Heard> {
        if self.hello.get().is_none() {
            let hello = Hello::parse(line)?;
            // Lines come one after another, so that nobody else set it.
            let _ = self.hello.set(hello);
            return Ok(Heard::Hello);
        }
        let answer = Answer::parse(line)?;
        let (id, index) = (answer.id, answer.index);
        let wants = self.requests().wants(id)?;
        let max_value = self.hello()?.capabilities.max_value;
        let clean = |words: &[u8]| self.redactor().clean(words, LONGEST_WORDS);
        let reply = answer.reply(wants, max_value, clean);
        if let Ok(Reply {
            value: Some(value), ..
        }) = &reply
        {
            self.redactor().remember(value);
        }
        let whole = self.requests().answered(id, index, reply)?;
        Ok(whole.map_or(Heard::Part, Heard::Whole))
    }

    /// What the plugin said of itself. There is a session to others only once it has.
    pub(crate) fn hello(&self) -> Result<&Hello> {
        let hello = self.hello.get();
        hello.ok_or_else(|| Error::new(ErrorKind::Internal, "the plugin has said no hello"))
    }

    /// The longest line that it may write next.
    pub(crate) fn longest_line(&self) -> usize {
        match self.hello.get() {
            Some(hello) => wire::longest_line(hello.capabilities.max_value),
            None => wire::MAX_HELLO,
        }
    }

    /// The `part` of `words` alone, fit to be shown.
    pub(crate) fn clean(&self, words: &[u8], part: Range<usize>, limit: usize) -> String {
        self.redactor().clean_part(words, part, limit)
    }

    pub(crate) fn requests(&self) -> MutexGuard<'_, Requests> {
        let requests = self.requests.lock();
        requests.unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn redactor(&self) -> MutexGuard<'_, Redactor> {
        self.redactor.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
