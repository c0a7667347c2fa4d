//! A service whose state's disk hangs ends all the same when it is told to.

mod ground;

use std::sync::Arc;
use std::time::{Duration, Instant};

use keyhaul_core::{ErrorKind, MemoryStore};

use ground::hanging::Hanging;
use ground::{Ground, LIMIT};

// One test: the thread is found by its name in the whole process.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_whose_disk_hangs_ends_in_time_and_says_what_is_lost() {
    let ground = Ground::start(Arc::new(MemoryStore::new("memory"))).await;
    ground.generate("web01/root").await;
    ground.grant("web01", "n").await;
    let (node, manager) = (ground.who("node/n"), ground.who("manager/m"));
    let hanging = Hanging::thread("state").await;
    // What was fetched is written down soon, and that hangs: nothing that needs the file is
    // answered from then on.
    assert!(ground.serves(&node, "web01/root").await);
    let begun = Instant::now();
    loop {
        let answer = ground.ask(&manager, "GET", "/v1/nodes", None).await;
        if answer.status != 200 {
            assert_eq!(answer.kind(), "Timeout", "{answer:?}");
            break;
        }
        assert!(begun.elapsed() < LIMIT, "it never hangs");
    }
    let begun = Instant::now();
    // The service manager would kill it after 90 seconds.
    let ended = tokio::time::timeout(Duration::from_secs(60), ground.end()).await;
    let ended = ended.unwrap_or_else(|_| panic!("it hangs for {:?}", begun.elapsed()));
    let error = ended.expect_err("what was buffered is not written down");
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    drop(hanging);
}
