//! Stores, and a session of the kernel's keyrings that is the test's own.

#![allow(dead_code, reason = "each test program uses its part")]

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use keyhaul_core::layers::{LayerSettings, standard};
use keyhaul_core::registry::{Options, Value};
use keyhaul_core::{SecretBytes, SecretPath, SecretStore, StoreConfig, StoreFactory};
use keyhaul_keyring::KeyringFactory;

pub const INSTALL: &str = "apt-get install gnome-keyring dbus libsecret-tools keyutils";

/// A store at `url` with these options, as the policy would open it.
pub fn open(url: &str, options: &[(&str, Value)]) -> Arc<dyn SecretStore> {
    let options = Options::at("keyhaul.toml:3:1", options.iter().cloned());
    let config = StoreConfig::new("ring", url, options, "keyhaul.toml:2:1").expect("a config");
    KeyringFactory.open(&config).expect("no I/O, no failure")
}

/// The same with every layer, and little patience.
pub fn layered(store: Arc<dyn SecretStore>) -> Arc<dyn SecretStore> {
    standard(store, &LayerSettings::default(), None)
}

/// The same, with a limit of this much for an attempt, and one attempt.
pub fn impatient(store: Arc<dyn SecretStore>, timeout: Duration) -> Arc<dyn SecretStore> {
    let mut settings = LayerSettings::default();
    settings.timeout = timeout;
    settings.retries = 0;
    standard(store, &settings, None)
}

pub fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

pub fn path(text: &str) -> SecretPath {
    SecretPath::new(text).expect("a path")
}

pub fn secret(text: &str) -> SecretBytes {
    SecretBytes::copy_from(text.as_bytes())
}

/// Runs a program to its end, with this on its input.
pub fn run(mut command: Command, input: &[u8]) -> Output {
    use std::io::Write as _;
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}; {INSTALL}"));
    // Closed with the end of the statement.
    let written = child.stdin.take().map(|mut pipe| pipe.write_all(input));
    written.expect("a pipe").expect("written");
    child.wait_with_output().expect("its end")
}

/// Runs a program that must succeed, and gives what it printed.
pub fn says(command: Command, input: &[u8]) -> Vec<u8> {
    let shown = format!("{command:?}");
    let done = run(command, input);
    let error = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success(), "{shown}: {} {error}", done.status);
    done.stdout
}

/// `keyctl` with arguments.
pub fn keyctl(arguments: &[&str]) -> Command {
    let mut command = Command::new("keyctl");
    command.args(arguments);
    command
}

const INSIDE: &str = "KEYHAUL_TEST_SESSION";

/// Whether this is the test itself, in a session keyring of its own. If not, the test is run so, by
/// `keyctl session`, and its outcome is the outcome: the machine's own session stays untouched.
pub fn in_own_session(test: &str) -> bool {
    in_session_by(test, &["keyctl", "session", "-"])
}

/// The same, where the program before decides which session that is.
pub fn in_session_by(test: &str, before: &[&str]) -> bool {
    if is_inside() {
        return true;
    }
    let this = std::env::current_exe().expect("the test's own path");
    run_inside(&this, test, before);
    false
}

/// Whether this process was started by a test, as the same test.
pub fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Runs this very test as a user whom nobody is, so that its keys are the test's.
pub fn as_another_user(test: &str, before: &[&str]) {
    let folder = tempfile::tempdir().expect("a folder");
    // Where this program lies, that user may have no way to.
    let copy = folder.path().join("test");
    std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("a mode");
    let this = std::env::current_exe().expect("the test's own path");
    keyhaul_servers::copy_program(&this, &copy);
    let user = [
        "setpriv",
        "--reuid=61234",
        "--regid=61234",
        "--clear-groups",
    ];
    run_inside(&copy, test, &[&user, before].concat());
}

/// Runs one test of `program`, this very one or a copy, behind the program before it.
pub fn run_inside(program: &Path, test: &str, before: &[&str]) {
    let mut command = Command::new(before[0]);
    command
        .args(&before[1..])
        .arg(program)
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1");
    let done = run(command, b"");
    let said = [done.stdout, done.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(done.status.success(), "{said}");
    // A name that no test has runs none, and succeeds.
    assert!(said.contains("1 passed"), "{said}");
}
