//! Programs that do not outlive us, however we end.
//!
//! The kernel kills a child at the end of its parent, where the child has asked for it; and the parent
//! is the *thread* that started it. So each program has a thread of ours that starts it and stays.

use std::convert::Infallible;
use std::io;
use std::process::{Child, Command};
use std::sync::mpsc::{Sender, channel};
use std::thread;

/// Such a thread starts a program, and waits.
const STACK: usize = 256 * 1024;

/// The thread that started a program. It stays until this is dropped.
#[derive(Debug)]
pub(crate) struct Keeper {
    _stays: Sender<Infallible>,
}

/// Starts `command` from a thread of its own.
///
/// # Errors
/// Those of [`Command::spawn`].
pub(crate) fn spawn(mut command: Command) -> io::Result<(Child, Keeper)> {
    let (stays, over) = channel::<Infallible>();
    let (tell, told) = channel();
    let thread = thread::Builder::new()
        .name("plugin".to_owned())
        .stack_size(STACK);
    thread.spawn(move || {
        let child = command.spawn();
        drop(command);
        // Whoever asked waits for it.
        let _ = tell.send(child);
        // Nothing comes: it ends when the other side is gone.
        let _ = over.recv();
    })?;
    let lost = || io::Error::other("the thread that starts it has ended");
    let child = told.recv().map_err(|_| lost())??;
    Ok((child, Keeper { _stays: stays }))
}
