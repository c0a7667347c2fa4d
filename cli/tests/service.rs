//! The key service's commands where there is no service to ask: what is refused, and the
//! certificates of a small site.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output};

use tempfile::TempDir;

/// Exit statuses, as the table of `keyhaul help exit-codes` has them.
const USAGE: i32 = 2;
const ALREADY_EXISTS: i32 = 10;
const CORRUPT: i32 = 12;
const INVALID_CONFIG: i32 = 14;
const NOT_FOUND: i32 = 16;
const PERMISSION_DENIED: i32 = 17;

struct Home(TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).expect("written");
        fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("set");
        path
    }

    /// A policy with a key service of each of these names; nobody answers there.
    fn policy(&self, services: &[&str]) {
        let mut text = format!(
            "version = 1\n[stores.local]\nurl = \"file://{}\"\nidentity = \"file:/nowhere\"\n",
            self.path("secrets").display()
        );
        for name in services {
            text += &format!(
                "[stores.{name}]\nurl = \"keyhaul+https://127.0.0.1:1\"\nca-cert = \"/no/ca\"\nclient-cert = \"/no/cert\"\nclient-key = \"file:/no/key\"\n"
            );
        }
        self.file("keyhaul.toml", &text);
    }

    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_keyhaul"))
            .args(arguments)
            .current_dir(self.0.path())
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.0.path())
            .env("KEYHAUL_CONFIG", self.path("keyhaul.toml"))
            .output()
            .expect("started")
    }

    #[track_caller]
    fn refused(&self, arguments: &[&str], status: i32, words: &str) {
        let done = self.run(arguments);
        let said = String::from_utf8(done.stderr).expect("text");
        assert_eq!(done.status.code(), Some(status), "{arguments:?}: {said}");
        assert!(said.contains(words), "{arguments:?}: {said}");
        assert!(done.stdout.is_empty(), "{arguments:?}");
    }

    #[track_caller]
    fn done(&self, arguments: &[&str]) -> String {
        let done = self.run(arguments);
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{arguments:?}: {said}");
        String::from_utf8(done.stdout).expect("text")
    }
}

/// Every command that asks a key service.
const ASKING: [&[&str]; 13] = [
    &["audit", "show"],
    &["grant", "web01", "node-a"],
    &["grants"],
    &[
        "migrate", "abort", "web01", "--from", "node-a", "--to", "node-b",
    ],
    &[
        "migrate", "begin", "web01", "--from", "node-a", "--to", "node-b",
    ],
    &["migrate", "commit", "0123456789abcdef"],
    &["migrate", "list"],
    &["node", "list"],
    &["node", "quarantine", "node-a"],
    &["restore", "web01/root"],
    &["revoke", "web01", "node-a"],
    &["what-can", "node-a"],
    &["who-can", "web01/root"],
];

#[test]
fn a_policy_says_which_service_is_asked() {
    let home = Home::new();
    for command in ASKING {
        let named = |name| [command, &["--service", name]].concat();
        home.policy(&[]);
        home.refused(command, INVALID_CONFIG, "has no key service");
        home.policy(&["east", "west"]);
        home.refused(command, INVALID_CONFIG, "name one by --service: east, west");
        home.refused(
            &named("local"),
            INVALID_CONFIG,
            "is a file store, and no key service",
        );
        home.refused(&named("north"), INVALID_CONFIG, "has no store `north`");
        // The control: it is asked, and its files are missing.
        home.refused(&named("west"), INVALID_CONFIG, "/no/");
        home.policy(&["east"]);
        home.refused(command, INVALID_CONFIG, "/no/");
    }
}

