//! The hunts of the main job, with each backend for the store: what the commands say and call, a real
//! QEMU, and keyhaul's own memory. Where a store is spoken to in the clear, that one medium is excepted
//! by name; over TLS and over an encrypted session nothing is.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use keyhaul_hygiene::hunt::{commands, own_memory, system};
use keyhaul_hygiene::needle::letters;
use keyhaul_hygiene::qemu::Volume;
use keyhaul_hygiene::{House, Needle, assert_clean};
use keyhaul_servers::Backend;

const CONFLICT: i32 = 11;
const NOT_FOUND: i32 = 16;
const UNAUTHENTICATED: i32 = 22;
const RUN: i32 = 125;

/// The canary of the houses with a real QEMU, and the volume that it opens.
fn shared() -> &'static (Vec<u8>, Volume) {
    static SHARED: OnceLock<(Vec<u8>, Volume)> = OnceLock::new();
    SHARED.get_or_init(|| {
        let passphrase = letters(48);
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("backends");
        fs::create_dir_all(&folder).expect("folder");
        let volume = Volume::new(&folder, &passphrase);
        (passphrase, volume)
    })
}

/// All three hunts.
fn hunt(backend: Backend) {
    let house = House::with_canary(&shared().0).on(backend);
    commands(&house);
    house.succeeds(&["set", "web01/root"], house.canary().bytes());
    // Larger than what a connection or a bus carries in one piece.
    let large = house.canary().bytes().repeat(500);
    house.succeeds(&["set", "web01/large"], &large);
    own_memory(&house, &["--channel", "pipe"]);
    own_memory(&house, &["--channel", "keyring"]);
    system(house, &shared().1, &["--channel", "pipe"]);
}

#[test]
fn the_kernels_keyring() {
    hunt(Backend::Kernel);
}

#[test]
fn a_secret_service_with_an_encrypted_session() {
    hunt(Backend::SecretService);
}

#[test]
fn a_secret_service_with_a_plain_session() {
    hunt(Backend::SecretServicePlain);
}

#[test]
fn a_vault_over_tls_with_an_approle_and_a_client_certificate() {
    hunt(Backend::VaultAppRole);
}

#[test]
fn a_vault_over_tls_with_its_token_in_the_environment() {
    hunt(Backend::VaultEnvironment);
}

#[test]
fn a_vault_over_http() {
    hunt(Backend::VaultHttp);
}

#[test]
fn a_vault_with_kv_version_1() {
    hunt(Backend::VaultOne);
}

/// The control: what is excepted is seen, both ways, and so would be what is not.
#[test]
fn values_in_the_clear_are_seen_on_their_medium() {
    for backend in Backend::ALL {
        let house = House::new().on(backend);
        let needles = [house.canary()];
        let seen = |words: &[&str], input: &[u8]| {
            let done = house.run(words, input);
            assert!(done.status.success(), "{backend:?}: {}", done.words());
            let finds = done.trace.scan(&needles, |call| call.writes_to(1));
            assert_clean(&house.scan_trace(&done.trace, &needles, |call| call.writes_to(1)));
            !finds.is_empty()
        };
        let clear = house.place().medium.is_some();
        assert_eq!(
            seen(&["set", "web01/root"], house.canary().bytes()),
            clear,
            "{backend:?}"
        );
        assert_eq!(seen(&["get", "web01/root"], b""), clear, "{backend:?}");
        house.end(&[]);
    }
}

/// Credentials that the server does not take, or that are none, are not repeated by anybody.
#[test]
fn refused_credentials_and_failures_tell_nothing() {
    for (backend, file, refused) in [
        (Backend::VaultHttp, "token", UNAUTHENTICATED),
        (Backend::VaultAppRole, "secret-id", UNAUTHENTICATED),
    ] {
        let house = House::new().on(backend);
        let canary = house.canary().bytes().to_vec();
        house.succeeds(&["set", "web01/root"], &canary);
        house.fails(NOT_FOUND, &["get", "web01/absent"], b"");
        house.fails(NOT_FOUND, &["resolve", "web01/root", "web01/absent"], b"");
        house.fails(
            CONFLICT,
            &["set", "web01/root", "--if-version", "7"],
            &canary,
        );
        let entries = fs::read_dir(house.outside().join("credentials")).expect("a folder");
        let mut paths = entries.map(|entry| entry.expect("an entry").path());
        let credential = paths
            .find(|path| path.extension().is_some_and(|end| end == file))
            .expect("the credential");
        let wrong = letters(40);
        house.also(Needle::new("the wrong credential", &wrong));
        let object = "secret,id=s,ref=web01/root";
        for (content, status) in [
            (wrong.clone(), Some(refused)),
            // No header and no JSON takes it as it is.
            ([&wrong[..], b"\n\xff\0", &wrong].concat(), None),
        ] {
            fs::write(&credential, content).expect("written");
            let run = ["run", "--", "qemu-io", "--object", object, "-c", "quit"];
            house.fails(RUN, &run, b"");
            for words in [
                &["get", "web01/root"][..],
                &["check"],
                &["resolve", "web01/root"],
            ] {
                let done = house.silent(words, b"");
                assert!(!done.status.success(), "{}", done.words());
                assert!(
                    status.is_none() || done.status.code() == status,
                    "{}",
                    done.words()
                );
            }
        }
        house.end(&[]);
    }
}
