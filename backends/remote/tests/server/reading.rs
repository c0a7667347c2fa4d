//! Reading: what is granted arrives, what is not shows nothing of itself.

use http::StatusCode;
use keyhaul_remote::protocol::seal::Recipient;
use keyhaul_remote::protocol::{Outcome, Problem, ReadAnswer, path};

use super::site::{Site, read_request};

fn kinds(outcomes: &[Result<Vec<u8>, Box<Problem>>]) -> Vec<&str> {
    outcomes
        .iter()
        .map(|outcome| match outcome {
            Ok(_) => "ok",
            Err(problem) => problem.kind.as_str(),
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_operator_writes_a_granted_node_reads() {
    let mut site = Site::start().await;
    let operator = site.operator();
    let answer = operator.write("web01/root", b"correct horse").await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    site.grant("web01", "y").await;
    let node = site.node("y");
    let read = node
        .read(&[
            "web01/root",
            "web01/none",
            "web02/root",
            "web01/..",
            "@host/x",
        ])
        .await;
    assert_eq!(read[0].as_deref().ok(), Some(&b"correct horse"[..]));
    assert_eq!(
        kinds(&read),
        [
            "ok",
            "NotFound",
            "PermissionDenied",
            "InvalidReference",
            "NotFound"
        ]
    );

    // From the next request on.
    let body = serde_json::json!({ "scope": "web01", "node": "y" });
    assert_eq!(
        site.manager().post(path::REVOKE, &body).await.status,
        StatusCode::OK
    );
    assert_eq!(
        kinds(&node.read(&["web01/root"]).await),
        ["PermissionDenied"]
    );
    drop((node, operator));
    site.end().await.expect("ended well");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nodes_own_scope_is_its_own_by_either_name() {
    let site = Site::start().await;
    site.put("@host.y/tls", b"of y").await;
    site.put("@host.z/tls", b"of z").await;
    let node = site.node("y");
    let read = node
        .read(&["@host/tls", "@host.y/tls", "@host.z/tls"])
        .await;
    assert_eq!(read[0].as_deref().ok(), Some(&b"of y"[..]));
    assert_eq!(read[1].as_deref().ok(), Some(&b"of y"[..]));
    assert_eq!(kinds(&read)[2], "PermissionDenied");
    let answer = site.operator().write("@host/tls", b"x").await;
    assert_eq!(answer.kind(), "InvalidReference");
}

/// An answer without what differs between any two.
fn bare(answer: &super::site::Answer) -> String {
    let mut answer: ReadAnswer = answer.json();
    answer.enc = String::new();
    answer.salt = String::new();
    serde_json::to_string(&answer).expect("JSON")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_granted_looks_the_same_whether_it_is_there_or_not() {
    let site = Site::start().await;
    site.put("web01/root", b"correct horse").await;
    site.put("web02/root", b"battery").await;
    site.grant("web02", "y").await;
    let node = site.node("y");
    let asked = site.asked();
    let recipient = Recipient::new().expect("a key");
    let there = node
        .post(path::READ, &read_request(&recipient, &["web01/root"]))
        .await;
    let absent = node
        .post(path::READ, &read_request(&recipient, &["web09/none"]))
        .await;
    assert_eq!(bare(&there), bare(&absent));
    assert_eq!(there.body.len(), absent.body.len());
    assert!(matches!(
        there.json::<ReadAnswer>().items[..],
        [Outcome::Problem { .. }]
    ));
    let stat = |secret| serde_json::json!({ "items": [{ "secret": secret }] });
    let there = node.post(path::STAT, &stat("web01/root")).await;
    let absent = node.post(path::STAT, &stat("web09/none")).await;
    assert_eq!(there.text(), absent.text());
    assert_eq!(site.asked(), asked, "the store was asked");

    // The control: what is granted differs.
    let there = node
        .post(path::READ, &read_request(&recipient, &["web02/root"]))
        .await;
    let absent = node
        .post(path::READ, &read_request(&recipient, &["web02/none"]))
        .await;
    assert_ne!(bare(&there), bare(&absent));
    assert!(site.asked() > asked);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_opens_for_nobody_but_who_asked() {
    let site = Site::start().await;
    site.put("web01/root", b"correct horse").await;
    site.grant("web01", "y").await;
    let node = site.node("y");
    let recipient = Recipient::new().expect("a key");
    let request = read_request(&recipient, &["web01/root"]);
    let answer = node.post(path::READ, &request).await;
    assert!(!answer.text().contains("correct horse"));
    let answer: ReadAnswer = answer.json();
    let stranger = Recipient::new().expect("a key");
    let receiver = stranger.meet(&answer.enc).expect("met");
    let opener = receiver.opener(keyhaul_remote::protocol::seal::Purpose::Read, &answer.salt);
    assert!(opener.is_ok());
    let opened = node.open(&recipient, &request, answer);
    assert_eq!(opened[0].as_deref().ok(), Some(&b"correct horse"[..]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_stay_where_the_audit_cannot_be_written() {
    let site = Site::start().await;
    site.put("web01/root", b"correct horse").await;
    site.grant("web01", "y").await;
    let node = site.node("y");
    let read = node.read(&["web01/root"]).await;
    assert!(read[0].is_ok(), "the control");
    // What somebody empties in place is no longer the log that was written.
    let log = std::fs::File::options()
        .write(true)
        .open(site.folder.path().join("audit.jsonl"));
    log.and_then(|log| log.set_len(0)).expect("emptied");
    let recipient = Recipient::new().expect("a key");
    let answer = node
        .post(path::READ, &read_request(&recipient, &["web01/root"]))
        .await;
    assert_eq!(
        answer.status,
        StatusCode::INTERNAL_SERVER_ERROR,
        "{}",
        answer.text()
    );
    assert_eq!(answer.kind(), "Internal");
    assert!(answer.text().contains("audit"));
    let grant = serde_json::json!({ "scope": "web02", "node": "y" });
    let answer = site.manager().post(path::GRANTS, &grant).await;
    assert_eq!(answer.kind(), "Internal");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_has_room_for_so_much_and_one_value_always_fits() {
    let site = Site::start().await;
    let value = vec![7; 1024 * 1024];
    let names: Vec<String> = (0..6).map(|n| format!("web01/disk{n}")).collect();
    for name in &names {
        site.put(name, &value).await;
    }
    site.grant("web01", "y").await;
    let node = site.node("y");
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let read = node.read(&names).await;
    assert_eq!(
        kinds(&read),
        ["ok", "ok", "ok", "ok", "TooLarge", "TooLarge"]
    );
    assert_eq!(kinds(&node.read(&names[5..]).await), ["ok"]);
    // What was refused takes no room from what comes after it.
    site.put("web01/less", &value[..900 * 1024]).await;
    site.put("web01/key", &value[..32]).await;
    let mut mixed = names[..3].to_vec();
    mixed.extend(["web01/less", "web01/disk3", "web01/key"]);
    assert_eq!(
        kinds(&node.read(&mixed).await),
        ["ok", "ok", "ok", "ok", "TooLarge", "ok"]
    );
    let many = vec!["web01/disk0"; 257];
    let recipient = Recipient::new().expect("a key");
    let answer = node
        .post(path::READ, &read_request(&recipient, &many))
        .await;
    assert_eq!(answer.kind(), "TooLarge");
}
