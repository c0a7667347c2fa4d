//! An allocator that wipes what it frees.
//!
//! Secrets of our own live in locked memory and wipe themselves. The copies that other people's
//! code makes, in parsers, buffers and codecs, do not: wiping every block that is freed is the only
//! cure for those. It is for programs, and for plugins that are libraries, to choose; never for a
//! library that these are made of.

use std::alloc::{GlobalAlloc, Layout, System};

/// The system's allocator, which wipes each block before it is given back.
///
/// ```
/// #[global_allocator]
/// static ALLOCATOR: keyhaul_core::WipeOnFree = keyhaul_core::WipeOnFree;
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct WipeOnFree;

// SAFETY: every block comes from and goes back to `System` with the layout it was made with; a
// block is only written to before it is freed, when nobody may use it any more.
unsafe impl GlobalAlloc for WipeOnFree {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // Through the pointer: a slice would promise bytes that were all written once.
        // SAFETY: `block` is valid for `layout.size()` bytes until it is given back below.
        unsafe { libc::explicit_bzero(block.cast(), layout.size()) };
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // `System.realloc` may move a block and free the old one unwiped: move it here instead.
        // SAFETY: the caller promises that `size` with this alignment is a valid layout.
        let moved_layout = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        // SAFETY: as the caller promised, `size` is not zero.
        let moved = unsafe { System.alloc(moved_layout) };
        if !moved.is_null() {
            // SAFETY: both blocks are valid for the smaller of the two sizes, and distinct.
            unsafe { block.copy_to_nonoverlapping(moved, layout.size().min(size)) };
            // SAFETY: the old block is the caller's to give up once its content has moved.
            unsafe { self.dealloc(block, layout) };
        }
        moved
    }
}
