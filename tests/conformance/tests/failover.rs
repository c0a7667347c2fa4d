//! `stores = [a, b]`: the second is asked when the first is away, and never otherwise.

use std::sync::Arc;

use keyhaul_conformance::{Fault, FaultStore};
use keyhaul_core::registry::{Limits, OptionSpec, StoreConfig, StoreFactory};
use keyhaul_core::{
    Error, ErrorKind, GetOptions, MemoryStore, Policy, PutOptions, Reference, Registry, Request,
    Resolver, Result, SecretBytes, SecretStore,
};

const POLICY: &str = r#"
version = 1
[stores.a]
url = "fault://a"
retries = 0
[stores.b]
url = "fault://b"
retries = 0
[[routes]]
match = "**"
stores = ["a", "b"]
"#;

/// Opens the two stores that a test made, by the host of their URL.
#[derive(Debug)]
struct Prepared {
    a: Arc<FaultStore>,
    b: Arc<FaultStore>,
    key_service: bool,
}

impl StoreFactory for Prepared {
    fn schemes(&self) -> &[&'static str] {
        &["fault"]
    }
    fn summary(&self) -> &'static str {
        "stores that fail on purpose"
    }
    fn options(&self) -> &[OptionSpec] {
        &[]
    }
    fn is_key_service(&self) -> bool {
        self.key_service
    }

    fn limits(&self) -> Option<Limits> {
        None
    }

    fn alias(&self) -> Option<&'static str> {
        None
    }
    fn open(&self, config: &StoreConfig) -> Result<Arc<dyn SecretStore>> {
        Ok(if config.url.host_str() == Some("a") {
            self.a.clone()
        } else {
            self.b.clone()
        })
    }
}

fn resolver(prepared: Prepared) -> Result<Resolver, Vec<Error>> {
    let policy = Policy::parse("policy", POLICY).expect("sound");
    Resolver::new(policy, Registry::new().with(prepared), None)
}

fn reference(text: &str) -> Reference {
    Reference::parse(text).expect("valid")
}

/// A memory store with `value` at web01/root.
async fn holding(value: &[u8]) -> Arc<MemoryStore> {
    let store = Arc::new(MemoryStore::new("m"));
    let path = keyhaul_core::SecretPath::new("web01/root").expect("valid");
    store
        .put(
            &path,
            &SecretBytes::copy_from(value),
            &PutOptions::default(),
        )
        .await
        .expect("put");
    store
}

