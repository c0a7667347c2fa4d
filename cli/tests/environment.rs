//! What the environment can do to the program: signals that are ignored or come at a bad moment,
//! streams that take nothing, programs that are not there.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};
use tempfile::TempDir;

/// In seconds. No command of these tests takes a tenth of it.
const LIMIT: u32 = 60;

/// A user's home with the embedded default's store and one secret.
struct Home(TempDir);

impl Home {
    fn new() -> Self {
        let home = Self(tempfile::tempdir().expect("folder"));
        let value = home.path("value");
        fs::write(&value, "hunter2").expect("written");
        let done = output(home.keyhaul(&["set", "web01/root", "--from"]).arg(&value));
        assert!(done.status.success(), "{}", words(&done));
        home
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn keyhaul(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_keyhaul"));
        command
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.0.path())
            .stdin(Stdio::null());
        // What hangs is ended, and its test fails.
        let limit = || {
            // SAFETY: it reads and writes no memory of ours.
            unsafe { libc::alarm(LIMIT) };
            Ok(())
        };
        // SAFETY: one system call between fork and exec.
        unsafe { command.pre_exec(limit) };
        command
    }

    /// A folder for key files that QEMU's users can pass through.
    fn runtime(&self) -> PathBuf {
        fs::set_permissions(self.0.path(), PermissionsExt::from_mode(0o711)).expect("mode");
        let runtime = self.path("runtime");
        fs::create_dir(&runtime).expect("made");
        fs::set_permissions(&runtime, PermissionsExt::from_mode(0o711)).expect("mode");
        runtime
    }
}

#[test]
fn a_program_is_waited_for_where_the_end_of_children_is_ignored() {
    let home = Home::new();
    let ignoring = |arguments: &[&str]| {
        let mut command = home.keyhaul(arguments);
        let ignore = || {
            let action = nix::sys::signal::SigHandler::SigIgn;
            // SAFETY: to ignore a signal runs no handler.
            unsafe { nix::sys::signal::signal(nix::sys::signal::SIGCHLD, action) }?;
            Ok(())
        };
        // SAFETY: one system call between fork and exec.
        unsafe { command.pre_exec(ignore) };
        output(&mut command)
    };
    let done = ignoring(&["run", "--", "sh", "-c", "exit 7"]);
    assert_eq!(done.status.code(), Some(7), "{}", words(&done));

    // The program itself is started as it would have been without keyhaul.
    let ignored = |done: &Output| {
        let text = String::from_utf8_lossy(&done.stdout);
        let mask = text.split_whitespace().last().expect("a mask").to_owned();
        u64::from_str_radix(&mask, 16).expect("hex") >> (libc::SIGCHLD - 1) & 1 == 1
    };
    let look = ["run", "--", "grep", "SigIgn", "/proc/self/status"];
    assert!(ignored(&ignoring(&look)));
    assert!(!ignored(&output(&mut home.keyhaul(&look))));
}

#[test]
fn a_program_that_a_real_time_signal_ends_has_a_status() {
    let home = Home::new();
    let done = output(&mut home.keyhaul(&["run", "--", "sh", "-c", "kill -40 $$"]));
    assert_eq!(done.status.code(), Some(168), "{}", words(&done));
}

#[test]
fn a_log_that_nobody_takes_stops_nothing() {
    let home = Home::new();
    let full = File::options()
        .write(true)
        .open("/dev/full")
        .expect("there");
    let mut command = home.keyhaul(&["-vvv", "get", "web01/root"]);
    let done = output(command.stderr(full));
    assert!(done.status.success());
    assert_eq!(done.stdout, b"hunter2");
}

#[test]
fn objects_that_nobody_reads_leave_no_key_behind() {
    let home = Home::new();
    let runtime = home.runtime();
    let (read, write) = std::io::pipe().expect("pipe");
    drop(read);
    let mut command = home.keyhaul(&["resolve", "web01/root", "--runtime-dir"]);
    let done = output(command.arg(&runtime).stdout(write));
    assert!(!done.status.success());
    assert_eq!(folders(&runtime), 0);

    let mut command = home.keyhaul(&["resolve", "web01/root", "--runtime-dir"]);
    let done = output(command.arg(&runtime));
    assert!(done.status.success(), "{}", words(&done));
    assert_eq!(folders(&runtime), 1);
}

