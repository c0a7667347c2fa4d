//! What is on its way into a plugin's stdin.

use std::collections::VecDeque;
use std::io::ErrorKind as Io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use keyhaul_core::SecretBytes;
use tokio::net::unix::pipe::Sender;
use tokio::sync::Notify;

/// Whole lines, in order. A caller writes its own line where the pipe has room, and leaves it to a
/// task where not: half a line never depends on who still waits.
#[derive(Clone)]
pub(crate) struct Outbox(Arc<Inner>);

struct Inner {
    queue: Mutex<Queue>,
    /// The plugin's stdin is to end, whoever else may hold it full.
    closed: Notify,
}

struct Queue {
    pipe: Option<Arc<Sender>>,
    lines: VecDeque<SecretBytes>,
    /// How much of the first line is written.
    written: usize,
    /// Whether a task waits for room.
    waits: bool,
}

impl Outbox {
    pub(crate) fn new(pipe: Sender) -> Self {
        Self(Arc::new(Inner {
            queue: Mutex::new(Queue {
                pipe: Some(Arc::new(pipe)),
                lines: VecDeque::new(),
                written: 0,
                waits: false,
            }),
            closed: Notify::new(),
        }))
    }

    /// Writes `line`, after those before it. Where the plugin reads no more, it is dropped: the
    /// plugin's end is noticed elsewhere.
    pub(crate) fn write(&self, line: SecretBytes) {
        let mut queue = self.queue();
        queue.lines.push_back(line);
        if queue.waits {
            return;
        }
        // A request may be given up where there is no runtime any more, and its plugin neither.
        if let (Some(pipe), Ok(runtime)) = (queue.push(), tokio::runtime::Handle::try_current()) {
            queue.waits = true;
            runtime.spawn(self.clone().drain(pipe));
        }
    }

    /// Ends the plugin's stdin. What was not written is wiped.
    pub(crate) fn close(&self) {
        let mut queue = self.queue();
        queue.pipe = None;
        queue.clear();
        self.0.closed.notify_one();
    }

    async fn drain(self, mut pipe: Arc<Sender>) {
        loop {
            let ready = tokio::select! {
                ready = pipe.writable() => ready,
                () = self.0.closed.notified() => Ok(()),
            };
            let mut queue = self.queue();
            if ready.is_err() {
                queue.clear();
            }
            match queue.push() {
                Some(same) => pipe = same,
                None => {
                    queue.waits = false;
                    return;
                }
            }
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        let queue = self.0.queue.lock();
        queue.unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    /// Writes what there is room for. The pipe, where more is left.
    fn push(&mut self) -> Option<Arc<Sender>> {
        let Some(pipe) = self.pipe.clone() else {
            self.clear();
            return None;
        };
        while let Some(line) = self.lines.front() {
            match pipe.try_write(&line.expose()[self.written..]) {
                Ok(count) => {
                    self.written += count;
                    if self.written == line.len() {
                        self.lines.pop_front();
                        self.written = 0;
                    }
                }
                Err(error) if error.kind() == Io::WouldBlock => return Some(pipe),
                Err(error) if error.kind() == Io::Interrupted => {}
                // It reads no more.
                Err(_) => self.clear(),
            }
        }
        None
    }

    fn clear(&mut self) {
        self.lines.clear();
        self.written = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use tokio::net::unix::pipe::pipe;

    use super::*;

    #[tokio::test]
    async fn a_pipe_that_nobody_empties_is_closed_all_the_same() {
        let (sender, receiver) = pipe().expect("a pipe");
        let outbox = Outbox::new(sender);
        // More than a pipe holds.
        outbox.write(SecretBytes::init_with(1024 * 1024, |_| {}));
        tokio::task::yield_now().await;
        let has_ended = || {
            let mut ends = [PollFd::new(&receiver, PollFlags::empty())];
            poll(&mut ends, Some(&Timespec::default())).expect("polled");
            ends[0].revents().contains(PollFlags::HUP)
        };
        assert!(!has_ended(), "it is written to");
        outbox.close();
        let begun = std::time::Instant::now();
        while !has_ended() {
            assert!(begun.elapsed() < Duration::from_secs(10), "it is held open");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
