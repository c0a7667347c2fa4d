//! What the log says of plugins. Alone in its process, since the log is all of the process's.

mod support;

use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};

use keyhaul_core::registry::Options;
use keyhaul_core::{GetOptions, SecretPath};
use support::{Folder, hostile, open};

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

impl Written {
    /// The log, which each test begins and none ends.
    fn log() -> &'static Self {
        static LOG: OnceLock<Written> = OnceLock::new();
        LOG.get_or_init(|| {
            let written = Self::default();
            let writer = written.clone();
            tracing_subscriber::fmt()
                .with_ansi(false)
                .with_writer(move || writer.clone())
                .init();
            written
        })
    }

    fn text(&self) -> String {
        let bytes = self.0.lock().expect("no panic").clone();
        String::from_utf8(bytes).expect("text")
    }

    /// The lines with all of these words.
    fn lines(&self, words: &[&str]) -> Vec<String> {
        let text = self.text();
        let has = |line: &&str| words.iter().all(|word| line.contains(word));
        text.lines().filter(has).map(str::to_owned).collect()
    }
}

/// Has a store of this name do what the path says. Where its library lies.
async fn ask(store: &str, path: &str) -> (Folder, PathBuf) {
    let folder = Folder::new();
    let library = hostile(&folder, "libhostile.so", &[]);
    let store = open(store, &library, Options::default()).expect("a store");
    let path = SecretPath::new(path).expect("valid");
    let said = store.get(&path, &GetOptions::default()).await;
    assert_eq!(said.expect("said").value.expose(), b"said");
    (folder, library)
}

#[tokio::test]
async fn a_plugin_is_logged_by_path_version_and_digest_and_its_own_lines_are_tamed_and_marked() {
    let log = Written::log();
    let (_folder, library) = ask("chatters", "chatter").await;
    let digest = std::process::Command::new("sha256sum")
        .arg(&library)
        .output();
    let digest = String::from_utf8_lossy(&digest.expect("sha256sum").stdout)[..64].to_owned();
    let path = library.to_str().expect("text");
    let loaded = log.lines(&[" plugin loaded ", path, "6.6", &digest]);
    assert_eq!(loaded.len(), 1, "{}", log.text());
    let said = log.lines(&["store=\"chatters\""]);
    assert!(!said.is_empty(), "{}", log.text());
    assert!(
        said.iter().all(|line| line.contains(" plugin: ")),
        "{said:?}"
    );
    let of = |word: &str| -> Vec<&String> { said.iter().filter(|l| l.contains(word)).collect() };
    // It looks like none of keyhaul's own.
    assert_eq!(of(" plugin: plugin loaded path=/forged").len(), 1);
    let tamed = of("plugin: one\u{fffd}line\u{fffd}[31m");
    assert!(
        !tamed.is_empty() && tamed.len() == of("one").len(),
        "{said:?}"
    );
    assert!(!log.text().contains('\x1b'));
}

#[tokio::test]
async fn a_plugin_that_writes_without_end_is_cut_short_and_no_other_is() {
    let log = Written::log();
    ask("floods", "flood").await;
    assert_eq!(
        log.lines(&["plugin: and so on", "store=\"floods\""]).len(),
        100
    );
    let told = log.lines(&[
        "what it says in the next seconds is left out",
        "store=\"floods\"",
    ]);
    assert_eq!(told.len(), 1, "{}", log.text());
    ask("quiet", "chatter").await;
    assert!(!log.lines(&["store=\"quiet\""]).is_empty());
}

/// The log's own memory for a thread is gone when a plugin's destructor runs in it.
#[tokio::test]
async fn a_plugin_that_logs_as_its_thread_ends_does_not_end_the_process() {
    let log = Written::log();
    ask("ends", "last-words").await;
    // The control: the thread did log.
    assert_eq!(
        log.lines(&["plugin: words before"]).len(),
        1,
        "{}",
        log.text()
    );
}
