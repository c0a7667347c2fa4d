//! keyhaul's plugin for KMIP servers: the store of `keyhaul-kmip-store`, as a library to be loaded.
//!
//! It is a crate apart since it chooses an allocator. The store's values pass through the buffers of
//! TLS, which are wiped by nobody else: what a loaded library frees, the allocator of `keyhaul` never sees.

use keyhaul_core::WipeOnFree;
use keyhaul_kmip_store::KmipFactory;

#[global_allocator]
static ALLOCATOR: WipeOnFree = WipeOnFree;

keyhaul_plugin_sdk::export_plugin!(KmipFactory);
