//! Programs that misbehave: the right error, nothing left running, and the next request is served.

mod breaks;
mod ends;
mod floods;
mod pauses;
#[path = "../support/mod.rs"]
mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use keyhaul_core::registry::{Options, Value};
use keyhaul_core::{
    Capability, Error, ErrorKind, GetOptions, PutOptions, Request, SecretBytes, SecretPath,
    SecretStore,
};
use support::Place;

/// What every script begins with.
const HELLO: &str = r#"#!/bin/sh
echo $$ >>"$0.pids"
read -r hello
echo '{"keyhaul":1,"name":"hostile","version":"1","capabilities":["read","write"],"max-value":1000}'
answer() { id=${line#*\"id\":} id=${id%%,*}; printf '{"id":%s%s}\n' "$id" "$1"; }
"#;

/// Answers everything, with the same value.
const WELL: &str = r#"while read -r line; do answer ',"value":"hunter2"'; done
"#;

struct Hostile {
    place: Place,
    program: std::path::PathBuf,
    store: Arc<dyn SecretStore>,
}

impl Hostile {
    /// A script that says a right hello and then does `body`.
    fn new(body: &str) -> Self {
        Self::of(&format!("{HELLO}{body}"))
    }

    fn of(text: &str) -> Self {
        Self::of_stall("500ms", text)
    }

    /// As [`new`](Self::new), of a store that is more patient than the others.
    fn with_stall(stall: &str, body: &str) -> Self {
        Self::of_stall(stall, &format!("{HELLO}{body}"))
    }

    fn of_stall(stall: &str, text: &str) -> Self {
        let place = Place::new();
        let program = place.program("hostile", text);
        let stall = Value::Text(stall.to_owned());
        let store = place.store_with(&program, [("stall", stall)]);
        Self {
            place,
            program,
            store,
        }
    }

    async fn get(&self) -> Result<Vec<u8>, Error> {
        let answer = self.store.get(&path("a"), &GetOptions::default()).await;
        answer.map(|secret| secret.value.expose().to_vec())
    }

    async fn fails(&self) -> Error {
        self.get().await.expect_err("the program is hostile")
    }

    /// The processes that the script has written down, one for each start at least.
    fn processes(&self) -> Vec<i32> {
        let text = std::fs::read_to_string(self.place.path().join("hostile.pids"));
        let text = text.unwrap_or_default();
        text.split_whitespace()
            .map(|pid| pid.parse().expect("a number"))
            .collect()
    }

    /// Holds that none of them is left, zombies counted.
    async fn nothing_is_left(&self) {
        let processes = self.processes();
        assert!(!processes.is_empty(), "the script has run");
        within("all its processes to be gone", || {
            let there = |pid: &i32| std::path::Path::new(&format!("/proc/{pid}")).exists();
            !processes.iter().any(there)
        })
        .await;
    }

    /// Puts a good program in its place, and holds that the same store serves again.
    async fn recovers(&self) {
        std::fs::remove_file(&self.program).expect("removed");
        self.place.program("hostile", &format!("{HELLO}{WELL}"));
        let begun = Instant::now();
        loop {
            match self.get().await {
                Ok(value) => return assert_eq!(value, b"hunter2"),
                Err(error) => {
                    assert!(begun.elapsed() < Duration::from_secs(20), "{error:?}");
                    tokio::time::sleep(error.retry_after().unwrap_or_default()).await;
                }
            }
        }
    }
}

fn path(text: &str) -> SecretPath {
    SecretPath::new(text).expect("a path")
}

async fn within(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(
            begun.elapsed() < Duration::from_secs(10),
            "waited for {what}"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The control: the same script, well-behaved, is served by one process.
#[tokio::test]
async fn a_good_program_is_started_once_and_ends_with_its_store() {
    let good = Hostile::new(WELL);
    assert!(good.processes().is_empty(), "opening starts nothing");
    for _ in 0..3 {
        assert_eq!(good.get().await.expect("served"), b"hunter2");
    }
    assert_eq!(good.processes().len(), 1);
    let Hostile { place, store, .. } = good;
    drop(store);
    let pid = std::fs::read_to_string(place.path().join("hostile.pids")).expect("written");
    let process = format!("/proc/{}", pid.trim());
    within("it to end", || !std::path::Path::new(&process).exists()).await;
}

#[tokio::test]
async fn a_value_in_a_refusal_is_taken_out() {
    let hostile = Hostile::new(
        "while read -r line; do answer ',\"error\":{\"kind\":\"storage-full\",\"message\":\"no room for hunter2\",\"advice\":\"shorten hunter2\"}'; done\n",
    );
    let value = SecretBytes::copy_from(b"hunter2");
    let (path, options) = (path("a"), PutOptions::default());
    let put = hostile.store.put(&path, &value, &options).await;
    let error = put.expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    assert_eq!(error.message(), "no room for [redacted]");
    assert_eq!(error.advice(), Some("shorten [redacted]"));
}

#[tokio::test]
async fn what_the_plugin_declares_decides() {
    let good = Hostile::new(WELL);
    let told = good.store.capabilities().await.expect("told");
    // The host makes values for a plugin that can write them.
    assert_eq!(
        told.can,
        Capability::READ | Capability::WRITE | Capability::GENERATE
    );
    assert_eq!(told.max_value, 1000);
}

#[tokio::test]
async fn a_credential_arrives_in_a_call_of_its_own() {
    let place = Place::new();
    let program = place.program(
        "options",
        "#!/bin/sh\nread -r line; echo \"$line\" >\"$0.seen\"\n\
         echo '{\"keyhaul\":1,\"name\":\"x\",\"version\":\"1\",\"capabilities\":[\"read\"],\"options\":[{\"name\":\"pin\",\"kind\":\"credential\",\"required\":true}]}'\n\
         while read -r line; do echo \"$line\" >>\"$0.seen\"; id=${line#*:}; printf '{\"id\":%s}\\n' \"${id%%,*}\"; done\n",
    );
    let pin = place.program("pin", "hunter2");
    std::fs::set_permissions(&pin, std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .expect("mode");
    let source = format!("file:{}", pin.display());
    let options = Options::at("keyhaul.toml:3:1", [("pin", source.as_str())]);
    let store = place.store_with(&program, [("options", options.into())]);
    store.probe().await.expect("reached");
    let seen = std::fs::read_to_string(place.path().join("options.seen")).expect("written");
    let expected = format!(
        "{{\"keyhaul\":1,\"store\":\"odd\",\"options\":{{\"pin\":\"{source}\"}}}}\n\
         {{\"id\":1,\"do\":\"credential\",\"option\":\"pin\",\"base64\":\"aHVudGVyMg==\"}}\n\
         {{\"id\":2,\"do\":\"probe\"}}\n"
    );
    assert_eq!(seen, expected);
    let unknown = Options::at("keyhaul.toml:3:1", [("pni", source)]);
    for options in [Options::default(), unknown] {
        let store = place.store_with(&program, [("options", options.into())]);
        let error = store.probe().await.expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert!(error.message().contains("pin"), "{error:?}");
    }
}
