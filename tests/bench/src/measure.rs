//! Timing whole processes and stretches of code.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A line of the table.
pub struct Row {
    pub what: String,
    pub measured: String,
    pub beside: String,
    pub target: String,
    pub met: Option<bool>,
}

impl Row {
    pub fn heading() {
        println!(
            "{:<46} {:<22} {:<40} {:<34} met",
            "what", "measured", "beside", "target"
        );
        println!("{}", "-".repeat(150));
    }

    pub fn print(&self) {
        let met = match self.met {
            Some(true) => "yes",
            Some(false) => "NO",
            None => "not measured",
        };
        println!(
            "{:<46} {:<22} {:<40} {:<34} {met}",
            self.what, self.measured, self.beside, self.target
        );
    }
}

/// How long `command` takes to its end, its output thrown away.
///
/// # Panics
/// Where it does not start or does not succeed: its time would mean nothing.
fn once(command: &mut Command) -> Duration {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let before = Instant::now();
    let status = command.status().expect("the command starts");
    let wall = before.elapsed();
    assert!(status.success(), "{command:?} ended with {status}");
    wall
}

/// Median times of commands run in turn, A B A B …, after one round that does not count.
pub fn in_turn<const N: usize>(rounds: usize, commands: [Command; N]) -> [Duration; N] {
    in_blocks(rounds, 1, commands)
}

/// Median times of commands run in turn by blocks, A A A B B B A A A …, the first of each block not
/// counted: a large program leaves the caches to the small one after it as it found them for itself,
/// and the end of its memory still keeps the kernel busy.
pub fn in_blocks<const N: usize>(
    rounds: usize,
    block: usize,
    mut commands: [Command; N],
) -> [Duration; N] {
    let mut runs: [Vec<Duration>; N] = std::array::from_fn(|_| Vec::with_capacity(rounds));
    for command in &mut commands {
        once(command);
    }
    for _ in 0..rounds.div_ceil(block) {
        for (command, runs) in commands.iter_mut().zip(&mut runs) {
            if block > 1 {
                once(command);
            }
            runs.extend((0..block).map(|_| once(command)));
        }
    }
    runs.map(median)
}

/// The median peak of a command's resident memory, in KiB, as the program `peak` tells it.
///
/// # Panics
/// As [`in_turn`].
pub fn peak_kib(peak: &Path, rounds: usize, command: &Command) -> i64 {
    let once = || {
        let mut run = Command::new(peak);
        run.env_clear();
        for (name, value) in command.get_envs() {
            if let Some(value) = value {
                run.env(name, value);
            }
        }
        run.arg(command.get_program()).args(command.get_args());
        let done = run.output().expect("the program that tells peaks");
        assert!(
            done.status.success(),
            "{}",
            String::from_utf8_lossy(&done.stderr)
        );
        let text = String::from_utf8_lossy(&done.stdout);
        text.trim().parse().expect("a number of KiB")
    };
    median((0..rounds).map(|_| once()).collect())
}

pub fn mib(kib: i64) -> String {
    format!("{:.1} MiB", kib as f64 / 1024.0)
}

pub fn median<T: Ord + Copy>(mut values: Vec<T>) -> T {
    values.sort_unstable();
    values[values.len() / 2]
}

pub fn millis(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1000.0)
}
