//! What a plugin writes to its stderr, as the log has it.

mod support;

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use keyhaul_core::{GetOptions, SecretPath, SecretStore};
use support::Place;
use tracing::subscriber::DefaultGuard;

const HELLO: &str = r#"#!/bin/sh
read -r hello
echo '{"keyhaul":1,"name":"talkative","version":"1","capabilities":["read"]}'
answer() { id=${line#*\"id\":} id=${id%%,*}; printf '{"id":%s%s}\n' "$id" "$1"; }
"#;

/// The log of this thread, on which these tests' runtimes are.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn follow() -> (Self, DefaultGuard) {
        Self::follow_from(tracing::Level::INFO)
    }

    fn follow_from(level: tracing::Level) -> (Self, DefaultGuard) {
        let log = Self::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(level)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("unbroken").clone()).expect("text")
    }

    async fn comes_to(&self, what: &str) {
        let begun = Instant::now();
        while !self.text().contains(what) {
            let waited = begun.elapsed() < Duration::from_secs(10);
            assert!(waited, "waited for `{what}` in:\n{}", self.text());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("unbroken").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

async fn read(store: &Arc<dyn SecretStore>) -> Vec<u8> {
    let path = SecretPath::new("a").expect("a path");
    let secret = store.get(&path, &GetOptions::default()).await;
    secret.expect("served").value.expose().to_vec()
}

#[tokio::test]
async fn values_are_taken_out_also_where_they_were_written_before_the_answer() {
    let (log, _guard) = Log::follow();
    let place = Place::new();
    let body = "while read -r line; do
        echo 'about to answer hunter2 or aHVudGVyMg==' >&2
        sleep 0.1
        answer ',\"value\":\"hunter2\"'
        echo 'answered hunter2' >&2
        printf 'a bell \\007 and half a line' >&2
    done\n";
    let program = place.program("talkative", &format!("{HELLO}{body}"));
    let store = place.store(&program, &[]);
    assert_eq!(read(&store).await, b"hunter2");
    log.comes_to("answered [redacted]").await;
    log.comes_to("about to answer [redacted] or [redacted]")
        .await;
    drop(store);
    log.comes_to("a bell   and half a line").await;
    let text = log.text();
    assert!(
        !text.contains("hunter2") && !text.contains("aHVudGVyMg"),
        "{text}"
    );
    assert!(text.contains("store=\"odd\""), "{text}");
    assert!(
        text.contains("plugin=\"talkative\" version=\"1\""),
        "{text}"
    );
}

#[tokio::test]
async fn values_are_taken_out_also_where_they_are_escaped_or_run_over_lines() {
    let (log, _guard) = Log::follow();
    let place = Place::new();
    // `a "quoted" passphrase` as JSON, in base64 of its own line length, and broken by a long line.
    let body = r#"while read -r line; do
        answer ',"value":"a \"quoted\" passphrase of some length"'
        echo 'I said {"value":"a \"quoted\" passphrase of some length"} now' >&2
        echo 'wrapped:' >&2
        printf 'a "quoted" passphrase of some length' | base64 -w 20 >&2
        printf 'broken: a "quoted" passp\nhrase of some length and the rest\n' >&2
        { head -c 4080 /dev/zero | tr '\0' x; echo 'a "quoted" passphrase of some length.'; } >&2
        echo done >&2
    done
    "#;
    let program = place.program("talkative", &format!("{HELLO}{body}"));
    let store = place.store(&program, &[]);
    read(&store).await;
    log.comes_to("plugin: done").await;
    let text = log.text().replace(" store=\"odd\"", "");
    assert!(
        text.contains(r#"I said {"value":"[redacted]"} now"#),
        "{text}"
    );
    assert!(text.contains("broken: [redacted]\n"), "{text}");
    assert!(text.contains("[redacted] and the rest\n"), "{text}");
    assert!(text.contains("x[redacted]\n"), "{text}");
    for part in ["quoted", "passp", "hrase", "length"] {
        assert!(!text.contains(part), "{part} in {text}");
    }
    // `wrapped:` and then nothing but what stands for the value.
    let (_, wrapped) = text.split_once("wrapped:\n").expect("there");
    let (wrapped, _) = wrapped.split_once("broken:").expect("there");
    let lines = wrapped
        .lines()
        .filter_map(|line| line.split_once("plugin: "));
    assert!(lines.clone().count() >= 2);
    assert!(
        lines
            .map(|(_, line)| line)
            .all(|line| line == "[redacted]" || line.is_empty()),
        "{wrapped}"
    );
}

/// The control: what has not passed is not known, and is shown.
#[tokio::test]
async fn words_that_are_no_value_are_shown() {
    let (log, _guard) = Log::follow();
    let place = Place::new();
    let body = "echo 'cannot reach hunter2.example.com' >&2; while read -r line; do answer ',\"value\":\"other\"'; done\n";
    let program = place.program("talkative", &format!("{HELLO}{body}"));
    let store = place.store(&program, &[]);
    assert_eq!(read(&store).await, b"other");
    log.comes_to("plugin: cannot reach hunter2.example.com")
        .await;
}

#[tokio::test]
async fn a_flood_is_cut_and_counted_and_a_long_line_is_several() {
    let (log, _guard) = Log::follow();
    let place = Place::new();
    let body = "head -c 10000 /dev/zero | tr '\\0' x >&2; echo >&2
    i=0; while [ $i -lt 500 ]; do echo \"line $i\" >&2; i=$((i+1)); done
    while read -r line; do answer ',\"value\":\"hunter2\"'; done\n";
    let program = place.program("talkative", &format!("{HELLO}{body}"));
    let store = place.store(&program, &[]);
    assert_eq!(read(&store).await, b"hunter2");
    drop(store);
    log.comes_to("more lines than the log takes").await;
    let text = log.text();
    let lines = text
        .lines()
        .filter(|line| line.contains("plugin: "))
        .count();
    assert_eq!(lines, 100, "{text}");
    assert!(text.contains("left_out=403"), "{text}");
    assert!(text.lines().all(|line| line.len() < 4300), "{text}");
}

/// As a service runs, without `-v`: what a plugin says while it works is not told.
#[tokio::test]
async fn the_last_words_of_a_plugin_that_fails_are_told_without_asking() {
    let body = "echo 'all is well' >&2
    read -r line; answer ',\"value\":\"hunter2\"'
    read -r line
    for n in 1 2 3 4 5 6 7 8 9; do echo \"line $n\" >&2; done
    echo 'cannot open hunter2.db' >&2
    exit STATUS\n";
    for (level, status, told) in [
        (tracing::Level::WARN, 3, true),
        // The controls: each line stands in the log by itself; it has not failed.
        (tracing::Level::INFO, 3, false),
        (tracing::Level::WARN, 0, false),
    ] {
        let (log, _guard) = Log::follow_from(level);
        let place = Place::new();
        let body = body.replace("STATUS", &status.to_string());
        // A program ends well only while it is not asked.
        let body = match status {
            0 => body.replace("    read -r line\n", ""),
            _ => body,
        };
        let program = place.program("talkative", &format!("{HELLO}{body}"));
        let store = place.store(&program, &[]);
        assert_eq!(read(&store).await, b"hunter2");
        let path = SecretPath::new("a").expect("a path");
        if status != 0 {
            let answer = store.get(&path, &GetOptions::default()).await;
            answer.expect_err("it ends");
            log.comes_to("the plugin has failed").await;
        }
        drop(store);
        if told {
            log.comes_to("before: cannot open [redacted].db").await;
        } else if status != 0 {
            log.comes_to("plugin: cannot open [redacted].db").await;
        } else {
            // It has a second to go, and its words another one.
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let text = log.text();
        assert_eq!(text.contains("exited with status 3"), status != 0, "{text}");
        assert!(!text.contains("hunter2"), "{text}");
        // The first of eleven lines is one too many.
        assert_eq!(text.contains("before: line 1"), told, "{text}");
        assert!(!text.contains("before: all is well"), "{text}");
        assert_eq!(
            text.matches("line 5").count(),
            usize::from(status != 0),
            "{text}"
        );
    }
}

#[tokio::test]
async fn what_has_passed_is_remembered_when_the_plugin_is_started_again() {
    let (log, _guard) = Log::follow();
    let place = Place::new();
    let body = "if [ -e \"$0.died\" ]; then echo 'recovered the write of hunter2' >&2; fi
    read -r line; >\"$0.died\"
    answer ',\"value\":\"hunter2\"'; exit 3\n";
    let program = place.program("talkative", &format!("{HELLO}{body}"));
    let store = place.store(&program, &[]);
    assert_eq!(read(&store).await, b"hunter2");
    log.comes_to("the plugin has failed").await;
    tokio::time::sleep(Duration::from_millis(150)).await;
    store.capabilities().await.expect("started again");
    log.comes_to("recovered the write of [redacted]").await;
    assert!(!log.text().contains("hunter2"), "{}", log.text());
}

#[tokio::test]
async fn each_failure_is_told_once() {
    let path = SecretPath::new("a").expect("a path");
    for (program, told) in [
        ("#!/bin/sh\nexit 3\n", "the plugin has failed"),
        // It has not said hello: that is no good end.
        ("#!/bin/sh\nexit 0\n", "the plugin has failed"),
        // Nobody's, since it never ran.
        ("#!/nowhere/at/all\n", "the plugin does not start"),
    ] {
        let (log, _guard) = Log::follow();
        let place = Place::new();
        let store = place.store(&place.program("fails", program), &[]);
        let answer = store.get(&path, &GetOptions::default()).await;
        answer.expect_err("it fails");
        log.comes_to(told).await;
        let text = log.text();
        assert_eq!(text.matches("error=").count(), 1, "{text}");
    }
}
