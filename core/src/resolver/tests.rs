use super::*;
use crate::registry::{Limits, OptionSpec, StoreConfig, StoreFactory};
use crate::{MemoryStore, SecretStoreExt as _, Wanted};

/// Hands out memory stores made beforehand, by the host part of their URL.
#[derive(Debug)]
struct Prepared(HashMap<String, Arc<dyn SecretStore>>);

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
        Some("prep")
    }
    fn open(&self, config: &StoreConfig) -> Result<Arc<dyn SecretStore>> {
        Ok(self.0[config.url.host_str().unwrap_or_default()].clone())
    }
}

const POLICY: &str = r#"
version = 1
[stores.a]
url = "prepared://a"
[stores.b]
url = "prepared://b"
[[routes]]
match = "coded/**"
store = "b"
path = "b64/{scope}/{name}"
encoding = "base64"
[[routes]]
match = "**"
store = "a"
"#;

fn resolver(stores: &[(&str, Arc<dyn SecretStore>)]) -> Resolver {
    let stores = stores
        .iter()
        .map(|(name, store)| ((*name).to_owned(), store.clone()))
        .collect();
    let registry = Registry::new().with(Prepared(stores));
    let policy = Policy::parse("policy", POLICY).expect("valid");
    Resolver::new(policy, registry, None).expect("known backends")
}

fn memory() -> (Arc<MemoryStore>, Arc<MemoryStore>, Resolver) {
    let (a, b) = (
        Arc::new(MemoryStore::new("a")),
        Arc::new(MemoryStore::new("b")),
    );
    let resolver = resolver(&[("a", a.clone()), ("b", b.clone())]);
    (a, b, resolver)
}

fn reference(text: &str) -> Reference {
    Reference::parse(text).expect("valid")
}

#[tokio::test]
async fn every_reference_gets_its_own_answer_in_order() {
    let (_, b, resolver) = memory();
    let put = |text: &'static str, value: &'static [u8]| {
        let resolver = &resolver;
        async move {
            let value = SecretBytes::copy_from(value);
            resolver
                .put(&reference(text), &value, PutOptions::default())
                .await
                .expect("put")
        }
    };
    put("web01/root", b"one").await;
    put("coded/key", b"\0\xff").await;
    let path = SecretPath::new("b64/coded/key").expect("path");
    let stored = b.get(&path, &GetOptions::default()).await.expect("stored");
    assert_eq!(stored.value.expose(), b"AP8=");

    let asked = [
        "web01/root",
        "web01/gone",
        "coded/key",
        "web01/root",
        "coded/gone",
    ]
    .map(reference);
    let answers = resolver.resolve(&asked, &Request::default()).await;
    assert_eq!(answers.len(), 5);
    let value = |index: usize| answers[index].as_ref().expect("found").value.expose();
    assert_eq!(
        (value(0), value(2), value(3)),
        (&b"one"[..], &b"\0\xff"[..], &b"one"[..])
    );
    for (index, route) in [(1, "policy:13"), (4, "policy:8")] {
        let error = answers[index].as_ref().expect_err("not there");
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert_eq!(
            error.context().reference.as_deref(),
            Some(asked[index].short())
        );
        assert_eq!(error.context().route.as_deref(), Some(route));
        assert!(error.context().store.is_some());
    }
    // Fetched once: the two answers are one value.
    let (first, again) = (
        answers[0].as_ref().expect("found"),
        answers[3].as_ref().expect("found"),
    );
    assert!(Arc::ptr_eq(first, again));
}

#[tokio::test]
async fn what_is_stored_in_another_encoding_is_corrupt_for_its_reference_alone() {
    let (_, b, resolver) = memory();
    let path = SecretPath::new("b64/coded/bad").expect("path");
    b.put(
        &path,
        &SecretBytes::copy_from(b"%%%"),
        &PutOptions::default(),
    )
    .await
    .expect("put");
    let answers = resolver
        .resolve(
            &["coded/bad", "web01/x"].map(reference),
            &Request::default(),
        )
        .await;
    let error = answers[0].as_ref().expect_err("corrupt");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert_eq!(error.context().store.as_deref(), Some("b"));
    assert_eq!(error.context().path.as_deref(), Some("b64/coded/bad"));
    assert_eq!(
        answers[1].as_ref().expect_err("absent").kind(),
        ErrorKind::NotFound
    );
}

