//! How many threads a crowd of requests makes. Alone in its process, since all of its threads count.

mod support;

use std::path::Path;
use std::sync::Arc;

use futures_util::future;
use keyhaul_core::registry::Options;
use keyhaul_core::{GetOptions, SecretPath, SecretStore};
use support::{Folder, hostile, open};

/// The threads of this process, as the kernel lists them.
fn threads() -> usize {
    let tasks = std::fs::read_dir(Path::new("/proc/self/task")).expect("read");
    tasks.count()
}

/// The most threads that there were at the end of any of so many requests at once, each of which
/// keeps the plugin for some milliseconds.
async fn most_threads(store: &Arc<dyn SecretStore>, requests: usize) -> usize {
    let path = SecretPath::new("slow").expect("valid");
    let options = GetOptions::default();
    let gets = (0..requests).map(async |_| {
        let secret = store.get(&path, &options).await.expect("served");
        assert_eq!(secret.value.expose(), b"slow");
        threads()
    });
    let seen = future::join_all(gets).await;
    assert_eq!(seen.len(), requests);
    seen.into_iter().max().expect("one")
}

#[tokio::test]
async fn a_thousand_requests_at_once_start_sixteen_threads_at_most() {
    let folder = Folder::new();
    let path = hostile(&folder, "libhostile.so", &[]);
    let store = open("hostile", &path, Options::default()).expect("a store");
    let before = threads();
    let one = most_threads(&store, 1).await;
    assert_eq!(one, before + 1, "one request, one thread");
    // The control: a few requests do run side by side, and are seen.
    let few = most_threads(&store, 8).await;
    assert!(few > before + 1, "{few} threads, {before} before");
    let many = most_threads(&store, 1000).await;
    assert!(many <= before + 16, "{many} threads, {before} before");
}
