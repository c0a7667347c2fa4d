//! The heart of keyhaul: what a secret's name is, which store serves it, what a store promises,
//! and how QEMU gets the value.
//!
//! - [`Reference`]: how a VM's definition names a secret.
//! - [`Direct`]: a secret named by its place, where the policy allows it.
//! - [`SecretStore`]: the contract every place where secrets live fulfils.
//! - [`SecretBytes`]: a value in memory.
//! - [`qemu`]: master keys, their channels, `secret` objects and QEMU's command line.
//!
//! This crate knows no backend, no network and no plugin.

pub mod copy;
pub mod credential;
pub mod direct;
pub mod encoding;
mod error;
mod fields;
pub mod json;
pub mod law;
pub mod layers;
mod memory;
pub mod page;
mod path;
pub mod percent;
pub mod policy;
pub mod qemu;
mod quote;
pub mod random;
mod recipe;
pub mod reference;
pub mod registry;
pub mod resolver;
mod secret;
mod store;
mod store_ext;
pub mod trust;
mod words;

pub use direct::{Direct, Named, Wanted};
pub use encoding::Encoding;
pub use error::{Context, Error, ErrorKind, Operation, Result};
pub use memory::MemoryStore;
pub use path::SecretPath;
pub use policy::Policy;
pub use quote::{shell_quoted, typed};
pub use recipe::{Alphabet, Recipe};
pub use reference::{Field, Reference, Version};
pub use registry::{Registry, StoreConfig, StoreFactory};
pub use resolver::Resolver;
pub use secret::{
    Protection, SecretBytes, SecretWriter, WipeOnFree, protection, wipe, wiping_some_stack,
    wiping_stack,
};
pub use store::{
    Capabilities, Capability, DeleteOptions, Descriptor, GetOptions, IdempotencyId, Lease,
    ListOptions, Metadata, Page, PutMode, PutOptions, Remains, Request, Secret, SecretStore,
};
pub use store_ext::SecretStoreExt;
pub use words::{misleads, shown};
