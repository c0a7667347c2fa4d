//! A key service whose state is brought back from a backup, and files that are none of its audit.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use keyhaul_e2e::{Finished, finish, keyhaul, until};
use keyhaul_servers::{Identity, KeyService};
use serde_json::json;

/// The exit statuses of the book's table.
const CONFLICT: i32 = 11;
const CORRUPT: i32 = 12;
const INVALID_CONFIG: i32 = 14;
const NOT_FOUND: i32 = 16;

const STATE: [&str; 2] = ["service.db", "service.db-wal"];

/// Replaces the state's files by those of another folder.
fn copy(from: &Path, to: &Path) {
    for name in STATE {
        let _ = fs::remove_file(to.join(name));
        if from.join(name).exists() {
            fs::copy(from.join(name), to.join(name)).expect("copied");
        }
    }
    let _ = fs::remove_file(to.join("service.db-shm"));
}

/// Whether a node reads the guest's secret.
fn reads(server: &KeyService, node: &Identity) -> bool {
    let body = json!({
        "key": "CQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
        "nonce": "AAECAwQFBgcICQoLDA0ODw==",
        "items": [{"secret": "web01/root"}],
    });
    let reply = server.ask(Some(node), "POST", "secrets/read", Some(&body));
    reply.expect("an answer").json["items"][0]["value"].is_string()
}

#[test]
fn a_state_from_a_backup_serves_nobody_until_somebody_says_so() {
    let mut server = KeyService::start(keyhaul(), "");
    let (manager, node) = (server.identity("manager/m"), server.identity("node/y"));
    let made = json!({"secret": "web01/root", "alphabet": "hex", "length": 32});
    server.tell(&manager, "secrets/generate", &made);
    let grant = json!({"scope": "web01", "node": "y"});
    server.tell(&manager, "grants", &grant);
    assert!(reads(&server, &node));

    let folder = server.path(".");
    let backup = tempfile::tempdir().expect("a folder");
    server.kill();
    copy(&folder, backup.path());
    // The control: from the very moment, it serves.
    copy(backup.path(), &folder);
    server.restart();
    assert!(reads(&server, &node));
    server.tell(&manager, "grants/revoke", &grant);
    assert!(!reads(&server, &node));

    // Brought back, it would give what was revoked.
    server.kill();
    copy(backup.path(), &folder);
    let config = server.path("service.toml");
    for _ in 0..2 {
        let mut start = Command::new(keyhaul());
        finish(start.args(KeyService::SERVE).arg(&config))
            .exits(CONFLICT)
            .says(&["older than the audit", "web01", "accept-older-state"]);
    }

    let text = fs::read_to_string(&config).expect("the configuration");
    let accepts = text.replacen(
        "version = 1\n",
        "version = 1\naccept-older-state = true\n",
        1,
    );
    assert_ne!(accepts, text);
    fs::write(&config, accepts).expect("written");
    server.restart();
    let log = server.log();
    assert!(log.contains("older than the audit"), "{log}");
    assert!(reads(&server, &node), "it is taken as it is");
    server.tell(&manager, "grants/revoke", &grant);
    assert!(!reads(&server, &node));

    // For one start: the line is needed no more, and what was revoked since stays so.
    server.kill();
    fs::write(&config, text).expect("written");
    server.restart();
    assert!(!reads(&server, &node));
    let log = server.path("audit/audit.jsonl");
    verify(&log).ok();
}

fn verify(file: &Path) -> Finished {
    let mut command = Command::new(keyhaul());
    finish(command.args(["audit", "verify"]).arg(file))
}

#[test]
fn files_of_the_state_are_no_audit_whatever_is_left_of_them() {
    let mut server = KeyService::start(keyhaul(), "");
    let manager = server.identity("manager/m");
    server.tell(&manager, "grants", &json!({"scope": "web01", "node": "y"}));
    // Beside it lies what SQLite has not yet taken into the file itself.
    until("the log of the database", || {
        let log = fs::metadata(server.path("service.db-wal"));
        log.is_ok_and(|log| log.len() > 0).then_some(())
    });
    server.kill();
    let whole = fs::read(server.path("service.db")).expect("the state");
    assert!(whole.starts_with(b"SQLite format 3\0"), "the control");
    verify(&server.path("service.db"))
        .exits(INVALID_CONFIG)
        .says(&["service.db", "is a database"]);
    let rest: PathBuf = server.path("rest.db");
    fs::write(&rest, &whole[100..]).expect("written");
    let empty = server.path("empty.db");
    fs::write(&empty, "").expect("written");
    // Whether its bytes make lines or not, none of them is a record.
    for file in [rest, empty, server.path("service.db-wal")] {
        let done = verify(&file);
        assert!([CORRUPT, NOT_FOUND].contains(&done.status.code().unwrap_or_default()));
        assert!(done.stdout.is_empty(), "{done:?}");
        done.says(&["no record of the audit"]);
    }
    // The control.
    verify(&server.path("audit/audit.jsonl")).ok();
}
