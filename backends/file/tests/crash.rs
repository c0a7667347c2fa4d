//! Writers killed at any instant.

mod support;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use keyhaul_core::{DeleteOptions, ErrorKind, SecretPath, SecretStore, SecretStoreExt};
use keyhaul_file::FileStore;
use support::processes::{block_on, child};
use support::*;

const ROUNDS: u32 = 120;
const NAMES: [&str; 3] = ["web01/root", "web01/vnc", "deep/er/still"];

fn main() -> ExitCode {
    processes::main(
        &[(
            "killed_writers_leave_the_old_value_or_the_new",
            killed_writers_leave_the_old_value_or_the_new,
        )],
        &[("write", write)],
    )
}

/// Writes, and says what it is about to write and what is written, until it is killed.
#[expect(clippy::print_stdout, reason = "the parent reads it")]
fn write(arguments: &[String]) {
    let root = std::path::Path::new(&arguments[0]);
    let start: u64 = arguments[2].parse().expect("a number");
    let store =
        FileStore::open(&config(root, std::path::Path::new(&arguments[1]), vec![])).expect("valid");
    let mut out = std::io::stdout();
    for counter in start.. {
        let name = NAMES[counter as usize % NAMES.len()];
        println!("begin {name} {counter}");
        out.flush().expect("the parent reads");
        if counter % 7 == 6 {
            block_on(store.delete(&path(name), &DeleteOptions::default())).expect("deleted");
            println!("deleted {name} {counter}");
        } else {
            block_on(put(&store, name, &value(name, counter)));
            println!("wrote {name} {counter}");
        }
        out.flush().expect("the parent reads");
    }
}

/// A value that shows whether it is whole, and which it is.
fn value(name: &str, counter: u64) -> Vec<u8> {
    format!("{name} {counter};")
        .repeat(300 + counter as usize % 100)
        .into_bytes()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Absent,
    Holds(u64),
}

fn killed_writers_leave_the_old_value_or_the_new() {
    let mut host = Host::new();
    let mut known: BTreeMap<&str, State> = BTreeMap::new();
    let (mut counter, mut cut_short, mut completed, mut junk) = (0_u64, 0_u32, 0_u32, 0_u32);
    let begun = Instant::now();
    for _ in 0..5 {
        block_on(put(&host.store(), NAMES[0], &value(NAMES[0], 0)));
    }
    let time_of_a_write = begun.elapsed() / 5;
    for round in 0..ROUNDS {
        if round % 10 == 0 {
            // A new store, so that making one is interrupted too.
            host = Host::new();
            known = NAMES.map(|name| (name, State::Absent)).into();
        }
        let mut writer = child("write")
            .arg(host.root())
            .arg(host.identity())
            .arg(counter.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a writer");
        // Somewhere in the first four writes: a new instant each round, spread evenly.
        let spread = time_of_a_write * 4 * (round % 40) / 40;
        let mut lines = BufReader::new(writer.stdout.take().expect("piped"));
        let mut first = String::new();
        lines.read_line(&mut first).expect("the writer begins");
        spin(spread);
        writer.kill().expect("killed");
        writer.wait().expect("reaped");

        let mut pending: Option<(&str, u64)> = None;
        for line in std::iter::once(Ok(first)).chain(lines.lines()) {
            let line = line.expect("text");
            let words: Vec<&str> = line.split_whitespace().collect();
            let &[verb, name, number] = words.as_slice() else {
                continue;
            };
            let name = NAMES
                .iter()
                .find(|known| **known == name)
                .expect("a known name");
            counter = number.parse().expect("a number");
            match verb {
                "begin" => pending = Some((name, counter)),
                "wrote" => {
                    known.insert(name, State::Holds(counter));
                    pending = None;
                    completed += 1;
                }
                "deleted" => {
                    known.insert(name, State::Absent);
                    pending = None;
                }
                other => panic!("an unknown line: {other}"),
            }
        }
        cut_short += u32::from(pending.is_some());

        let store = host.store();
        for name in NAMES {
            let found = match block_on(get(&store, name)) {
                Ok(found) => State::Holds(whole(name, &found)),
                Err(error) if error.kind() == ErrorKind::NotFound => State::Absent,
                Err(error) => panic!("round {round}: {error:?}"),
            };
            let old = known[name];
            let new = match pending {
                Some((pending, counter)) if pending == name => match counter % 7 {
                    6 => State::Absent,
                    _ => State::Holds(counter),
                },
                _ => old,
            };
            assert!(
                found == old || found == new,
                "round {round} {name}: {found:?}, not {old:?} or {new:?}"
            );
            known.insert(name, found);
        }
        let there: Vec<SecretPath> = block_on(store.list_all(&SecretPath::root())).expect("listed");
        let mut expected: Vec<_> = NAMES
            .iter()
            .filter(|name| known[*name] != State::Absent)
            .map(|name| path(name))
            .collect();
        expected.sort();
        assert_eq!(there, expected, "round {round}: nothing else is visible");
        junk += temporaries(&host);
        counter += 1;
        let name = NAMES[0];
        block_on(put(&store, name, &value(name, counter)));
        known.insert(name, State::Holds(counter));
        assert_eq!(
            temporaries(&host),
            0,
            "round {round}: the next writer sweeps"
        );
        counter += 1;
    }
    // The controls: the kills did hit writes, and writes also got done.
    assert!(
        cut_short > ROUNDS / 4,
        "{cut_short} of {ROUNDS} rounds cut a write short"
    );
    assert!(
        completed > 0 && junk > 0,
        "{completed} writes done, {junk} temporary files left"
    );
    assert!(
        begun.elapsed() < Duration::from_secs(300),
        "took {:?}",
        begun.elapsed()
    );
}

/// The counter of a value, which has to be whole.
fn whole(name: &str, found: &[u8]) -> u64 {
    let text = std::str::from_utf8(found).expect("text");
    let counter = text
        .strip_prefix(name)
        .and_then(|rest| rest.trim_start().split(';').next());
    let counter = counter
        .and_then(|counter| counter.parse().ok())
        .expect("a counter");
    assert_eq!(found, value(name, counter));
    counter
}

fn temporaries(host: &Host) -> u32 {
    let Ok(entries) = std::fs::read_dir(host.root()) else {
        return 0;
    };
    let names = entries.map(|entry| entry.expect("an entry").file_name());
    names
        .filter(|name| name.to_string_lossy().starts_with(".tmp-"))
        .count() as u32
}

/// Waits without sleeping: the scheduler is too coarse for the instants we are after.
fn spin(time: Duration) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        std::hint::spin_loop();
    }
}
