//! Real servers for the tests, on loopback and free ports, gone when their handles are.
//! And programs that tests write, where nothing else that a test starts comes between.
//!
//! A fixture that cannot start panics with the reason and the server's own log: a test that needs
//! a server and has none fails. Starting a development server takes a fifth of a second, so that a
//! test file best shares one ([`std::sync::OnceLock`]) and gives each test a mount or a namespace of its own.
//!
//! ```no_run
//! use std::sync::OnceLock;
//! use keyhaul_servers::OpenBao;
//!
//! fn server() -> &'static OpenBao {
//!     static SERVER: OnceLock<OpenBao> = OnceLock::new();
//!     SERVER.get_or_init(OpenBao::dev)
//! }
//! ```

mod backend;
mod certificates;
mod curl;
mod daemon;
mod key_service;
mod openbao;
mod program;
mod proxy;
mod pykmip;
mod secret_service;
mod wait;

pub use backend::{Backend, Medium, Place};
pub use certificates::{Authority, Issued};
pub use curl::Reply;
pub use daemon::Daemon;
pub use key_service::{Identity, KeyService};
pub use openbao::{Certificate, Cluster, OpenBao, Setup, program as bao};
pub use program::{copy_program, script};
pub use proxy::{Mode, Proxy};
pub use pykmip::{KmipRule, PyKmip};
pub use secret_service::{SecretService, SessionBus};
pub use wait::{dead_socket, eventually, free_port, two_free_ports};
