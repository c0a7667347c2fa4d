//! What managers and operators do, call by call, and what a restart of the server is to writers.

use std::sync::Arc;
use std::time::Duration;

use keyhaul_core::{
    ErrorKind, GetOptions, IdempotencyId, MemoryStore, PutMode, PutOptions, Recipe, Request,
    SecretBytes, SecretPath, SecretStore as _,
};
use keyhaul_remote::protocol::{
    BeginRequest, DeleteRequest, EndRequest, GrantRequest, OPENAPI, Paging, RestoreRequest,
    RevokeRequest, Role, TicketState,
};

use crate::SOFTLY;
use crate::service::Live;

fn path(text: &str) -> SecretPath {
    SecretPath::new(text).expect("a path")
}

fn terms(scope: &str, node: &str) -> GrantRequest {
    GrantRequest {
        scope: scope.into(),
        node: node.into(),
        names: Vec::new(),
        expires: None,
        if_epoch: None,
    }
}

fn of_scope(scope: &str) -> EndRequest {
    EndRequest {
        id: None,
        scope: Some(scope.into()),
        from: Some("one".into()),
        to: Some("two".into()),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_of_a_manager_does_what_it_says() {
    let live = Live::over(Arc::new(MemoryStore::new("behind")), SOFTLY).await;
    let (manager, node) = (live.service("manager"), live.service("node").store());
    let request = &Request::default().id(Some("trial".into()));
    let page = &Paging::default();

    let who = manager.service(request).await.expect("told");
    assert_eq!(
        (who.role, who.uri.as_str()),
        (Role::Manager, "spiffe://site/manager/one")
    );
    let made = manager.store();
    let root = path("web01/root");
    let options = PutOptions::default().mode(PutMode::Create);
    made.generate(&root, &Recipe::default(), &options)
        .await
        .expect("made");
    let denied = made
        .get(&root, &GetOptions::default())
        .await
        .expect_err("a manager");
    assert_eq!(denied.kind(), ErrorKind::PermissionDenied);

    // A grant, and what it is to the node.
    let get = || async { node.get(&root, &GetOptions::default()).await };
    assert_eq!(
        get().await.expect_err("not granted").kind(),
        ErrorKind::PermissionDenied
    );
    let grant = manager
        .grant(&terms("web01", "one"), request)
        .await
        .expect("granted");
    let again = manager
        .grant(&terms("web01", "one"), request)
        .await
        .expect("granted");
    assert_eq!(
        (grant.epoch, grant.by.as_str()),
        (again.epoch, "spiffe://site/manager/one")
    );
    assert_eq!(get().await.expect("read").value.len(), 32);
    let grants = manager
        .grants(Some("web01"), Some("one"), page, request)
        .await;
    assert_eq!(grants.expect("listed").grants, [again]);
    let can = manager
        .who_can("web01/root", request)
        .await
        .expect("told")
        .grants;
    assert_eq!(
        can,
        manager.what_can("one", request).await.expect("told").grants
    );
    assert_eq!(can.len(), 1);

    // Pages of one.
    for scope in ["web02", "web03"] {
        manager
            .grant(&terms(scope, "one"), request)
            .await
            .expect("granted");
    }
    let mut scopes = Vec::new();
    let mut one = Paging {
        limit: Some(1),
        after: None,
    };
    loop {
        let answer = manager
            .grants(None, None, &one, request)
            .await
            .expect("listed");
        assert!(answer.grants.len() <= 1);
        scopes.extend(answer.grants.into_iter().map(|grant| grant.scope));
        one.after = match answer.next {
            None => break,
            next => next,
        };
    }
    assert_eq!(scopes, ["web01", "web02", "web03"]);

    // Migrations, there and back.
    let begin = |scope: &str| BeginRequest {
        scope: scope.into(),
        from: "one".into(),
        to: "two".into(),
        seconds: Some(600),
    };
    let ticket = manager
        .begin(&begin("web01"), request)
        .await
        .expect("begun");
    assert_eq!(ticket.state, TicketState::Open);
    let open = manager
        .tickets(None, Some(TicketState::Open), page, request)
        .await;
    assert_eq!(open.expect("listed").tickets, [ticket]);
    let ended = manager
        .abort(&of_scope("web01"), request)
        .await
        .expect("ended");
    assert_eq!(ended.state, TicketState::Aborted);
    manager
        .begin(&begin("web02"), request)
        .await
        .expect("begun");
    let ended = manager
        .commit(&of_scope("web02"), request)
        .await
        .expect("ended");
    assert_eq!(ended.state, TicketState::Committed);
    let held = manager.what_can("two", request).await.expect("told").grants;
    assert_eq!(
        held.iter()
            .map(|grant| grant.scope.as_str())
            .collect::<Vec<_>>(),
        ["web02"]
    );

    // Deleting what is held takes force; it comes back as it was.
    let mut delete = DeleteRequest {
        secret: "web01/root".into(),
        version: None,
        force: false,
    };
    let held = manager.delete(&delete, request).await.expect_err("held");
    assert_eq!(held.kind(), ErrorKind::Conflict);
    let before = get().await.expect("read").value;
    delete.force = true;
    let deleted = manager.delete(&delete, request).await.expect("deleted");
    assert!(deleted.restorable_until.is_some());
    assert_eq!(
        get().await.expect_err("deleted").kind(),
        ErrorKind::NotFound
    );
    let secret = RestoreRequest {
        secret: "web01/root".into(),
    };
    manager.restore(&secret, request).await.expect("restored");
    assert_eq!(get().await.expect("read").value, before);
    let nothing = manager.restore(&secret, request).await.expect_err("there");
    assert_eq!(nothing.kind(), ErrorKind::NotFound);

    // Revoking, and a node that was stolen.
    let revoke = RevokeRequest {
        scope: "web03".into(),
        node: "one".into(),
        if_epoch: None,
    };
    assert!(
        manager
            .revoke(&revoke, request)
            .await
            .expect("revoked")
            .revoked
    );
    assert!(
        !manager
            .revoke(&revoke, request)
            .await
            .expect("gone")
            .revoked
    );
    let taken = manager
        .quarantine("one", request)
        .await
        .expect("quarantined");
    let fetched: Vec<_> = taken
        .fetched
        .iter()
        .map(|fetch| fetch.secret.as_str())
        .collect();
    assert_eq!(fetched, ["web01/root"]);
    assert_eq!(
        get().await.expect_err("quarantined").kind(),
        ErrorKind::PermissionDenied
    );
    let nodes = manager.nodes(page, request).await.expect("listed").nodes;
    let quarantined = nodes.iter().find(|node| node.node == "one").expect("known");
    assert!(quarantined.quarantined.is_some());
    assert!(
        manager
            .release("one", request)
            .await
            .expect("released")
            .quarantined
            .is_none()
    );

    // The audit is an operator's, and has it all under the caller's id.
    let denied = manager
        .audit(None, None, request)
        .await
        .expect_err("a manager");
    assert_eq!(denied.kind(), ErrorKind::PermissionDenied);
    let operator = live.service("operator");
    let records = operator
        .audit(None, Some(1000), request)
        .await
        .expect("records")
        .records;
    let trials = records
        .iter()
        .filter(|record| record.to_string().contains("\"trial."));
    assert!(trials.count() > 20);
    live.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_go_on_over_a_restart_of_the_server() {
    let store = Arc::new(MemoryStore::new("behind"));
    let mut live = Live::over(store.clone(), SOFTLY).await;
    let operator = live.service("operator").store();
    let put = async |name: String| {
        let value = SecretBytes::copy_from(name.as_bytes());
        let id = IdempotencyId::random().expect("an id");
        let options = PutOptions::default()
            .mode(PutMode::Create)
            .idempotency(Some(id));
        // While the server is away; a retry of the standard layers would do the same.
        loop {
            match operator.put(&path(&name), &value, &options).await {
                Ok(_) => return,
                Err(error) => assert!(error.kind().is_transient(), "{error:?}"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    put("web01/first".into()).await;
    for round in 0..3 {
        let writes = async {
            for index in 0..40 {
                put(format!("web01/s{round}-{index}")).await;
            }
        };
        let restart = live.restart(store.clone());
        ((), live) = tokio::join!(writes, restart);
        put(format!("web01/after{round}")).await;
    }
    for round in 0..3 {
        for index in 0..40 {
            let name = format!("web01/s{round}-{index}");
            let stored = store.get(&path(&name), &GetOptions::default()).await;
            assert_eq!(stored.expect("written").value.expose(), name.as_bytes());
        }
    }
    live.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_reads_its_own_scope_by_the_word_for_it_and_an_operator_writes_it_in_full() {
    let live = Live::over(Arc::new(MemoryStore::new("behind")), SOFTLY).await;
    let (operator, node) = (
        live.service("operator").store(),
        live.service("node").store(),
    );
    let value = SecretBytes::copy_from(b"its own");
    let options = PutOptions::default();
    operator
        .put(&path("@host.one/key"), &value, &options)
        .await
        .expect("written");
    let paths = [
        path("@host/key"),
        path("@host.one/key"),
        path("@host.two/key"),
    ];
    let answers = node.get_many(&paths, &GetOptions::default()).await;
    for answer in &answers[..2] {
        assert_eq!(answer.as_ref().expect("its own").value, value);
    }
    let other = answers[2].as_ref().expect_err("another's");
    assert_eq!(other.kind(), ErrorKind::PermissionDenied);
    let word = operator.put(&path("@host/key"), &value, &options).await;
    assert_eq!(
        word.expect_err("whose?").kind(),
        ErrorKind::InvalidReference
    );
    live.end().await;
}

/// Six of the longest values go past what one answer holds; three hundred past what one request
/// asks for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_fit_into_one_answer_is_read_all_the_same() {
    let store = Arc::new(MemoryStore::new("behind"));
    let live = Live::over(store.clone(), SOFTLY).await;
    let manager = live.service("manager");
    manager
        .grant(&terms("web01", "one"), &Request::default())
        .await
        .expect("granted");
    let mut paths = Vec::new();
    for index in 0..300_u32 {
        let length = if index < 6 { 1024 * 1024 } else { 8 };
        let path = path(&format!("web01/s{index}"));
        let value = SecretBytes::init_with(length, |bytes| {
            bytes[..4].copy_from_slice(&index.to_be_bytes());
        });
        store
            .put(&path, &value, &PutOptions::default())
            .await
            .expect("put");
        paths.push(path);
    }
    let node = live.service("node").store();
    let answers = node.get_many(&paths, &GetOptions::default()).await;
    assert_eq!(answers.len(), 300);
    for (index, answer) in (0_u32..).zip(answers) {
        let value = answer.expect("read").value;
        assert_eq!(value.len(), if index < 6 { 1024 * 1024 } else { 8 });
        assert_eq!(value.expose()[..4], index.to_be_bytes());
    }
    live.end().await;
}

/// The served description is the one that the tests of the protocol hold to the types.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_description_is_served_to_whoever_has_a_certificate() {
    let live = Live::over(Arc::new(MemoryStore::new("behind")), SOFTLY).await;
    for role in ["node", "operator", "manager"] {
        assert_eq!(live.fetch(role, "/v1/openapi.json").await, OPENAPI);
    }
    live.end().await;
}
