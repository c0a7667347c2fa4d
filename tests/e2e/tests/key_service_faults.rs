//! The key service on bad days: killed amid grants, over a store that is sealed, on a disk that is
//! full. What it has acknowledged holds, and what it cannot do it says.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;

use keyhaul_e2e::{finish, keyhaul, program, until, vault};
use keyhaul_servers::{Identity, KeyService, OpenBao};
use serde_json::{Value, json};

/// Managers that grant at the same time, and how much each asks for.
const MANAGERS: usize = 8;
const EACH: usize = 125;

/// What was asked of a grant, in order, and what came of each.
type Asked = Vec<(String, Value)>;

#[test]
fn every_acknowledged_grant_and_revocation_outlives_a_kill() {
    let mut server = KeyService::start(keyhaul(), "");
    let manager = server.identity("manager/m");
    // Killed at a third and at two thirds of the way.
    for kill in [1, 2] {
        let asked: Vec<Asked> = (0..MANAGERS).map(|number| asked(kill, number)).collect();
        let before = records(&server);
        let statuses: Vec<Vec<u16>> = thread::scope(|scope| {
            let telling: Vec<_> = asked
                .iter()
                .map(|asked| scope.spawn(|| server.tell_all(&manager, asked)))
                .collect();
            let enough = before + kill * MANAGERS * EACH / 3;
            until("a third of the work", || {
                (records(&server) >= enough).then_some(())
            });
            server.signal(rustix::process::Signal::KILL);
            let done = telling.into_iter().map(|told| told.join().expect("told"));
            done.collect()
        });
        server.restart();
        let mut acknowledged = BTreeMap::new();
        let mut counts = (0, 0);
        for (asked, statuses) in asked.iter().zip(&statuses) {
            assert_eq!(statuses.len(), asked.len());
            for ((path, body), status) in asked.iter().zip(statuses) {
                let scope = body["scope"].as_str().expect("a scope").to_owned();
                match status {
                    200 => {
                        counts.0 += 1;
                        acknowledged.insert(scope, Some(path == "grants"));
                    }
                    // Nobody knows whether it was done.
                    0 => {
                        counts.1 += 1;
                        acknowledged.insert(scope, None);
                    }
                    status => panic!("{path} {body}: {status}"),
                }
            }
        }
        assert!(
            counts.0 >= MANAGERS * EACH / 4,
            "acknowledged, unanswered: {counts:?}"
        );
        assert!(counts.1 > 0, "all was done before the kill: {counts:?}");
        for node in 0..MANAGERS {
            let held = held(&server, &manager, &format!("k{kill}n{node}"));
            for (scope, granted) in &acknowledged {
                let Some(granted) = granted else { continue };
                if scope.starts_with(&format!("s{kill}-{node}-")) {
                    assert_eq!(held.contains(scope), *granted, "{scope}");
                }
            }
        }
        let verify = ["audit", "verify"].map(std::ffi::OsStr::new);
        let log = server.path("audit/audit.jsonl");
        let mut command = Command::new(keyhaul());
        finish(command.args(verify).arg(log)).ok();
    }
}

/// Grants, every third of which is taken back at once.
fn asked(kill: usize, number: usize) -> Asked {
    let mut asked = Vec::new();
    for step in 0..EACH {
        let scope = format!("s{kill}-{number}-{}", step - usize::from(step % 3 == 2));
        let path = if step % 3 == 2 {
            "grants/revoke"
        } else {
            "grants"
        };
        let body = json!({"scope": scope, "node": format!("k{kill}n{number}")});
        asked.push((path.to_owned(), body));
    }
    asked
}

/// How much was done so far.
fn records(server: &KeyService) -> usize {
    let log = fs::read_to_string(server.path("audit/audit.jsonl")).unwrap_or_default();
    // Each grant has a record of its beginning, too.
    log.matches("\"outcome\":\"ok\"").count()
}

fn held(server: &KeyService, manager: &Identity, node: &str) -> Vec<String> {
    let path = format!("grants?node={node}&limit=1000");
    let reply = server.ask(Some(manager), "GET", &path, None);
    let reply = reply.expect("an answer");
    assert_eq!(reply.status, 200, "{reply:?}");
    let grants = reply.json["grants"].as_array().expect("grants").clone();
    grants
        .iter()
        .map(|grant| grant["scope"].as_str().expect("a scope").to_owned())
        .collect()
}

/// A read of `web01/0` as a node; its outcome's kind, or none where there is a value.
fn read(server: &KeyService, node: &Identity, secret: &str) -> Option<String> {
    let key = "CQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let body = json!({
        "key": key, "nonce": "AAECAwQFBgcICQoLDA0ODw==", "items": [{"secret": secret}],
    });
    let reply = server.ask(Some(node), "POST", "secrets/read", Some(&body));
    let answer = reply.expect("an answer").json;
    let item = &answer["items"][0];
    if item["value"].is_string() {
        return None;
    }
    let kind = item["problem"]["kind"].as_str().or(answer["kind"].as_str());
    Some(kind.unwrap_or_else(|| panic!("{answer}")).to_owned())
}