#[test]
fn arguments_are_held_against_what_they_are() {
    let home = Home::new();
    home.policy(&["east"]);
    let hash = "0".repeat(64);
    for (arguments, words) in [
        (
            &["grant", "web01/x", "node-a"][..],
            "a scope is the first segment",
        ),
        (&["grant", "web01", "node/a"], "a node's name is"),
        (
            &["grant", "web01", "node-a", "--expires", "soon"],
            "a moment is RFC 3339",
        ),
        (&["who-can", "web01"], "a scope is followed by `/`"),
        (&["migrate", "begin", "web01", "--from", "a"], "--to"),
        (
            &[
                "migrate", "begin", "web01", "--from", "a", "--to", "b", "--for", "0s",
            ],
            "a duration is",
        ),
        (&["migrate", "commit"], "SCOPE"),
        (&["migrate", "commit", "web01", "--from", "a"], "--to"),
        (&["audit", "verify"], "FILE"),
        (
            &["audit", "verify", "x", "--head", "1"],
            "a head is NUMBER:HASH",
        ),
        (
            &["audit", "verify", "x", "--head", &format!("x:{hash}")],
            "a head is NUMBER:HASH",
        ),
        (&["audit", "show", "--limit", "0"], "0 is not in"),
        (&["audit", "show", "--last", "1", "--after", "2"], "--after"),
        (
            &["revoke", "web01", "node-a", "--if-epoch", "0"],
            "0 is not in",
        ),
        (&["grant", "web01", "-a"], "unexpected argument"),
        (&["grant", "web01", &"n".repeat(124)], "1 to 123 of"),
        (&["serve", "--folder", "x"], "--dev"),
        (&["serve", "--dev", "--listen", "here"], "--listen"),
        (&["pki", "issue", "king", "x"], "possible values"),
        (&["pki", "issue", "server", "x", "--ip", "here"], "--ip"),
    ] {
        home.refused(arguments, USAGE, words);
    }
}

#[test]
fn the_audit_of_no_file_is_not_found_and_of_another_is_damaged() {
    let home = Home::new();
    home.policy(&[]);
    home.refused(
        &["audit", "verify", "nothing.jsonl"],
        NOT_FOUND,
        "nothing.jsonl",
    );
    home.file("other.jsonl", "{\"sequence\":1}\n");
    home.refused(&["audit", "verify", "other.jsonl"], CORRUPT, "other.jsonl");
}

#[test]
fn what_has_no_chain_is_called_by_its_name() {
    let home = Home::new();
    home.policy(&[]);
    let record = r#"{"time":"2026-11-21T23:42:51Z","event":"end","request":"f1","actor":"uid:0"}"#;
    home.file("log.jsonl", &format!("{record}\n"));
    home.file("service.db", "SQLite format 3\0and so on");
    let verify = |name: &str, status, words: &str| {
        home.refused(&["audit", "verify", name], status, words);
    };
    verify(
        "log.jsonl",
        INVALID_CONFIG,
        "the log of a policy's `[audit]`",
    );
    verify("service.db", INVALID_CONFIG, "is a database");
    // The control: what only resembles a record of a chain is damaged.
    home.file("damaged.jsonl", "{\"sequence\":1,\"hash\":\"00\"}\n");
    verify("damaged.jsonl", CORRUPT, "damaged.jsonl");
}

#[test]
fn a_key_service_takes_no_path() {
    let home = Home::new();
    home.policy(&["east"]);
    let text = fs::read_to_string(home.path("keyhaul.toml")).expect("there");
    let route = "[[routes]]\nmatch = \"**\"\nstore = \"east\"\npath = \"x/{name}\"\n";
    home.file("keyhaul.toml", &format!("{text}{route}"));
    home.refused(&["grants"], INVALID_CONFIG, "a key service takes no `path`");
}

const SERVICE: &str = "version = 1\nlisten = [\"127.0.0.1:0\"]\npolicy = \"served.toml\"\nstate = \"service.db\"\naudit = \"audit.jsonl\"\n[tls]\ncertificate = \"x.pem\"\nkey = \"x.key\"\nclient-ca = \"ca.pem\"\n";

