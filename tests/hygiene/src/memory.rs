//! The memory of another process, through `/proc/PID/mem`.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;

use crate::{Find, Needle, search};

const CHUNK: usize = 1 << 20;

/// A stretch of a process's address space.
#[derive(Clone, Debug)]
pub struct Mapping {
    /// Where it begins.
    pub start: u64,
    /// Where it ends.
    pub end: u64,
    /// As `rw-p`.
    pub mode: String,
    /// What it maps, where it has a name.
    pub name: String,
}

/// What was looked through.
#[derive(Debug, Default)]
pub struct Scanned {
    /// What was found.
    pub finds: Vec<Find>,
    /// How many mappings there were.
    pub mappings: usize,
    /// How many bytes.
    pub bytes: u64,
}

/// Looks through all memory that a process can write: heap, stacks, statics, anonymous mappings.
///
/// # Errors
/// Where the memory cannot be read: `EACCES` or `EPERM` without the right to trace it.
pub fn scan(pid: u32, needles: &[&Needle]) -> io::Result<Scanned> {
    let memory = File::open(format!("/proc/{pid}/mem"))?;
    let mut scanned = Scanned::default();
    for mapping in mappings(pid)? {
        if mapping.mode.as_bytes()[1] == b'w' {
            scanned.mappings += 1;
            mapping.scan(&memory, needles, &mut scanned)?;
        }
    }
    Ok(scanned)
}

/// The address space of a process.
///
/// # Errors
/// Where it has ended or may not be read.
pub fn mappings(pid: u32) -> io::Result<Vec<Mapping>> {
    let text = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    Ok(text.lines().filter_map(Mapping::parse).collect())
}

impl Mapping {
    /// Reads `55d0-55e0 rw-p 00000000 00:00 0 [heap]`.
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        Some(Self {
            start: u64::from_str_radix(start, 16).ok()?,
            end: u64::from_str_radix(end, 16).ok()?,
            mode: words.next()?.to_owned(),
            name: words.nth(3).unwrap_or("anonymous").to_owned(),
        })
    }

    fn scan(&self, memory: &File, needles: &[&Needle], to: &mut Scanned) -> io::Result<()> {
        let overlap = needles
            .iter()
            .map(|needle| needle.overlap())
            .max()
            .unwrap_or(0);
        let mut buffer = vec![0; CHUNK + overlap];
        let mut at = self.start;
        while at < self.end {
            let wanted = buffer
                .len()
                .min(usize::try_from(self.end - at).unwrap_or(CHUNK));
            let read = match memory.read_at(&mut buffer[..wanted], at) {
                Ok(read) => read,
                // Pages that no file stands behind any more, or mapped for a device.
                Err(error) if error.raw_os_error() == Some(libc::EIO) => return Ok(()),
                Err(error) => return Err(error),
            };
            if read == 0 {
                break;
            }
            let place = format!("memory at {at:#x} in {} {}", self.mode, self.name);
            to.finds.extend(search(&place, &buffer[..read], needles));
            to.bytes += read as u64;
            let last = at + read as u64 >= self.end;
            at += if last {
                read
            } else {
                read.saturating_sub(overlap).max(1)
            } as u64;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::process::{Command, Stdio};

    use super::*;

    /// python3 that reads a line, says so, and waits for another: with the line kept, or without
    /// ever having had one.
    #[test]
    fn a_process_that_holds_a_secret_is_told_from_one_that_does_not() {
        crate::need_root();
        let needle = Needle::canary();
        for holds in [true, false] {
            let mut child = Command::new("python3")
                .args(["-c", "import sys\nkept = sys.stdin.readline()\nprint('read', flush=True)\nsys.stdin.readline()"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .expect("python3");
            let mut input = child.stdin.take().expect("piped");
            let line = if holds { needle.bytes() } else { b"nothing" };
            input.write_all(&[line, b"\n"].concat()).expect("written");
            let mut answer = String::new();
            let mut output = BufReader::new(child.stdout.take().expect("piped"));
            output.read_line(&mut answer).expect("answered");
            let scanned = scan(child.id(), &[&needle]).expect("readable");
            drop(input);
            child.wait().expect("ended");
            assert_eq!(!scanned.finds.is_empty(), holds);
            assert!(scanned.bytes > 1 << 20 && scanned.mappings > 5);
        }
    }
}
