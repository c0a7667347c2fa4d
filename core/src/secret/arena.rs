//! The locked memory that secret bytes live in.
//!
//! One region of 16 KiB is mapped when the first secret is made, locked, left out of core dumps and
//! wiped in forked children; further regions follow as needed. Blocks are multiples of 32 bytes,
//! found first-fit in a bitmap. A secret too large for that gets a mapping of its own. Locking is best
//! effort: where `RLIMIT_MEMLOCK` is used up, the memory works all the same and
//! [`protection`] says so.
//!
//! This is one of the few process-wide things in keyhaul. It is an allocator, and has no more
//! state than one: what is free.

use std::ptr::NonNull;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::mm::{Advice, MapFlags, ProtFlags};

use super::wipe;

const REGION: usize = 16 * 1024;
const GRANULE: usize = 32;
const GRANULES: usize = REGION / GRANULE;
/// Above this, a secret gets a mapping of its own.
const LARGEST_SHARED: usize = REGION / 4;

/// What protects the memory that secrets live in, for `check` and for the verbose log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// Locked against swap and left out of core dumps.
    Full,
    /// At least one region could not be locked, most often because `RLIMIT_MEMLOCK` is used up.
    Partial,
}

/// What protects the secrets made so far in this process.
pub fn protection() -> Protection {
    if DEGRADED.load(Ordering::Relaxed) {
        Protection::Partial
    } else {
        Protection::Full
    }
}

static DEGRADED: AtomicBool = AtomicBool::new(false);
static REGIONS: Mutex<Vec<Region>> = Mutex::new(Vec::new());

/// A block of locked memory, exclusively owned, wiped and given back when dropped.
pub(super) struct Block {
    start: NonNull<u8>,
    len: usize,
    home: Home,
}

#[derive(Clone, Copy)]
enum Home {
    /// No memory at all: the empty block.
    Nowhere,
    /// Granules of a shared region.
    Shared,
    /// A mapping of its own, of this many bytes.
    Own(usize),
    /// The heap, where the kernel refused a mapping.
    Heap,
}

// SAFETY: a block owns its memory exclusively; nothing else holds a pointer into it.
unsafe impl Send for Block {}
// SAFETY: shared access to a block only reads.
unsafe impl Sync for Block {}

impl Block {
    /// A zeroed block of exactly `len` bytes.
    pub(super) fn zeroed(len: usize) -> Self {
        if len == 0 {
            return Self {
                start: NonNull::dangling(),
                len,
                home: Home::Nowhere,
            };
        }
        let placed = if len <= LARGEST_SHARED {
            shared(len).map(|start| (start, Home::Shared))
        } else {
            let size = len.next_multiple_of(rustix::param::page_size());
            map_locked(size).map(|start| (start, Home::Own(size)))
        };
        let (start, home) = placed.unwrap_or_else(|| (heap(len), Home::Heap));
        Self { start, len, home }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: `start` is valid for `len` initialised bytes for as long as the block lives, and
        // dangling but aligned where `len` is 0.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `&mut self` makes it exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        wipe(self.bytes_mut());
        match self.home {
            Home::Nowhere => {}
            Home::Shared => {
                let mut regions = lock_regions();
                if let Some(region) = regions.iter_mut().find(|r| r.holds(self.start)) {
                    region.release(self.start, self.len);
                }
            }
            Home::Own(size) => {
                // SAFETY: this block made the mapping of `size` bytes and nothing points into it
                // any more. Unmapping also unlocks.
                let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), size) };
            }
            Home::Heap => {
                let slice = std::ptr::slice_from_raw_parts_mut(self.start.as_ptr(), self.len);
                // SAFETY: `heap` made it from a `Box<[u8]>` of this length.
                drop(unsafe { Box::from_raw(slice) });
            }
        }
    }
}

