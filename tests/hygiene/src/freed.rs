//! An allocator that looks through every block that is given back.
//!
//! Made the global allocator of a test binary, it tells how often code gives memory back with a
//! secret in it. A block that grows counts as moved and given back, which it may be.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// How long the pieces are that are looked for.
const PIECE: usize = 12;
const MOST: usize = 64;

/// The allocator.
pub struct Scanning {
    pieces: UnsafeCell<[[u8; PIECE]; MOST]>,
    used: AtomicUsize,
    hits: AtomicUsize,
    blocks: AtomicUsize,
    turn: Mutex<()>,
}

// SAFETY: the pieces are written to only while none is used, by whoever holds the turn.
unsafe impl Sync for Scanning {}

/// What was given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freed {
    /// Blocks with a piece of the secret in them.
    pub hits: usize,
    /// Blocks in all.
    pub blocks: usize,
}

impl Scanning {
    /// An allocator that looks for nothing yet.
    pub const fn new() -> Self {
        Self {
            pieces: UnsafeCell::new([[0; PIECE]; MOST]),
            used: AtomicUsize::new(0),
            hits: AtomicUsize::new(0),
            blocks: AtomicUsize::new(0),
            turn: Mutex::new(()),
        }
    }

    /// How many blocks were given back with one of `texts` in them, or a longer piece of one, while
    /// `work` ran. One `work` at a time.
    ///
    /// # Panics
    /// Where a text is too short to be told from noise, or there are too many.
    pub fn during(&self, texts: &[&[u8]], work: impl FnOnce()) -> Freed {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        // Of every 23 bytes in a row, some are a whole piece.
        let pieces = texts.iter().flat_map(|text| text.chunks_exact(PIECE));
        let mut used = 0;
        for piece in pieces {
            assert!(used < MOST, "too many pieces");
            // SAFETY: nobody reads while `used` is 0, and the turn is ours.
            unsafe { (*self.pieces.get())[used].copy_from_slice(piece) };
            used += 1;
        }
        assert!(used > 0, "nothing to look for");
        self.hits.store(0, Ordering::SeqCst);
        self.blocks.store(0, Ordering::SeqCst);
        self.used.store(used, Ordering::SeqCst);
        work();
        self.used.store(0, Ordering::SeqCst);
        Freed {
            hits: self.hits.load(Ordering::SeqCst),
            blocks: self.blocks.load(Ordering::SeqCst),
        }
    }

    /// # Safety
    /// `block` is valid for `len` bytes.
    unsafe fn look(&self, block: *const u8, len: usize) {
        let used = self.used.load(Ordering::SeqCst);
        if used == 0 {
            return;
        }
        self.blocks.fetch_add(1, Ordering::SeqCst);
        // SAFETY: pieces up to `used` were written before it was set and stay as they are.
        let pieces = unsafe { &(&*self.pieces.get())[..used] };
        // SAFETY: the block is valid for `len` bytes; its bytes may never have been written, which
        // C's memmem reads without caring.
        let found = |piece: &[u8; PIECE]| unsafe {
            !libc::memmem(block.cast(), len, piece.as_ptr().cast(), PIECE).is_null()
        };
        if pieces.iter().any(found) {
            self.hits.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl Default for Scanning {
    fn default() -> Self {
        Self::new()
    }
}

// SAFETY: every block comes from and goes back to `System` with the layout it was made with, and
// is only read before.
unsafe impl GlobalAlloc for Scanning {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // Zeroed, so that what an earlier owner left is not taken for this one's.
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the block is valid until it is given back below.
        unsafe { self.look(block, layout.size()) };
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller promises that `size` with this alignment is a valid layout.
        let moved_layout = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        // SAFETY: as the caller promised, `size` is not zero.
        let moved = unsafe { self.alloc(moved_layout) };
        if !moved.is_null() {
            // SAFETY: both blocks are valid for the smaller of the two sizes, and distinct.
            unsafe { block.copy_to_nonoverlapping(moved, layout.size().min(size)) };
            // SAFETY: the old block is the caller's to give up once its content has moved.
            unsafe { self.dealloc(block, layout) };
        }
        moved
    }
}
