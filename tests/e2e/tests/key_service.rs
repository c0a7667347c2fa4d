//! Three hosts: a manager and a key server, node Y and node Z. Each node has a policy, a
//! certificate and a QEMU of its own; the guest's disk is on storage that both reach.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use keyhaul_e2e::{Disk, Finished, PASSPHRASE, Site, Vm, finish, guest_words, keyhaul};
use keyhaul_servers::{Identity, KeyService};
use serde_json::{Value, json};

const ROOT: &str = "secret,id=root,ref=web01/root";

/// The key server with its manager and operator, the nodes, and the disk.
struct Hosts {
    server: KeyService,
    manager: Identity,
    operator: Site,
    y: Node,
    z: Node,
    disk: PathBuf,
}

/// A host that runs guests.
struct Node {
    site: Site,
    name: &'static str,
}

impl Hosts {
    fn new() -> Self {
        let server = KeyService::start(keyhaul(), "");
        let operator = host(&server, "operator/o");
        operator.set("web01/root", PASSPHRASE.as_bytes());
        operator.set("web01/vnc", b"12345678");
        operator.set("web02/root", b"another guest's");
        let node = |name| Node {
            site: host(&server, &format!("node/{name}")),
            name,
        };
        let (y, z) = (node("y"), node("z"));
        let disk = y.site.disk(Disk::Luks);
        let manager = server.identity("manager/m");
        Self {
            server,
            manager,
            operator,
            y,
            z,
            disk,
        }
    }

    fn tell(&self, path: &str, body: &Value) -> Value {
        self.server.tell(&self.manager, path, body)
    }

    fn asks(&self, path: &str) -> Value {
        let reply = self.server.ask(Some(&self.manager), "GET", path, None);
        let reply = reply.expect("an answer");
        assert_eq!(reply.status, 200, "{path}: {reply:?}");
        reply.json
    }

    fn grant(&self, scope: &str, node: &Node) {
        self.tell("grants", &json!({"scope": scope, "node": node.name}));
    }

    fn begin(&self) -> Value {
        self.tell("migrations", &move_of("web01"))
    }

    /// The nodes that can read the guest's disk, as the manager is told.
    fn readers(&self) -> Vec<String> {
        let grants = self.asks("who-can?secret=web01/root");
        names(&grants["grants"], "node")
    }

    /// The guest on a node, with more words.
    fn start(&self, node: &Node, more: &[&str]) -> Vm {
        let words = self.words(more);
        Vm::start(
            &node.site,
            &[],
            &words.iter().map(String::as_str).collect::<Vec<_>>(),
        )
    }

    /// The guest on a node where it is not to start.
    fn refused(&self, node: &Node, more: &[&str]) -> Finished {
        let words = self.words(more);
        Vm::fail(
            &node.site,
            &[],
            &words.iter().map(String::as_str).collect::<Vec<_>>(),
        )
    }

    fn words(&self, more: &[&str]) -> Vec<String> {
        let mut words = guest_words(ROOT, Disk::Luks, &self.disk);
        words.extend(more.iter().map(|word| (*word).to_owned()));
        words
    }
}

impl Node {
    fn get(&self, reference: &str) -> Finished {
        finish(&mut self.site.keyhaul(["get", reference]))
    }

    #[track_caller]
    fn can_read(&self) {
        let value = self.get("web01/root").ok().stdout;
        assert_eq!(value, PASSPHRASE.as_bytes());
    }

    #[track_caller]
    fn cannot_read(&self) {
        let done = self.get("web01/root").exits(PERMISSION_DENIED);
        assert!(done.stdout.is_empty());
    }
}

/// The exit status of keyhaul where somebody may not, as the book's table has it.
const PERMISSION_DENIED: i32 = 17;

fn move_of(scope: &str) -> Value {
    json!({"scope": scope, "from": "y", "to": "z"})
}

/// A host with a certificate of its own, whose policy names the service.
fn host(server: &KeyService, who: &str) -> Site {
    let site = Site::new();
    site.policy(&server.policy(&server.identity(who), ""));
    site
}

fn names(entries: &Value, key: &str) -> Vec<String> {
    let name = |entry: &Value| entry[key].as_str().expect("a name").to_owned();
    entries
        .as_array()
        .expect("a list")
        .iter()
        .map(name)
        .collect()
}

/// A socket where a guest goes through.
fn way(folder: &Path) -> String {
    format!("unix:{}", folder.join("migration").display())
}

