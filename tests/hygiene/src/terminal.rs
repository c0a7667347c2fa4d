//! A terminal for a program to ask at, and a record of all that it showed.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use crate::program::{Running, wait_until};

/// A program at a terminal of its own.
pub struct Terminal {
    child: Running,
    keyboard: File,
    screen: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

impl Terminal {
    /// Starts a program whose streams and controlling terminal are a new terminal.
    ///
    /// # Panics
    /// Where there is no terminal to be had.
    pub fn start(mut command: Command) -> Self {
        let (mut master, slave) = (-1, -1);
        let mut slave: i32 = slave;
        // SAFETY: the two descriptors are written to, and nothing else is asked for.
        let opened = unsafe {
            libc::openpty(
                &mut master,
                &mut slave,
                std::ptr::null_mut(),
                std::ptr::null(),
                std::ptr::null(),
            )
        };
        assert_eq!(opened, 0, "{}", io::Error::last_os_error());
        // SAFETY: both are new and nothing else owns them.
        let (master, slave) = unsafe { (File::from_raw_fd(master), OwnedFd::from_raw_fd(slave)) };
        let stream = || Stdio::from(slave.try_clone().expect("a descriptor"));
        command.stdin(stream()).stdout(stream()).stderr(stream());
        let master_fd = master.as_raw_fd();
        // SAFETY: system calls only, between fork and exec.
        unsafe {
            command.pre_exec(move || {
                libc::close(master_fd);
                if libc::setsid() < 0 || libc::ioctl(0, libc::TIOCSCTTY, 0) < 0 {
                    return Err(io::Error::last_os_error());
                }
                Ok(())
            });
        }
        let child = Running::from(command.spawn().expect("started"));
        // What is left are the child's copies: its end is the screen's end.
        drop((slave, command));
        let screen = Arc::new(Mutex::new(Vec::new()));
        let (seen, mut output) = (screen.clone(), master.try_clone().expect("a descriptor"));
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = output.read(&mut buffer) {
                seen.lock()
                    .expect("no panic")
                    .extend_from_slice(&buffer[..read]);
            }
        });
        Self {
            child,
            keyboard: master,
            screen,
            reader,
        }
    }

    /// Waits until the screen shows `text` for the `times`-th time.
    ///
    /// # Panics
    /// Where it does not.
    #[track_caller]
    pub fn expect(&self, text: &str, times: usize) {
        let shown = || String::from_utf8_lossy(&self.screen.lock().expect("no panic")).into_owned();
        let found = wait_until(|| shown().matches(text).count() >= times);
        assert!(found, "no {text:?} in {:?}", shown());
    }

    /// Types.
    ///
    /// # Panics
    /// Where the terminal is gone.
    pub fn type_in(&mut self, keys: &[u8]) {
        self.keyboard.write_all(keys).expect("typed");
    }

    /// Waits for the program's end. What the screen showed, and how it ended.
    ///
    /// # Panics
    /// Where it does not end in time.
    #[track_caller]
    pub fn end(mut self) -> (ExitStatus, Vec<u8>) {
        let status = self.child.wait();
        self.reader.join().expect("no panic");
        let screen = self.screen.lock().expect("no panic").clone();
        (status, screen)
    }
}
