//! The least policy, held against a real OpenBao: what the routes cover can be read, and what lies
//! beside it cannot.

mod support;

use keyhaul_core::{
    DeleteOptions, ErrorKind, Field, GetOptions, ListOptions, PutMode, PutOptions, SecretStore as _,
};
use keyhaul_vault::{Access, Covered, VaultStore, least_policy};
use serde_json::json;
use support::{config_as, fresh, mount, path, secret, server, store_as};

/// A store as a token with the least policy for these routes.
fn least(
    mount: &str,
    options: &[(&str, &str)],
    routes: &[(&str, &str)],
    access: Access,
) -> VaultStore {
    let routes = routes
        .iter()
        .map(|(pattern, path)| Covered::new(*pattern, *path))
        .collect();
    let hcl =
        least_policy(&[(config_as("unused", mount, options), routes)], access).expect("a policy");
    let policy = fresh("least");
    server().policy(&policy, &hcl);
    store_as(&server().token(&[&policy], "1h"), mount, options)
}

async fn kind(store: &VaultStore, at: &str) -> Option<ErrorKind> {
    let options = GetOptions::default();
    let get = store
        .get(&path(at), &options)
        .await
        .err()
        .map(|error| error.kind());
    let stat = store
        .stat(&path(at), &options)
        .await
        .err()
        .map(|error| error.kind());
    assert_eq!(get, stat, "get and stat of {at}");
    get
}

async fn reads_exactly(version: u8) {
    let mount = mount(version);
    let covered = [
        "vms/prod-1/root",
        "vms/prod-1/a/b/c",
        "vms/web01/root",
        "vms/web01/luks/root",
        "site/@site/tls",
        "vms/web02/x",
    ];
    let beside = [
        "vms/test-1/root",
        "vms/web01/other",
        "site/@site/tls2",
        "vms/web02/x/y",
        "vms/prod",
        "other",
        "vms/web02/xy/z",
    ];
    for at in covered.into_iter().chain(beside) {
        let value = json!({"value": "x"});
        match version {
            1 => server().write(&format!("{mount}/{at}"), &value),
            _ => server().write(&format!("{mount}/data/{at}"), &json!({"data": value})),
        };
    }
    let template = "vms/{scope}/{name}";
    let routes = [
        ("prod-*/**", template),
        ("web01/**/root", template),
        ("@site/tls", "site/{scope}/{name}"),
        ("web02/*", template),
    ];
    let version = version.to_string();
    let store = least(&mount, &[("kv-version", &version)], &routes, Access::Read);
    for at in covered {
        assert_eq!(kind(&store, at).await, None, "{at}");
    }
    for at in beside {
        assert_eq!(
            kind(&store, at).await,
            Some(ErrorKind::PermissionDenied),
            "{at}"
        );
    }
    let put = store
        .put(
            &path("vms/prod-1/root"),
            &secret("y"),
            &PutOptions::default(),
        )
        .await;
    assert_eq!(
        put.expect_err("read only").kind(),
        ErrorKind::PermissionDenied
    );
}

#[tokio::test]
async fn what_the_routes_cover_is_read_and_a_neighbour_denied_in_version_2() {
    reads_exactly(2).await;
}

#[tokio::test]
async fn what_the_routes_cover_is_read_and_a_neighbour_denied_in_version_1() {
    reads_exactly(1).await;
}

#[tokio::test]
async fn a_policy_for_writing_allows_every_way_of_it() {
    for options in [&[][..], &[("delete", "soft")]] {
        let mount = mount(2);
        let store = least(
            &mount,
            options,
            &[("**", "vms/{scope}/{name}")],
            Access::Write,
        );
        let at = path("vms/web01/root");
        let create = PutOptions::default()
            .mode(PutMode::Create)
            .labels([("owner".to_owned(), "me".to_owned())].into());
        let made = store
            .put(&at, &secret("one"), &create)
            .await
            .expect("created");
        let update = PutOptions::default().mode(PutMode::Update(made.version.expect("a version")));
        store
            .put(&at, &secret("two"), &update)
            .await
            .expect("updated");
        let field = PutOptions::default().field(Some(Field::new("user").expect("a field")));
        store.put(&at, &secret("u"), &field).await.expect("patched");
        let page = store
            .list(&path("vms"), &ListOptions::default())
            .await
            .expect("listed");
        assert_eq!(page.secrets, std::slice::from_ref(&at));
        store
            .delete(&at, &DeleteOptions::default())
            .await
            .expect("deleted");
        store
            .put(&at, &secret("three"), &create)
            .await
            .expect("created again");
        let neighbour = store.put(&path("vm/web01"), &secret("x"), &create).await;
        assert_eq!(
            neighbour.expect_err("beside").kind(),
            ErrorKind::PermissionDenied
        );
    }
}

#[tokio::test]
async fn the_policy_is_what_people_read() {
    let (prod, creds) = (
        config_as("t", "kv/prod", &[("namespace", "team")]),
        config_as("t", "database", &[("engine", "leased")]),
    );
    let stores = [
        (prod, vec![Covered::new("prod-*/root", "{scope}/{name}")]),
        (creds, vec![Covered::new("*/db", "creds/{scope}")]),
    ];
    let hcl = least_policy(&stores, Access::Read).expect("a policy");
    let address = server().address();
    let expected = format!(
        r#"# {address}: store site
# A policy of its own: it goes to this place only.
# Finding out about and renewing its own token is for the policy `default`.

path "database/creds/+" {{ capabilities = ["read"] }}

path "sys/leases/revoke/database/creds/+/*" {{ capabilities = ["update"] }}

# {address}, namespace team: store site
# A policy of its own: it goes to this place only.
# Finding out about and renewing its own token is for the policy `default`.
# Store site does not say which KV version `kv/prod` is: this is for version 2. Else declare kv-version = "1".

# Wider than the route `prod-*/root`: Vault has no words for `prod-*/root`, so this is `prod-*`.
path "kv/prod/data/prod-*" {{ capabilities = ["read"] }}

# Wider than the route `prod-*/root`: Vault has no words for `prod-*/root`, so this is `prod-*`.
path "kv/prod/metadata/prod-*" {{ capabilities = ["read"] }}
"#
    );
    assert_eq!(hcl, expected);
}
