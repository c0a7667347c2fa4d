//! The kernel's keyrings: with `keyctl`, against the clock, and where they refuse.

mod support;

use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, Instant, SystemTime};

use keyhaul_core::{
    DeleteOptions, ErrorKind, GetOptions, ListOptions, PutMode, PutOptions, SecretBytes, SecretPath,
};
use support::{in_own_session, in_session_by, keyctl, open, path, run, says, secret, text};

const SESSION: &str = "keyring+kernel:session";

/// The number of a key that `keyctl` finds.
fn serial(keyring: &str, description: &str) -> String {
    let found = says(keyctl(&["search", keyring, "user", description]), b"");
    String::from_utf8_lossy(&found).trim().to_owned()
}

#[tokio::test]
async fn keyctl_finds_what_keyhaul_wrote_and_the_reverse() {
    if !in_own_session("keyctl_finds_what_keyhaul_wrote_and_the_reverse") {
        return;
    }
    // The user's keyring, which is everybody's of this user: under a prefix of this test's own.
    let prefix = format!("keyhaul-test-{}", std::process::id());
    // A session of its own does not link it. keyctl reads only what its session leads to.
    says(keyctl(&["link", "@u", "@s"]), b"");
    let store = open("keyring+kernel:user", &[("prefix", text(&prefix))]);
    let (get, put) = (GetOptions::default(), PutOptions::default());
    let described = |name: &str| format!("{prefix}:{name}");

    let disk = path("web01/root-disk");
    store
        .put(&disk, &secret("from keyhaul"), &put)
        .await
        .expect("put");
    let key = serial("@u", &described("web01/root-disk"));
    assert_eq!(says(keyctl(&["pipe", &key]), b""), b"from keyhaul");

    says(
        keyctl(&["padd", "user", &described("web01/root-disk"), "@u"]),
        b"by keyctl",
    );
    let came = store.get(&disk, &get).await.expect("get");
    assert_eq!(came.value, secret("by keyctl"));

    let binary = b"\0\xff;\n\0";
    says(
        keyctl(&["padd", "user", &described("web02/vnc"), "@u"]),
        binary,
    );
    let vnc = path("web02/vnc");
    let came = store.get(&vnc, &get).await.expect("get");
    assert_eq!(came.value, SecretBytes::copy_from(binary));

    let page = store
        .list(&SecretPath::root(), &ListOptions::default())
        .await;
    assert_eq!(page.expect("list").secrets, [disk.clone(), vnc.clone()]);
    for name in [disk, vnc] {
        store
            .delete(&name, &DeleteOptions::default())
            .await
            .expect("delete");
        let gone = run(
            keyctl(&["search", "@u", "user", &described(name.as_str())]),
            b"",
        );
        assert!(!gone.status.success());
    }
}

/// What keyhaul needs no key for is not left behind either.
#[tokio::test]
async fn a_secret_leaves_nothing_in_the_keyring() {
    if !in_own_session("a_secret_leaves_nothing_in_the_keyring") {
        return;
    }
    let store = open(SESSION, &[]);
    let keys = || String::from_utf8(says(keyctl(&["rlist", "@s"]), b"")).expect("numbers");
    let before = keys();
    let later = Some(SystemTime::now() + Duration::from_secs(600));
    let name = path("a/b");
    for options in [PutOptions::default(), PutOptions::default().expires(later)] {
        for value in ["", "x", ""] {
            let put = store.put(&name, &secret(value), &options).await;
            put.expect("put");
        }
    }
    let refused = PutOptions::default().mode(PutMode::Create).expires(later);
    let refused = store.put(&name, &secret("y"), &refused).await;
    assert_eq!(refused.expect_err("there").kind(), ErrorKind::AlreadyExists);
    // The key and its note.
    assert_eq!(keys().split_whitespace().count(), 2, "{}", keys());
    store
        .delete(&name, &DeleteOptions::default())
        .await
        .expect("delete");
    assert_eq!(keys(), before);
}

