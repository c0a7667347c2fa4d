use std::collections::HashMap;

use super::*;
use crate::registry::{Limits, OptionSpec, StoreConfig, StoreFactory};
use crate::{MemoryStore, Policy, PutMode, Registry};

/// Hands out memory stores made beforehand, by the host part of their URL.
#[derive(Debug)]
struct Prepared(HashMap<&'static str, Arc<MemoryStore>>);

impl StoreFactory for Prepared {
    fn schemes(&self) -> &[&'static str] {
        &["prepared"]
    }
    fn summary(&self) -> &'static str {
        "stores made by a test"
    }
    fn options(&self) -> &[OptionSpec] {
        &[]
    }
    fn is_key_service(&self) -> bool {
        false
    }
    fn limits(&self) -> Option<Limits> {
        None
    }
    fn alias(&self) -> Option<&'static str> {
        None
    }
    fn open(&self, config: &StoreConfig) -> Result<Arc<dyn SecretStore>> {
        Ok(self.0[config.url.host_str().unwrap_or_default()].clone())
    }
}

struct Ground {
    a: Arc<MemoryStore>,
    b: Arc<MemoryStore>,
    routed: Routed,
}

impl Ground {
    fn new(routes: &str) -> Self {
        Self::of(MemoryStore::new("a"), MemoryStore::new("b"), routes)
    }

    fn of(a: MemoryStore, b: MemoryStore, routes: &str) -> Self {
        let (a, b) = (Arc::new(a), Arc::new(b));
        let stores = HashMap::from([("a", a.clone()), ("b", b.clone())]);
        let text = format!(
            "version = 1\n[stores.a]\nurl = \"prepared://a\"\n[stores.b]\nurl = \"prepared://b\"\n{routes}"
        );
        let policy = Policy::parse("p.toml", &text).expect(routes);
        let registry = Registry::new().with(Prepared(stores));
        let resolver = Resolver::new(policy, registry, None).expect("sound");
        let routed = Routed::new(Arc::new(resolver));
        Self { a, b, routed }
    }

    async fn put(&self, at: &str) {
        let value = SecretBytes::copy_from(at.as_bytes());
        self.routed
            .put(&path(at), &value, &PutOptions::default())
            .await
            .expect(at);
    }

    /// Every page's secrets and folders, at most `limit` a page.
    async fn listed(
        &self,
        prefix: &str,
        shallow: bool,
        limit: usize,
    ) -> (Vec<String>, Vec<String>) {
        let prefix = match prefix {
            "" => SecretPath::root(),
            prefix => path(prefix),
        };
        let mut options = ListOptions::default().shallow(shallow).limit(Some(limit));
        let (mut secrets, mut folders) = (Vec::new(), Vec::new());
        loop {
            let page = self.routed.list(&prefix, &options).await.expect("a page");
            assert!(page.secrets.len() + page.folders.len() <= limit);
            secrets.extend(page.secrets.iter().map(ToString::to_string));
            folders.extend(page.folders.iter().map(ToString::to_string));
            match page.next {
                Some(next) => options = options.after(Some(next)),
                None => return (secrets, folders),
            }
        }
    }
}

fn path(text: &str) -> SecretPath {
    SecretPath::new(text).expect(text)
}

const TWO: &str = r#"
[[routes]]
match = "@site/**"
store = "b"
path = "shared/{name}"
encoding = "hex"
[[routes]]
match = "**"
store = "a"
path = "vms/{scope}/{name}"
"#;

