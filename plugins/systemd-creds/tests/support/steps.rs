//! What the tests do again and again, the test itself among it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use keyhaul_core::{ErrorKind, GetOptions, PutOptions, Result, SecretStore};

use super::{creds, path, secret};

pub async fn read(store: &dyn SecretStore, name: &str) -> Result<String> {
    let came = store.get(&path(name), &GetOptions::default()).await?;
    Ok(String::from_utf8(came.value.expose().to_vec()).expect("text"))
}

pub async fn write(store: &dyn SecretStore, name: &str, value: &str) {
    let options = PutOptions::default();
    let done = store.put(&path(name), &secret(value), &options).await;
    done.expect("put");
}

pub async fn kind(store: &dyn SecretStore, name: &str) -> ErrorKind {
    read(store, name).await.expect_err(name).kind()
}

/// Runs this one test again, by these words before it, with this in its environment. What it said.
pub fn again(words: &[&str], test: &str, folder: &Path) -> String {
    let place = tempfile::tempdir().expect("a folder");
    fs::set_permissions(place.path(), PermissionsExt::from_mode(0o755)).expect("a mode");
    // Where anybody can run it.
    let copy = place.path().join("test");
    keyhaul_servers::copy_program(&std::env::current_exe().expect("itself"), &copy);
    let done = Command::new(words[0])
        .args(&words[1..])
        .arg(&copy)
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, folder)
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}; apt-get install util-linux", words[0]));
    let said = String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned();
    assert!(done.status.success() && said.contains("1 passed"), "{said}");
    said
}

/// Set inside of what `again` runs.
pub const INSIDE: &str = "KEYHAUL_TEST_FOLDER";

/// The version of systemd whose program is there.
pub fn version() -> u32 {
    let said = creds(&["--version"], "").stdout;
    let said = String::from_utf8(said).expect("text");
    let digits = said
        .chars()
        .skip_while(|letter| !letter.is_ascii_digit())
        .take_while(char::is_ascii_digit);
    digits.collect::<String>().parse().expect("a version")
}
