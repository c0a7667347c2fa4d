//! Stores whose servers have a bad day: sealed, restarted, without a leader, behind a proxy that
//! stalls. No value is ever wrong, every failure is one that passes, and comes by its deadline.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use keyhaul_core::{
    ErrorKind, GetOptions, PutMode, PutOptions, Request, SecretBytes, SecretStore as _,
};
use keyhaul_servers::{Mode, OpenBao, Proxy};
use keyhaul_vault::VaultStore;
use support::{config_at, path, secret};
use tokio::task::JoinSet;

/// How long each request may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// What a busy machine may add to that.
const GRACE: Duration = Duration::from_secs(2);
/// Until when a server that is well again serves.
const RECOVERY: Duration = Duration::from_secs(30);
const SECRETS: usize = 8;
/// Between two requests of one reader or writer: the servers run on the same processors.
const PAUSE: Duration = Duration::from_millis(20);

fn store_at(server: &OpenBao) -> Arc<VaultStore> {
    let ca = server.ca_path();
    let ca = ca.to_str().expect("text");
    let config = config_at(server, server.root_token(), "secret", &[("ca-cert", ca)]);
    Arc::new(VaultStore::open(&config).expect("opens"))
}

fn request() -> Request {
    Request::default().deadline(Some(Instant::now() + PATIENCE))
}

fn value(number: usize) -> SecretBytes {
    secret(&format!("the value of {number}"))
}

fn at(number: usize) -> keyhaul_core::SecretPath {
    path(&format!("vms/{number}"))
}

/// Readers of a store that never stop, each of its own secret.
struct Readers {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    tasks: JoinSet<Vec<String>>,
}

impl Readers {
    async fn of(store: &Arc<VaultStore>) -> Self {
        for number in 0..SECRETS {
            store
                .put(&at(number), &value(number), &PutOptions::default())
                .await
                .expect("put on a good day");
        }
        let stop = Arc::new(AtomicBool::new(false));
        let served = Arc::new(AtomicUsize::new(0));
        let mut tasks = JoinSet::new();
        for number in 0..SECRETS {
            let (store, stop, served) = (Arc::clone(store), Arc::clone(&stop), Arc::clone(&served));
            tasks.spawn(async move {
                let mut failures = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let start = Instant::now();
                    let options = GetOptions::default().request(request());
                    match store.get(&at(number), &options).await {
                        Ok(secret) => {
                            assert!(secret.value == value(number), "a wrong value at {number}");
                            served.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(error) => {
                            let passing = [ErrorKind::Timeout, ErrorKind::Unavailable];
                            assert!(passing.contains(&error.kind()), "{error:?}");
                            failures.push(error.to_string());
                        }
                    }
                    let took = start.elapsed();
                    assert!(took < PATIENCE + GRACE, "{took:?} for a request");
                    tokio::time::sleep(PAUSE).await;
                }
                failures
            });
        }
        let readers = Self {
            stop,
            served,
            tasks,
        };
        readers.await_service().await;
        readers
    }

    /// Waits until the store serves.
    async fn await_service(&self) {
        let before = self.served.load(Ordering::Relaxed);
        let start = Instant::now();
        while self.served.load(Ordering::Relaxed) < before + 2 * SECRETS {
            assert!(start.elapsed() < RECOVERY, "not served within {RECOVERY:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// All failures there were.
    async fn stop(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.tasks.join_all().await.concat()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_sealed_and_restarted_under_its_readers_serves_them_again() {
    let mut server = OpenBao::tls();
    server.kv("secret", 2);
    let store = store_at(&server);
    let readers = Readers::of(&store).await;
    server.seal();
    let error = store.get(&at(0), &GetOptions::default()).await;
    let error = error.expect_err("sealed");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().contains("is sealed"), "{error}");
    server.unseal();
    readers.await_service().await;
    server.stop();
    let error = store.get(&at(0), &GetOptions::default()).await;
    assert_eq!(error.expect_err("gone").kind(), ErrorKind::Unavailable);
    server.start();
    server.unseal();
    readers.await_service().await;
    let failures = readers.stop().await;
    assert!(!failures.is_empty(), "the day was not bad");
}

/// The clients' server stays the same, and passes on to whoever leads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_steps_down_loses_no_write_and_its_readers_are_served_by_the_next() {
    let cluster = OpenBao::raft(3);
    cluster.leader().kv("secret", 2);
    let store = store_at(cluster.leader());
    let readers = Readers::of(&store).await;
    let stop = Arc::new(AtomicBool::new(false));
    let writer = {
        let (store, stop) = (Arc::clone(&store), Arc::clone(&stop));
        tokio::spawn(async move {
            let mut written = Vec::new();
            for number in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let options = PutOptions::default()
                    .mode(PutMode::Create)
                    .request(request());
                let path = path(&format!("new/{number}"));
                match store.put(&path, &value(number), &options).await {
                    Ok(_) => written.push(number),
                    Err(error) => assert!(error.kind().is_transient(), "{error:?}"),
                }
                tokio::time::sleep(PAUSE).await;
            }
            written
        })
    };
    cluster.step_down();
    readers.await_service().await;
    stop.store(true, Ordering::Relaxed);
    let written = writer.await.expect("the writer");
    readers.stop().await;
    assert!(!written.is_empty());
    // The server that is asked is a standby now, which answers reads by itself and can be behind.
    let start = Instant::now();
    for number in written {
        let path = path(&format!("new/{number}"));
        let secret = loop {
            match store.get(&path, &GetOptions::default()).await {
                Err(error) if error.kind() == ErrorKind::NotFound && start.elapsed() < RECOVERY => {
                    tokio::time::sleep(PAUSE).await;
                }
                read => break read.expect("written"),
            }
        };
        assert!(secret.value == value(number));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_that_stalls_or_resets_costs_no_more_than_the_deadline() {
    let server = OpenBao::tls();
    server.kv("secret", 2);
    let proxy = Proxy::to(server.address());
    let ca = server.ca_path();
    let ca = ca.to_str().expect("text");
    let mut config = config_at(&server, server.root_token(), "secret", &[("ca-cert", ca)]);
    let port = Some(proxy.address().port());
    config.url.set_port(port).expect("a port");
    let store = Arc::new(VaultStore::open(&config).expect("opens"));
    let readers = Readers::of(&store).await;
    for mode in [Mode::Stall, Mode::Reset, Mode::Swallow] {
        proxy.set(mode);
        let options = GetOptions::default().request(request());
        let expected = match mode {
            Mode::Reset => ErrorKind::Unavailable,
            _ => ErrorKind::Timeout,
        };
        let error = store.get(&at(0), &options).await.expect_err("a bad day");
        assert_eq!(error.kind(), expected, "{mode:?}: {error}");
        proxy.set(Mode::Pass);
        readers.await_service().await;
    }
    assert!(!readers.stop().await.is_empty(), "the day was not bad");
}
