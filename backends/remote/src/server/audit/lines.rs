//! A file's lines, read without moving its offset.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::chain::Line;

/// No record is as long: what is, is none, and is not held in memory as a whole.
const LONGEST: usize = 1024 * 1024;
const CHUNK: usize = 64 * 1024;

/// Reads the lines of a part of a file.
pub(super) struct Lines<'a> {
    file: &'a File,
    buffer: Vec<u8>,
    /// Where the buffer's unread part begins.
    start: usize,
    /// Where in the file that is.
    at: u64,
    end: u64,
}

/// A line, and whether it has its end.
pub(super) struct Found<'a> {
    pub line: &'a [u8],
    /// Where in the file it begins.
    pub at: u64,
    pub whole: bool,
}

impl<'a> Lines<'a> {
    pub fn new(file: &'a File, at: u64, end: u64) -> Self {
        Self {
            file,
            buffer: Vec::new(),
            start: 0,
            at,
            end,
        }
    }

    /// The next line, without its end. One that is too long comes in pieces, none of them a record.
    pub fn next(&mut self) -> io::Result<Option<Found<'_>>> {
        let mut seen = self.start;
        let newline = loop {
            let found = self.buffer[seen..].iter().position(|byte| *byte == b'\n');
            if let Some(found) = found {
                break Some(seen + found);
            }
            seen = self.buffer.len();
            if seen - self.start >= LONGEST || !self.fill()? {
                break None;
            }
            seen -= self.start;
            self.start = 0;
        };
        let (start, at) = (self.start, self.at);
        let stop = newline.unwrap_or(self.buffer.len());
        let taken = stop - start + usize::from(newline.is_some());
        if taken == 0 {
            return Ok(None);
        }
        self.start += taken;
        self.at += taken as u64;
        Ok(Some(Found {
            line: &self.buffer[start..stop],
            at,
            whole: newline.is_some(),
        }))
    }

    /// Reads on, moving what is unread to the buffer's front; false at the end.
    fn fill(&mut self) -> io::Result<bool> {
        let unread = self.buffer.len() - self.start;
        let from = self.at + unread as u64;
        let want = CHUNK.min(usize::try_from(self.end.saturating_sub(from)).unwrap_or(CHUNK));
        if want == 0 {
            return Ok(false);
        }
        let mut chunk = vec![0; want];
        let read = loop {
            match self.file.read_at(&mut chunk, from) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        if read == 0 {
            return Ok(false);
        }
        self.buffer.drain(..self.start);
        self.buffer.extend_from_slice(&chunk[..read]);
        Ok(true)
    }
}

/// Where the records after number `after` begin, in a file of whole records up to `end`: found by
/// halving, so that the size of the file does not matter.
pub(super) fn seek(file: &File, after: u64, end: u64) -> io::Result<u64> {
    let (mut low, mut high) = (0, end);
    while high - low > CHUNK as u64 {
        let middle = low + (high - low) / 2;
        let mut lines = Lines::new(file, middle, end);
        // What begins in the middle is a piece of a line.
        lines.next()?;
        match lines.next()? {
            Some(found) if Line::parse(found.line).is_some_and(|line| line.sequence <= after) => {
                if found.at >= high {
                    break;
                }
                low = found.at;
            }
            _ => high = middle,
        }
    }
    let mut lines = Lines::new(file, low, end);
    while let Some(found) = lines.next()? {
        if Line::parse(found.line).is_some_and(|line| line.sequence > after) {
            return Ok(found.at);
        }
    }
    Ok(end)
}

/// The length of a file's whole lines, with which it ends but for a torn one.
pub(super) fn whole_length(file: &File) -> io::Result<u64> {
    let mut end = file.metadata()?.len();
    let mut chunk = vec![0; CHUNK];
    while end > 0 {
        let size = CHUNK.min(usize::try_from(end).unwrap_or(CHUNK));
        let from = end - size as u64;
        file.read_exact_at(&mut chunk[..size], from)?;
        if let Some(last) = chunk[..size].iter().rposition(|byte| *byte == b'\n') {
            return Ok(from + last as u64 + 1);
        }
        end = from;
    }
    Ok(0)
}
