//! Runs a program and prints its peak resident memory, in KiB.
//!
//! A child begins its account with the memory of who started it, so that a benchmark that has grown
//! large sees itself in every small program. This one stays small.
#![expect(
    clippy::print_stdout,
    reason = "the number is what this program is for"
)]

use std::mem::MaybeUninit;
use std::process::{Command, Stdio};

fn main() {
    let mut words = std::env::args_os().skip(1);
    let program = words.next().expect("a program");
    let status = Command::new(program)
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .expect("it starts");
    assert!(status.success(), "{status}");
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the pointer is to a live local.
    let asked = unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, usage.as_mut_ptr()) };
    assert_eq!(asked, 0, "getrusage");
    // SAFETY: all bytes zero is a valid rusage, and the call has written a whole one.
    println!("{}", unsafe { usage.assume_init() }.ru_maxrss);
}