/// What a read gives, and how often the second store was asked, when the first fails like this.
async fn read(fault: Fault) -> (Result<Vec<u8>>, usize) {
    let a = FaultStore::new(holding(b"first").await, [fault.clone(), fault]);
    let b = FaultStore::new(holding(b"second").await, []);
    let resolver = resolver(Prepared {
        a,
        b: b.clone(),
        key_service: false,
    })
    .expect("sound");
    let root = [reference("web01/root")];
    let one = resolver.get(&root[0], GetOptions::default()).await;
    let many = resolver.resolve(&root, &Request::default()).await.remove(0);
    let one = one.map(|secret| secret.value.expose().to_vec());
    let many = many.map(|secret| secret.value.expose().to_vec());
    match (&one, &many) {
        (Ok(one), Ok(many)) => assert_eq!(one, many),
        (Err(one), Err(many)) => assert_eq!(one.kind(), many.kind()),
        differ => panic!("one and many differ: {differ:?}"),
    }
    (one, b.seen().len())
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_is_stood_in_for() {
    for kind in [
        ErrorKind::Unavailable,
        ErrorKind::Timeout,
        ErrorKind::RateLimited,
    ] {
        let (value, asked) = read(Fault::Fail(kind)).await;
        assert_eq!(
            (value.expect("from the second").as_slice(), asked),
            (&b"second"[..], 2)
        );
    }
    let (value, asked) = read(Fault::None).await;
    assert_eq!(
        (value.expect("from the first").as_slice(), asked),
        (&b"first"[..], 0)
    );
}

/// What the breaker refuses is not asked of the first store, and is of the second.
#[tokio::test(start_paused = true)]
async fn a_store_known_to_be_down_is_stood_in_for_at_once() {
    let down = vec![Fault::Fail(ErrorKind::Unavailable); 9];
    let a = FaultStore::new(holding(b"first").await, down);
    let b = FaultStore::new(holding(b"second").await, []);
    let breaker = "url = \"fault://a\"\nbreaker = { failures = 1, pause = \"1m\" }";
    let policy = POLICY.replace("url = \"fault://a\"", breaker);
    let policy = Policy::parse("policy", &policy).expect("sound");
    let registry = Registry::new().with(Prepared {
        a: a.clone(),
        b: b.clone(),
        key_service: false,
    });
    let resolver = Resolver::new(policy, registry, None).expect("sound");
    for _ in 0..5 {
        let root = reference("web01/root");
        let secret = resolver.get(&root, GetOptions::default()).await;
        assert_eq!(secret.expect("from the second").value.expose(), b"second");
    }
    assert_eq!((a.seen().len(), b.seen().len()), (1, 5));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_says_no_is_not_got_round() {
    for kind in ErrorKind::ALL.iter().filter(|kind| !kind.is_transient()) {
        let (value, asked) = read(Fault::Fail(*kind)).await;
        assert_eq!(
            (value.expect_err("as the first says").kind(), asked),
            (*kind, 0)
        );
    }
}

/// What another store has under the same number is another value.
#[tokio::test(start_paused = true)]
async fn a_pinned_version_is_asked_of_its_own_store_alone() {
    let away = Fault::Fail(ErrorKind::Unavailable);
    let a = FaultStore::new(holding(b"first").await, [away.clone(), away]);
    let b = FaultStore::new(holding(b"second").await, []);
    let resolver = resolver(Prepared {
        a,
        b: b.clone(),
        key_service: false,
    })
    .expect("sound");
    let pinned = [reference("web01/root?version=1")];
    let one = resolver.get(&pinned[0], GetOptions::default()).await;
    let many = resolver.resolve(&pinned, &Request::default()).await;
    assert_eq!(one.expect_err("away").kind(), ErrorKind::Unavailable);
    let error = many[0].as_ref().expect_err("away");
    assert_eq!((error.kind(), b.seen().len()), (ErrorKind::Unavailable, 0));
    // The first store is there again, and has it.
    let one = resolver.get(&pinned[0], GetOptions::default()).await;
    assert_eq!(one.expect("there").value.expose(), b"first");
}

#[tokio::test(start_paused = true)]
async fn a_write_goes_to_the_first_store_or_nowhere() {
    let a = FaultStore::new(
        holding(b"first").await,
        [Fault::Fail(ErrorKind::Unavailable)],
    );
    let b = FaultStore::new(holding(b"second").await, []);
    let resolver = resolver(Prepared {
        a,
        b: b.clone(),
        key_service: false,
    })
    .expect("sound");
    let value = SecretBytes::copy_from(b"new");
    let root = reference("web01/root");
    let error = resolver
        .put(&root, &value, PutOptions::default())
        .await
        .expect_err("away");
    assert_eq!((error.kind(), b.seen().len()), (ErrorKind::Unavailable, 0));
}

#[tokio::test]
async fn a_key_service_has_no_stand_in() {
    let store = || FaultStore::new(Arc::new(MemoryStore::new("m")), []);
    let refused = resolver(Prepared {
        a: store(),
        b: store(),
        key_service: true,
    });
    let errors = refused.expect_err("it would get round a revocation");
    assert_eq!(errors[0].kind(), ErrorKind::InvalidConfig);
    assert_eq!(errors[0].context().place.as_deref(), Some("policy:10"));
    assert!(errors[0].message().contains("revocation"));
}
