//! Reads what a plugin writes, and takes notice of its end.

use std::io::ErrorKind as Io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use keyhaul_core::Result;
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe::Receiver;
use tokio::time::{Instant, sleep_until, timeout};

use crate::error::{ended, stalled};
use crate::lines::Lines;
use crate::session::{GRACE, Session};

/// How long the end of a plugin and the end of its output may be apart.
const APART: Duration = Duration::from_millis(200);

/// How often what is left is read: a pipe holds no more.
const LAST_PIECES: usize = 64;

/// Takes lines until the plugin ends, breaks the protocol or is told to end.
pub(crate) async fn listen(session: Arc<Session>, stdout: Receiver, pidfd: AsyncFd<OwnedFd>) {
    // Where the runtime goes away, so does this task, and nobody would read any more.
    let _guard = Guard(&session);
    let mut reader = Reader {
        session: &session,
        stdout,
        lines: Lines::new(session.talk.longest_line()),
    };
    let why = reader.until_end(&pidfd).await;
    match why {
        Ok(End::Told) => {
            // Its stdin has ended; a plugin of good manners ends now.
            let _ = timeout(GRACE, pidfd.readable()).await;
            session.end(ended(None));
        }
        Ok(End::Exited) => session.exited(session.group.reap()),
        Ok(End::Closed) => match timeout(APART, pidfd.readable()).await {
            Ok(_) => session.exited(session.group.reap()),
            Err(_) => drop(session.end(ended(None))),
        },
        Err(error) => drop(session.end(error)),
    }
    // Killed by now, if nothing else; only the kernel can keep it.
    let _ = pidfd.readable().await;
    session.group.reap();
}

enum End {
    /// It ended.
    Exited,
    /// It closed its stdout.
    Closed,
    /// The host wants it to end, or has killed it.
    Told,
}

struct Reader<'s> {
    session: &'s Session,
    stdout: Receiver,
    lines: Lines,
}

impl Reader<'_> {
    async fn until_end(&mut self, pidfd: &AsyncFd<OwnedFd>) -> Result<End> {
        // Those who ask have this time too. But a plugin may stall when nobody waits any more.
        let mut patience = std::pin::pin!(sleep_until(self.session.patience_ends()));
        let mut late = false;
        loop {
            self.take_lines()?;
            tokio::select! {
                biased;
                () = self.session.over.notified() => return Ok(End::Told),
                ready = self.stdout.readable() => if !(ready.is_ok() && self.read()) {
                    return Ok(End::Closed);
                },
                _ = pidfd.readable() => {
                    self.session.group.kill();
                    self.read_last()?;
                    return Ok(End::Exited);
                }
                () = &mut patience => {
                    let ends = self.session.patience_ends();
                    if Instant::now() < ends {
                        patience.as_mut().reset(ends);
                        late = false;
                    } else if late {
                        return Err(stalled(self.session.stall()));
                    } else {
                        // Where it was us who were held up, what the plugin said meanwhile is
                        // read first.
                        late = true;
                        tokio::task::yield_now().await;
                    }
                }
            }
        }
    }

    /// What is left in the pipe of a plugin that has ended. Somebody who left its group may go on
    /// writing: that is nobody's answer.
    fn read_last(&mut self) -> Result<()> {
        for _ in 0..LAST_PIECES {
            match rustix::io::read(&self.stdout, self.lines.room()) {
                Ok(count @ 1..) => self.lines.came(count),
                _ => break,
            }
            self.take_lines()?;
        }
        Ok(())
    }

    /// Reads what there is. Whether more can come.
    fn read(&mut self) -> bool {
        match self.stdout.try_read(self.lines.room()) {
            Ok(count) => {
                self.lines.came(count);
                count > 0
            }
            Err(error) => matches!(error.kind(), Io::WouldBlock | Io::Interrupted),
        }
    }

    fn take_lines(&mut self) -> Result<()> {
        while let Some(line) = self.lines.next()? {
            if self.session.take(line)? {
                self.lines.set_limit(self.session.talk.longest_line());
            }
        }
        Ok(())
    }
}

struct Guard<'s>(&'s Session);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        // It is we who go, and not the plugin.
        self.0.close();
        self.0.end(ended(None));
    }
}
