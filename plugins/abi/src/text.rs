//! What every table is made of.

use core::ptr;

use crate::{MAGIC, MAJOR, MINOR};

/// How every table begins.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The size in bytes of the table as its writer knows it, this head included.
    pub size: usize,
    /// KEYHAUL_MAJOR, as the writer knows it.
    pub major: u16,
    /// KEYHAUL_MINOR, as the writer knows it.
    pub minor: u16,
    /// KEYHAUL_MAGIC.
    pub magic: u32,
}

impl Head {
    /// The head of a table of type `T`.
    pub const fn of<T>() -> Self {
        Self {
            size: size_of::<T>(),
            major: MAJOR,
            minor: MINOR,
            magic: MAGIC,
        }
    }
}

/// A text: UTF-8, not ended by a zero. Absent where `ptr` is null.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Str {
    /// Where it begins.
    pub ptr: *const u8,
    /// How many bytes it has.
    pub len: usize,
}

impl Str {
    /// No text.
    pub const ABSENT: Self = Self {
        ptr: ptr::null(),
        len: 0,
    };

    /// A text, which must live for as long as it is lent.
    pub const fn new(text: &str) -> Self {
        Self {
            ptr: text.as_ptr(),
            len: text.len(),
        }
    }

    /// A text, or none.
    pub const fn maybe(text: Option<&str>) -> Self {
        match text {
            Some(text) => Self::new(text),
            None => Self::ABSENT,
        }
    }
}

// SAFETY: it is two numbers. Whoever reads through the pointer vouches for what it points to.
unsafe impl Send for Str {}
// SAFETY: as above.
unsafe impl Sync for Str {}

/// A value's bytes. Whoever is lent them copies them into memory that is wiped, or nowhere.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Bytes {
    /// Where they begin.
    pub ptr: *const u8,
    /// How many there are.
    pub len: usize,
}

/// A name and a text. Names that a reader does not know it passes over: that is how this grows.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Pair {
    /// What it is about.
    pub name: Str,
    /// What holds.
    pub value: Str,
}
