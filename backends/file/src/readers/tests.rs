use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};
use std::thread::{self, ThreadId};

use futures_util::future::join_all;
use keyhaul_core::{
    Capabilities, DeleteOptions, ErrorKind, ListOptions, Metadata, Page, PutOptions, SecretBytes,
};
use tokio::time::timeout;

use super::*;
use crate::store::Reader;

/// Longer than any of this takes where nothing hangs.
const LONG: Duration = Duration::from_secs(20);

/// Gives each path as its own value; what lies below `held/` once the gate is open.
#[derive(Debug, Default)]
struct Paths {
    opened: AtomicUsize,
    read: AtomicUsize,
    threads: Mutex<HashSet<ThreadId>>,
    is_open: Mutex<bool>,
    gate: Condvar,
}

struct Reading<'a>(&'a Paths);

impl Reader for Reading<'_> {
    fn get(&mut self, path: &SecretPath, _: &GetOptions) -> Result<Secret> {
        let paths = self.0;
        paths.read.fetch_add(1, Ordering::SeqCst);
        let mut threads = paths.threads.lock().expect("sound");
        threads.insert(thread::current().id());
        drop(threads);
        assert_ne!(path.as_str(), "defect/x", "a test wants it so");
        if path.as_str().starts_with("held/") {
            let open = paths.is_open.lock().expect("sound");
            drop(paths.gate.wait_while(open, |open| !*open).expect("sound"));
        }
        let value = SecretBytes::copy_from(path.as_str().as_bytes());
        Ok(Secret::new(value, Metadata::default()))
    }
}

impl Paths {
    fn open_gate(&self) {
        *self.is_open.lock().expect("sound") = true;
        self.gate.notify_all();
    }
}

impl Engine for Paths {
    fn capabilities(&self) -> Capabilities {
        unreachable!("only reads are asked for")
    }
    fn reader(&self) -> Result<Box<dyn Reader + '_>> {
        self.opened.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(Reading(self)))
    }
    fn stat(&self, _: &SecretPath, _: &GetOptions) -> Result<Metadata> {
        unreachable!("only reads are asked for")
    }
    fn put(&self, _: &SecretPath, _: &SecretBytes, _: &PutOptions) -> Result<Metadata> {
        unreachable!("only reads are asked for")
    }
    fn delete(&self, _: &SecretPath, _: &DeleteOptions) -> Result<()> {
        unreachable!("only reads are asked for")
    }
    fn list(&self, _: &SecretPath, _: &ListOptions) -> Result<Page> {
        unreachable!("only reads are asked for")
    }
    fn probe(&self) -> Result<()> {
        unreachable!("only reads are asked for")
    }
}

fn readers() -> (Arc<Paths>, Arc<Readers>) {
    let paths = Arc::new(Paths::default());
    let engine: Arc<dyn Engine> = paths.clone();
    (paths, Arc::new(Readers::new(engine)))
}

async fn get(readers: Arc<Readers>, path: String) -> Result<String> {
    let path = SecretPath::new(path).expect("a path");
    let (path, options) = ([path], GetOptions::default());
    let answers = readers.read(&path, &options);
    let mut answers = timeout(LONG, answers).await.expect("an answer in time")?;
    let secret = answers.pop().expect("one answer")?;
    assert!(answers.is_empty());
    Ok(String::from_utf8(secret.value.expose().to_vec()).expect("text"))
}

fn ask(readers: &Arc<Readers>, path: &str) -> tokio::task::JoinHandle<Result<String>> {
    tokio::spawn(get(Arc::clone(readers), path.to_owned()))
}

