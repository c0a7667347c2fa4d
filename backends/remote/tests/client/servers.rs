//! Several servers of one service.

use std::time::{Duration, Instant};

use keyhaul_core::{Error, ErrorKind, GetOptions, Request, Secret, SecretStore as _};
use keyhaul_remote::protocol::seal::{Recipient, Sender};
use keyhaul_remote::protocol::{
    DeleteRequest, GrantRequest, Outcome, Problem, ReadAnswer, RevokeRequest,
};
use keyhaul_servers::{Authority, Mode, Proxy, free_port};

use crate::keys::{Keys, json, problem};
use crate::path;
use crate::site::Site;
use crate::stage::{self, Said, Stage};

/// What a server says that cannot serve now.
const PASSING: [ErrorKind; 3] = [
    ErrorKind::RateLimited,
    ErrorKind::Timeout,
    ErrorKind::Unavailable,
];
const READ: &str = "POST /v1/secrets/read";

fn keys() -> Keys {
    Keys::new().with("web01/root", b"correct horse")
}

async fn serving(site: &Site, keys: &Keys) -> Stage {
    let keys = keys.clone();
    Stage::new(site.tls(), move |asked| keys.answer(asked)).await
}

async fn get(store: &keyhaul_remote::client::RemoteStore) -> Result<Secret, Error> {
    store.get(&path("web01/root"), &GetOptions::default()).await
}

/// Turns for clients, each of which begins at one of two servers at random, until one was `seen`
/// twice. That sixty are too few has a probability of one in 2^54.
fn until_chosen(seen: impl Fn() -> usize) -> impl Iterator<Item = usize> {
    (0..).take_while(move |turn| {
        assert!(*turn < 60, "never chosen");
        seen() < 2
    })
}

#[tokio::test]
async fn many_clients_spread_over_the_servers_and_each_keeps_to_its_own() {
    let (site, keys) = (Site::new(), keys());
    let (one, other) = (serving(&site, &keys).await, serving(&site, &keys).await);
    let addresses = [one.address().to_string(), other.address().to_string()];
    // All with one server has the probability of two in 2^40.
    for _ in 0..40 {
        let before = (one.connections(), other.connections());
        let store = site.store(&addresses);
        for _ in 0..3 {
            let secret = get(&store).await.expect("read");
            assert_eq!(secret.value.expose(), b"correct horse");
        }
        let made = one.connections() - before.0 + other.connections() - before.1;
        assert_eq!(made, 1, "one connection to one server");
    }
    assert!(one.connections() > 0 && other.connections() > 0);
    assert_eq!(one.asked(READ) + other.asked(READ), 120);
}

#[tokio::test]
async fn a_server_that_is_down_is_passed_over() {
    let (site, keys) = (Site::new(), keys());
    let living = serving(&site, &keys).await;
    let dead = format!("127.0.0.1:{}", free_port());
    let addresses = [dead, living.address().to_string()];
    for _ in 0..20 {
        get(&site.store(&addresses)).await.expect("read elsewhere");
    }
    assert_eq!(living.asked(READ), 20);
}

