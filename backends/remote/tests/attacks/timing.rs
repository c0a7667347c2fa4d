//! The time that a refusal takes, held against whether there is something to be refused, as an
//! attacker would: by many samples, in an order drawn at random, and their ranks.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use keyhaul_core::{
    Capabilities, DeleteOptions, Descriptor, GetOptions, ListOptions, MemoryStore, Metadata, Page,
    PutOptions, Recipe, Result, Secret, SecretBytes, SecretPath, SecretStore, random,
};
use serde_json::json;

use crate::ground::{Ground, Wire, read};

/// How much longer the store takes over what is there.
const TELLING: Duration = Duration::from_millis(5);
/// How often each name is asked for.
const ROUNDS: usize = 400;
/// Every so often, what is held is asked for too.
const EACH: usize = 4;

/// A store that tells by its time whether there is something.
struct Telling(MemoryStore);

impl fmt::Debug for Telling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Telling")
    }
}

#[async_trait]
impl SecretStore for Telling {
    fn descriptor(&self) -> &Descriptor {
        self.0.descriptor()
    }
    async fn capabilities(&self) -> Result<Capabilities> {
        self.0.capabilities().await
    }
    async fn get(&self, path: &SecretPath, options: &GetOptions) -> Result<Secret> {
        let found = self.0.get(path, options).await?;
        tokio::time::sleep(TELLING).await;
        Ok(found)
    }
    async fn get_many(&self, paths: &[SecretPath], options: &GetOptions) -> Vec<Result<Secret>> {
        let found = self.0.get_many(paths, options).await;
        if found.iter().any(Result::is_ok) {
            tokio::time::sleep(TELLING).await;
        }
        found
    }
    async fn stat(&self, path: &SecretPath, options: &GetOptions) -> Result<Metadata> {
        let found = self.0.stat(path, options).await?;
        tokio::time::sleep(TELLING).await;
        Ok(found)
    }
    async fn put(
        &self,
        path: &SecretPath,
        value: &SecretBytes,
        options: &PutOptions,
    ) -> Result<Metadata> {
        self.0.put(path, value, options).await
    }
    async fn generate(
        &self,
        path: &SecretPath,
        recipe: &Recipe,
        options: &PutOptions,
    ) -> Result<Metadata> {
        self.0.generate(path, recipe, options).await
    }
    async fn delete(&self, path: &SecretPath, options: &DeleteOptions) -> Result<()> {
        self.0.delete(path, options).await
    }
    async fn list(&self, prefix: &SecretPath, options: &ListOptions) -> Result<Page> {
        self.0.list(prefix, options).await
    }
    async fn probe(&self) -> Result<()> {
        self.0.probe().await
    }
}

/// What a node asks for: names of one length. It holds `web01` alone.
const THERE: &str = "web02/root";
const ABSENT: &str = "web02/none";
const NOWHERE: &str = "web99/root";
const HELD: &str = "web01/root";
const HELD_ABSENT: &str = "web01/none";

#[tokio::test(flavor = "multi_thread")]
async fn no_number_of_refusals_tells_what_there_is() {
    let store = Arc::new(Telling(MemoryStore::new("memory")));
    let ground = Ground::start(store).await;
    for secret in [THERE, HELD] {
        ground.generate(secret).await;
    }
    // One for each path: so many refusals are as many as one node is given.
    for (path, node) in [("/v1/secrets/read", "n"), ("/v1/secrets/stat", "o")] {
        ground.grant("web01", node).await;
        let node = ground.who(&format!("node/{node}"));
        let mut wire = ground.wire(Some(&node)).await.expect("let in");
        let mut times = [THERE, ABSENT, NOWHERE, HELD, HELD_ABSENT].map(|name| (name, Vec::new()));
        for round in 0..ROUNDS {
            let names = if round % EACH == 0 { 5 } else { 3 };
            for place in shuffled(names) {
                let (name, times) = &mut times[place];
                times.push(time(&mut wire, path, name).await);
            }
        }
        let [there, absent, nowhere, held, held_absent] = times.map(|(_, times)| times);
        // Where nothing differs, one comparison in some 150,000 is past 4.5, however busy the machine
        // is: the order is drawn at random.
        for (what, other) in [("a name", &absent), ("a scope", &nowhere)] {
            let told = deviation(&there, other);
            assert!(told.abs() < 4.5, "{path} tells {what} by {told}");
        }
        // The control: what asks the store shows it by the same measure, with a quarter of the
        // samples.
        let told = deviation(&held, &held_absent);
        assert!(told > 6.0, "{path}: {told}");
    }
}

async fn time(wire: &mut Wire, path: &str, name: &str) -> Duration {
    let body = match path {
        "/v1/secrets/read" => read(&[name]),
        _ => json!({"items": [{"secret": name}]}),
    };
    let begun = Instant::now();
    let answer = wire.ask("POST", path, Some(&body)).await.expect("answered");
    let took = begun.elapsed();
    assert_eq!(answer.status, 200, "{answer:?}");
    took
}

/// The numbers below `count`, in an order drawn at random.
fn shuffled(count: usize) -> Vec<usize> {
    let mut drawn = vec![0; count];
    random::fill(&mut drawn).expect("randomness");
    let mut places: Vec<usize> = (0..count).collect();
    places.sort_by_key(|place| drawn[*place]);
    places
}

/// By how many standard deviations the ranks of `these` are higher than those of `others` would be
/// by chance: the statistic of Mann and Whitney.
fn deviation(these: &[Duration], others: &[Duration]) -> f64 {
    let mut all: Vec<(Duration, bool)> = these
        .iter()
        .map(|time| (*time, true))
        .chain(others.iter().map(|time| (*time, false)))
        .collect();
    all.sort_unstable();
    let number = |count: usize| f64::from(u32::try_from(count).expect("few"));
    let (n, m) = (number(these.len()), number(others.len()));
    let ranks: f64 = (1..)
        .zip(&all)
        .filter(|(_, (_, is_this))| *is_this)
        .map(|(rank, _)| number(rank))
        .sum();
    let wins = ranks - n * (n + 1.0) / 2.0;
    (wins - n * m / 2.0) / (n * m * (n + m + 1.0) / 12.0).sqrt()
}

#[test]
fn the_measure_is_nothing_where_nothing_differs_and_great_where_all_does() {
    let times = |from: u64| -> Vec<Duration> {
        let steps = (0..100).map(|step| Duration::from_micros(from + 2 * step));
        steps.collect()
    };
    // Each of the second stands directly behind one of the first: 50 of 10,000 pairs apart from
    // even, which is 0.12 of the 409 that the formula's root gives.
    assert!(deviation(&times(0), &times(1)).abs() < 0.2);
    // All of 10,000 pairs: 5,000 of 409.
    assert!((deviation(&times(1000), &times(0)) - 12.2).abs() < 0.1);
    assert!((deviation(&times(0), &times(1000)) + 12.2).abs() < 0.1);
}