#[test]
fn what_a_service_would_serve_wrongly_is_refused() {
    let home = Home::new();
    home.policy(&[]);
    let serve = ["serve", "--config", "service.toml"];
    home.refused(&serve, INVALID_CONFIG, "service.toml cannot be read");
    home.refused(&serve, INVALID_CONFIG, "keyhaul serve --dev");
    home.file("service.toml", &SERVICE.replace("policy", "policies"));
    home.refused(&serve, INVALID_CONFIG, "service.toml:3:");
    home.file(
        "service.toml",
        &SERVICE.replace("policy = \"served.toml\"\n", ""),
    );
    home.refused(&serve, INVALID_CONFIG, "names no `policy`");
    home.file("service.toml", SERVICE);
    home.refused(&serve, INVALID_CONFIG, "served.toml cannot be read");
    // Two scopes would share a secret.
    let store = "version = 1\n[stores.a]\nurl = \"file:///nowhere\"\nidentity = \"file:/no\"\n";
    let route = "[[routes]]\nmatch = \"**\"\nstore = \"a\"\npath = \"all/{name}\"\n";
    home.file("served.toml", &format!("{store}{route}"));
    home.refused(&serve, INVALID_CONFIG, "served.toml:6");
    // The control: with its scope it is the certificates' turn.
    home.file(
        "served.toml",
        &format!("{store}{}", route.replace("all", "{scope}")),
    );
    home.refused(&serve, INVALID_CONFIG, "`client-ca` ca.pem");
    // Others could make themselves managers.
    fs::set_permissions(home.path("service.toml"), PermissionsExt::from_mode(0o666)).expect("set");
    home.refused(&serve, PERMISSION_DENIED, "chmod go-w service.toml");
    let dev = ["serve", "--dev", "--config", "service.toml"];
    home.refused(&dev, INVALID_CONFIG, "takes no --config");
}

#[test]
fn a_small_site_makes_its_own_certificates() {
    let home = Home::new();
    let pki =
        |arguments: &[&'static str]| [&["pki"], arguments, &["--folder", "authority"]].concat();
    home.refused(&pki(&["list"]), INVALID_CONFIG, "keyhaul pki init");
    home.refused(&pki(&["init", "Not A Site"]), INVALID_CONFIG, "[a-z0-9._-]");
    let json = |arguments: &[&'static str]| {
        let text = home.done(&pki(&[arguments, &["--format", "json"]].concat()));
        let document: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(document["schema_version"], 1);
        document
    };
    let there = |file: &serde_json::Value| {
        let path = home.path(file.as_str().expect("a path"));
        assert!(path.exists(), "{}", path.display());
    };
    let made = json(&["init", "example.com"]);
    assert_eq!(made["site"], "example.com");
    for file in ["folder", "certificate", "crl"] {
        there(&made[file]);
    }
    let expires: jiff::Timestamp = made["expires"]
        .as_str()
        .expect("text")
        .parse()
        .expect("a time");
    assert!(expires.duration_since(jiff::Timestamp::now()).as_hours() > 24 * 365);
    home.refused(
        &pki(&["init", "example.com"]),
        ALREADY_EXISTS,
        "never overwritten",
    );
    let server = [
        "issue",
        "server",
        "keys",
        "--dns",
        "keys.example.com",
        "--ip",
        "::1",
    ];
    home.done(&pki(&server));
    home.refused(
        &pki(&["issue", "server", "bare"]),
        INVALID_CONFIG,
        "--dns NAME or --ip",
    );
    let named = ["issue", "node", "host-1", "--dns", "a.example"];
    home.refused(&pki(&named), INVALID_CONFIG, "known by its URI");
    let issued = json(&["issue", "node", "host-1"]);
    assert_eq!(issued["uri"], "spiffe://example.com/node/host-1");
    there(&issued["certificate"]);
    there(&issued["key"]);
    home.refused(
        &pki(&["issue", "node", "host-1"]),
        ALREADY_EXISTS,
        "keyhaul pki renew",
    );
    let renewed = home.done(&pki(&["renew", "host-1", "--lifetime", "7d"]));
    assert!(renewed.contains("authority/host-1.pem"), "{renewed}");
    home.refused(
        &pki(&["renew", "host-2"]),
        NOT_FOUND,
        "valid are: host-1, keys",
    );
    let revoked = json(&["revoke", "host-1"]);
    let stems = revoked["revoked"].as_array().expect("a list");
    assert_eq!(stems.len(), 2, "{revoked}");
    assert!(
        stems
            .iter()
            .all(|record| record["stem"] == "host-1" && record["revoked"].is_string())
    );
    there(&revoked["crl"]);
    home.refused(&pki(&["revoke", "host-1"]), NOT_FOUND, "host-1");
    let listed = json(&["list"]);
    assert_eq!(listed["site"], "example.com");
    let revoked: Vec<bool> = listed["certificates"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|certificate| certificate.get("revoked").is_some())
        .collect();
    assert_eq!(revoked, [false, true, true]);
    let lines = home.done(&pki(&["list"]));
    assert_eq!(lines.lines().count(), 3);
    assert!(lines.contains("keys.example.com, ::1"), "{lines}");
}