#[tokio::test]
async fn where_all_are_down_each_is_named() {
    let site = Site::new();
    let dead = [free_port(), free_port()].map(|port| format!("127.0.0.1:{port}"));
    let error = get(&site.store(&dead)).await.expect_err("nobody there");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    for address in &dead {
        assert!(error.message().contains(address), "{error}");
    }
    assert!(
        error
            .advice()
            .is_some_and(|advice| advice.contains("keyhaul serve"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stalls_is_left_in_time_and_asked_last_from_then_on() {
    let (site, keys) = (Site::new(), keys());
    let (one, other) = (serving(&site, &keys).await, serving(&site, &keys).await);
    let proxies = [&one, &other].map(|stage| Proxy::to(&stage.address().to_string()));
    let addresses = proxies.each_ref().map(|proxy| proxy.address().to_string());
    let store = site.store(&addresses);
    get(&store).await.expect("read");
    let used = usize::from(proxies[1].connections() > 0);
    assert_eq!(proxies[1 - used].connections(), 0);
    proxies[used].set(Mode::Stall);

    let start = Instant::now();
    get(&store).await.expect("read elsewhere");
    assert!(
        start.elapsed() < Duration::from_secs(8),
        "{:?}",
        start.elapsed()
    );
    let start = Instant::now();
    get(&store).await.expect("read there again");
    assert!(
        start.elapsed() < Duration::from_secs(2),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_leaves_room_for_the_other_server() {
    let (site, keys) = (Site::new(), keys());
    let (one, other) = (serving(&site, &keys).await, serving(&site, &keys).await);
    let stalled = Proxy::to(&one.address().to_string());
    stalled.set(Mode::Swallow);
    let addresses = [stalled.address().to_string(), other.address().to_string()];
    for _ in until_chosen(|| stalled.connections()) {
        let deadline = Instant::now() + Duration::from_secs(3);
        let request = Request::default().deadline(Some(deadline));
        let options = GetOptions::default().request(request);
        let got = site
            .store(&addresses)
            .get(&path("web01/root"), &options)
            .await;
        got.expect("read within the deadline");
    }
}

#[tokio::test]
async fn a_server_that_stalls_alone_is_a_timeout_that_names_it() {
    let (site, keys) = (Site::new(), keys());
    let stage = serving(&site, &keys).await;
    let proxy = Proxy::to(&stage.address().to_string());
    proxy.set(Mode::Stall);
    let store = site.store(&[proxy.address().to_string()]);
    let deadline = Instant::now() + Duration::from_millis(300);
    let options = GetOptions::default().request(Request::default().deadline(Some(deadline)));
    let error = store
        .get(&path("web01/root"), &options)
        .await
        .expect_err("late");
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(
        error.message().contains(&proxy.address().to_string()),
        "{error}"
    );
    // The connection that was given up on is not used again.
    proxy.set(Mode::Pass);
    get(&store).await.expect("read");
    assert_eq!(proxy.connections(), 2);
}

/// As a server does at which a whole site waits for its turn.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_server_has_as_long_to_take_a_connection_as_the_request_has() {
    let (site, keys) = (Site::new(), keys());
    let stage = serving(&site, &keys).await;
    let swallows = [(); 2].map(|()| Proxy::to(&stage.address().to_string()));
    swallows.iter().for_each(|proxy| proxy.set(Mode::Swallow));
    let addresses = swallows.each_ref().map(|proxy| proxy.address().to_string());
    for (servers, connections) in [(&addresses[..1], [1, 0]), (&addresses[..], [2, 1])] {
        let begun = Instant::now();
        let until = begun + Duration::from_secs(8);
        let options = GetOptions::default().request(Request::default().deadline(Some(until)));
        let error = site.store(servers).get(&path("web01/root"), &options).await;
        let error = error.expect_err("nobody answers");
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error:?}");
        let (took, late) = (begun.elapsed(), Duration::from_secs(7));
        assert!(took > late, "given up on after {took:?}");
        // And that in one connection, which keeps its place.
        let made = swallows.each_ref().map(Proxy::connections);
        assert_eq!(made, connections);
    }
}

/// No retry mends a wrong authority, however many servers there are.
#[tokio::test]
async fn where_none_is_believed_that_is_a_matter_of_configuration() {
    let (site, stranger, keys) = (Site::new(), Site::new(), keys());
    let (one, other) = (
        serving(&stranger, &keys).await,
        serving(&stranger, &keys).await,
    );
    let addresses = [one.address().to_string(), other.address().to_string()];
    let error = get(&site.store(&addresses)).await.expect_err("strangers");
    assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error:?}");
    // One that is merely down may be believed when it is back.
    let addresses = [addresses[0].clone(), format!("127.0.0.1:{}", free_port())];
    let error = get(&site.store(&addresses))
        .await
        .expect_err("a stranger and nobody");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    for address in &addresses {
        assert!(error.message().contains(address), "{error}");
    }
}

#[tokio::test]
async fn a_server_that_cannot_be_believed_does_not_keep_the_others_from_serving() {
    let (site, stranger, keys) = (Site::new(), Site::new(), keys());
    let (false_one, true_one) = (serving(&stranger, &keys).await, serving(&site, &keys).await);
    let addresses = [
        false_one.address().to_string(),
        true_one.address().to_string(),
    ];
    for _ in 0..12 {
        get(&site.store(&addresses))
            .await
            .expect("read from the other");
    }
    assert_eq!(
        false_one.requests(),
        Vec::<String>::new(),
        "it was told nothing"
    );
}

/// To ask another server would be to get round what this one said.
#[tokio::test]
async fn what_a_server_has_decided_is_not_asked_elsewhere() {
    let decisions = ErrorKind::ALL.iter().filter(|kind| !PASSING.contains(kind));
    for kind in decisions {
        let (site, keys) = (Site::new(), keys());
        let granting = serving(&site, &keys).await;
        let kind = *kind;
        let refusing = Stage::new(site.tls(), move |_| problem(kind, "so it is")).await;
        let addresses = [
            refusing.address().to_string(),
            granting.address().to_string(),
        ];
        let (mut refused, mut asked) = (0, 0);
        for _ in until_chosen(|| refusing.asked(READ)) {
            asked += 1;
            if let Err(error) = get(&site.store(&addresses)).await {
                assert_eq!((error.kind(), error.message()), (kind, "so it is"));
                refused += 1;
            }
        }
        assert_eq!(refusing.asked(READ), refused, "{kind}");
        assert_eq!(granting.asked(READ), asked - refused, "{kind}");
    }
}

/// Its store is down: that is no decision, and another may have a store that is not.
#[tokio::test]
async fn a_server_that_cannot_serve_is_left_for_one_that_can() {
    for kind in PASSING {
        // The whole read fails, or each of its items.
        for whole in [true, false] {
            let (site, keys) = (Site::new(), keys());
            let serving = serving(&site, &keys).await;
            let failing = Stage::new(site.tls(), move |_| {
                if whole {
                    return problem(kind, "its store is down");
                }
                let recipient = Recipient::new().expect("a key");
                let error = Error::new(kind, "its store is down");
                json(&ReadAnswer {
                    enc: Sender::to(recipient.public())
                        .expect("a key")
                        .enc()
                        .to_owned(),
                    salt: "AAAAAAAAAAAAAAAAAAAAAA==".to_owned(),
                    items: vec![Outcome::Problem {
                        problem: Problem::of(&error, None),
                    }],
                })
            })
            .await;
            let addresses = [failing.address().to_string(), serving.address().to_string()];
            let mut asked = 0;
            for _ in until_chosen(|| failing.asked(READ)) {
                asked += 1;
                get(&site.store(&addresses)).await.expect("read elsewhere");
            }
            assert_eq!(serving.asked(READ), asked, "{kind}");
            // Alone, its own word is what is told, with its id of the request.
            let error = get(&site.store(&addresses[..1])).await.expect_err("down");
            assert_eq!((error.kind(), error.message()), (kind, "its store is down"));
            let id = if whole { "r-1" } else { "r-stage" };
            assert!(format!("{error:?}").contains(id), "{error:?}");
        }
    }
}

/// Somebody may have revoked it in between: a grant that is made again would undo that.
#[tokio::test]
async fn a_grant_whose_answer_was_lost_is_not_made_again_and_a_revocation_is() {
    let site = Site::new();
    let mute = [
        Stage::new(site.tls(), |_| Said::Nothing).await,
        Stage::new(site.tls(), |_| Said::Nothing).await,
    ];
    let addresses = mute.each_ref().map(|stage| stage.address().to_string());
    let asked = |target: &str| mute.iter().map(|stage| stage.asked(target)).sum::<usize>();
    let (service, request) = (site.service(&addresses), Request::default());
    let (scope, node) = ("web01".to_owned(), "y".to_owned());
    let body = GrantRequest {
        scope: scope.clone(),
        node: node.clone(),
        names: Vec::new(),
        expires: None,
        if_epoch: None,
    };
    let error = service.grant(&body, &request).await.expect_err("lost");
    assert_eq!(asked("POST /v1/grants"), 1);
    assert!(error.message().contains("is not known"), "{error}");
    let advice = error.advice().unwrap_or_default();
    assert!(advice.contains("keyhaul grants --scope web01"), "{advice}");
    assert_eq!(error.context().store.as_deref(), Some("site"));

    let error = service.release("y", &request).await.expect_err("lost");
    assert!(error.message().contains("is not known"), "{error}");
    assert_eq!(asked("POST /v1/nodes/release"), 1);
    let delete = DeleteRequest {
        secret: "web01/root".into(),
        version: None,
        force: false,
    };
    service.delete(&delete, &request).await.expect_err("lost");
    assert_eq!(asked("POST /v1/secrets/delete"), 1);

    let body = RevokeRequest {
        scope,
        node,
        if_epoch: None,
    };
    service.revoke(&body, &request).await.expect_err("lost");
    assert_eq!(asked("POST /v1/grants/revoke"), 2);
}

#[tokio::test]
async fn a_certificate_that_one_server_refuses_is_not_tried_at_another() {
    let (site, keys) = (Site::new(), keys());
    let granting = serving(&site, &keys).await;
    let stranger = Authority::new("another");
    let issued = site.authority.server(&["127.0.0.1"]);
    let tls = stage::tls(&issued, &stranger.pem(), b"h2");
    let refusing = Stage::new(tls, |_| Said::Nothing).await;
    let addresses = [
        refusing.address().to_string(),
        granting.address().to_string(),
    ];
    let (mut refused, mut asked) = (0, 0);
    for _ in until_chosen(|| refusing.connections()) {
        asked += 1;
        if let Err(error) = get(&site.store(&addresses)).await {
            assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error:?}");
            refused += 1;
        }
    }
    assert!(refused > 0);
    assert_eq!(granting.asked(READ), asked - refused);
}

#[tokio::test]
async fn five_hundred_reads_at_once_share_one_connection() {
    let (site, keys) = (Site::new(), keys());
    let stage = serving(&site, &keys).await;
    let store = site.store(&[stage.address().to_string()]);
    let reads = (0..500).map(|_| get(&store));
    for read in futures_util::future::join_all(reads).await {
        read.expect("read");
    }
    assert_eq!(stage.connections(), 1);
    assert_eq!(stage.asked(READ), 500);
}
