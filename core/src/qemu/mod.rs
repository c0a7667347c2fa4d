//! QEMU: master keys, `secret` objects, and the command line that names them.
//!
//! QEMU knows a secret as an object whose data may be AES-256-CBC ciphertext under another secret,
//! the master key. keyhaul makes a [`MasterKey`] for one QEMU process, hands it over through a
//! [`channel`], and puts nothing but ciphertext into arguments.
//!
//! - [`cipher`]: the encryption that QEMU undoes.
//! - [`channel`]: how the master key gets to QEMU: pipe, file, kernel keyring.
//! - [`object`]: the two sorts of object in each of QEMU's dialects.
//! - [`option`]: QEMU's own `key=value,…` syntax.
//! - [`command_line`]: which words of a command are objects, who uses which, and the rewriting.
//!
//! The rules are those of QEMU's manual ("Providing secret data to QEMU") and of its source;
//! the tests hold them against the QEMU that is installed.

pub mod channel;
pub mod cipher;
pub mod command_line;
mod master_key;
pub mod object;
pub mod option;

pub use channel::{KeySource, Owner};
pub use cipher::{Ciphertext, encrypt};
pub use command_line::CommandLine;
pub use master_key::MasterKey;
pub use object::{Dialect, MasterObject, SecretObject};
