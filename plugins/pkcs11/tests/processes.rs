//! Several processes with one token, and one that is killed while it writes.

mod support;

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use keyhaul_core::{GetOptions, PutOptions, SecretBytes, SecretStore};
use support::{Hsm, in_own_process, path, secret};

const FIRST: &str = "KEYHAUL_TEST_FIRST";
const NAME: &str = "KEYHAUL_TEST_NAME";
const TEST: &str = "a_writer_that_is_killed_leaves_the_old_value_or_the_new_one";

/// The nth value: its number, and a length that follows from it.
fn nth(n: usize) -> String {
    format!("{n}.").repeat(1 + n % 97)
}

/// Which value the store has. Half of one is none.
async fn current(store: &dyn SecretStore) -> usize {
    let came = store.get(&path("a"), &GetOptions::default()).await;
    let value = came.expect("never none").value;
    let text = std::str::from_utf8(value.expose()).expect("text");
    let n = text.split('.').next().and_then(|n| n.parse().ok());
    let n = n.expect("a number");
    assert_eq!(text, nth(n));
    n
}

async fn put(store: &dyn SecretStore, n: usize) {
    let value = SecretBytes::copy_from(nth(n).as_bytes());
    let done = store.put(&path("a"), &value, &PutOptions::default()).await;
    done.expect("put");
}

#[tokio::test]
async fn a_writer_that_is_killed_leaves_the_old_value_or_the_new_one() {
    if let Ok(first) = std::env::var(FIRST) {
        let hsm = Hsm::existing("vms");
        let store = hsm.store();
        for n in first.parse().expect("a number").. {
            put(&*store, n).await;
            writeln!(std::io::stdout(), "wrote {n}").expect("heard");
        }
    }
    if !in_own_process(TEST) {
        return;
    }
    let hsm = Hsm::new("vms");
    let store = hsm.store();
    let mut last = 1;
    put(&*store, last).await;
    for round in 0..6 {
        let this = std::env::current_exe().expect("itself");
        let mut writer = Command::new(this)
            .args(["--exact", TEST, "--nocapture"])
            .env(FIRST, (last + 1).to_string())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a writer");
        let output = BufReader::new(writer.stdout.take().expect("a pipe"));
        let written = Arc::new(AtomicUsize::new(last));
        let counter = Arc::clone(&written);
        let lines = thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                // The test harness has lines of its own, and begins one.
                let n = line.rsplit_once("wrote ").and_then(|(_, n)| n.parse().ok());
                if let Some(n) = n {
                    counter.store(n, Ordering::SeqCst);
                }
            }
        });
        // Each round is killed at another point of its writing.
        while written.load(Ordering::SeqCst) < last + 10 + round {
            assert!(writer.try_wait().expect("asked").is_none(), "it ended");
            current(&*store).await;
        }
        writer.kill().expect("killed");
        writer.wait().expect("ended");
        lines.join().expect("read");
        // What it said was written is written, and at most one more is.
        let said = written.load(Ordering::SeqCst);
        last = current(&*store).await;
        assert!((said..=said + 1).contains(&last), "{last} after {said}");
        last += 1;
        put(&*store, last).await;
        assert_eq!(current(&*store).await, last);
    }
}

#[tokio::test]
async fn two_processes_that_write_at_the_same_time_lose_nothing() {
    const TEST: &str = "two_processes_that_write_at_the_same_time_lose_nothing";
    const EACH: usize = 40;
    if let Ok(name) = std::env::var(NAME) {
        let hsm = Hsm::existing("vms");
        let store = hsm.store();
        store.probe().await.expect("logged in");
        writeln!(std::io::stdout(), "ready").expect("heard");
        std::io::stdin().lines().next();
        for n in 1..=EACH {
            let (own, value) = (path(&format!("{name}/{n}")), secret(&nth(n)));
            let options = PutOptions::default();
            store.put(&own, &value, &options).await.expect("put");
            put(&*store, n).await;
        }
        return;
    }
    if !in_own_process(TEST) {
        return;
    }
    let hsm = Hsm::new("vms");
    let store = hsm.store();
    put(&*store, 1).await;
    // SoftHSM looks for its tokens once, as it starts, and one that is written to in that moment it
    // may take for none. So both have started before either writes.
    let mut writers = ["left", "right"].map(|name| {
        let mut writer = Command::new(std::env::current_exe().expect("itself"))
            .args(["--exact", TEST, "--nocapture"])
            .env(NAME, name)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a writer");
        let output = BufReader::new(writer.stdout.take().expect("a pipe"));
        let mut lines = output.lines().map_while(Result::ok);
        assert!(lines.any(|line| line.ends_with("ready")), "it ended");
        // What it says at its end is said to somebody.
        thread::spawn(move || lines.for_each(drop));
        writer
    });
    for writer in &mut writers {
        let mut input = writer.stdin.take().expect("a pipe");
        writeln!(input, "go").expect("heard");
    }
    let mut seen = 0;
    while writers
        .iter_mut()
        .any(|writer| writer.try_wait().expect("asked").is_none())
    {
        // Whole, whoever wrote it last.
        current(&*store).await;
        seen += 1;
    }
    for mut writer in writers {
        assert!(writer.wait().expect("ended").success());
    }
    assert!(seen > 0);
    assert_eq!(current(&*store).await, EACH);
    for name in ["left", "right"] {
        for n in 1..=EACH {
            let own = path(&format!("{name}/{n}"));
            let came = store.get(&own, &GetOptions::default()).await;
            assert_eq!(came.expect("kept").value.expose(), nth(n).as_bytes());
        }
    }
}
