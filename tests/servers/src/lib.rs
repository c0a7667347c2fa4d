//! Real servers for the tests, on loopback and free ports, gone when their handles are.

mod secret_service;

pub use secret_service::{SecretService, SessionBus};
