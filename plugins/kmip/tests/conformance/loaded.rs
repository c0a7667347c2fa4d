//! The contract, held by the library that is loaded as any other plugin.

use keyhaul_conformance::Handles;
use keyhaul_core::ErrorKind;
use keyhaul_core::registry::Value;
use keyhaul_servers::PyKmip;

use crate::host;
use crate::support::{layered, options, server};

#[tokio::test(flavor = "multi_thread")]
async fn the_loaded_library_keeps_the_contract() {
    let folder = host::Folder::new();
    let library = folder.install(&host::built("deps", "libkeyhaul_kmip.so"));
    let server = PyKmip::start();
    let url = ("url", Value::Text(server.url()));
    let given = options(&server.ca_path(), &server.client("dave"), &[url]);
    let store = host::open("kms", &library, given).expect("a store");
    let store = layered(store);
    let trials = keyhaul_conformance::run(async || Handles::same(store.clone())).await;
    assert!(trials > 25, "only {trials} trials");
}

#[tokio::test]
async fn the_loaded_library_refuses_what_it_does_not_know() {
    let folder = host::Folder::new();
    let library = folder.install(&host::built("deps", "libkeyhaul_kmip.so"));
    let server = server();
    let files = server.client("erin");
    let url = ("url", Value::Text(server.url()));
    let more = [url.clone(), ("grop", Value::Text("vms".into()))];
    let store = host::open("kms", &library, options(&server.ca_path(), &files, &more));
    let error = store.expect("opened").probe().await.expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    assert_eq!(error.advice(), Some("did you mean `group`?"));
    // The control: without it, the server is reached.
    let store = host::open("kms", &library, options(&server.ca_path(), &files, &[url]));
    store.expect("opened").probe().await.expect("reached");
}