/// The regions, even where another thread panicked: the bitmap is only changed in single steps.
fn lock_regions() -> std::sync::MutexGuard<'static, Vec<Region>> {
    REGIONS
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn shared(len: usize) -> Option<NonNull<u8>> {
    let mut regions = lock_regions();
    if let Some(start) = regions.iter_mut().find_map(|region| region.take(len)) {
        return Some(start);
    }
    let mut region = Region::new()?;
    let start = region.take(len);
    regions.push(region);
    start
}

fn heap(len: usize) -> NonNull<u8> {
    DEGRADED.store(true, Ordering::Relaxed);
    let bytes = Box::leak(vec![0_u8; len].into_boxed_slice());
    NonNull::from(bytes).cast()
}

fn map_locked(size: usize) -> Option<NonNull<u8>> {
    // SAFETY: a fresh private anonymous mapping at an address of the kernel's choice.
    let start = unsafe {
        rustix::mm::mmap_anonymous(
            std::ptr::null_mut(),
            size,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::PRIVATE,
        )
    }
    .ok()?;
    // SAFETY: the range is the mapping just made.
    let locked = unsafe { rustix::mm::mlock(start, size) }.is_ok();
    // SAFETY: advice on the mapping just made; neither changes what this process reads.
    let advised = unsafe {
        rustix::mm::madvise(start, size, Advice::LinuxDontDump).is_ok()
            && rustix::mm::madvise(start, size, Advice::LinuxWipeOnFork).is_ok()
    };
    if !(locked && advised) {
        DEGRADED.store(true, Ordering::Relaxed);
    }
    NonNull::new(start.cast())
}

/// A mapped region and the bitmap of its granules in use. Never unmapped: the next secret comes.
struct Region {
    start: NonNull<u8>,
    used: [u64; GRANULES / 64],
}

// SAFETY: the region owns its mapping; the pointer is only used to compute blocks under the lock.
unsafe impl Send for Region {}

impl Region {
    fn new() -> Option<Self> {
        Some(Self {
            start: map_locked(REGION)?,
            used: [0; GRANULES / 64],
        })
    }

    fn holds(&self, block: NonNull<u8>) -> bool {
        let start = self.start.addr().get();
        (start..start + REGION).contains(&block.addr().get())
    }

    fn take(&mut self, len: usize) -> Option<NonNull<u8>> {
        let wanted = len.div_ceil(GRANULE);
        let mut run = 0;
        for granule in 0..GRANULES {
            run = if self.is_used(granule) { 0 } else { run + 1 };
            if run == wanted {
                let first = granule + 1 - wanted;
                for taken in first..=granule {
                    self.used[taken / 64] |= 1 << (taken % 64);
                }
                // SAFETY: `first` is a granule of this region, so the offset stays inside the mapping.
                return Some(unsafe { self.start.add(first * GRANULE) });
            }
        }
        None
    }

    fn release(&mut self, block: NonNull<u8>, len: usize) {
        let first = (block.addr().get() - self.start.addr().get()) / GRANULE;
        for granule in first..first + len.div_ceil(GRANULE) {
            self.used[granule / 64] &= !(1 << (granule % 64));
        }
    }

    fn is_used(&self, granule: usize) -> bool {
        self.used[granule / 64] >> (granule % 64) & 1 == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_do_not_overlap_and_come_back_zeroed() {
        let mut blocks: Vec<Block> = (1..200).map(|n| Block::zeroed(n * 7)).collect();
        for (n, block) in blocks.iter_mut().enumerate() {
            assert!(block.bytes().iter().all(|b| *b == 0));
            block.bytes_mut().fill(n as u8 | 1);
        }
        for (n, block) in blocks.iter().enumerate() {
            assert!(block.bytes().iter().all(|b| *b == n as u8 | 1));
        }
        drop(blocks);
        assert!(Block::zeroed(4000).bytes().iter().all(|b| *b == 0));
    }

    #[test]
    fn large_and_empty_blocks_work() {
        let mut large = Block::zeroed(1 << 20);
        large.bytes_mut()[(1 << 20) - 1] = 7;
        assert_eq!(large.bytes()[(1 << 20) - 1], 7);
        assert!(Block::zeroed(0).bytes().is_empty());
    }
}
