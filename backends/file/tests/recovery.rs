//! Keys and identities: where they may be, what happens when one is lost.

mod support;

use std::fs;
use std::process::{Command, Stdio};

use keyhaul_core::credential::CredentialSource;
use keyhaul_core::registry::Value;
use keyhaul_core::{ErrorKind, SecretPath, SecretStore, SecretStoreExt, StoreConfig};
use keyhaul_file::{FileStore, generate_identity, initialise, recipients, rewrap};
use support::*;

fn source(path: &std::path::Path) -> CredentialSource {
    CredentialSource::File(path.to_owned())
}

fn store(config: &StoreConfig) -> FileStore {
    FileStore::open(config).expect("valid")
}

/// A host whose store can also be opened by an identity kept elsewhere.
fn host_with_recovery() -> (Host, StoreConfig) {
    let host = Host::new();
    let recovery = generate_identity(&host.path("safe/recovery")).expect("made");
    let config = host.config_with(vec![
        ("recipients", Value::Texts(vec![recovery])),
        ("create", Value::Boolean(false)),
    ]);
    let made = initialise(&config).expect("made");
    assert!(made.store_made && made.identity_made && made.recipients.len() == 2);
    (host, config)
}

#[tokio::test]
async fn a_lost_identity_is_recovered_with_a_recovery_recipient() {
    let (host, config) = host_with_recovery();
    put(&store(&config), "web01/root", b"passphrase").await;
    let running = store(&config);
    assert_eq!(
        get(&running, "web01/root").await.expect("read"),
        b"passphrase"
    );

    fs::remove_file(host.identity()).expect("lost");
    let error = refused(&store(&config), "web01/root").await;
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    assert!(
        error
            .advice()
            .is_some_and(|advice| advice.contains("rewrap --identity"))
    );
    // It is never replaced silently: a new one would not open anything.
    assert!(!host.identity().exists());
    // The list says which recovery identity to fetch, without any identity.
    assert_eq!(recipients(&config).expect("listed").len(), 2);

    let lost = recipients(&config).expect("listed").remove(0);
    let done =
        rewrap(&config, Some(&source(&host.path("safe/recovery"))), None).expect("recovered");
    assert!(done.identity_made && host.identity().exists());
    assert_eq!(done.removed, [lost]);
    assert_eq!(done.recipients, recipients(&config).expect("listed"));
    assert_eq!(
        get(&store(&config), "web01/root").await.expect("read"),
        b"passphrase"
    );
    // A process that has run all the time goes on, for reading and writing.
    put(&running, "web01/vnc", b"new").await;
    assert_eq!(
        get(&store(&config), "web01/vnc").await.expect("read"),
        b"new"
    );
}

#[tokio::test]
async fn rewrapping_changes_who_can_open_and_nothing_else() {
    let (host, config) = host_with_recovery();
    put(&store(&config), "a", b"value").await;
    let before = fs::read(host.file("a")).expect("read");
    let next = generate_identity(&host.path("safe/next")).expect("made");
    let done = rewrap(&config, None, Some(std::slice::from_ref(&next))).expect("rewrapped");
    assert_eq!(done.recipients[1..], [next]);
    assert_eq!(done.removed.len(), 1);
    assert_eq!(fs::read(host.file("a")).expect("read"), before);
    let as_one = async |identity: &str| {
        let config = config_of(&host, identity);
        get(&store(&config), "a")
            .await
            .map_err(|error| error.kind())
    };
    assert_eq!(as_one("identity").await.expect("the host"), b"value");
    assert_eq!(as_one("safe/next").await.expect("added"), b"value");
    assert_eq!(
        as_one("safe/recovery").await,
        Err(ErrorKind::Unauthenticated)
    );
    let error = rewrap(&config, Some(&source(&host.path("safe/recovery"))), None);
    assert_eq!(
        error.expect_err("removed").kind(),
        ErrorKind::Unauthenticated
    );
    assert_eq!(as_one("safe/next").await.expect("still"), b"value");
    let wrong = rewrap(&config, None, Some(&["age1nonsense".to_owned()]));
    assert_eq!(
        wrong.expect_err("no recipient").kind(),
        ErrorKind::InvalidConfig
    );
}

