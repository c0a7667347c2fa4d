//! What the log says of plugins. Alone in its process, since the log is all of the process's.

mod support;

use std::io::Write;
use std::sync::{Arc, Mutex};

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

#[tokio::test]
async fn a_plugin_is_logged_by_path_version_and_digest_and_its_own_lines_are_tamed() {
    let written = Written::default();
    let writer = written.clone();
    tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .init();
    let folder = Folder::new();
    let library = hostile(&folder, "libhostile.so", &[]);
    let store = open("hostile", &library, Options::default()).expect("a store");
    let path = SecretPath::new("chatter").expect("valid");
    store
        .get(&path, &GetOptions::default())
        .await
        .expect("said");

    let text = String::from_utf8(written.0.lock().expect("no panic").clone()).expect("text");
    let loaded = text.lines().find(|line| line.contains("plugin loaded"));
    let loaded = loaded.unwrap_or_else(|| panic!("{text}"));
    let digest = std::process::Command::new("sha256sum")
        .arg(&library)
        .output();
    let digest = String::from_utf8_lossy(&digest.expect("sha256sum").stdout)[..64].to_owned();
    for part in [library.to_str().expect("text"), "6.6", &digest] {
        assert!(loaded.contains(part), "{part} is not in {loaded}");
    }
    let said: Vec<&str> = text.lines().filter(|line| line.contains("line")).collect();
    assert!(!said.is_empty(), "{text}");
    assert!(
        said.iter()
            .all(|line| line.contains("one\u{fffd}line\u{fffd}[31m")),
        "{text}"
    );
    assert!(!text.contains('\x1b'), "{text}");
}
