//! The memory of another process, through `/proc/PID/mem`.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
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
    scan_but(pid, &(0..0), needles)
}

/// The same, save for a range of addresses.
///
/// # Errors
/// As [`scan`].
pub fn scan_but(pid: u32, but: &Range<u64>, needles: &[&Needle]) -> io::Result<Scanned> {
    let memory = File::open(format!("/proc/{pid}/mem"))?;
    let mut scanned = Scanned::default();
    for mapping in mappings(pid)? {
        if mapping.mode.as_bytes()[1] == b'w' {
            scanned.mappings += 1;
            mapping.scan(&memory, but, needles, &mut scanned)?;
        }
    }
    Ok(scanned)
}

/// Where a process has the environment it was started with.
///
/// # Errors
/// Where it has ended or may not be read.
pub fn environment(pid: u32) -> io::Result<Range<u64>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, the second field, is in parentheses and can hold anything. `man 5 proc_pid_stat`
    // numbers env_start 50 and env_end 51.
    let behind = stat.rsplit_once(')').map(|(_, behind)| behind);
    let mut fields = behind.unwrap_or_default().split_whitespace().skip(47);
    let mut next = || fields.next().and_then(|field| field.parse().ok());
    match (next(), next()) {
        (Some(start), Some(end)) if start < end => Ok(start..end),
        _ => Err(io::Error::other("no environment in its stat")),
    }
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

    fn scan(
        &self,
        memory: &File,
        but: &Range<u64>,
        needles: &[&Needle],
        to: &mut Scanned,
    ) -> io::Result<()> {
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
            let within = |address: u64| {
                let offset = usize::try_from(address.saturating_sub(at)).unwrap_or(usize::MAX);
                offset.min(read)
            };
            buffer[within(but.start)..within(but.end)].fill(0);
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

    #[test]
    fn the_environment_is_where_the_kernel_says() {
        crate::need_root();
        let needle = Needle::canary();
        let text = String::from_utf8(needle.bytes().to_vec()).expect("letters");
        let mut child = Command::new("sleep")
            .arg("60")
            .env("ONLY_HERE", text)
            .spawn()
            .expect("sleep");
        let pid = child.id();
        let arguments = || crate::process::arguments(pid);
        assert!(crate::program::wait_until(|| arguments()
            .first()
            .is_some_and(|word| word == "sleep")));
        let everywhere = scan(pid, &[&needle]).expect("readable by root");
        let range = environment(pid).expect("a process of ours");
        let elsewhere = scan_but(pid, &range, &[&needle]).expect("readable by root");
        child.kill().expect("killed");
        child.wait().expect("ended");
        assert_eq!(everywhere.finds.len(), 1, "{everywhere:?}");
        assert_eq!(elsewhere.finds, []);
    }

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
