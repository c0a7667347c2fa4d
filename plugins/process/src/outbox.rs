//! What is on its way into a plugin's stdin.

use std::collections::VecDeque;
use std::io::ErrorKind as Io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use keyhaul_core::SecretBytes;
use tokio::net::unix::pipe::Sender;

/// Whole lines, in order. A caller writes its own line where the pipe has room, and leaves it to a
/// task where not: half a line never depends on who still waits.
#[derive(Clone)]
pub(crate) struct Outbox(Arc<Mutex<Queue>>);

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
        Self(Arc::new(Mutex::new(Queue {
            pipe: Some(Arc::new(pipe)),
            lines: VecDeque::new(),
            written: 0,
            waits: false,
        })))
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
    }

    async fn drain(self, mut pipe: Arc<Sender>) {
        loop {
            let ready = pipe.writable().await;
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
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
