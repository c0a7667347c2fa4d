//! Tests of several processes: the test program runs itself again in the role of a child.

use std::panic;
use std::process::{Command, ExitCode};

pub type Trial = (&'static str, fn());
pub type Role = (&'static str, fn(&[String]));

const ROLE: &str = "--role=";

/// Runs the role that the arguments name, or else every trial whose name has them in it.
pub fn main(trials: &[Trial], roles: &[Role]) -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(name) = arguments.first().and_then(|first| first.strip_prefix(ROLE)) {
        let (_, role) = roles
            .iter()
            .find(|(known, _)| *known == name)
            .expect("a known role");
        role(&arguments[1..]);
        return ExitCode::SUCCESS;
    }
    let filters: Vec<&String> = arguments.iter().filter(|a| !a.starts_with('-')).collect();
    let mut failed = 0;
    for (name, trial) in trials {
        if arguments.iter().any(|argument| argument == "--list") {
            say(&format!("{name}: test"));
        } else if filters.is_empty() || filters.iter().any(|filter| name.contains(*filter)) {
            let passed = panic::catch_unwind(trial).is_ok();
            failed += usize::from(!passed);
            say(&format!(
                "test {name} ... {}",
                if passed { "ok" } else { "FAILED" }
            ));
        }
    }
    ExitCode::from(u8::from(failed > 0))
}

/// This program in the role of a child.
pub fn child(role: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.arg(format!("{ROLE}{role}"));
    command
}

/// The same, in a mount namespace of its own, as root of it.
pub fn child_with_mounts(role: &str) -> Command {
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--mount", "--propagation", "private", "--"]);
    command.arg(std::env::current_exe().expect("this program"));
    command.arg(format!("{ROLE}{role}"));
    command
}

/// Runs the future on a runtime of one thread.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime")
        .block_on(future)
}

#[expect(clippy::print_stdout, reason = "this is the test harness's own report")]
fn say(line: &str) {
    println!("{line}");
}