fn config_of(host: &Host, identity: &str) -> StoreConfig {
    config(&host.root(), &host.path(identity), vec![])
}

#[tokio::test]
async fn the_wrapped_key_is_an_age_file_and_identities_are_age_s() {
    let (host, config) = host_with_recovery();
    let mut age = Command::new("age");
    age.arg("-d")
        .arg("-i")
        .arg(host.path("safe/recovery"))
        .arg(host.root().join("store.key.age"));
    let opened = age
        .output()
        .expect("the program `age`; install it with: apt-get install age");
    assert!(opened.status.success(), "{opened:?}");
    assert!(opened.stdout.starts_with(b"keyhaul store key 1\n") && opened.stdout.len() == 52);
    // And an identity that age-keygen made serves a store.
    let made = Command::new("age-keygen")
        .arg("-o")
        .arg(host.path("keygen"))
        .stderr(Stdio::null())
        .status();
    assert!(
        made.expect("the program `age-keygen`; install it with: apt-get install age")
            .success()
    );
    let text = fs::read_to_string(host.path("keygen")).expect("read");
    let public = text
        .lines()
        .find_map(|line| line.strip_prefix("# public key: "))
        .expect("named");
    rewrap(&config, None, Some(&[public.to_owned()])).expect("rewrapped");
    put(&store(&config_of(&host, "keygen")), "a", b"value").await;
    assert_eq!(get(&store(&config), "a").await.expect("read"), b"value");
}

#[tokio::test]
async fn an_identity_under_the_root_is_refused_however_it_is_spelt() {
    let host = Host::new();
    fs::create_dir(host.root()).expect("made");
    set_mode(&host.root(), 0o700);
    std::os::unix::fs::symlink(host.root(), host.path("alias")).expect("linked");
    fs::create_dir(host.path("elsewhere")).expect("made");
    generate_identity(&host.root().join("id")).expect("made");
    std::os::unix::fs::symlink(host.root().join("id"), host.path("link")).expect("linked");
    for identity in [
        "store/id",
        "store/not/yet",
        "alias/id",
        "elsewhere/../store/id",
        "link",
    ] {
        let config = config_of(&host, identity);
        let value = keyhaul_core::SecretBytes::copy_from(b"x");
        let error = store(&config)
            .put(&path("a"), &value, &Default::default())
            .await;
        let error = error.expect_err(identity);
        assert_eq!(
            error.kind(),
            ErrorKind::InvalidConfig,
            "{identity}: {error}"
        );
        assert!(error.message().contains("own root"), "{error}");
        assert_eq!(
            initialise(&config).expect_err(identity).kind(),
            ErrorKind::InvalidConfig
        );
    }
    assert!(!host.root().join("store.key.age").exists());
    // The control: a name that only begins like the root's.
    put(&store(&config_of(&host, "store-identity")), "a", b"x").await;
}

#[tokio::test]
async fn a_lost_key_is_said_and_not_replaced() {
    let host = Host::new();
    let running = host.store();
    put(&running, "a", b"value").await;
    let key = host.root().join("store.key.age");
    fs::rename(&key, host.path("backup")).expect("lost");
    for store in [host.store(), running] {
        let value = keyhaul_core::SecretBytes::copy_from(b"x");
        let error = store.put(&path("b"), &value, &Default::default()).await;
        let error = error.expect_err("no key");
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(
            error.message().contains("store.key.age is missing"),
            "{error}"
        );
    }
    assert_eq!(
        initialise(&host.config()).expect_err("lost").kind(),
        ErrorKind::Corrupt
    );
    assert!(!key.exists());
    fs::rename(host.path("backup"), &key).expect("restored");
    assert_eq!(get(&host.store(), "a").await.expect("read"), b"value");
}

