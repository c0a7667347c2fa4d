use std::io::{self, Read, Write};

use super::SecretBytes;
use super::arena::Block;
use crate::{Error, ErrorKind, Result};

/// Collects a secret whose length is not known beforehand.
///
/// It grows by moving into a larger locked block and wiping the one it leaves, so that no copy is
/// left behind, which a growing `Vec` cannot promise.
pub struct SecretWriter {
    block: Block,
    len: usize,
    limit: usize,
}

impl SecretWriter {
    /// A writer that takes at most `limit` bytes.
    pub fn with_limit(limit: usize) -> Self {
        Self {
            block: Block::zeroed(0),
            len: 0,
            limit,
        }
    }

    /// Appends `bytes`.
    ///
    /// # Errors
    /// `TooLarge` past the limit; nothing is appended then.
    pub fn push(&mut self, bytes: &[u8]) -> Result<()> {
        self.reserve(bytes.len())?;
        self.block.bytes_mut()[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
        Ok(())
    }

    /// Reads `input` to its end, straight into locked memory.
    ///
    /// # Errors
    /// `TooLarge` past the limit, `Unavailable` where reading fails.
    pub fn read_all(&mut self, input: &mut impl Read) -> Result<()> {
        loop {
            if self.len == self.block.bytes().len() {
                // At the limit, one byte more decides between the end and too much.
                if self.len == self.limit {
                    let mut probe = [0_u8; 1];
                    let read = read_some(input, &mut probe)?;
                    super::wipe(&mut probe);
                    return if read == 0 {
                        Ok(())
                    } else {
                        Err(self.too_large())
                    };
                }
                self.reserve(1)?;
            }
            match read_some(input, &mut self.block.bytes_mut()[self.len..])? {
                0 => return Ok(()),
                read => self.len += read,
            }
        }
    }

    /// How many bytes have come.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether none have.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes so far.
    pub fn expose(&self) -> &[u8] {
        &self.block.bytes()[..self.len]
    }

    /// The value, at its exact size.
    pub fn finish(self) -> SecretBytes {
        SecretBytes::copy_from(self.expose())
    }

    fn reserve(&mut self, more: usize) -> Result<()> {
        let needed = self
            .len
            .checked_add(more)
            .filter(|needed| *needed <= self.limit);
        let needed = needed.ok_or_else(|| self.too_large())?;
        if needed > self.block.bytes().len() {
            let size = needed
                .max(self.block.bytes().len() * 2)
                .max(256)
                .min(self.limit);
            let mut larger = Block::zeroed(size);
            larger.bytes_mut()[..self.len].copy_from_slice(&self.block.bytes()[..self.len]);
            self.block = larger;
        }
        Ok(())
    }

    fn too_large(&self) -> Error {
        Error::new(
            ErrorKind::TooLarge,
            format!("more than {} bytes", self.limit),
        )
    }
}

impl Write for SecretWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.push(bytes).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn read_some(input: &mut impl Read, buffer: &mut [u8]) -> Result<usize> {
    loop {
        match input.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => {
                return other.map_err(|error| {
                    Error::new(ErrorKind::Unavailable, "reading the value failed")
                        .with_source(error)
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_and_keeps_every_byte() {
        let bytes: Vec<u8> = (0..100_000_u32).map(|n| n as u8).collect();
        let mut writer = SecretWriter::with_limit(100_000);
        writer.read_all(&mut bytes.as_slice()).expect("fits");
        assert_eq!(writer.finish().expose(), bytes);
    }

    #[test]
    fn the_limit_is_exact() {
        let mut writer = SecretWriter::with_limit(3);
        writer.read_all(&mut b"abc".as_slice()).expect("fits");
        assert_eq!(
            writer.push(b"d").expect_err("full").kind(),
            ErrorKind::TooLarge
        );
        let mut writer = SecretWriter::with_limit(3);
        let error = writer
            .read_all(&mut b"abcd".as_slice())
            .expect_err("too long");
        assert_eq!(error.kind(), ErrorKind::TooLarge);
    }
}