/// A server over a mount of an OpenBao with storage, and a node that is granted its one secret.
fn over_openbao(bao: &OpenBao) -> (KeyService, Identity) {
    let mount = vault::filled(bao, 1);
    let mut server = KeyService::start(keyhaul(), "");
    let token = server.path("token");
    fs::write(&token, bao.token(&[&mount], "1h")).expect("written");
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(&token, private).expect("its mode");
    server.write_policy(&format!(
        "version = 1\n[stores.site]\nurl = \"vault+{}/{mount}\"\nca-cert = \"{}\"\n\
         auth = {{ method = \"token\", token = \"file:{}\" }}\n\
         [[routes]]\nmatch = \"**\"\nstore = \"site\"\npath = \"{{scope}}/{{name}}\"\n",
        bao.address(),
        bao.ca_path().display(),
        token.display(),
    ));
    server.restart();
    let manager = server.identity("manager/m");
    server.tell(&manager, "grants", &json!({"scope": "web01", "node": "y"}));
    let node = server.identity("node/y");
    (server, node)
}

#[test]
fn a_sealed_store_is_said_to_be_away_and_comes_back() {
    let mut bao = OpenBao::tls();
    let (server, node) = over_openbao(&bao);
    assert_eq!(read(&server, &node, "web01/0"), None);
    bao.seal();
    assert_eq!(
        read(&server, &node, "web01/0").as_deref(),
        Some("Unavailable")
    );
    // What needs no store is answered all the same, refusals first.
    assert_eq!(
        read(&server, &node, "web02/0").as_deref(),
        Some("PermissionDenied")
    );
    bao.unseal();
    until("the store", || {
        read(&server, &node, "web01/0").is_none().then_some(())
    });
    bao.stop();
    assert_eq!(
        read(&server, &node, "web01/0").as_deref(),
        Some("Unavailable")
    );
    let manager = server.identity("manager/m");
    server.tell(&manager, "grants", &json!({"scope": "web03", "node": "y"}));
}

/// A file system of a few pages, over a folder.
struct Small<'a>(&'a Path);

impl<'a> Small<'a> {
    #[track_caller]
    fn over(folder: &'a Path) -> Self {
        let done = finish(
            program("mount")
                .args(["-t", "tmpfs", "-o", "size=256k,mode=700", "tmpfs"])
                .arg(folder),
        );
        assert!(
            done.status.success(),
            "a small file system takes root: sudo -E env \"PATH=$PATH\" cargo test -p keyhaul-e2e\n{}",
            done.stderr
        );
        Self(folder)
    }
}

impl Drop for Small<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0).status();
    }
}

#[test]
fn nothing_is_read_or_granted_while_the_audit_has_no_room() {
    let mut server = KeyService::start(keyhaul(), "");
    let manager = server.identity("manager/m");
    let node = server.identity("node/y");
    let made = json!({"secret": "web01/root", "alphabet": "hex", "length": 32});
    server.tell(&manager, "secrets/generate", &made);
    server.tell(&manager, "grants", &json!({"scope": "web01", "node": "y"}));
    assert_eq!(read(&server, &node, "web01/root"), None);

    // The audit moves to a small file system.
    server.kill();
    let folder = server.path("audit");
    let kept: Vec<(std::path::PathBuf, Vec<u8>)> = fs::read_dir(&folder)
        .expect("the audit")
        .map(|entry| entry.expect("an entry").path())
        .map(|path| (path.clone(), fs::read(&path).expect("read")))
        .collect();
    let _small = Small::over(&folder);
    for (path, bytes) in &kept {
        fs::write(path, bytes).expect("written");
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        fs::set_permissions(path, private).expect("its mode");
    }
    server.restart();
    assert_eq!(read(&server, &node, "web01/root"), None);
    let filler = folder.join("filler");
    let full = fs::write(&filler, vec![0; 1 << 20]);
    assert!(full.is_err(), "the file system is not full");

    // A page may still have room for a record or two.
    let kind = until("a refusal", || read(&server, &node, "web01/root"));
    assert_ne!(kind, "PermissionDenied");
    let grant = json!({"scope": "web02", "node": "y"});
    let reply = server.ask(Some(&manager), "POST", "grants", Some(&grant));
    let reply = reply.expect("an answer");
    assert!(reply.status >= 500, "{reply:?}");

    // With room again it is served again, by itself or by a start, and the chain is whole.
    fs::remove_file(&filler).expect("removed");
    if read(&server, &node, "web01/root").is_some() {
        server.restart();
    }
    assert_eq!(read(&server, &node, "web01/root"), None);
    let mut verify = Command::new(keyhaul());
    let log = folder.join("audit.jsonl");
    finish(verify.args(["audit", "verify"]).arg(log)).ok();
    // What was refused was not done; or the audit had room for its beginning, and says so.
    let log = fs::read_to_string(folder.join("audit.jsonl")).expect("the audit");
    let told = |outcome: &str| {
        let lines = log
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"));
        let mut records =
            lines.map(|line: Value| (line["subject"].clone(), line["outcome"].clone()));
        records.any(|record| record == (json!("web02"), json!(outcome)))
    };
    let held = held(&server, &manager, "y");
    assert_eq!(held.contains(&"web02".to_owned()), told("begin"), "{log}");
    assert!(!told("ok"), "{log}");
}

#[test]
fn two_servers_do_not_share_one_state() {
    let server = KeyService::start(keyhaul(), "");
    let text = fs::read_to_string(server.path("service.toml")).expect("the configuration");
    let other = text.replace(server.address(), "127.0.0.1:0");
    let path = server.path("other.toml");
    fs::write(&path, other).expect("written");
    let mut second = Command::new(keyhaul());
    let done = finish(second.args(KeyService::SERVE).arg(&path));
    assert!(!done.status.success(), "{done:?}");
    let manager = server.identity("manager/m");
    server.tell(&manager, "grants", &json!({"scope": "web01", "node": "y"}));
}
