//! A server process that cannot outlive the test.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

/// Starts the server in the background, tells its process id, and kills it when its own input
/// ends: that is when the handle is dropped, and also when the test dies in any way, or keeps the handle
/// in a `static`, which is never dropped. The terminal's interrupt is left to the server.
const KEEPER: &str = r#"trap '' INT
"$@" </dev/null >"$KEYHAUL_LOG" 2>&1 &
echo $!
read -r word
kill -9 $! 2>/dev/null
wait
[ "$word" = keep ] || [ -z "$KEYHAUL_FOLDER" ] || rm -rf "$KEYHAUL_FOLDER""#;

/// The environment variable with a folder that goes with the server, but for
/// [`stop`](Daemon::stop).
pub(crate) const FOLDER: &str = "KEYHAUL_FOLDER";

/// A running server process.
#[derive(Debug)]
pub struct Daemon {
    keeper: Child,
    pid: Pid,
    log: PathBuf,
}

impl Daemon {
    /// Starts `program`, its output kept in `log`.
    pub fn start<S: AsRef<OsStr>>(
        program: &Path,
        arguments: impl IntoIterator<Item = S>,
        environment: &[(&str, &OsStr)],
        log: &Path,
    ) -> Self {
        let mut keeper = Command::new("sh")
            .args(["-c", KEEPER, "sh"])
            .arg(program)
            .args(arguments)
            .envs(environment.iter().copied())
            .env("KEYHAUL_LOG", log)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("sh starts");
        let mut line = String::new();
        let output = keeper.stdout.take().expect("piped above");
        BufReader::new(output)
            .read_line(&mut line)
            .expect("sh tells the process id");
        let pid = line
            .trim()
            .parse()
            .ok()
            .and_then(Pid::from_raw)
            .expect("a process id");
        Self {
            keeper,
            pid,
            log: log.to_owned(),
        }
    }

    /// The server's process id.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Whether the server still runs.
    pub fn is_alive(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid()));
        // The state follows the name, which is in parentheses and can hold anything.
        stat.is_ok_and(|stat| !stat.rsplit(") ").next().unwrap_or("Z").starts_with('Z'))
    }

    /// Sends the server a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid, signal).expect("our own child can be signalled");
    }

    /// What the server has said.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Kills the server and waits for its end. Its files stay, for another start.
    pub fn stop(mut self) {
        if let Some(input) = &mut self.keeper.stdin {
            let _ = input.write_all(b"keep\n");
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        // The keeper ends after the server has.
        let _ = self.keeper.wait();
    }
}

/// An empty file for a log, so that it can be read before the server has written.
pub(crate) fn new_log(folder: &Path, name: &str) -> PathBuf {
    let path = folder.join(name);
    File::create(&path).expect("a log in our own folder");
    path
}
