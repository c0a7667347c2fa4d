//! A plugin's stderr, on its way to the log.

use std::collections::VecDeque;
use std::io::ErrorKind as Io;
use std::sync::Arc;
use std::time::Duration;

use keyhaul_core::{SecretBytes, wipe};
use tokio::net::unix::pipe::Receiver;
use tokio::time::Instant;

use crate::session::Session;

/// The longest line; what is longer is several.
const LONGEST: usize = 4096;

/// How many lines go to the log in a window, and how many bytes are read in one.
const LINES: usize = 100;
const BYTES: usize = 1024 * 1024;
const WINDOW: Duration = Duration::from_secs(5);

/// How long after its end a plugin's words are waited for.
const LINGER: Duration = Duration::from_secs(1);

/// How many lines wait for the answers that they may belong to.
const WAITING: usize = 256;

/// Reads `stderr` to its end.
///
/// A plugin may write a value to its stderr before it answers with it. So a line waits until all
/// that was asked when it came is answered, and the values are known. Output without end is read
/// only so fast, and most of it only counted: a plugin that drowns in its own words slows itself.
pub(crate) async fn follow(stderr: Receiver, session: Arc<Session>) {
    let mut log = Log {
        session,
        line: Vec::with_capacity(LONGEST),
        waiting: VecDeque::new(),
        window: Instant::now(),
        lines: 0,
        bytes: 0,
        left_out: 0,
    };
    let mut piece = [0; LONGEST];
    loop {
        let session = log.session.clone();
        let (progress, gone) = (session.progress(), session.gone.notified());
        log.write_what_is_known();
        let over = session.ended().is_some();
        tokio::select! {
            biased;
            ready = stderr.readable() => if ready.is_err() { break },
            // Answers came, so that waiting lines may be due.
            () = progress, if !over && !log.waiting.is_empty() => continue,
            () = gone, if !over => continue,
            // Somebody who left the plugin's group may hold its stderr for ever.
            () = tokio::time::sleep(LINGER), if over => break,
        }
        match stderr.try_read(&mut piece) {
            Ok(0) => break,
            Ok(count) => {
                log.take(&piece[..count]);
                wipe(&mut piece[..count]);
            }
            Err(error) if error.kind() == Io::WouldBlock => continue,
            Err(_) => break,
        }
        log.rest().await;
    }
    log.end_line();
    log.write_all();
}

struct Log {
    session: Arc<Session>,
    line: Vec<u8>,
    /// Lines, each with the latest request when it came.
    waiting: VecDeque<(u64, SecretBytes)>,
    window: Instant,
    lines: usize,
    bytes: usize,
    left_out: u64,
}

impl Log {
    fn take(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len();
        for byte in bytes {
            if *byte == b'\n' || self.line.len() == LONGEST {
                self.end_line();
            }
            if *byte != b'\n' {
                self.line.push(*byte);
            }
        }
    }

    fn end_line(&mut self) {
        if self.line.is_empty() {
            return;
        }
        if self.waiting.len() == WAITING {
            self.left_out += 1;
        } else {
            let line = SecretBytes::copy_from(&self.line);
            self.waiting.push_back((self.session.latest(), line));
        }
        wipe(&mut self.line);
        self.line.clear();
    }

    fn write_what_is_known(&mut self) {
        let open = self.session.oldest_open();
        while let Some((latest, _)) = self.waiting.front() {
            if open.is_some_and(|open| open <= *latest) {
                return;
            }
            self.write_first();
        }
    }

    fn write_all(&mut self) {
        while !self.waiting.is_empty() {
            self.write_first();
        }
        self.tell_left_out();
    }

    fn write_first(&mut self) {
        let Some((_, line)) = self.waiting.pop_front() else {
            return;
        };
        if self.window.elapsed() > WINDOW {
            self.begin_window();
        }
        if self.lines == LINES {
            self.left_out += 1;
            return;
        }
        self.lines += 1;
        let text = self.session.clean(line.expose(), LONGEST);
        tracing::info!(store = self.session.store(), "plugin: {text}");
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
            tokio::time::sleep_until(self.window + WINDOW).await;
            self.begin_window();
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        wipe(&mut self.line);
    }
}
