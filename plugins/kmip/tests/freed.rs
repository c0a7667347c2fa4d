//! Blocks of memory that are given back with a value in them: what TLS keeps, and no more.

mod support;

use keyhaul_core::{GetOptions, PutOptions, SecretBytes};
use keyhaul_hygiene::Needle;
use keyhaul_hygiene::freed::{Freed, Scanning};
use keyhaul_servers::PyKmip;
use support::{path, store};

#[global_allocator]
static ALLOCATOR: Scanning = Scanning::new();

/// How many blocks come back with the secret in them when `work` gets it.
fn freed(work: impl FnOnce(&Needle)) -> usize {
    let needle = Needle::canary();
    let Freed { hits, .. } = ALLOCATOR.during(&[needle.bytes()], || work(&needle));
    hits
}

#[test]
fn a_plain_vector_leaves_one() {
    let hits = freed(|needle| drop(needle.bytes().to_vec()));
    assert_eq!(hits, 1);
}

/// One on the way there and one on the way back, in the buffers of TLS, which are out of reach.
#[test]
fn a_value_that_is_written_and_read_is_left_by_tls_alone() {
    let server = PyKmip::start();
    let files = server.client("freed");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let hits = freed(|needle| {
        let store = store(&server.url(), &server.ca_path(), &files, &[]);
        runtime.block_on(async {
            let value = SecretBytes::copy_from(needle.bytes());
            let put = store.put(&path("a"), &value, &PutOptions::default()).await;
            put.expect("written");
            let got = store.get(&path("a"), &GetOptions::default()).await;
            assert!(got.expect("read").value == value);
        });
        drop((store, runtime));
    });
    assert!((1..=2).contains(&hits), "{hits} blocks");
}
