//! What a failure says of what was asked: enough for an operator to find it again.

use keyhaul_core::{Error, ErrorKind, Request};
use keyhaul_remote::client::Service;
use keyhaul_remote::protocol::{
    BeginRequest, DeleteRequest, EndRequest, GrantRequest, Paging, RestoreRequest, RevokeRequest,
    TicketState,
};

use crate::site::Site;
use crate::stage::{Said, Stage};

fn begin() -> BeginRequest {
    BeginRequest {
        scope: "web01".into(),
        from: "y".into(),
        to: "z".into(),
        seconds: None,
    }
}

fn grant(if_epoch: Option<u64>) -> GrantRequest {
    GrantRequest {
        scope: "web01".into(),
        node: "y".into(),
        names: Vec::new(),
        expires: None,
        if_epoch,
    }
}

fn revoke() -> RevokeRequest {
    RevokeRequest {
        scope: "web01".into(),
        node: "y".into(),
        if_epoch: None,
    }
}

/// By its id, or by its scope and both its nodes.
fn end(id: Option<&str>) -> EndRequest {
    let word = |word: &str| id.is_none().then(|| word.to_owned());
    EndRequest {
        id: id.map(str::to_owned),
        scope: word("web01"),
        from: word("y"),
        to: word("z"),
    }
}

/// The failure of everything that there is to be asked, with what was asked.
async fn all(service: &Service, request: &Request) -> Vec<(&'static str, Error)> {
    let (page, secret) = (Paging::default(), "web01/root".to_owned());
    let delete = DeleteRequest {
        secret: secret.clone(),
        version: None,
        force: false,
    };
    let (restore, open) = (RestoreRequest { secret }, Some(TicketState::Open));
    macro_rules! failures {
        ($($task:literal $call:expr;)*) => {
            vec![$(($task, $call.await.map(drop).expect_err($task)),)*]
        };
    }
    failures! {
        "say who asks" service.service(request);
        "grant web01 to y" service.grant(&grant(None), request);
        "revoke web01 from y" service.revoke(&revoke(), request);
        "list grants" service.grants(Some("web01"), None, &page, request);
        "say who can read web01/root" service.who_can("web01/root", request);
        "say what y can read" service.what_can("y", request);
        "begin a migration of web01 from y to z" service.begin(&begin(), request);
        "commit the migration t-1" service.commit(&end(Some("t-1")), request);
        "abort the migration of web01 from y to z" service.abort(&end(None), request);
        "list migrations" service.tickets(None, open, &page, request);
        "quarantine y" service.quarantine("y", request);
        "release y" service.release("y", request);
        "list nodes" service.nodes(&page, request);
        "delete web01/root" service.delete(&delete, request);
        "restore web01/root" service.restore(&restore, request);
        "show the audit" service.audit(None, None, request);
    }
}

#[tokio::test]
async fn every_failure_says_what_was_asked_of_which_server() {
    let site = Site::new();
    let gone = "127.0.0.1:1";
    let service = site.service(&[gone.to_owned()]);
    for (task, error) in all(&service, &Request::default()).await {
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert_eq!(error.context().task.as_deref(), Some(task));
        assert_eq!(error.context().store.as_deref(), Some("site"), "{task}");
        assert!(error.message().contains(gone), "{task}: {error}");
        assert!(error.to_string().contains(task), "{error}");
        // Nobody has seen it: there is nothing to be looked for.
        assert!(!error.message().contains("request"), "{task}: {error}");
    }
}

/// Where nobody knows what came of a request, the audit of that server does, under its id.
#[tokio::test]
async fn a_lost_answer_says_under_which_id_it_was_asked() {
    let site = Site::new();
    let mute = Stage::new(site.tls(), |_| Said::Nothing).await;
    let service = site.service(&[mute.address().to_string()]);
    let request = Request::default().id(Some("boot-web01".into()));
    let error = service
        .grant(&grant(None), &request)
        .await
        .expect_err("lost");
    let (message, address) = (error.message(), mute.address().to_string());
    assert!(message.contains(&address), "{message}");
    assert!(message.contains("request boot-web01"), "{message}");
}

/// What names the grant that it is meant for undoes nothing, and is told to another server.
#[tokio::test]
async fn a_fenced_grant_is_told_again_where_its_answer_was_lost() {
    let site = Site::new();
    for (if_epoch, asked) in [(Some(7), 2), (Some(0), 1), (None, 1)] {
        let mute = [
            Stage::new(site.tls(), |_| Said::Nothing).await,
            Stage::new(site.tls(), |_| Said::Nothing).await,
        ];
        let addresses = mute.each_ref().map(|stage| stage.address().to_string());
        let service = site.service(&addresses);
        let told = service.grant(&grant(if_epoch), &Request::default()).await;
        told.expect_err("lost");
        let heard = mute.iter().map(|stage| stage.asked("POST /v1/grants"));
        assert_eq!(heard.sum::<usize>(), asked, "{if_epoch:?}");
    }
}
