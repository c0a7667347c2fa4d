//! keyhaul on real QEMU: what the tests in `tests/` stand on.
//!
//! Nothing here is keyhaul's own code: the tests use the program that a person uses, and judge it
//! by what QEMU, the kernel and other programs say. Every wait has a limit, every process that is
//! started is ended, and a program that is missing fails the test with the command that installs it.

mod certificates;
mod disk;
mod guest;
mod http;
mod objects;
mod process;
mod programs;
mod qmp;
mod rfb;
mod running;
mod site;
mod terminal;
pub mod vault;
mod vm;

pub use certificates::Certificates;
pub use disk::{
    Disk, PASSPHRASE, PATTERN, WRONG_PASSPHRASE, make_volume, read_command, reads_pattern,
};
pub use guest::guest_words;
pub use http::PasswordServer;
pub use objects::opened;
pub use process::{Finished, LIMIT, Process, argv, children, environ, finish, finish_with, until};
pub use programs::{keyhaul, plugin, program};
pub use qmp::Qmp;
pub use rfb::vnc_login;
pub use running::Running;
pub use site::Site;
pub use terminal::{AtTerminal, Step, at_terminal};
pub use vm::Vm;
