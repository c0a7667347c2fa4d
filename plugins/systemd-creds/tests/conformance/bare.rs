//! The contract, as the suite that every backend runs: bare, and through every layer.

use keyhaul_conformance::Handles;

use crate::support::{Place, layered};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_of_credentials_keeps_the_contract() {
    let place = Place::new();
    let store = place.store();
    let bare = keyhaul_conformance::run(async || Handles::same(store.clone())).await;
    let through = keyhaul_conformance::run(async || Handles::same(layered(store.clone()))).await;
    assert!(
        through >= bare && bare > 30,
        "{bare} trials, {through} through layers"
    );
}