#[tokio::test]
async fn foreign_keys_are_neither_listed_nor_in_the_way() {
    if !in_own_session("foreign_keys_are_neither_listed_nor_in_the_way") {
        return;
    }
    let long = format!("other:{}", "x".repeat(4000));
    for description in ["keyhaul", "keyhaul:", "keyhaul:/a//b", "other;a;b", &long] {
        says(keyctl(&["padd", "user", description, "@s"]), b"x");
    }
    says(keyctl(&["newring", "keyhaul:ring", "@s"]), b"");
    says(keyctl(&["padd", "logon", "keyhaul:logon", "@s"]), b"x");
    says(keyctl(&["padd", "user", "keyhaul:a;b", "@s"]), b"x");
    // In a keyring below: another place.
    says(keyctl(&["link", "@u", "@s"]), b"");
    let below = format!("keyhaul:below-{}", std::process::id());
    let key = says(keyctl(&["padd", "user", &below, "@u"]), b"x");
    let key = String::from_utf8_lossy(&key).trim().to_owned();
    let store = open(SESSION, &[]);
    let page = store
        .list(&SecretPath::root(), &ListOptions::default())
        .await;
    let name = below.strip_prefix("keyhaul:").expect("the prefix");
    let found = store.get(&path(name), &GetOptions::default()).await;
    says(keyctl(&["unlink", &key, "@u"]), b"");
    assert_eq!(page.expect("list").secrets, [path("a;b")]);
    assert_eq!(
        found.expect_err("another keyring's").kind(),
        ErrorKind::NotFound
    );
    let ring = store.get(&path("ring"), &GetOptions::default()).await;
    assert_eq!(ring.expect_err("no user key").kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_key_that_has_expired_or_was_revoked_says_so_and_can_be_made_again() {
    if !in_own_session("a_key_that_has_expired_or_was_revoked_says_so_and_can_be_made_again") {
        return;
    }
    let store = open(SESSION, &[]);
    let (get, name) = (GetOptions::default(), path("a/b"));
    let create = PutOptions::default().mode(PutMode::Create);
    store.put(&name, &secret("1"), &create).await.expect("put");
    says(keyctl(&["timeout", &serial("@s", "keyhaul:a/b"), "1"]), b"");
    let start = Instant::now();
    let error = loop {
        match store.get(&name, &get).await {
            Err(error) => break error,
            Ok(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
        assert!(start.elapsed() < Duration::from_secs(5), "it expires");
    };
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.message().contains("expired"), "{error:?}");
    // The kernel keeps the husk for minutes: a create does not wait for that.
    store.put(&name, &secret("2"), &create).await.expect("put");
    assert_eq!(
        store.get(&name, &get).await.expect("get").value,
        secret("2")
    );

    says(keyctl(&["revoke", &serial("@s", "keyhaul:a/b")]), b"");
    let error = store.get(&name, &get).await.expect_err("revoked");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.message().contains("revoked"), "{error:?}");
    store
        .delete(&name, &DeleteOptions::default())
        .await
        .expect("delete");
    store.put(&name, &secret("3"), &create).await.expect("put");
    assert_eq!(
        store.get(&name, &get).await.expect("get").value,
        secret("3")
    );
}

#[tokio::test]
async fn the_time_of_expiry_is_the_kernels_whoever_set_it() {
    if !in_own_session("the_time_of_expiry_is_the_kernels_whoever_set_it") {
        return;
    }
    let store = open(SESSION, &[("expire-after", text("2h"))]);
    let (get, name) = (GetOptions::default(), path("a/b"));
    let put = store
        .put(&name, &secret("x"), &PutOptions::default())
        .await
        .expect("put");
    let told = store
        .stat(&name, &get)
        .await
        .expect("stat")
        .expires
        .expect("two hours");
    let left = told
        .duration_since(SystemTime::now())
        .expect("in the future");
    assert!(
        left > Duration::from_secs(7190) && left <= Duration::from_secs(7200),
        "{left:?}"
    );
    assert!(
        put.expires
            .expect("two hours")
            .duration_since(told)
            .unwrap_or_default()
            < Duration::from_millis(2)
    );
    let key = serial("@s", "keyhaul:a/b");
    says(keyctl(&["timeout", &key, "100"]), b"");
    let told = store
        .stat(&name, &get)
        .await
        .expect("stat")
        .expires
        .expect("by keyctl");
    let left = told
        .duration_since(SystemTime::now())
        .expect("in the future");
    assert!(
        left <= Duration::from_secs(100) && left > Duration::from_secs(50),
        "{left:?}"
    );
    // In place, which lifts it.
    says(keyctl(&["update", &key, "again"]), b"");
    assert_eq!(store.stat(&name, &get).await.expect("stat").expires, None);
}

/// A session without a link to the user's keyring, as a service or a cron job has, in which keyctl
/// itself is refused.
#[tokio::test]
async fn keys_of_the_user_are_read_without_a_link_from_the_session() {
    if !in_own_session("keys_of_the_user_are_read_without_a_link_from_the_session") {
        return;
    }
    let prefix = format!("keyhaul-test-{}", std::process::id());
    let store = open("keyring+kernel:user", &[("prefix", text(&prefix))]);
    let name = path("a/b");
    let key = says(
        keyctl(&["padd", "user", &format!("{prefix}:a/b"), "@u"]),
        b"x",
    );
    let key = String::from_utf8_lossy(&key).trim().to_owned();
    let refused = run(keyctl(&["pipe", &key]), b"");
    let came = store.get(&name, &GetOptions::default()).await;
    store
        .delete(&name, &DeleteOptions::default())
        .await
        .expect("delete");
    assert!(
        !refused.status.success(),
        "the control: keyctl does not possess it"
    );
    assert_eq!(came.expect("get").value, secret("x"));
}

/// A key that its possessor may look at, and nothing else.
#[tokio::test]
async fn a_key_that_may_not_be_read_is_denied() {
    if !in_own_session("a_key_that_may_not_be_read_is_denied") {
        return;
    }
    let store = open(SESSION, &[]);
    says(keyctl(&["padd", "user", "keyhaul:a/b", "@s"]), b"x");
    says(
        keyctl(&["setperm", &serial("@s", "keyhaul:a/b"), "0x01000000"]),
        b"",
    );
    let name = path("a/b");
    let denied = store.get(&name, &GetOptions::default()).await;
    let denied = denied.expect_err("denied");
    assert_eq!(denied.kind(), ErrorKind::PermissionDenied, "{denied:?}");
    assert!(
        denied
            .advice()
            .is_some_and(|advice| advice.contains("keyctl"))
    );
}

/// The session that a process has which PAM or systemd made none for.
#[tokio::test]
async fn a_process_without_a_session_of_its_own_is_told() {
    let user = std::fs::metadata("/proc/self").expect("this process").uid();
    let shared = format!("_uid_ses.{user}");
    let test = "a_process_without_a_session_of_its_own_is_told";
    if !in_session_by(test, &["keyctl", "session", &shared]) {
        return;
    }
    let error = open(SESSION, &[]).probe().await.expect_err("not its own");
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    let advice = error.advice().expect("what to do");
    assert!(advice.contains("keyctl session -"), "{advice}");
    // The user's keyring is there for it.
    let user = open("keyring+kernel:user", &[]).probe().await;
    user.expect("the user's keyring");
}

/// A user has 200 keys and 20000 bytes.
#[tokio::test]
async fn a_full_quota_is_storage_full_and_loses_nothing() {
    let test = "a_full_quota_is_storage_full_and_loses_nothing";
    if !support::is_inside() {
        support::as_another_user(test, &["keyctl", "session", "-"]);
        return;
    }
    let store = open(SESSION, &[]);
    let (get, put) = (GetOptions::default(), PutOptions::default());
    // What is displaced does not count for long.
    for round in 0..600 {
        let value = secret(&format!("{round}"));
        let put = store.put(&path("again"), &value, &put).await;
        put.unwrap_or_else(|error| panic!("{round}: {error:?}"));
    }
    let mut kept = 0;
    let full = loop {
        let value = secret(&format!("value {kept}"));
        match store
            .put(&path(&format!("many/{kept}")), &value, &put)
            .await
        {
            Ok(_) => kept += 1,
            Err(error) => break error,
        }
        assert!(kept < 200, "the quota");
    };
    assert_eq!(full.kind(), ErrorKind::StorageFull);
    assert!(
        full.advice()
            .is_some_and(|advice| advice.contains("maxkeys"))
    );
    assert!(kept > 100, "{kept}");
    for number in 0..kept {
        let came = store.get(&path(&format!("many/{number}")), &get).await;
        let value = secret(&format!("value {number}"));
        assert_eq!(came.expect("still there").value, value);
    }
    // Overwriting needs room for both; a refusal keeps the old value.
    let refused = store.put(&path("many/0"), &secret("other"), &put).await;
    assert_eq!(refused.expect_err("full").kind(), ErrorKind::StorageFull);
    let came = store.get(&path("many/0"), &get).await.expect("get");
    assert_eq!(came.value, secret("value 0"));
    for number in 1..5 {
        let (name, delete) = (path(&format!("many/{number}")), DeleteOptions::default());
        store.delete(&name, &delete).await.expect("delete");
    }
    store
        .put(&path("many/0"), &secret("other"), &put)
        .await
        .expect("room");
}

/// A write takes the old key away while others read it; an empty value is told by a second key.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_beside_writers_see_one_value_or_the_other() {
    if !in_own_session("readers_beside_writers_see_one_value_or_the_other") {
        return;
    }
    let store = open(SESSION, &[]);
    let long = "x".repeat(1000);
    let name = path("a/b");
    store
        .put(&name, &secret(""), &PutOptions::default())
        .await
        .expect("put");
    let writers = [false, true].map(|expiring| {
        let (store, name, long) = (store.clone(), name.clone(), long.clone());
        tokio::spawn(async move {
            for round in 0..1000 {
                let later = SystemTime::now() + Duration::from_secs(600);
                let options = PutOptions::default().expires(expiring.then_some(later));
                let value = secret(if round % 2 == 0 { &long } else { "" });
                store.put(&name, &value, &options).await.expect("put");
                tokio::task::yield_now().await;
            }
        })
    });
    let mut reads = 0;
    while reads == 0 || !writers.iter().all(|writer| writer.is_finished()) {
        let came = store.get(&name, &GetOptions::default()).await.expect("get");
        assert!(
            came.value == secret("") || came.value == secret(&long),
            "neither"
        );
        reads += 1;
        tokio::task::yield_now().await;
    }
    for writer in writers {
        writer.await.expect("no panic");
    }
}
