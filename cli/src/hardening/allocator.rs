//! All that the program frees is wiped first.

use keyhaul_core::WipeOnFree;

#[global_allocator]
static ALLOCATOR: WipeOnFree = WipeOnFree;
