//! A plugin's stderr, on its way to the log.

use std::collections::VecDeque;
use std::io::ErrorKind as Io;
use std::sync::Arc;
use std::time::Duration;

use keyhaul_core::{SecretBytes, wipe};
use tokio::net::unix::pipe::Receiver;
use tokio::time::{Instant, sleep_until};

use crate::last_words::LastWords;
use crate::redact::CONTEXT;
use crate::session::Session;

/// The longest line; what is longer is several.
const LONGEST: usize = 4096;

/// How many lines go to the log in a window, and how many bytes are read in one.
const LINES: usize = 100;
const BYTES: usize = 1024 * 1024;
const WINDOW: Duration = Duration::from_secs(5);

/// How long after its end a plugin's words are waited for.
const LINGER: Duration = Duration::from_secs(1);

/// How many pieces are read where nobody can wait any more: as much as a pipe holds.
const LAST_PIECES: usize = 16;

/// How long a line waits for the next one, in which a value may go on that began in it.
const SETTLE: Duration = Duration::from_millis(50);

/// How many lines wait, and how many bytes of them: for the next, and for the answers that they may
/// belong to.
const WAITING: usize = 256;
const WAITING_BYTES: usize = 128 * 1024;

/// Reads `stderr` to its end.
///
/// A plugin may write a value to its stderr before it answers with it, and over several lines. So a
/// line waits until all that was asked when it came is answered, and until others came or none does.
/// Output without end is read only so fast, and most of it only counted: a plugin that drowns in its
/// own words slows itself.
pub(crate) async fn follow(stderr: Receiver, session: Arc<Session>) {
    let mut log = Log::new(stderr, session);
    loop {
        let session = log.session.clone();
        let (progress, gone) = (session.progress(), session.gone.notified());
        let settled = log.write_what_is_known();
        let end = log.end();
        let over = end.is_some();
        tokio::select! {
            biased;
            // Somebody who left the plugin's group may hold its stderr for ever, and go on writing.
            () = sleep_until(end.unwrap_or_else(Instant::now)), if over => break,
            ready = log.stderr.readable() => if ready.is_err() { break },
            // Answers came, so that waiting lines may be due.
            () = progress, if !over && !log.waiting.is_empty() => continue,
            () = sleep_until(settled.unwrap_or_else(Instant::now)), if settled.is_some() => continue,
            () = gone, if !over => continue,
        }
        let mut piece = [0; LONGEST];
        match log.stderr.try_read(&mut piece) {
            Ok(0) => break,
            Ok(count) => log.take(&mut piece[..count]),
            Err(error) if error.kind() == Io::WouldBlock => continue,
            Err(_) => break,
        }
        log.rest().await;
    }
    log.write_rest();
    // Its stderr ends a moment before it does, or long before. Whether it fails is known then.
    let session = log.session.clone();
    let gone = session.gone.notified();
    if log.end().is_none() {
        gone.await;
    }
}

struct Log {
    stderr: Receiver,
    session: Arc<Session>,
    line: Vec<u8>,
    last_words: LastWords,
    waiting: VecDeque<Waiting>,
    waiting_bytes: usize,
    /// The end of what was written last: a value may begin there.
    before: SecretBytes,
    window: Instant,
    lines: usize,
    bytes: usize,
    left_out: u64,
}

/// A line that is not written yet.
struct Waiting {
    /// The latest request when it came.
    latest: u64,
    came: Instant,
    line: SecretBytes,
}

