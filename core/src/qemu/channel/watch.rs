use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};

use crate::{Error, Result};

/// Tells when a file has been read and closed: the moment from which the key file is not needed.
///
/// Its descriptor becomes readable when there is something to ask [`was_read`](Self::was_read)
/// about, so that a caller can wait for it beside a child process, with a limit.
#[derive(Debug)]
pub struct ReadWatch {
    queue: OwnedFd,
    accessed: bool,
    closed: bool,
}

impl ReadWatch {
    /// Watches `file`, from now on.
    ///
    /// # Errors
    /// `Unavailable` where the user's share of watches (`fs.inotify.max_user_instances`) is used
    /// up.
    pub(super) fn new(file: &Path) -> Result<Self> {
        let failed = |error: rustix::io::Errno| {
            Error::io("watching the key file", error.into())
                .with_advice("raise the sysctl fs.inotify.max_user_instances")
        };
        let queue = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).map_err(failed)?;
        inotify::add_watch(&queue, file, WatchFlags::ACCESS | WatchFlags::CLOSE_NOWRITE)
            .map_err(failed)?;
        Ok(Self {
            queue,
            accessed: false,
            closed: false,
        })
    }

    /// Whether somebody has read the file and closed it again. Never waits.
    pub fn was_read(&mut self) -> bool {
        let mut buffer = [MaybeUninit::uninit(); 1024];
        let mut events = Reader::new(&self.queue, &mut buffer);
        while let Ok(event) = events.next() {
            let events = event.events();
            self.accessed |= events.contains(ReadFlags::ACCESS);
            // Opened, and closed without a read: somebody only looked.
            self.closed |= self.accessed && events.contains(ReadFlags::CLOSE_NOWRITE);
        }
        self.closed
    }
}

impl AsFd for ReadWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.queue.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use super::*;

    #[test]
    fn reading_counts_and_only_opening_does_not() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("key");
        fs::write(&path, b"0123").expect("written");
        let mut watch = ReadWatch::new(&path).expect("watched");
        assert!(!watch.was_read());
        drop(File::open(&path).expect("opened"));
        assert!(!watch.was_read());
        fs::read(&path).expect("read");
        assert!(watch.was_read());
        assert!(watch.was_read());
    }
}
