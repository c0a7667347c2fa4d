//! Lines out of a pipe, in locked memory.

use keyhaul_core::{SecretBytes, wipe};

use crate::error::broken;

/// What a buffer has at rest: most lines fit.
const AT_REST: usize = 64 * 1024;

/// Collects what comes out of a pipe and gives it out by lines. Lines can hold values, so what has
/// been given out is wiped, and the buffer never grows by a plain move.
pub(crate) struct Lines {
    buffer: SecretBytes,
    /// Where the line that is given out next begins.
    start: usize,
    /// How far a newline has been looked for.
    searched: usize,
    /// Where what has come ends.
    end: usize,
    limit: usize,
}

impl Lines {
    /// A buffer for lines of at most `limit` bytes, the newline not counted.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            buffer: SecretBytes::init_with(AT_REST, |_| {}),
            start: 0,
            searched: 0,
            end: 0,
            limit,
        }
    }

    /// Takes lines of at most `limit` bytes from now on.
    pub(crate) fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// The next whole line, without its newline. None where none is whole yet.
    ///
    /// # Errors
    /// `Internal` where the line is over the limit, whole or not.
    pub(crate) fn next(&mut self) -> keyhaul_core::Result<Option<&[u8]>> {
        let rest = &self.buffer.expose()[self.searched..self.end];
        let found = rest.iter().position(|byte| *byte == b'\n');
        let line_end = found.map_or(self.end, |at| self.searched + at);
        if line_end - self.start > self.limit {
            return Err(broken(format!(
                "it wrote a line of more than {} bytes",
                self.limit
            )));
        }
        if found.is_none() {
            self.searched = self.end;
            return Ok(None);
        }
        let line = self.start..line_end;
        self.start = line_end + 1;
        self.searched = self.start;
        Ok(Some(&self.buffer.expose()[line]))
    }

    /// Room for what comes next; lines given out before are wiped.
    pub(crate) fn room(&mut self) -> &mut [u8] {
        self.tidy();
        let len = self.buffer.len();
        if self.end == len {
            // A line that may still be within the limit, of which `next` has seen this much.
            let old = &self.buffer;
            let larger = (len * 2).min(self.limit + 1).max(len + 1);
            self.buffer = SecretBytes::init_with(larger, |bytes| {
                bytes[..len].copy_from_slice(old.expose());
            });
        }
        &mut self.buffer.expose_mut()[self.end..]
    }

    /// That `count` bytes have come, into the room given last.
    pub(crate) fn came(&mut self, count: usize) {
        self.end += count;
    }

    /// Moves what is left to the front and wipes the rest.
    fn tidy(&mut self) {
        if self.start == 0 {
            return;
        }
        let bytes = self.buffer.expose_mut();
        bytes.copy_within(self.start..self.end, 0);
        let left = self.end - self.start;
        wipe(&mut bytes[left..self.end]);
        self.searched -= self.start;
        (self.start, self.end) = (0, left);
        if left == 0 && self.buffer.len() > AT_REST {
            self.buffer = SecretBytes::init_with(AT_REST, |_| {});
        }
    }
}

#[cfg(test)]
mod tests {
    use keyhaul_core::ErrorKind;
    use proptest::prelude::*;

    use super::*;

    /// Feeds `bytes` in pieces of at most `piece` and gives the lines that come out.
    fn lines_of(bytes: &[u8], piece: usize, limit: usize) -> keyhaul_core::Result<Vec<Vec<u8>>> {
        let mut lines = Lines::new(limit);
        let mut out = Vec::new();
        let mut rest = bytes;
        loop {
            while let Some(line) = lines.next()? {
                out.push(line.to_vec());
            }
            if rest.is_empty() {
                return Ok(out);
            }
            let room = lines.room();
            let count = piece.min(room.len()).min(rest.len());
            room[..count].copy_from_slice(&rest[..count]);
            lines.came(count);
            rest = &rest[count..];
        }
    }

    #[test]
    fn a_line_may_have_as_many_bytes_as_the_limit_and_no_more() {
        for limit in [0, 5, AT_REST - 1, AT_REST, AT_REST + 1, 3 * AT_REST] {
            let mut line = vec![b'x'; limit];
            line.push(b'\n');
            let came = lines_of(&line, usize::MAX, limit).expect("within the limit");
            assert_eq!(came, [vec![b'x'; limit]]);
            line.insert(0, b'x');
            let error = lines_of(&line, usize::MAX, limit).expect_err("over it");
            assert_eq!(error.kind(), ErrorKind::Internal);
            // Output without end is refused as soon as it is over the limit.
            line.pop();
            assert!(lines_of(&line, usize::MAX, limit).is_err());
        }
    }

    #[test]
    fn what_was_given_out_is_wiped() {
        let mut lines = Lines::new(100);
        let bytes = b"hunter2\nhalf of the ne";
        lines.room()[..bytes.len()].copy_from_slice(bytes);
        lines.came(bytes.len());
        assert_eq!(lines.next().expect("a line"), Some(&b"hunter2"[..]));
        assert!(lines.next().expect("not whole").is_none());
        lines.room();
        let left = lines.buffer.expose();
        assert_eq!(&left[..14], b"half of the ne");
        assert!(left[14..].iter().all(|byte| *byte == 0));
    }

    proptest! {
        #[test]
        fn lines_come_out_whatever_the_pieces(
            text in proptest::collection::vec("[a-c]{0,40}", 0..20),
            piece in 1_usize..50,
        ) {
            let joined: String = text.iter().map(|line| format!("{line}\n")).collect();
            let came = lines_of(joined.as_bytes(), piece, 40).expect("within the limit");
            let came: Vec<_> = came.into_iter().map(|l| String::from_utf8(l).expect("text")).collect();
            prop_assert_eq!(came, text);
        }
    }
}
