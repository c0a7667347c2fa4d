//! Programs that tests write and run.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// Writes a program that everybody may run.
///
/// Another process writes it. A file that we wrote is open in whatever another test is just starting,
/// until that has become its program, and what is open for writing is not run: "Text file busy".
///
/// # Panics
/// Where it cannot be written.
pub fn script(path: &Path, text: &str) {
    let mut child = install(Path::new("/dev/stdin"), path)
        .stdin(Stdio::piped())
        .spawn()
        .expect("install, of the core utilities");
    let mut input = child.stdin.take().expect("piped");
    input.write_all(text.as_bytes()).expect("read");
    drop(input);
    let status = child.wait().expect("a child");
    assert!(status.success(), "{}: {status}", path.display());
}

/// Copies a program to where everybody may run it, as [`script`] writes one.
///
/// # Panics
/// Where it cannot be copied.
pub fn copy_program(from: &Path, to: &Path) {
    let status = install(from, to).status();
    let status = status.expect("install, of the core utilities");
    assert!(status.success(), "{}: {status}", to.display());
}

fn install(from: &Path, to: &Path) -> Command {
    let mut command = Command::new("install");
    command.args(["-m", "0755"]).args([from, to]);
    command
}
