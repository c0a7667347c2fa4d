//! A node that guesses names learns nothing: neither from answers nor from the time they take.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use keyhaul_core::layers::{Call, Layer};
use keyhaul_core::{MemoryStore, Operation, Result, SecretStore};
use serde_json::json;

use crate::ground::{Ground, Wire, read};

/// How long the slow store takes to say anything of a secret.
const SLOW: Duration = Duration::from_millis(50);

/// Has a store take its time over every path that is read, whether there is something or not.
#[derive(Debug)]
struct Slow;

impl Layer for Slow {
    async fn around<'a, T, F>(&'a self, call: Call<'a>, attempt: F) -> Result<T>
    where
        T: Send + 'a,
        F: Fn() -> BoxFuture<'a, Result<T>> + Send + Sync + 'a,
    {
        if matches!(call.operation, Operation::Get | Operation::Stat) {
            tokio::time::sleep(SLOW).await;
        }
        attempt().await
    }
}

/// Secrets of a scope that node `n` holds, and of one that it does not.
async fn ground(store: Arc<dyn SecretStore>) -> Ground {
    let ground = Ground::start(store).await;
    for secret in ["web01/root", "web02/root"] {
        ground.generate(secret).await;
    }
    ground.grant("web01", "n").await;
    // Granted to another, in part: the same words for what a pattern leaves out.
    let manager = ground.who("manager/m");
    let part = json!({"scope": "web03", "node": "n", "names": ["boot"]});
    ground.tell(&manager, "/v1/grants", part).await;
    ground.generate("web03/root").await;
    ground
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_granted_is_refused_in_the_same_words_whether_or_not_it_is_there() {
    let ground = ground(Arc::new(MemoryStore::new("memory"))).await;
    let node = ground.who("node/n");
    let ask = async |path: &str, secret: &str| {
        let body = match path {
            "/v1/secrets/read" => read(&[secret]),
            _ => json!({"items": [{"secret": secret}]}),
        };
        let told = ground.ask(&node, "POST", path, Some(&body)).await.told();
        // All of these names are as long as each other.
        let (status, head, body) = told;
        (status, head, body.to_string().replace(secret, "SECRET"))
    };
    for path in ["/v1/secrets/read", "/v1/secrets/stat"] {
        let there = ask(path, "web02/root").await;
        for (what, secret) in [
            ("a name that is not there", "web02/none"),
            ("a scope that is not there", "web99/root"),
            ("a name outside of the grant's pattern", "web03/root"),
            ("another such, not there", "web03/none"),
            ("another's own scope", "@host.x/ab"),
        ] {
            assert_eq!(ask(path, secret).await, there, "{path}, {what}");
        }
        assert!(there.2.contains("PermissionDenied"), "{there:?}");
        // The control: in its own scope, what is not there is told apart.
        let missing = ask(path, "web01/none").await;
        assert!(missing.2.contains("NotFound"), "{missing:?}");
        assert_ne!(missing, there);
    }
    let mut audit = ground
        .ask(&ground.who("operator/o"), "GET", "/v1/audit", None)
        .await
        .json()
        .to_string();
    audit.retain(|c| c != '\\');
    assert!(audit.contains("web02/none"), "the audit has the true story");
}

/// The rule: half of the store's time. Whatever asks the store takes all of it, and whatever does
/// not takes a hundredth on an idle machine; a busy one does not turn one into the other, since the
/// medians are of samples taken in turn.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_takes_none_of_the_stores_time() {
    let ground = ground(Slow.over(Arc::new(MemoryStore::new("memory")))).await;
    let node = ground.who("node/n");
    let mut wire = ground.wire(Some(&node)).await.expect("let in");
    let secrets = [
        "web02/root",
        "web02/none",
        "web99/root",
        "web03/root",
        "web01/root",
        "web01/none",
    ];
    let mut times = vec![Vec::new(); secrets.len()];
    for _ in 0..21 {
        for (secret, times) in secrets.iter().zip(&mut times) {
            times.push(time(&mut wire, secret).await);
        }
    }
    let medians: Vec<Duration> = times.into_iter().map(median).collect();
    let (refused, held) = medians.split_at(4);
    for (secret, median) in secrets.iter().zip(refused) {
        assert!(*median < SLOW / 2, "{secret}: {medians:?}");
    }
    // The control: what is held is asked for, whether or not it is there.
    for median in held {
        assert!(*median >= SLOW, "{medians:?}");
    }
}

async fn time(wire: &mut Wire, secret: &str) -> Duration {
    let body = read(&[secret]);
    let begun = Instant::now();
    wire.ask("POST", "/v1/secrets/read", Some(&body))
        .await
        .expect("answered");
    begun.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
