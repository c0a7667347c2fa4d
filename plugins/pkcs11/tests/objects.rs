//! What lies in the token, seen by another user of PKCS#11.

mod support;

use std::path::Path;

use cryptoki::context::Pkcs11;
use cryptoki::object::{Attribute, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use keyhaul_core::{ErrorKind, GetOptions, ListOptions, PutOptions, SecretPath, SecretStore};
use support::{Hsm, in_own_process, path, secret, text};

/// A session of somebody else in this process. It needs the store to have been used before: the
/// login is the process's.
fn session() -> Session {
    let module = Pkcs11::new(Path::new("/usr/lib/softhsm/libsofthsm2.so")).expect("loaded");
    let slots = module.get_slots_with_initialized_token().expect("slots");
    module.open_rw_session(slots[0]).expect("a session")
}

fn labelled(label: &str, private: bool) -> Vec<Attribute> {
    vec![
        Attribute::Class(ObjectClass::DATA),
        Attribute::Token(true),
        Attribute::Private(private),
        Attribute::Application(b"keyhaul".to_vec()),
        Attribute::Label(label.into()),
    ]
}

fn objects(session: &Session, label: &str) -> Vec<ObjectHandle> {
    session.find_objects(&labelled(label, true)).expect("found")
}

fn make(session: &Session, label: &str, private: bool, value: &str) -> ObjectHandle {
    let mut object = labelled(label, private);
    object.push(Attribute::Value(value.into()));
    session.create_object(&object).expect("made")
}

async fn value(store: &dyn SecretStore, path: &SecretPath) -> String {
    let came = store.get(path, &GetOptions::default()).await.expect("read");
    String::from_utf8(came.value.expose().to_vec()).expect("text")
}

#[tokio::test]
async fn what_another_program_put_there_is_a_secret_and_is_replaced_whole() {
    if !in_own_process("what_another_program_put_there_is_a_secret_and_is_replaced_whole") {
        return;
    }
    let hsm = Hsm::new("vms");
    let store = hsm.store();
    store.probe().await.expect("logged in");
    let session = session();
    make(&session, "web01/root", true, "theirs");
    let root = path("web01/root");
    assert_eq!(value(&*store, &root).await, "theirs");
    store
        .put(&root, &secret("ours"), &PutOptions::default())
        .await
        .expect("put");
    assert_eq!(value(&*store, &root).await, "ours");
    assert_eq!(objects(&session, "web01/root").len(), 1);
    store
        .delete(&root, &Default::default())
        .await
        .expect("deleted");
    assert_eq!(objects(&session, "web01/root").len(), 0);
}

#[tokio::test]
async fn a_token_is_found_by_its_uri() {
    if !in_own_process("a_token_is_found_by_its_uri") {
        return;
    }
    let (hsm, _other) = (Hsm::new("my vms; 50%"), Hsm::new("my vms"));
    let uri = |model: &str| {
        format!(
            "pkcs11:token=my%20vms%3B%2050%25;manufacturer=SoftHSM%20project;model={model}?module-path={}&pin-source=file:{}",
            hsm.module().display(),
            hsm.pin_file().display()
        )
    };
    let (a, put) = (path("a"), PutOptions::default());
    let store = hsm.store_at(&uri("SoftHSM%20v2"));
    store.put(&a, &secret("value"), &put).await.expect("put");
    assert_eq!(value(&*hsm.store(), &a).await, "value");

    let store = hsm.store_at(&uri("SoftHSM%20v3"));
    let error = store.probe().await.expect_err("no such model");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    let location =
        "pkcs11:token=my%20vms%3B%2050%25;manufacturer=SoftHSM%20project;model=SoftHSM%20v3";
    assert!(error.message().ends_with(location), "{error}");
    assert_eq!(store.descriptor().location, location);
}

#[tokio::test]
async fn objects_without_a_pin_or_of_another_application_are_no_secrets() {
    if !in_own_process("objects_without_a_pin_or_of_another_application_are_no_secrets") {
        return;
    }
    let hsm = Hsm::new("vms");
    let store = hsm.store();
    let options = GetOptions::default();
    store.probe().await.expect("logged in");
    let session = session();
    // Whoever reaches the token can make this one, without the PIN.
    make(&session, "planted", false, "planted");
    let mut foreign = labelled("foreign", true);
    foreign[3] = Attribute::Application(b"other".to_vec());
    session.create_object(&foreign).expect("made");
    make(&session, "/no/path/", true, "x");
    make(&session, "there", true, "x");
    for name in ["planted", "foreign"] {
        let error = store.get(&path(name), &options).await.expect_err(name);
        assert_eq!(error.kind(), ErrorKind::NotFound, "{name}");
    }
    let page = store
        .list(&SecretPath::root(), &ListOptions::default())
        .await
        .expect("listed");
    assert_eq!(page.secrets, [path("there")]);
}

#[tokio::test]
async fn after_a_crash_between_making_and_destroying_the_later_value_counts() {
    if !in_own_process("after_a_crash_between_making_and_destroying_the_later_value_counts") {
        return;
    }
    let hsm = Hsm::new("vms");
    let store = hsm.store();
    let a = path("a");
    for value in ["first", "second"] {
        store
            .put(&a, &secret(value), &PutOptions::default())
            .await
            .expect("put");
    }
    let session = session();
    // As a writer leaves it that died before it destroyed the older one, whichever order a search
    // gives them in.
    for _ in 0..3 {
        make(&session, "a", true, "older");
    }
    assert_eq!(objects(&session, "a").len(), 4);
    assert_eq!(value(&*store, &a).await, "second");
    let page = store
        .list(&SecretPath::root(), &ListOptions::default())
        .await
        .expect("listed");
    assert_eq!(page.secrets, std::slice::from_ref(&a));
    store
        .put(&a, &secret("third"), &PutOptions::default())
        .await
        .expect("put");
    assert_eq!(objects(&session, "a").len(), 1);
    assert_eq!(value(&*store, &a).await, "third");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_beside_writers_see_whole_values_and_never_none() {
    if !in_own_process("readers_beside_writers_see_whole_values_and_never_none") {
        return;
    }
    let hsm = Hsm::new("vms");
    // Two stores in one process, as two policies' names for one token.
    let (writer, reader) = (hsm.store(), hsm.store());
    let a = path("a");
    let first = secret("0000");
    let put = PutOptions::default();
    writer.put(&a, &first, &put).await.expect("put");
    let path = a.clone();
    let writing = tokio::spawn(async move {
        for n in 1..=60_usize {
            let value = n.to_string().repeat(n * 7);
            let put = PutOptions::default();
            let done = writer.put(&path, &secret(&value), &put).await;
            done.expect("put");
        }
    });
    let mut seen = 0;
    while !writing.is_finished() {
        let value = value(&*reader, &a).await;
        let whole = (1..=60_usize).any(|n| value == n.to_string().repeat(n * 7));
        assert!(whole || value == "0000", "{value}");
        seen += 1;
    }
    writing.await.expect("written");
    assert!(seen > 0);
    assert_eq!(value(&*reader, &a).await, "60".repeat(420));
    assert_eq!(objects(&session(), "a").len(), 1);
}

#[tokio::test]
async fn a_token_that_makes_objects_as_opensc_does_keeps_secrets() {
    if !in_own_process("a_token_that_makes_objects_as_opensc_does_keeps_secrets") {
        return;
    }
    let hsm = Hsm::with_trouble("vms");
    hsm.trouble("opensc");
    let store = hsm.store();
    let (a, put) = (path("a"), PutOptions::default());
    for word in ["first", "second"] {
        store.put(&a, &secret(word), &put).await.expect("put");
        assert_eq!(value(&*store, &a).await, word);
    }
    assert_eq!(objects(&session(), "a").len(), 1);

    // It reads an application to a zero byte. Where one fills what the C library gives out, there
    // is none behind it by chance.
    let full = "exactly-24-bytes-of-text";
    let odd = hsm.store_with(&[("application", text(full))]);
    odd.put(&a, &secret("third"), &put).await.expect("put");
    assert_eq!(value(&*odd, &a).await, "third");

    // It shortens labels. Nothing would be found at that path again, and another path is this one's
    // beginning.
    let (long, beginning) = ("x".repeat(100), format!("{0}/{0}/", "x".repeat(100)));
    let (long, beginning) = (format!("{beginning}{long}"), format!("{beginning}y"));
    store
        .put(&path(&beginning), &secret("short"), &put)
        .await
        .expect("short enough");
    let error = store.put(&path(&long), &secret("long"), &put).await;
    let error = error.expect_err("too long for the token");
    assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
    assert!(error.message().contains("CKA_LABEL"), "{error}");
    assert_eq!(objects(&session(), &long[..254]).len(), 0);
    assert_eq!(value(&*store, &path(&beginning)).await, "short");
}

#[tokio::test]
async fn a_token_that_does_not_keep_an_object_as_it_is_given_loses_no_value() {
    if !in_own_process("a_token_that_does_not_keep_an_object_as_it_is_given_loses_no_value") {
        return;
    }
    let hsm = Hsm::with_trouble("vms");
    let store = hsm.store();
    let (a, put) = (path("a"), PutOptions::default());
    store.put(&a, &secret("first"), &put).await.expect("put");
    let lost = [
        // Which one is the later one, nobody could tell.
        ("no-ids", "CKA_OBJECT_ID"),
        ("public", "CKA_PRIVATE"),
        // Refused by the token itself, which does not say why.
        ("no-private", "AttributeValueInvalid"),
    ];
    for (trouble, named) in lost {
        hsm.trouble(trouble);
        let error = store.put(&a, &secret("second"), &put).await;
        let error = error.expect_err(trouble);
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
        assert!(error.message().contains(named), "{error}");
        assert_eq!(value(&*store, &a).await, "first");
        let session = session();
        assert_eq!(objects(&session, "a").len(), 1);
        let public = session.find_objects(&labelled("a", false)).expect("found");
        assert_eq!(public, []);
    }
    hsm.trouble("");
    store.put(&a, &secret("third"), &put).await.expect("put");
    assert_eq!(value(&*store, &a).await, "third");
}
