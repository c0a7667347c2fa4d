//! What lies at the edge of a call: before it begins, where nobody waits for it any more, and where a
//! store opens and does not.

mod support;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future;
use keyhaul_core::registry::{Options, Value};
use keyhaul_core::{
    ErrorKind, GetOptions, Metadata, PutOptions, Request, Result, SecretBytes, SecretPath,
    SecretStore,
};
use support::{Folder, hostile, open, options};

/// The host's threads for one plugin.
const THREADS: usize = 16;

/// A store of the hostile plugin, and the gate that it may wait for.
struct Site {
    folder: Folder,
    library: PathBuf,
    gate: PathBuf,
}

impl Site {
    fn new(flags: &[&str]) -> Self {
        let folder = Folder::new();
        Self {
            library: hostile(&folder, "libhostile.so", flags),
            gate: folder.path().join("gate"),
            folder,
        }
    }

    fn store(&self, name: &str) -> Arc<dyn SecretStore> {
        let gate = Value::Text(self.gate.display().to_string());
        let pin = self.folder.credential("pin", "1234");
        let given = options([("gate", gate), ("pin", pin)]);
        open(name, &self.library, given).expect("no I/O")
    }

    fn open_gate(&self) {
        std::fs::write(&self.gate, "").expect("opened");
    }
}

async fn get(store: &Arc<dyn SecretStore>, path: &str) -> Result<String> {
    let path = SecretPath::new(path).expect("valid");
    let secret = store.get(&path, &GetOptions::default()).await?;
    Ok(String::from_utf8_lossy(secret.value.expose()).into_owned())
}

async fn put(store: &Arc<dyn SecretStore>, value: &str, wait: Duration) -> Result<Metadata> {
    let request = Request::default().deadline(Some(Instant::now() + wait));
    let value = SecretBytes::copy_from(value.as_bytes());
    let path = SecretPath::new("a").expect("valid");
    let options = PutOptions::default().request(request);
    store.put(&path, &value, &options).await
}

/// Else an old value could come to lie over a newer one.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_was_told_to_have_failed_is_not_made_later() {
    let site = Site::new(&["-DTWEAK=table.put=h_put"]);
    let store = site.store("hangs-at-open");
    for _ in 0..3 {
        let error = put(&store, "old", Duration::from_millis(30)).await;
        assert_eq!(error.expect_err("hangs").kind(), ErrorKind::Timeout);
    }
    let newer = {
        let store = store.clone();
        tokio::spawn(async move { put(&store, "new", Duration::from_secs(30)).await })
    };
    site.open_gate();
    newer.await.expect("no panic").expect("written");
    // With all of the plugin's threads in one place there is none that still has an old call.
    let together = (0..THREADS).map(|_| get(&store, "together"));
    for one in future::join_all(together).await {
        assert_eq!(one.expect("served"), "together");
    }
    assert_eq!(get(&store, "puts").await.expect("told"), "new");
}

#[tokio::test]
async fn a_store_that_opens_and_answers_nonsense_is_closed_again() {
    let site = Site::new(&[]);
    let store = site.store("faults-at-open");
    for _ in 0..3 {
        let error = get(&store, "stores").await.expect_err("nonsense");
        assert_eq!(error.kind(), ErrorKind::Internal);
        assert!(error.message().contains("a value twice"), "{error}");
    }
    site.open_gate();
    assert_eq!(get(&store, "stores").await.expect("open"), "1");
}

#[tokio::test]
async fn a_credential_goes_to_memory_that_can_be_written_and_nowhere_else() {
    let site = Site::new(&[]);
    for name in ["asks-nowhere", "asks-constant"] {
        let error = get(&site.store(name), "fine").await.expect_err(name);
        // The plugin passed the host's answer on.
        assert_eq!(error.kind(), ErrorKind::Internal, "{error:?}");
        assert!(error.message().contains("says no more"), "{error:?}");
    }
    assert_eq!(
        get(&site.store("other"), "fine").await.expect("open"),
        "fine"
    );
}

#[tokio::test]
async fn a_call_without_a_deadline_is_told_for_how_long_it_is_waited() {
    let folder = Folder::new();
    let library = hostile(&folder, "libhostile.so", &[]);
    let store = open("hostile", &library, Options::default()).expect("a store");
    let left = get(&store, "deadline").await.expect("told");
    let left: u64 = left.parse().expect("a number");
    assert!((50_000..=60_000).contains(&left), "{left} ms");
}
