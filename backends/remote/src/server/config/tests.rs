//! What a configuration says, and where it says nothing that can be meant.

use super::*;

const GOOD: &str = r#"version = 1
listen = ["127.0.0.1:0", "[::1]:8443"]
policy = "keyhaul.toml"
state = "service.db"
audit = "/var/log/audit.jsonl"
delete-window = "1h"

[tls]
certificate = "server.crt"
key = "server.key"
client-ca = "ca.crt"
crl = "ca.crl"

[[roles]]
uri = "spiffe://site/node/{name}"
role = "node"

[[roles]]
uri = "spiffe://site/manager/*"
role = "manager"
scopes = ["prod-*"]

[limits]
connections = 10
idle = "1m"
connections-per-identity = 5
"#;

#[test]
fn a_configuration_says_what_it_says() {
    let settings = Settings::parse("server.toml", GOOD).expect("sound");
    assert_eq!(settings.listen.len(), 2);
    assert_eq!(settings.delete_window, Duration::from_secs(3600));
    assert_eq!(settings.limits.connections, 10);
    assert_eq!(settings.limits.connections_per_identity, 5);
    assert_eq!(settings.limits.idle, Duration::from_secs(60));
    assert_eq!(settings.limits.handshake, Duration::from_secs(10));
    let identity = settings.roles.identify("spiffe://site/manager/a");
    let identity = identity.expect("a manager");
    assert_eq!(identity.role, Role::Manager);
    assert!(identity.covers("prod-1") && !identity.covers("test-1"));
}

#[test]
fn an_identity_has_a_share_of_the_connections_where_nobody_says() {
    for (connections, share) in [(4096, 1024), (200, 64), (2, 2)] {
        let text = GOOD
            .replace("connections-per-identity = 5\n", "")
            .replace("connections = 10", &format!("connections = {connections}"));
        let settings = Settings::parse("server.toml", &text).expect("sound");
        assert_eq!(settings.limits.connections_per_identity, share);
    }
}

#[test]
fn a_share_is_one_of_the_room_that_there_is() {
    let limits = |connections, connections_per_identity| Limits {
        connections,
        connections_per_identity,
        ..Limits::default()
    };
    // As many as one identity was given of 4096 would be all.
    assert_eq!(limits(4096, 1024).within(768), limits(768, 192));
    assert_eq!(limits(4096, 4096).within(1000), limits(1000, 250));
    assert_eq!(limits(4096, 10).within(768), limits(768, 10));
    // Where there is room for what was asked for, that holds.
    assert_eq!(limits(100, 100).within(100), limits(100, 100));
}

#[test]
fn relative_paths_are_relative_to_the_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("server.toml");
    std::fs::write(&path, GOOD).expect("written");
    let settings = Settings::load(&path).expect("sound");
    assert_eq!(settings.state, folder.path().join("service.db"));
    assert_eq!(settings.audit, Path::new("/var/log/audit.jsonl"));
    assert_eq!(settings.tls.key, folder.path().join("server.key"));
    assert_eq!(settings.tls.crl, Some(folder.path().join("ca.crl")));
    assert_eq!(settings.policy, Some(folder.path().join("keyhaul.toml")));
}

#[test]
fn every_error_has_its_line_and_names_what_is_known() {
    let replaced = |from: &str, to: &str| {
        assert!(GOOD.contains(from), "{from}");
        GOOD.replacen(from, to, 1)
    };
    for (text, line, words) in [
        (replaced("version = 1", "version = 2"), 1, "known is: 1"),
        (replaced("[\"127.0.0.1:0\"", "[\"localhost\""), 2, "IP:PORT"),
        (replaced("\"1h\"", "\"1y\""), 6, "ms, s, m, h or d"),
        (replaced("crl =", "clr ="), 12, "`client-ca`"),
        (replaced("[limits]", "[limit]"), 23, "`limits`"),
        (replaced("\"manager\"", "\"admin\""), 20, "`manager`"),
        (replaced("connections = 10", "connections = 0"), 24, "1 to"),
        (replaced("-identity = 5", "-identity = 11"), 26, "1 to 10"),
        (replaced("[\"prod-*\"]", "[\"prod/*\"]"), 21, "'/'"),
        (replaced("manager/*", "node/*"), 19, "server.toml:14"),
        (replaced("version = 1", "version = "), 1, ""),
    ] {
        let error = Settings::parse("server.toml", &text).expect_err(&text);
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        let place = error.context().place.clone().unwrap_or_default();
        assert!(
            place.starts_with(&format!("server.toml:{line}:")),
            "{error}"
        );
        assert!(error.message().contains(words), "{error}");
    }
}