impl Log {
    fn new(stderr: Receiver, session: Arc<Session>) -> Self {
        Self {
            stderr,
            session,
            line: Vec::with_capacity(LONGEST),
            last_words: LastWords::new(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            before: SecretBytes::copy_from(&[]),
            window: Instant::now(),
            lines: 0,
            bytes: 0,
            left_out: 0,
        }
    }

    /// When no more is read, once the plugin has ended.
    fn end(&self) -> Option<Instant> {
        let ended = self.session.requests().ended();
        ended.map(|(at, _)| at + LINGER)
    }

    /// Takes what came, and wipes it where it came.
    fn take(&mut self, bytes: &mut [u8]) {
        self.bytes += bytes.len();
        self.last_words.take(bytes);
        for byte in &*bytes {
            if *byte == b'\n' || self.line.len() == LONGEST {
                self.end_line();
            }
            if *byte != b'\n' {
                self.line.push(*byte);
            }
        }
        wipe(bytes);
    }

    fn end_line(&mut self) {
        if self.line.is_empty() {
            return;
        }
        if self.waiting.len() == WAITING || self.waiting_bytes > WAITING_BYTES {
            self.left_out += 1;
        } else {
            self.waiting_bytes += self.line.len();
            self.waiting.push_back(Waiting {
                latest: self.session.requests().latest(),
                came: Instant::now(),
                line: SecretBytes::copy_from(&self.line),
            });
        }
        wipe(&mut self.line);
        self.line.clear();
    }

    /// When the next line will have waited long enough, where it is only that.
    fn write_what_is_known(&mut self) -> Option<Instant> {
        let open = self.session.requests().oldest();
        while let Some(first) = self.waiting.front() {
            if open.is_some_and(|open| open <= first.latest) {
                return None;
            }
            let settled = first.came + SETTLE;
            let after = self.waiting_bytes - first.line.len() + self.line.len();
            if after < CONTEXT && Instant::now() < settled {
                return Some(settled);
            }
            self.write_first();
        }
        None
    }

    fn write_rest(&mut self) {
        self.end_line();
        while !self.waiting.is_empty() {
            self.write_first();
        }
        self.tell_left_out();
    }

    fn write_first(&mut self) {
        if self.window.elapsed() > WINDOW {
            self.begin_window();
        }
        let Some(first) = self.waiting.pop_front() else {
            return;
        };
        self.waiting_bytes -= first.line.len();
        let (line, words) = (first.line.expose(), self.with_context(&first.line));
        let part = self.before.len()..self.before.len() + line.len();
        if self.lines == LINES {
            self.left_out += 1;
        } else {
            self.lines += 1;
            let text = self
                .session
                .talk
                .clean(words.expose(), part.clone(), LONGEST);
            tracing::info!(store = self.session.store(), "plugin: {text}");
        }
        let before = part.end.saturating_sub(CONTEXT)..part.end;
        self.before = SecretBytes::copy_from(&words.expose()[before]);
    }

    /// What was written last, `line`, and what is to come.
    fn with_context(&self, line: &SecretBytes) -> SecretBytes {
        let mut after: Vec<&[u8]> = Vec::new();
        let mut room = CONTEXT;
        let waiting = self.waiting.iter().map(|waiting| waiting.line.expose());
        for line in waiting.chain([&self.line[..]]) {
            after.push(&line[..line.len().min(room)]);
            room -= line.len().min(room);
            if room == 0 {
                break;
            }
        }
        let parts = [&[self.before.expose(), line.expose()], &after[..]].concat();
        let len = parts.iter().map(|part| part.len()).sum();
        SecretBytes::init_with(len, |mut words| {
            for part in parts {
                let (front, rest) = words.split_at_mut(part.len());
                front.copy_from_slice(part);
                words = rest;
            }
        })
    }

    fn begin_window(&mut self) {
        self.tell_left_out();
        self.window = Instant::now();
        (self.lines, self.bytes) = (0, 0);
    }

    fn tell_left_out(&mut self) {
        let left_out = std::mem::take(&mut self.left_out);
        if left_out > 0 {
            let store = self.session.store();
            tracing::warn!(
                store,
                left_out,
                "the plugin wrote more lines than the log takes"
            );
        }
    }

    /// Waits for the next window where this one is full.
    async fn rest(&mut self) {
        if self.bytes >= BYTES {
            self.write_what_is_known();
            let full = self.window + WINDOW;
            sleep_until(self.end().map_or(full, |end| end.min(full))).await;
            self.begin_window();
        }
    }
}

/// Also where the runtime goes away with a program that has done its work, what the plugin said by
/// then is told.
impl Drop for Log {
    fn drop(&mut self) {
        let mut piece = [0; LONGEST];
        for _ in 0..LAST_PIECES {
            match rustix::io::read(&self.stderr, &mut piece) {
                Ok(count @ 1..) => self.take(&mut piece[..count]),
                _ => break,
            }
        }
        self.write_rest();
        self.last_words.tell(&self.session);
    }
}
