//! What lies in the token, seen by another user of PKCS#11.

mod support;

use std::path::Path;

use cryptoki::context::Pkcs11;
use cryptoki::object::{Attribute, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use keyhaul_core::{ErrorKind, GetOptions, ListOptions, PutOptions, SecretPath, SecretStore};
use support::{Hsm, in_own_process, path, secret};

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