#[tokio::test]
async fn each_path_goes_where_its_route_says() {
    let ground = Ground::new(TWO);
    ground.put("web01/root").await;
    ground.put("@site/tls").await;
    let options = GetOptions::default();
    let stored = ground.a.get(&path("vms/web01/root"), &options).await;
    assert_eq!(stored.expect("stored").value.expose(), b"web01/root");
    let stored = ground.b.get(&path("shared/tls"), &options).await;
    assert_eq!(
        stored.expect("stored").value.expose(),
        b"40736974652f746c73"
    );

    let paths = [
        "@site/tls",
        "web01/none",
        "a b/c",
        "web01/root",
        "@site/tls",
    ]
    .map(path);
    let came = ground.routed.get_many(&paths, &options).await;
    let came: Vec<_> = came
        .iter()
        .map(|answer| match answer {
            Ok(secret) => Ok(secret.value.expose()),
            Err(error) => Err(error.kind()),
        })
        .collect();
    let expected = [
        Ok(&b"@site/tls"[..]),
        Err(ErrorKind::NotFound),
        Err(ErrorKind::InvalidReference),
        Ok(b"web01/root"),
        Ok(b"@site/tls"),
    ];
    assert_eq!(came, expected);

    ground
        .routed
        .delete(&path("@site/tls"), &DeleteOptions::default())
        .await
        .expect("deleted");
    let gone = ground
        .b
        .get(&path("shared/tls"), &GetOptions::default())
        .await;
    assert_eq!(gone.expect_err("gone").kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn what_is_no_reference_is_refused_and_asks_nobody() {
    let ground = Ground::new(TWO);
    for text in [
        "web01",
        "a b/c",
        "web01/root?version=1",
        "web01/root#f",
        "secret:web01/root",
    ] {
        let error = ground.routed.get(&path(text), &GetOptions::default()).await;
        let error = error.expect_err(text);
        assert_eq!(error.kind(), ErrorKind::InvalidReference, "{text}");
        assert_eq!(error.context().store, None, "{text}");
    }
    let root = ground
        .routed
        .get(&SecretPath::root(), &GetOptions::default())
        .await;
    assert_eq!(
        root.expect_err("the root").kind(),
        ErrorKind::InvalidReference
    );
}

#[tokio::test]
async fn a_version_and_a_field_are_the_callers() {
    let field = |name: &str| Field::new(name).expect("plain");
    let ground = Ground::of(
        MemoryStore::new("a").with_fields(field("value")),
        MemoryStore::new("b"),
        "[[routes]]\nmatch = \"**\"\nstore = \"a\"\nfield = \"value\"\n",
    );
    let at = path("web01/root");
    let one = SecretBytes::copy_from(b"one");
    let two = SecretBytes::copy_from(b"two");
    let first = ground.routed.put(&at, &one, &PutOptions::default()).await;
    let first = first.expect("put").version.expect("a version");
    let other = PutOptions::default().field(Some(field("other")));
    ground.routed.put(&at, &two, &other).await.expect("put");
    let get = async |options: GetOptions| {
        let secret = ground.routed.get(&at, &options).await?;
        Ok::<_, Error>(secret.value.expose().to_vec())
    };
    assert_eq!(get(GetOptions::default()).await.expect("read"), b"one");
    let other = GetOptions::default().field(Some(field("other")));
    assert_eq!(get(other.clone()).await.expect("read"), b"two");
    let before = get(other.version(Some(first))).await.expect_err("not yet");
    assert_eq!(before.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn the_whole_promises_what_each_store_can_do() {
    let without = Capability::all() - Capability::VERSIONS - Capability::LABELS;
    let ground = Ground::of(
        MemoryStore::new("a"),
        MemoryStore::new("b").with_capabilities(without),
        TWO,
    );
    let whole = ground.routed.capabilities().await.expect("known");
    let one = ground.a.capabilities().await.expect("known");
    assert_eq!(whole.can, one.can & without);
    // The second is stored in hexadecimal.
    assert_eq!(whole.max_value, one.max_value / 2);
    let alone = Ground::new("[[routes]]\nmatch = \"**\"\nstore = \"a\"\n");
    assert_eq!(alone.routed.capabilities().await.expect("known"), one);
}

#[tokio::test]
async fn a_mode_reaches_the_store() {
    let ground = Ground::new(TWO);
    ground.put("web01/root").await;
    let create = PutOptions::default().mode(PutMode::Create);
    let error = ground
        .routed
        .generate(&path("web01/root"), &Recipe::default(), &create)
        .await
        .expect_err("there already");
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_eq!(error.context().route.as_deref(), Some("p.toml:13"));
}

/// Whether pages are the store's own or made here, they say the same.
#[tokio::test]
async fn pages_are_in_order_whoever_makes_them() {
    let sole = "[[routes]]\nmatch = \"**\"\nstore = \"a\"\npath = \"vms/{scope}/{name}\"\n";
    let several = "[[routes]]\nmatch = \"web0*/**\"\nstore = \"b\"\n[[routes]]\nmatch = \"**\"\nstore = \"a\"\npath = \"vms/{scope}/{name}\"\n";
    for routes in [sole, several] {
        let ground = Ground::new(routes);
        for at in [
            "web01/root",
            "web01/luks/a",
            "web01/luks/b",
            "web01/luks",
            "db/root",
            "zz/a/b",
        ] {
            ground.put(at).await;
        }
        // Beside the routes: nobody can name it.
        let value = SecretBytes::copy_from(b"x");
        for stray in ["vms/lonely", "elsewhere/a", "vms/a b/c"] {
            ground
                .a
                .put(&path(stray), &value, &PutOptions::default())
                .await
                .expect("put");
        }
        for limit in [1, 2, 100] {
            let all = [
                "db/root",
                "web01/luks",
                "web01/luks/a",
                "web01/luks/b",
                "web01/root",
                "zz/a/b",
            ];
            assert_eq!(ground.listed("", false, limit).await.0, all, "{routes}");
            assert_eq!(ground.listed("web01", false, limit).await.0, all[1..5]);
            assert_eq!(ground.listed("web01/luks", false, limit).await.0, all[2..4]);
            let (secrets, folders) = ground.listed("", true, limit).await;
            assert_eq!(
                (secrets.len(), folders),
                (0, ["db", "web01", "zz"].map(str::to_owned).to_vec())
            );
            let (secrets, folders) = ground.listed("web01", true, limit).await;
            assert_eq!(secrets, ["web01/luks", "web01/root"]);
            assert_eq!(folders, ["web01/luks"]);
            assert_eq!(ground.listed("nothing", false, limit).await.0, [""; 0]);
        }
        for options in [
            ListOptions::default().limit(Some(0)),
            ListOptions::default().after(Some("\u{1}nobody's".to_owned())),
        ] {
            let error = ground.routed.list(&SecretPath::root(), &options).await;
            assert_eq!(
                error.expect_err("refused").kind(),
                ErrorKind::InvalidReference
            );
        }
    }
}

#[tokio::test]
async fn every_store_of_a_route_is_probed() {
    let ground = Ground::new(TWO);
    ground.routed.probe().await.expect("both answer");
}