#[test]
fn a_program_that_is_not_there_leaves_no_key_behind() {
    let home = Home::new();
    let runtime = home.runtime();
    for program in ["no-such-program", "/no/such/program"] {
        let mut command = home.keyhaul(&["run", "--exec", "--user", "nobody", "--keep-key"]);
        command
            .args(["--channel", "file", "--runtime-dir"])
            .arg(&runtime);
        command.args(["--", program, "-object", "secret,id=a,ref=web01/root"]);
        let done = output(&mut command);
        assert_eq!(done.status.code(), Some(125));
        assert!(
            words(&done).contains("there is no program"),
            "{}",
            words(&done)
        );
        assert_eq!(folders(&runtime), 0);
    }
}

#[test]
fn a_policy_that_cannot_be_looked_at_is_not_passed_over() {
    let home = Home::new();
    let folder = home.path("config");
    symlink(&folder, &folder).expect("a link to itself");
    let mut command = home.keyhaul(&["list"]);
    let done = output(command.env("XDG_CONFIG_HOME", &folder));
    assert_eq!(done.status.code(), Some(14), "{}", words(&done));
    // Without the link, the default policy holds.
    fs::remove_file(&folder).expect("removed");
    let done = output(home.keyhaul(&["list"]).env("XDG_CONFIG_HOME", &folder));
    assert_eq!(done.stdout, b"web01/root\n", "{}", words(&done));
}

#[test]
fn a_prompt_that_a_signal_ends_gives_the_terminal_back() {
    let home = Home::new();
    let (mut child, terminal) = at_a_terminal(home.keyhaul(&["set", "web01/vnc"]));
    until_said(&terminal, "Value of");
    assert!(!echoes(&terminal));
    let pid = Pid::from_child(&child);
    kill_process(pid, Signal::TERM).expect("sent");
    let status = child.wait().expect("ended");
    assert_eq!(status.signal(), Some(libc::SIGTERM));
    assert!(echoes(&terminal));
}

#[test]
fn nobody_is_hurried_at_a_prompt() {
    let home = Home::new();
    let command = home.keyhaul(&["set", "web01/vnc", "--deadline", "2s"]);
    let (mut child, mut terminal) = at_a_terminal(command);
    until_said(&terminal, "Value of");
    // The time itself is what has to pass.
    std::thread::sleep(Duration::from_millis(2100));
    terminal.write_all(b"s3cret\n").expect("typed");
    until_said(&terminal, "again");
    terminal.write_all(b"s3cret\n").expect("typed");
    until_said(&terminal, "stored");
    assert!(child.wait().expect("ended").success());
}

/// Starts a command with a new terminal as its own.
fn at_a_terminal(mut command: Command) -> (Child, File) {
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC);
    let terminal = terminal.expect("a terminal");
    grantpt(&terminal).expect("granted");
    unlockpt(&terminal).expect("unlocked");
    let name = ptsname(&terminal, Vec::new()).expect("named");
    let open = || {
        let name = name.to_str().expect("UTF-8");
        File::options()
            .read(true)
            .write(true)
            .open(name)
            .expect("opened")
    };
    command.stdin(open()).stdout(open()).stderr(open());
    let own = || {
        rustix::process::setsid()?;
        rustix::process::ioctl_tiocsctty(std::io::stdin())?;
        Ok(())
    };
    // SAFETY: system calls alone between fork and exec.
    unsafe { command.pre_exec(own) };
    let child = command.spawn().expect("keyhaul");
    (child, File::from(terminal))
}

/// Reads what the terminal shows until it has shown `wanted`.
fn until_said(mut terminal: &File, wanted: &str) {
    let mut shown = Vec::new();
    let mut byte = [0];
    while !String::from_utf8_lossy(&shown).contains(wanted) {
        terminal.read_exact(&mut byte).unwrap_or_else(|error| {
            panic!("{error} after {}", String::from_utf8_lossy(&shown));
        });
        shown.push(byte[0]);
    }
}

fn echoes(terminal: impl AsFd) -> bool {
    let modes = tcgetattr(terminal).expect("a terminal").local_modes;
    modes.contains(LocalModes::ECHO)
}

fn output(command: &mut Command) -> Output {
    command.output().expect("keyhaul")
}

fn words(done: &Output) -> String {
    String::from_utf8_lossy(&done.stderr).into_owned()
}

fn folders(runtime: &Path) -> usize {
    fs::read_dir(runtime).expect("there").count()
}