#[test]
fn a_guest_boots_on_y_and_moves_to_z() {
    let hosts = Hosts::new();
    // 1 to 5: boot on Y, which is granted.
    hosts.grant("web01", &hosts.y);
    let mut source = hosts.start(&hosts.y, &[]);
    source.resume();
    assert!(source.reads_own_disk(), "{}", source.log());
    hosts.z.cannot_read();

    // The migration: its ticket lets Z read, and Y still.
    let ticket = hosts.begin();
    assert_eq!(ticket["state"], "open", "{ticket}");
    assert_eq!(hosts.readers(), ["y", "z"]);
    let way = way(&hosts.z.site.path("vm"));
    let mut target = hosts.start(&hosts.z, &["-incoming", "defer"]);
    target.receive(&way);
    source.migrate(&way);
    assert!(source.quit().success());
    target.migrated();
    target.resume();
    assert!(target.reads_own_disk(), "{}", target.log());

    let ticket = hosts.tell("migrations/commit", &json!({"id": ticket["id"]}));
    assert_eq!(ticket["state"], "committed", "{ticket}");
    assert_eq!(ticket["fetched"], true, "{ticket}");
    assert_eq!(hosts.readers(), ["z"]);
    hosts.y.cannot_read();
    hosts.z.can_read();
    hosts
        .refused(&hosts.y, &[])
        .exits(125)
        .says(&["permission denied", "web01/root"]);
    assert!(target.quit().success());
}

#[test]
fn a_guest_that_fails_to_move_stays_where_it_was() {
    let hosts = Hosts::new();
    hosts.grant("web01", &hosts.y);
    let mut source = hosts.start(&hosts.y, &[]);
    source.resume();
    hosts.begin();
    // The target dies while it waits.
    let target = hosts.start(&hosts.z, &["-incoming", "defer"]);
    drop(target);
    let ticket = hosts.tell("migrations/abort", &move_of("web01"));
    assert_eq!(ticket["state"], "aborted", "{ticket}");
    assert_eq!(hosts.readers(), ["y"]);
    hosts.z.cannot_read();
    hosts.y.can_read();
    assert!(source.reads_own_disk(), "{}", source.log());
    assert!(source.quit().success());
}

#[test]
fn a_guest_that_somebody_moves_by_hand_does_not_start_where_nobody_granted_it() {
    let hosts = Hosts::new();
    hosts.grant("web01", &hosts.y);
    let mut source = hosts.start(&hosts.y, &[]);
    source.resume();
    for more in [&["-incoming", "defer"] as &[&str], &[]] {
        hosts
            .refused(&hosts.z, more)
            .exits(125)
            .says(&["permission denied", "web01/root"]);
    }
    assert!(source.reads_own_disk(), "{}", source.log());

    // Nor from a saved image of its memory, though whoever has it has the guest's memory.
    let image = hosts.y.site.path("vm/memory");
    source.migrate(&format!("exec:cat > {}", image.display()));
    assert!(source.quit().success());
    assert!(fs::metadata(&image).expect("the image").len() > 100_000);
    let from = format!("exec:cat {}", image.display());
    hosts
        .refused(&hosts.z, &["-incoming", &from])
        .exits(125)
        .says(&["permission denied", "web01/root"]);

    // The control: the same image on the node that is granted.
    let mut restored = hosts.start(&hosts.y, &["-incoming", "defer"]);
    restored.receive(&from);
    restored.migrated();
    restored.resume();
    assert!(restored.reads_own_disk(), "{}", restored.log());
    assert!(restored.quit().success());
}