async fn until(what: impl Fn() -> bool) {
    let waiting = async {
        while !what() {
            tokio::task::yield_now().await;
        }
    };
    timeout(LONG, waiting).await.expect("in time");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_reads_at_once_share_few_threads_and_each_gets_its_own_answer() {
    let (paths, readers) = readers();
    let asked: Vec<String> = (0..2000).map(|number| format!("vm{number}/disk")).collect();
    let answers = join_all(
        asked
            .iter()
            .map(|path| get(Arc::clone(&readers), path.clone())),
    )
    .await;
    for (asked, answer) in asked.iter().zip(answers) {
        assert_eq!(*asked, answer.expect("read"));
    }
    assert_eq!(paths.read.load(Ordering::SeqCst), 2000);
    let opened = paths.opened.load(Ordering::SeqCst);
    assert!(opened < 1000, "opened {opened} times for 2000 reads");
    // With a thread for each there would be hundreds; some more than may work can come and go.
    let threads = paths.threads.lock().expect("sound").len();
    assert!(threads <= 4 * THREADS, "{threads} threads");
}

#[tokio::test]
async fn a_read_that_hangs_holds_up_nobody() {
    let (paths, readers) = readers();
    let held = ask(&readers, "held/x");
    until(|| paths.read.load(Ordering::SeqCst) == 1).await;
    // The first waits behind it until it counts as hanging, the others no longer.
    for number in 0..50 {
        let path = format!("vm/disk-{number}");
        assert_eq!(
            get(Arc::clone(&readers), path.clone()).await.expect("read"),
            path
        );
    }
    assert!(!held.is_finished());
    paths.open_gate();
    assert_eq!(held.await.expect("it ran").expect("read"), "held/x");
    until(|| lock(&readers.reads).threads.is_empty()).await;
}

#[tokio::test]
async fn what_is_asked_later_is_read_from_a_store_opened_later() {
    let (paths, readers) = readers();
    let first = ask(&readers, "held/x");
    until(|| paths.read.load(Ordering::SeqCst) == 1).await;
    assert_eq!(paths.opened.load(Ordering::SeqCst), 1);
    let second = ask(&readers, "vm/disk");
    until(|| lock(&readers.reads).waiting.len() == 1 || second.is_finished()).await;
    paths.open_gate();
    first.await.expect("it ran").expect("read");
    second.await.expect("it ran").expect("read");
    assert_eq!(paths.opened.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn what_nobody_waits_for_is_not_read() {
    let (paths, readers) = readers();
    let held = ask(&readers, "held/x");
    until(|| paths.read.load(Ordering::SeqCst) == 1).await;
    {
        // Before the first counts as hanging, or after: at once given up.
        let path = [SecretPath::new("vm/given-up").expect("a path")];
        let options = GetOptions::default();
        let mut given_up = Box::pin(readers.read(&path, &options));
        assert!(futures_util::poll!(given_up.as_mut()).is_pending());
    }
    paths.open_gate();
    held.await.expect("it ran").expect("read");
    until(|| lock(&readers.reads).threads.is_empty()).await;
    assert_eq!(paths.read.load(Ordering::SeqCst), 1);
    assert!(lock(&readers.reads).waiting.is_empty());
}

#[tokio::test]
async fn a_defect_ends_one_read_and_no_other() {
    let (paths, readers) = readers();
    let held = ask(&readers, "held/x");
    until(|| paths.read.load(Ordering::SeqCst) == 1).await;
    let defect = ask(&readers, "defect/x");
    let behind = ask(&readers, "vm/disk");
    until(|| lock(&readers.reads).count == 3).await;
    paths.open_gate();
    held.await.expect("it ran").expect("read");
    let error = defect.await.expect("it ran").expect_err("a defect");
    assert_eq!(error.kind(), ErrorKind::Internal);
    assert_eq!(behind.await.expect("it ran").expect("read"), "vm/disk");
    until(|| lock(&readers.reads).threads.is_empty()).await;
}

#[tokio::test]
async fn what_hangs_takes_so_many_threads_and_no_more() {
    let (paths, readers) = readers();
    let held: Vec<_> = (0..2 * MOST)
        .map(|number| ask(&readers, &format!("held/{number}")))
        .collect();
    until(|| paths.read.load(Ordering::SeqCst) == MOST).await;
    let one_more = get(Arc::clone(&readers), "vm/disk".to_owned());
    let waits = timeout(8 * HANGS, one_more).await;
    assert!(waits.is_err(), "there was a thread left");
    assert_eq!(paths.read.load(Ordering::SeqCst), MOST);
    assert_eq!(lock(&readers.reads).threads.len(), MOST);
    paths.open_gate();
    for held in held {
        held.await.expect("it ran").expect("read");
    }
    until(|| lock(&readers.reads).threads.is_empty()).await;
    let after = get(Arc::clone(&readers), "vm/disk".to_owned()).await;
    assert_eq!(after.expect("read"), "vm/disk");
}
