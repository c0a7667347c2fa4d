//! What any process shows of itself: its arguments and its environment.

use std::collections::BTreeSet;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::program::wait_until;
use crate::{Find, Needle, search};

/// How long the watcher rests between two looks at all processes, at least.
const PAUSE: Duration = Duration::from_millis(5);
/// How much longer it rests than a look took: the machine is there for those it watches.
const REST: u32 = 4;

/// Looks through the arguments, environment and name of every process of the system, keyhaul's
/// descendants among them whoever their parent is by now.
pub fn scan_all(needles: &[&Needle]) -> Vec<Find> {
    all()
        .into_iter()
        .flat_map(|pid| scan(pid, needles))
        .collect()
}

/// Looks through the arguments, environment and name of a process.
pub fn scan(pid: u32, needles: &[&Needle]) -> Vec<Find> {
    let look = |what: &&str| match fs::read(format!("/proc/{pid}/{what}")) {
        Ok(bytes) => search(&format!("/proc/{pid}/{what}"), &bytes, needles),
        // It has ended.
        Err(_) => Vec::new(),
    };
    ["cmdline", "environ", "comm"]
        .iter()
        .flat_map(look)
        .collect()
}

/// The processes that `pid` started and that still run, and theirs.
pub fn descendants(pid: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = all()
        .into_iter()
        .filter_map(|child| Some((child, status(child, "PPid")?.parse().ok()?)))
        .collect();
    let mut found = vec![pid];
    let mut at = 0;
    while at < found.len() {
        let parent = found[at];
        found.extend(
            parents
                .iter()
                .filter(|(_, of)| *of == parent)
                .map(|(child, _)| *child),
        );
        at += 1;
    }
    found.split_off(1)
}

/// A line of `/proc/PID/status`.
pub fn status(pid: u32, key: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    line.map(|value| value.trim().to_owned())
}

/// Whether a process waits for something.
pub fn sleeps(pid: u32) -> bool {
    status(pid, "State").is_some_and(|state| state.starts_with('S'))
}

/// The words of a process's command line.
pub fn arguments(pid: u32) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    text.split_terminator('\0').map(str::to_owned).collect()
}

fn all() -> Vec<u32> {
    let entries = fs::read_dir("/proc").expect("/proc is mounted");
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect()
}

/// Looks at every process, again and again, until it is told to stop.
#[derive(Debug)]
pub struct Watcher {
    stop: Arc<AtomicBool>,
    watched: Arc<Mutex<Watched>>,
    thread: JoinHandle<()>,
}

/// What a watcher saw.
#[derive(Debug, Default)]
pub struct Watched {
    /// What it found.
    pub finds: Vec<Find>,
    /// The programs it has seen, by the base name of their first argument.
    pub programs: BTreeSet<String>,
    /// How often it looked.
    pub rounds: usize,
}

impl Watcher {
    /// Begins to watch for `needles`.
    pub fn start(needles: Vec<Arc<Needle>>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let watched = Arc::new(Mutex::new(Watched::default()));
        let (stopped, seen) = (stop.clone(), watched.clone());
        let thread = thread::spawn(move || {
            let needles: Vec<&Needle> = needles.iter().map(Arc::as_ref).collect();
            loop {
                // Read before the look, so that the last look is a whole one.
                let last = stopped.load(Ordering::Relaxed);
                let begun = Instant::now();
                seen.lock().expect("no panic").look(&needles);
                if last {
                    return;
                }
                thread::sleep(PAUSE.max(begun.elapsed() * REST));
            }
        });
        Self {
            stop,
            watched,
            thread,
        }
    }

    /// Waits until it has seen a program of this name. Says whether it has.
    pub fn sees(&self, program: &str) -> bool {
        wait_until(|| {
            self.watched
                .lock()
                .expect("no panic")
                .programs
                .contains(program)
        })
    }

    /// Looks once more and ends.
    pub fn stop(self) -> Watched {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the watcher does not panic");
        std::mem::take(&mut *self.watched.lock().expect("no panic"))
    }
}

impl Watched {
    fn look(&mut self, needles: &[&Needle]) {
        self.rounds += 1;
        for pid in all() {
            let finds = scan(pid, needles);
            if self.finds.len() < 100 {
                self.finds.extend(finds);
            }
            if let Some(program) = arguments(pid).first() {
                let name = program.rsplit('/').next().unwrap_or_default();
                self.programs.insert(name.to_owned());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_secret_in_arguments_or_environment_is_found_and_the_watcher_sees_it_too() {
        for in_environment in [false, true] {
            let needle = Arc::new(Needle::canary());
            let text = String::from_utf8(needle.bytes().to_vec()).expect("letters");
            assert_eq!(scan_all(&[&needle]), []);
            let watcher = Watcher::start(vec![needle.clone()]);
            let mut command = Command::new("sh");
            // Reads until its input ends; the word after it becomes $0.
            command
                .args(["-c", "read line; exit 0"])
                .stdin(Stdio::piped());
            if in_environment {
                command.env("LEAK", text);
            } else {
                command.arg(text);
            }
            let mut child = command.spawn().expect("sh");
            let file = if in_environment { "environ" } else { "cmdline" };
            let place = format!("/proc/{}/{file}", child.id());
            let found = wait_until(|| scan_all(&[&needle]).iter().any(|find| find.place == place));
            let children = descendants(std::process::id());
            let seen = || watcher.watched.lock().expect("no panic").rounds;
            let before = seen();
            // The one that is under way may have passed it.
            assert!(wait_until(|| seen() >= before + 2));
            drop(child.stdin.take());
            child.wait().expect("ended");
            let watched = watcher.stop();
            assert!(found, "{place}");
            assert!(children.contains(&child.id()));
            assert!(
                watched.finds.iter().any(|find| find.place == place),
                "the watcher: {place}"
            );
            assert!(watched.programs.contains("sh"));
            assert_eq!(scan_all(&[&needle]), []);
        }
    }
}