#[test]
fn a_stolen_certificate_reads_nothing_more_and_leaves_an_exact_list() {
    let hosts = Hosts::new();
    hosts.grant("web01", &hosts.y);
    hosts.grant("web02", &hosts.y);
    hosts.grant("web01", &hosts.z);
    hosts.y.can_read();
    hosts.y.can_read();
    hosts.y.get("web01/vnc").ok();
    hosts.z.can_read();
    // What is asked for in vain is not fetched.
    assert!(!hosts.y.get("web01/none").status.success());

    let told = hosts.tell("nodes/quarantine", &json!({"node": "y"}));
    assert_eq!(names(&told["revoked"], "scope"), ["web01", "web02"]);
    let fetched: BTreeSet<(String, u64)> = told["fetched"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|fetch| {
            let secret = fetch["secret"].as_str().expect("a name").to_owned();
            (secret, fetch["count"].as_u64().expect("a count"))
        })
        .collect();
    let expected = [("web01/root", 2), ("web01/vnc", 1)];
    let expected = expected.map(|(secret, count)| (secret.to_owned(), count));
    assert_eq!(fetched, BTreeSet::from(expected), "{told}");

    for reference in ["web01/root", "web01/vnc", "web02/root", "@host/tls"] {
        hosts.y.get(reference).exits(PERMISSION_DENIED);
    }
    hosts.refused(&hosts.y, &[]).exits(125);
    // Nobody grants it anything by mistake; others go on.
    let again = json!({"scope": "web01", "node": "y"});
    let reply = hosts
        .server
        .ask(Some(&hosts.manager), "POST", "grants", Some(&again));
    assert!(reply.expect("an answer").status >= 400);
    hosts.z.can_read();
    // A certificate with the same name is the same node.
    let twin = host(&hosts.server, "node/y");
    finish(&mut twin.keyhaul(["get", "web01/root"])).exits(PERMISSION_DENIED);

    // Told again, the same list; released, it holds nothing until somebody grants.
    let again = hosts.tell("nodes/quarantine", &json!({"node": "y"}));
    assert_eq!(again["fetched"], told["fetched"]);
    hosts.tell("nodes/release", &json!({"node": "y"}));
    hosts.y.cannot_read();
    hosts.grant("web01", &hosts.y);
    hosts.y.can_read();
    // What the list is for.
    hosts.operator.set("web01/vnc", b"87654321");
    assert_eq!(hosts.y.get("web01/vnc").ok().stdout, b"87654321");
}

#[test]
fn a_manager_that_dies_at_any_moment_can_begin_again() {
    let hosts = Hosts::new();
    hosts.grant("web01", &hosts.y);
    for round in 0..12 {
        // Killed a little later each time, before and after the server has heard of it.
        let after = Duration::from_millis(3 * round);
        killed(&hosts, "migrations", &move_of("web01"), after);
        let ticket = hosts.begin();
        assert_eq!(ticket["state"], "open", "{ticket}");
        assert_eq!(
            hosts.begin()["id"],
            ticket["id"],
            "one migration, told twice"
        );
        assert_eq!(hosts.readers(), ["y", "z"]);
        // Another move of the same guest is refused meanwhile.
        let other = json!({"scope": "web01", "from": "y", "to": "elsewhere"});
        let refused = hosts
            .server
            .ask(Some(&hosts.manager), "POST", "migrations", Some(&other));
        let refused = refused.expect("an answer");
        assert_eq!(refused.json["kind"], "Conflict", "{refused:?}");

        let end = json!({"id": ticket["id"]});
        let (path, state, reader) = match round % 2 {
            0 => ("migrations/commit", "committed", "z"),
            _ => ("migrations/abort", "aborted", "y"),
        };
        killed(&hosts, path, &end, after);
        for _ in 0..2 {
            assert_eq!(hosts.tell(path, &end)["state"], state);
        }
        assert_eq!(hosts.readers(), [reader]);
        if reader == "z" {
            // Back to where the next round begins.
            let back = json!({"scope": "web01", "node": "y"});
            hosts.tell("grants", &back);
            let gone = json!({"scope": "web01", "node": "z"});
            killed(&hosts, "grants/revoke", &gone, after);
            hosts.tell("grants/revoke", &gone);
        }
        assert_eq!(hosts.readers(), ["y"]);
    }
}

/// A manager's process that is killed this long after its start.
fn killed(hosts: &Hosts, path: &str, body: &Value, after: Duration) {
    let mut command = hosts.server.telling(&hosts.manager, path, body);
    let mut child = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("curl");
    thread::sleep(after);
    let _ = child.kill();
    child.wait().expect("a child");
}

#[test]
fn what_was_granted_and_fetched_outlives_the_server() {
    let mut hosts = Hosts::new();
    hosts.grant("web01", &hosts.y);
    hosts.y.can_read();
    hosts.begin();
    hosts.z.can_read();
    hosts.server.restart();
    assert_eq!(hosts.readers(), ["y", "z"]);
    hosts.y.can_read();
    let tickets = hosts.asks("migrations?scope=web01");
    assert_eq!(tickets["tickets"][0]["fetched"], true, "{tickets}");
    let told = hosts.tell("nodes/quarantine", &json!({"node": "y"}));
    assert_eq!(names(&told["fetched"], "secret"), ["web01/root"]);
    assert_eq!(told["fetched"][0]["count"], 2, "{told}");
}