#[tokio::test]
async fn a_damaged_key_is_said_by_name() {
    let host = Host::new();
    put(&host.store(), "a", b"value").await;
    let key = host.root().join("store.key.age");
    let good = fs::read(&key).expect("read");
    for offset in 0..good.len() {
        let mut bad = good.clone();
        bad[offset] ^= 1;
        fs::write(&key, &bad).expect("written");
        let error = refused(&host.store(), "a").await;
        // Damage to what only the identity can read looks like another identity's.
        let kinds = [ErrorKind::Corrupt, ErrorKind::Unauthenticated];
        assert!(kinds.contains(&error.kind()), "offset {offset}: {error}");
        assert!(error.message().contains("store.key.age"), "{error}");
    }
    for len in 0..good.len() {
        fs::write(&key, &good[..len]).expect("written");
        assert_eq!(
            refused(&host.store(), "a").await.kind(),
            ErrorKind::Corrupt,
            "{len}"
        );
    }
    fs::write(&key, &good).expect("restored");
    assert_eq!(get(&host.store(), "a").await.expect("read"), b"value");
}

/// A running process notices that another store took the place of the one it knew.
#[tokio::test]
async fn a_store_restored_from_elsewhere_is_read_and_written_with_its_own_key() {
    let (host, other) = (Host::new(), Host::new());
    let running = host.store();
    put(&running, "a", b"before").await;
    put(
        &store(&config(&other.root(), &host.identity(), vec![])),
        "a",
        b"restored",
    )
    .await;
    fs::remove_dir_all(host.root()).expect("gone");
    fs::rename(other.root(), host.root()).expect("restored");
    assert_eq!(get(&running, "a").await.expect("read"), b"restored");
    put(&running, "b", b"new").await;
    assert_eq!(get(&host.store(), "b").await.expect("read"), b"new");
    fs::remove_dir_all(host.root()).expect("gone");
    put(&running, "c", b"made anew").await;
    assert_eq!(get(&host.store(), "c").await.expect("read"), b"made anew");
}

#[tokio::test]
async fn making_a_store_twice_leaves_it_as_it_is() {
    let (host, config) = host_with_recovery();
    put(&store(&config), "a", b"value").await;
    let before: Vec<_> = files(&host.root())
        .iter()
        .map(fs::read)
        .map(Result::unwrap_or_default)
        .collect();
    let again = initialise(&config).expect("there");
    assert!(!again.store_made && !again.identity_made && again.recipients.len() == 2);
    let after: Vec<_> = files(&host.root())
        .iter()
        .map(fs::read)
        .map(Result::unwrap_or_default)
        .collect();
    assert_eq!(before, after);
    let error = generate_identity(&host.identity()).expect_err("there");
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_eq!(get(&store(&config), "a").await.expect("read"), b"value");
}

#[tokio::test]
async fn a_copy_of_the_root_is_a_backup_that_needs_an_identity() {
    let (host, config) = host_with_recovery();
    put(&store(&config), "a", b"value").await;
    let copied = Command::new("cp")
        .arg("-a")
        .arg(host.root())
        .arg(host.path("backup"))
        .status();
    assert!(copied.expect("cp").success());
    let of = |identity: &str| crate::config(&host.path("backup"), &host.path(identity), vec![]);
    assert_eq!(
        get(&store(&of("safe/recovery")), "a").await.expect("read"),
        b"value"
    );
    generate_identity(&host.path("thief")).expect("made");
    assert_eq!(
        refused(&store(&of("thief")), "a").await.kind(),
        ErrorKind::Unauthenticated
    );
    assert_eq!(
        store(&of("thief"))
            .probe()
            .await
            .expect_err("a thief")
            .kind(),
        ErrorKind::Unauthenticated
    );
    let names = store(&of("thief"))
        .list_all(&SecretPath::root())
        .await
        .expect("names are in clear");
    assert_eq!(names, [path("a")]);
}

use support::config;