#[tokio::test]
async fn writes_refuse_a_pinned_version_and_generated_values_are_encoded() {
    let (_, b, resolver) = memory();
    let pinned = reference("web01/root?version=1");
    let error = resolver
        .delete(&pinned, DeleteOptions::default())
        .await
        .expect_err("pinned");
    assert_eq!(error.kind(), ErrorKind::InvalidReference);
    let coded = reference("coded/made");
    resolver
        .generate(&coded, &Recipe::default(), PutOptions::default())
        .await
        .expect("made");
    let path = SecretPath::new("b64/coded/made").expect("path");
    let stored = b.get(&path, &GetOptions::default()).await.expect("stored");
    assert_eq!(stored.value.len(), 44);
    let value = resolver
        .get(&coded, GetOptions::default())
        .await
        .expect("decoded")
        .value;
    assert_eq!(value.len(), 32);
}

#[tokio::test]
async fn listing_gives_references_that_lead_back() {
    let (a, _, resolver) = memory();
    for text in ["web01/root", "web02/root", "web01/luks/data", "coded/key"] {
        let value = SecretBytes::copy_from(b"x");
        resolver
            .put(&reference(text), &value, PutOptions::default())
            .await
            .expect("put");
    }
    // Stored where another route serves that reference: no VM can reach it.
    let path = SecretPath::new("coded/stray").expect("path");
    a.put(&path, &SecretBytes::copy_from(b"x"), &PutOptions::default())
        .await
        .expect("put");
    let names = |listed: Vec<Reference>| {
        listed
            .iter()
            .map(|reference| reference.short().to_owned())
            .collect::<Vec<_>>()
    };
    let all = names(
        resolver
            .list(None, &Request::default())
            .await
            .expect("listed"),
    );
    assert_eq!(
        all,
        ["coded/key", "web01/luks/data", "web01/root", "web02/root"]
    );
    let some = names(
        resolver
            .list(Some("web01"), &Request::default())
            .await
            .expect("listed"),
    );
    assert_eq!(some, ["web01/luks/data", "web01/root"]);
    assert_eq!(
        a.list_all(&SecretPath::root()).await.expect("listed").len(),
        4
    );
}

/// A route for one secret finds it by its name, and asks for nothing else of the folder; routes of
/// other scopes are not asked at all.
#[tokio::test]
async fn a_secret_with_a_route_of_its_own_is_listed_without_its_folder() {
    const ONE: &str = r#"
version = 1
[stores.a]
url = "prepared://a"
[stores.b]
url = "prepared://b"
[[routes]]
match = "@site/ceph"
store = "a"
path = "shared/ceph-key"
[[routes]]
match = "@site/iscsi"
store = "a"
path = "shared/iscsi"
[[routes]]
match = "web*/**"
store = "b"
"#;
    let unlisted = crate::Capability::all() - crate::Capability::LIST;
    let a = Arc::new(MemoryStore::new("a").with_capabilities(unlisted));
    let b = Arc::new(MemoryStore::new("b"));
    let stores: [(String, Arc<dyn SecretStore>); 2] = [("a".into(), a), ("b".into(), b.clone())];
    let registry = Registry::new().with(Prepared(stores.into()));
    let policy = Policy::parse("policy", ONE).expect("valid");
    let resolver = Resolver::new(policy, registry, None).expect("known backends");
    for text in ["@site/ceph", "web01/root"] {
        let (reference, value) = (reference(text), SecretBytes::copy_from(b"x"));
        let put = resolver.put(&reference, &value, PutOptions::default());
        put.await.expect("put");
    }
    let request = Request::default();
    for (scope, expected) in [
        (None, &["@site/ceph", "web01/root"][..]),
        (Some("@site"), &["@site/ceph"]),
        (Some("web01"), &["web01/root"]),
        (Some("db"), &[]),
    ] {
        let listed = resolver.list(scope, &request).await.expect("listed");
        let listed: Vec<_> = listed.iter().map(Reference::short).collect();
        assert_eq!(listed, expected, "{scope:?}");
    }
}

