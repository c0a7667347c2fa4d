//! Asking a person at the terminal.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;

use keyhaul_core::{Error, ErrorKind, Result, SecretBytes, SecretWriter};
use nix::sys::signal::{SigSet, SigmaskHow};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr,
};

use crate::failure::{Failure, INTERRUPTED, Outcome};
use crate::process::PASSED_ON;

/// The longest line a prompt takes.
const MAX_LINE: usize = 64 * 1024;

/// Asks for a secret twice, without showing it.
pub fn new_secret(what: &str) -> Outcome<SecretBytes> {
    let terminal = Terminal::open()?;
    // Quiet before the first prompt and until after the second: who types or pastes at once is
    // neither shown nor cut.
    let quiet = Quiet::on(&terminal.0)?;
    let first = terminal.line(&format!("Value of {what}: "), &quiet)?;
    let second = terminal.line("The same again: ", &quiet)?;
    drop(quiet);
    if first != second {
        return Err(Error::new(
            ErrorKind::Conflict,
            "the two entries differ; nothing was stored",
        )
        .into());
    }
    Ok(first)
}

/// Asks for a secret that the other side knows, once, without showing it.
pub fn known_secret(what: &str) -> Outcome<SecretBytes> {
    let terminal = Terminal::open()?;
    let quiet = Quiet::on(&terminal.0)?;
    terminal.line(&format!("{what}: "), &quiet)
}

/// Asks a question that only `yes` answers.
pub fn confirmed(question: &str) -> Outcome<bool> {
    let terminal = Terminal::open()?;
    terminal.say(&format!("{question} [yes/no] "))?;
    let mut answer = Vec::new();
    let mut byte = [0];
    while answer.len() < 16 && (&terminal.0).read(&mut byte).is_ok_and(|read| read == 1) {
        if byte[0] == b'\n' {
            break;
        }
        answer.push(byte[0]);
    }
    Ok(answer.trim_ascii().eq_ignore_ascii_case(b"yes"))
}

struct Terminal(File);

impl Terminal {
    fn open() -> Result<Self> {
        let file = File::options()
            .read(true)
            .write(true)
            .open("/dev/tty")
            .map_err(|error| {
                Error::new(ErrorKind::InvalidConfig, "there is no terminal to ask at")
                    .with_source(error)
            })?;
        Ok(Self(file))
    }

    fn say(&self, text: &str) -> Result<()> {
        (&self.0)
            .write_all(text.as_bytes())
            .map_err(|error| Error::io("the terminal", error))
    }

    /// A line of a terminal that is quiet. Keys are read one by one so that breaking off with Ctrl-C
    /// cannot leave the terminal without its echo.
    fn line(&self, prompt: &str, quiet: &Quiet<'_>) -> Outcome<SecretBytes> {
        self.say(prompt)?;
        let mut line: Vec<SecretBytes> = Vec::new();
        let outcome = loop {
            if quiet.is_ending()? {
                break Err(Failure::silent(INTERRUPTED));
            }
            let mut key = SecretBytes::init_with(1, |_| {});
            match (&self.0).read(key.expose_mut()) {
                Ok(0) => break Err(Failure::silent(INTERRUPTED)),
                Err(error) => break Err(Error::io("the terminal", error).into()),
                Ok(_) => {}
            }
            match key.expose()[0] {
                b'\r' | b'\n' => break Ok(()),
                3 | 4 => break Err(Failure::silent(INTERRUPTED)),
                8 | 127 => backspace(&mut line),
                21 => line.clear(),
                _ if line.len() == MAX_LINE => {
                    break Err(
                        Error::new(ErrorKind::TooLarge, "more than 64 KiB at a prompt").into(),
                    );
                }
                _ => line.push(key),
            }
        };
        self.say("\n")?;
        outcome?;
        let mut value = SecretWriter::with_limit(MAX_LINE);
        for key in &line {
            value.push(key.expose())?;
        }
        Ok(value.finish())
    }
}

/// Takes back one character, not one byte of it.
fn backspace(line: &mut Vec<SecretBytes>) {
    while line.pop().is_some_and(|key| key.expose()[0] & 0xc0 == 0x80) {}
}

/// A terminal that shows nothing and gives every key at once; as before when dropped.
///
/// A signal that would end the process waits for that: it would leave a terminal without its echo.
struct Quiet<'a> {
    terminal: &'a File,
    before: Termios,
    signals: SignalFd,
    mask: SigSet,
}

impl<'a> Quiet<'a> {
    fn on(terminal: &'a File) -> Result<Self> {
        let failed = |error: rustix::io::Errno| Error::io("the terminal", error.into());
        let no_signals = |error: nix::Error| Error::io("the signals", error.into());
        let before = tcgetattr(terminal).map_err(failed)?;
        let mut quiet = before.clone();
        quiet.local_modes -= LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG;
        quiet.special_codes[SpecialCodeIndex::VMIN] = 1;
        quiet.special_codes[SpecialCodeIndex::VTIME] = 0;
        let ending = SigSet::from_iter(PASSED_ON.iter().copied());
        let signals = SignalFd::with_flags(&ending, SfdFlags::SFD_CLOEXEC).map_err(no_signals)?;
        let mask = ending
            .thread_swap_mask(SigmaskHow::SIG_BLOCK)
            .map_err(no_signals)?;
        // From here on, a failure gives everything back by dropping.
        let made = Self {
            terminal,
            before,
            signals,
            mask,
        };
        tcsetattr(terminal, OptionalActions::Flush, &quiet).map_err(failed)?;
        Ok(made)
    }

    /// Waits for a key, or for a signal that ends the process; whether it is the latter.
    fn is_ending(&self) -> Result<bool> {
        let signals = self.signals.as_fd();
        loop {
            let mut watched = [
                PollFd::new(self.terminal, PollFlags::IN),
                PollFd::from_borrowed_fd(signals, PollFlags::IN),
            ];
            match poll(&mut watched, None) {
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(Error::io("the terminal", error.into())),
                Ok(_) => return Ok(!watched[1].revents().is_empty()),
            }
        }
    }
}

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        let _ = tcsetattr(self.terminal, OptionalActions::Flush, &self.before);
        // Whatever has come meanwhile ends the process here.
        let _ = self.mask.thread_set_mask();
    }
}
