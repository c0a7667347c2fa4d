//! Timing whole processes and stretches of code.

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

/// What a finished process used.
#[derive(Clone, Copy)]
pub struct Used {
    pub wall: Duration,
    pub peak_kib: i64,
}

/// Runs `command` to its end, its output thrown away.
///
/// # Panics
/// Where it does not start or does not succeed: its time would mean nothing.
#[expect(
    clippy::zombie_processes,
    reason = "wait4 waits for it: the standard library gives no usage"
)]
pub fn once(command: &mut Command) -> Used {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let before = Instant::now();
    let child = command.spawn().expect("the command starts");
    let mut status = 0;
    // SAFETY: all bytes zero is a valid rusage.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the pid is that of a child not yet waited for; both pointers are to live locals.
    let waited =
        unsafe { libc::wait4(child.id().cast_signed(), &raw mut status, 0, &raw mut usage) };
    let wall = before.elapsed();
    assert!(
        waited > 0 && status == 0,
        "{command:?} ended with wait status {status}"
    );
    Used {
        wall,
        peak_kib: usage.ru_maxrss,
    }
}

/// Medians of commands run in turn, A B A B …, after one round that does not count.
pub fn in_turn<const N: usize>(rounds: usize, mut commands: [Command; N]) -> [Used; N] {
    let mut runs: [Vec<Used>; N] = std::array::from_fn(|_| Vec::with_capacity(rounds));
    for round in 0..=rounds {
        for (command, runs) in commands.iter_mut().zip(&mut runs) {
            let used = once(command);
            if round > 0 {
                runs.push(used);
            }
        }
    }
    runs.map(|runs| Used {
        wall: median(runs.iter().map(|used| used.wall).collect()),
        peak_kib: median(runs.iter().map(|used| used.peak_kib).collect()),
    })
}

pub fn median<T: Ord + Copy>(mut values: Vec<T>) -> T {
    values.sort_unstable();
    values[values.len() / 2]
}

pub fn millis(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1000.0)
}
