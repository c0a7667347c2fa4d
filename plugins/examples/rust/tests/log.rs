//! What a plugin in Rust says by `tracing` is in keyhaul's log. Alone in its process, since the log is
//! all of the process's.

#[path = "../../../host/tests/support/mod.rs"]
mod support;

use std::io::Write;
use std::sync::{Arc, Mutex};

use keyhaul_core::registry::Options;
use support::{Folder, built, open, options};

/// What was written to the log.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no panic").write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_plugins_lines_are_in_the_log_with_their_level_and_store() {
    let written = Written::default();
    let writer = written.clone();
    tracing_subscriber::fmt()
        .with_ansi(false)
        .without_time()
        .with_target(false)
        .with_writer(move || writer.clone())
        .init();
    let text = || String::from_utf8(written.0.lock().expect("no panic").clone()).expect("text");
    let folder = Folder::new();
    let library = folder.install(&built("deps", "libkeyhaul_plugin_example.so"));
    // The control: a jar without contents has nothing to say.
    let empty = open("empty", &library, Options::default()).expect("no I/O");
    empty.probe().await.expect("open");
    assert!(!text().contains("the jar has been filled"), "{}", text());
    let contents = folder.credential("contents", "a hunter2\nb hunter2\n");
    let full = open("full", &library, options([("contents", contents)])).expect("no I/O");
    full.probe().await.expect("open");
    let text = text();
    let line = " INFO plugin: the jar has been filled secrets=2 store=\"full\"";
    assert!(text.lines().any(|one| one == line), "{text}");
    assert!(!text.contains("hunter2"), "{text}");
}
