//! The fixtures do what they say.

use std::time::Duration;

use keyhaul_servers::{Certificate, OpenBao, Setup};
use serde_json::json;

#[test]
fn a_development_server_keeps_values_while_it_lives() {
    let server = OpenBao::dev();
    server.kv("apps", 1);
    server.write("apps/web", &json!({"value": "a \"quoted\"\nline \\ ü"}));
    assert_eq!(
        server.read("apps/web")["data"]["value"],
        "a \"quoted\"\nline \\ ü"
    );
    let denied = server.request("GET", "apps/web", "wrong", None);
    assert_eq!(denied.status, 403);
    let pid = server.pid();
    drop(server);
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
}

#[test]
fn a_real_server_survives_a_restart_and_can_be_sealed() {
    let mut server = Setup::tls().unix_socket().start();
    assert!(server.address().starts_with("https://"));
    assert!(server.socket().exists());
    server.kv("apps", 2);
    server.write("apps/data/web", &json!({"data": {"value": "kept"}}));
    server.restart();
    assert_eq!(
        server.read("apps/data/web")["data"]["data"]["value"],
        "kept"
    );
    server.seal();
    assert_eq!(server.health(), Some(503));
    server.unseal();
    assert_eq!(server.health(), Some(200));
}

#[test]
fn a_cluster_finds_another_leader() {
    let cluster = OpenBao::raft(3);
    let old = cluster.leader_number();
    cluster.leader().kv("apps", 1);
    cluster
        .leader()
        .write("apps/web", &json!({"value": "kept"}));
    let new = cluster.step_down();
    assert_ne!(old, new);
    assert_eq!(cluster.leader().read("apps/web")["data"]["value"], "kept");
}

#[test]
fn bad_certificates_are_served_and_client_certificates_required() {
    for certificate in [Certificate::Expired, Certificate::WrongName] {
        let server = Setup::default().certificate(certificate).start();
        let verified = std::process::Command::new("curl")
            .arg("-s")
            .arg("--cacert")
            .arg(server.ca_path())
            .arg(format!("{}/v1/sys/health", server.address()))
            .status()
            .expect("curl");
        assert_eq!(verified.code(), Some(60), "{certificate:?}");
    }
    let server = Setup::tls().require_client_certificates().start();
    let (certificate, key) = server.client_certificate("web01");
    let ask = |with: bool| {
        let mut curl = std::process::Command::new("curl");
        curl.arg("-s").arg("--cacert").arg(server.ca_path());
        if with {
            curl.arg("--cert").arg(&certificate).arg("--key").arg(&key);
        }
        let url = format!("{}/v1/sys/health", server.address());
        let status = curl.arg(url).arg("-o").arg("/dev/null").status();
        status.expect("curl").success()
    };
    assert!(ask(true));
    assert!(!ask(false));
}

#[test]
fn a_frozen_server_goes_on_where_it_stood() {
    let server = OpenBao::dev();
    server.freeze();
    let started = std::time::Instant::now();
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| server.health());
        std::thread::sleep(Duration::from_millis(200));
        assert!(!asking.is_finished());
        server.thaw();
        assert_eq!(asking.join().expect("asked"), Some(200));
    });
    assert!(started.elapsed() >= Duration::from_millis(200));
}

#[test]
fn an_audited_server_writes_down_what_it_was_asked() {
    let server = Setup::tls().audited().start();
    server.kv("apps", 2);
    let secret = json!({"data": {"value": "x"}});
    server.write("apps/data/written", &secret);
    let audit = std::fs::read_to_string(server.folder().join("audit.log")).expect("the audit");
    let about = |path: &str| audit.lines().any(|line| line.contains(path));
    assert!(about("apps/data/written"));
    assert!(!about("apps/data/never"));
}