const DIRECT: &str = r#"
version = 1
[stores.a]
url = "prepared://a/secret"
direct = true
[stores.b]
url = "prepared://b/team/secret"
[stores.c]
url = "prepared://c/both"
direct = true
[stores.d]
url = "prepared://d/both/ways"
direct = true
[[routes]]
match = "**"
store = "b"
"#;

fn direct() -> (Arc<MemoryStore>, Resolver) {
    let stores: Vec<_> = ["a", "b", "c", "d"]
        .map(|name| (name, Arc::new(MemoryStore::new(name))))
        .into_iter()
        .collect();
    let a = stores[0].1.clone();
    let stores = stores
        .into_iter()
        .map(|(name, store)| (name.to_owned(), store as Arc<dyn SecretStore>));
    let registry = Registry::new().with(Prepared(stores.collect()));
    let policy = Policy::parse("policy", DIRECT).expect("valid");
    (a, Resolver::new(policy, registry, None).expect("known"))
}

fn wanted(text: &str) -> Wanted {
    Wanted::parse(text).expect(text)
}

#[tokio::test]
async fn a_place_is_read_where_the_policy_allows_it() {
    let (a, resolver) = direct();
    let path = SecretPath::new("web01/root disk").expect("path");
    let value = SecretBytes::copy_from(b"one");
    a.put(&path, &value, &PutOptions::default())
        .await
        .expect("put");
    let asked = [
        "prep:secret/web01/root disk",
        "ref+prep://secret/web01/root%20disk",
        "prep:secret/web01/gone",
        "web01/gone",
    ]
    .map(wanted);
    let answers = resolver.resolve(&asked, &Request::default()).await;
    for answer in &answers[..2] {
        assert_eq!(answer.as_ref().expect("there").value.expose(), b"one");
    }
    let gone = |index: usize| answers[index].as_ref().expect_err("gone");
    assert_eq!(gone(2).context().store.as_deref(), Some("a"));
    assert_eq!(gone(2).context().path.as_deref(), Some("web01/gone"));
    assert_eq!(gone(3).context().store.as_deref(), Some("b"));
    let target = resolver.target(&wanted("prep:secret/x?version=3#f"));
    let target = target.expect("allowed");
    assert_eq!(target.stores, ["a"]);
    assert_eq!(target.version.expect("pinned").as_str(), "3");
    assert_eq!(target.field.expect("named").as_str(), "f");
    assert_eq!(target.route, "policy:3:9");
}

#[test]
fn a_place_that_is_not_allowed_says_what_would_allow_it() {
    let (_, resolver) = direct();
    let refused = |text: &str| resolver.target(&wanted(text)).expect_err(text);

    let error = refused("prep:team/secret/x");
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    let advice = error.advice().expect("what would");
    assert!(
        advice.contains("`direct = true` in [stores.b], at policy:6:9"),
        "{advice}"
    );

    let error = refused("vault:secret/x");
    assert_eq!(error.kind(), ErrorKind::InvalidReference);
    assert!(
        error
            .message()
            .contains("unknown alias `vault`; known are: prep"),
        "{error}"
    );

    // By whole segments, and something must be left of it.
    for text in ["prep:secretive/x", "prep:secret", "prep:elsewhere/x"] {
        let error = refused(text);
        assert_eq!(error.kind(), ErrorKind::NotFound, "{text}");
        assert!(
            error.message().contains("no prep store of policy"),
            "{error}"
        );
    }

    let error = refused("prep:both/ways/x");
    assert_eq!(error.kind(), ErrorKind::InvalidReference);
    assert!(
        error.message().contains("any of the stores c, d"),
        "{error}"
    );
    assert!(resolver.target(&wanted("prep:both/x")).is_ok());
}
