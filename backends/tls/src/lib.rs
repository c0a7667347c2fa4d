//! What backends over TLS share: the provider of cryptography, certificates and keys in PEM, and
//! the way to the error of TLS below others.
//!
//! What an error says of a server, and which setting mends it, is each backend's own.

mod client;
mod pem;
mod source;

use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{default_provider, kx_group};

pub use client::Client;
pub use pem::{certificates, invalid, key, key_text, read};
pub use source::find;

/// aws-lc-rs, with the hybrid post-quantum key exchange first: who records the traffic today does
/// not read it with tomorrow's machine.
pub fn provider() -> CryptoProvider {
    CryptoProvider {
        kx_groups: vec![
            kx_group::X25519MLKEM768,
            kx_group::X25519,
            kx_group::SECP256R1,
            kx_group::SECP384R1,
        ],
        ..default_provider()
    }
}
