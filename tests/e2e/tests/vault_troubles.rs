//! A Vault on its bad days, through the program that a person uses: no wrong value ever, every failure
//! of the right kind, and in time. Every path has a value of its own, so that a wrong one would show.

use std::fs;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use keyhaul_e2e::vault::{
    filled, get, has_all, has_none, name_store, private, resolve, starts_no_vm, value, with_token,
};
use keyhaul_e2e::{Finished, Site, finish, until};
use keyhaul_servers::{Authority, Certificate, Mode, OpenBao, Proxy, Setup};
use serde_json::{Value, json};

const CONFIG: i32 = 14;
const TIMEOUT: i32 = 20;
const UNAUTHENTICATED: i32 = 22;
const UNAVAILABLE: i32 = 23;

/// How much later than its deadline a program may end on a busy machine.
const SLACK: Duration = Duration::from_secs(3);

/// A development server for the tests that leave it as it is.
fn shared() -> &'static OpenBao {
    static SERVER: OnceLock<OpenBao> = OnceLock::new();
    SERVER.get_or_init(OpenBao::dev)
}

#[test]
fn sealed_in_the_middle_of_a_run_and_unsealed_and_restarted_while_values_are_read() {
    let mut server = OpenBao::tls();
    let mount = filled(&server, 300);
    let ca = format!("ca-cert = \"{}\"", server.ca_path().display());
    let policies = server.token(&[&mount], "1h");
    let direct = with_token(server.address(), &mount, &policies, &ca);
    let proxy = Proxy::to(server.address());
    proxy.set(Mode::Delay(Duration::from_millis(10)));
    let lines = format!("{ca}\nconcurrency = 2");
    let address = format!("https://{}", proxy.address());
    let slow = with_token(&address, &mount, &policies, &lines);

    // Sealed in the middle of one command.
    thread::scope(|scope| {
        let running = scope.spawn(|| finish(&mut resolve(&slow, 300)));
        until("the middle of the run", || {
            (proxy.answered() > 30_000).then_some(())
        });
        assert!(!running.is_finished(), "the middle was missed");
        server.seal();
        let done = running.join().expect("no panic").exits(UNAVAILABLE);
        has_none(&done, &slow);
        let done = done.says(&["is sealed"]);
        let failed = done.stderr.matches("error:").count();
        assert!(
            (1..300).contains(&failed),
            "{failed}: some had arrived before"
        );
    });
    starts_no_vm(&slow, &["unavailable", "is sealed"]);
    server.unseal();
    has_all(&finish(&mut resolve(&slow, 300)).ok(), &mount, 300);

    // Many commands, while the server is sealed, unsealed, killed and started again.
    let streams = [Stream::new(&mount)];
    let [stream] = &streams;
    thread::scope(|scope| {
        let _ends = Ends(&streams);
        scope.spawn(|| stream.run(&direct));
        stream.await_success();
        server.seal();
        stream.await_failure();
        server.unseal();
        stream.await_success();
        server.stop();
        stream.await_failure();
        server.start();
        server.unseal();
        stream.await_success();
    });
}

#[test]
fn the_leader_of_three_steps_down_while_values_are_read() {
    let cluster = OpenBao::raft(3);
    let leader = cluster.leader();
    let mount = filled(leader, 20);
    let token = leader.token(&[&mount], "1h");
    let ca = format!("ca-cert = \"{}\"", leader.ca_path().display());
    let sites: Vec<Site> = cluster
        .nodes
        .iter()
        .map(|node| with_token(node.address(), &mount, &token, &ca))
        .collect();
    // Every node answers, the standbys by asking their leader.
    let all_answer = || {
        sites
            .iter()
            .all(|site| get(site, 7, "5s").stdout == value(&mount, 7))
    };
    until("every node to answer", || all_answer().then_some(()));
    let streams: Vec<Stream> = sites.iter().map(|_| Stream::new(&mount)).collect();
    thread::scope(|scope| {
        let _ends = Ends(&streams);
        for (stream, site) in streams.iter().zip(&sites) {
            scope.spawn(|| stream.run(site));
        }
        for _ in 0..2 {
            streams.iter().for_each(Stream::await_success);
            cluster.step_down();
        }
        streams.iter().for_each(Stream::await_success);
    });
}

/// Secrets read one after the other, each by a command of its own.
struct Stream {
    mount: String,
    ends: AtomicBool,
    succeeded: AtomicU32,
    failed: AtomicU32,
}

impl Stream {
    fn new(mount: &str) -> Self {
        Self {
            mount: mount.to_owned(),
            ends: AtomicBool::new(false),
            succeeded: AtomicU32::new(0),
            failed: AtomicU32::new(0),
        }
    }

    /// Reads until the end. What comes is the right value, or the right kind of failure, in time.
    fn run(&self, site: &Site) {
        for number in (0..20).cycle() {
            if self.ends.load(Ordering::SeqCst) {
                return;
            }
            let start = Instant::now();
            let done = get(site, number, "2s");
            let took = start.elapsed();
            assert!(took < Duration::from_secs(2) + SLACK, "{took:?}");
            match done.status.code() {
                Some(0) => {
                    assert_eq!(done.stdout, value(&self.mount, number));
                    self.succeeded.fetch_add(1, Ordering::SeqCst);
                }
                Some(UNAVAILABLE | TIMEOUT) => {
                    assert!(done.stdout.is_empty());
                    self.failed.fetch_add(1, Ordering::SeqCst);
                }
                _ => panic!("{done:?}"),
            }
        }
    }

    /// Waits for two more: the first may have been on its way.
    fn await_success(&self) {
        await_more(&self.succeeded, 2, "values");
    }

    fn await_failure(&self) {
        await_more(&self.failed, 1, "a failure");
    }
}

/// Ends streams, also where a test fails while they run.
struct Ends<'a>(&'a [Stream]);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        for stream in self.0 {
            stream.ends.store(true, Ordering::SeqCst);
        }
    }
}

fn await_more(count: &AtomicU32, more: u32, what: &str) {
    let wanted = count.load(Ordering::SeqCst) + more;
    until(what, || {
        (count.load(Ordering::SeqCst) >= wanted).then_some(())
    });
}

/// The accessors of the tokens that logins at this path gave out.
fn logins(server: &OpenBao, path: &str) -> Vec<String> {
    let listed = server.request("LIST", "auth/token/accessors", server.root_token(), None);
    let accessors = listed.json["data"]["keys"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let of_path = |accessor: &Value| {
        let asked = json!({"accessor": accessor});
        let token = server.root_token();
        let found = server.request("POST", "auth/token/lookup-accessor", token, Some(&asked));
        (found.json["data"]["path"] == path).then(|| accessor.as_str().map(str::to_owned))?
    };
    accessors.iter().filter_map(of_path).collect()
}

#[test]
fn a_token_revoked_between_two_requests_is_replaced_where_the_method_can() {
    let server = shared();
    let mount = filled(server, 200);
    server.enable_auth("approle", &mount);
    let role = json!({"token_policies": [mount], "token_ttl": "1h"});
    let role_id = server.approle(&mount, "site", &role);
    let proxy = Proxy::to(server.address());
    proxy.set(Mode::Delay(Duration::from_millis(10)));
    let address = format!("http://{}", proxy.address());
    let site = Site::new();
    let role_id = private(&site, "role-id", &role_id);
    let secret_id = private(&site, "secret-id", &server.secret_id(&mount, "site"));
    let policy = |auth: &str| {
        let lines = format!("concurrency = 2\nauth = {auth}");
        name_store(&site, &address, &mount, &lines);
    };
    let reads = |lines: Vec<String>| lines.iter().filter(|line| line.starts_with("GET")).count();
    let middle = |before: usize| {
        until("the middle of the run", || {
            (reads(proxy.requests()) > before + 20).then_some(())
        });
    };
    policy(&format!(
        "{{ method = \"approle\", mount = \"{mount}\", role-id = \"{role_id}\", secret-id = \"{secret_id}\" }}"
    ));
    let path = format!("auth/{mount}/login");
    thread::scope(|scope| {
        let running = scope.spawn(|| finish(&mut resolve(&site, 200)));
        middle(0);
        for accessor in logins(server, &path) {
            server.write("auth/token/revoke-accessor", &json!({"accessor": accessor}));
        }
        assert!(!running.is_finished(), "the middle was missed");
        let done = running.join().expect("no panic").ok();
        has_all(&done, &mount, 200);
    });
    let login = format!("/v1/{path}");
    let lines = proxy.requests();
    let count = lines.iter().filter(|line| line.ends_with(&login)).count();
    assert_eq!(count, 2, "one login, and one more");

    // A token that nobody can replace.
    let token = server.token(&[&mount], "1h");
    let source = private(&site, "token", &token);
    policy(&format!("{{ method = \"token\", token = \"{source}\" }}"));
    has_all(&finish(&mut resolve(&site, 1)).ok(), &mount, 1);
    for folder in site.key_folders() {
        finish(site.keyhaul(["resolve", "--release"]).arg(folder)).ok();
    }
    let before = reads(proxy.requests());
    thread::scope(|scope| {
        let running = scope.spawn(|| finish(&mut resolve(&site, 200)));
        middle(before);
        server.revoke(&token);
        let done = running.join().expect("no panic").exits(UNAUTHENTICATED);
        has_none(&done, &site);
    });
    get(&site, 0, "5s").exits(UNAUTHENTICATED);
    starts_no_vm(&site, &["not authenticated"]);
}

#[test]
fn certificates_of_a_private_authority() {
    let server = OpenBao::tls();
    let mount = filled(&server, 1);
    let token = server.token(&[&mount], "1h");
    let reads = |lines: &str| {
        let site = with_token(server.address(), &mount, &token, lines);
        let done = get(&site, 0, "5s");
        if !done.status.success() {
            starts_no_vm(&site, &["invalid configuration"]);
        }
        done
    };
    let ca = format!("ca-cert = \"{}\"", server.ca_path().display());
    assert_eq!(reads(&ca).ok().stdout, value(&mount, 0));
    reads("")
        .exits(CONFIG)
        .says(&["unknown authority", "ca-cert"]);
    let other = server.folder().join("other.crt");
    fs::write(&other, Authority::new("somebody else").pem()).expect("written");
    reads(&format!("ca-cert = \"{}\"", other.display()))
        .exits(CONFIG)
        .says(&["certificate", "ca-cert"]);
}

#[test]
fn expired_certificates_and_those_of_another_name() {
    for (certificate, words) in [
        (Certificate::Expired, "expired"),
        (Certificate::WrongName, "tls-server-name"),
    ] {
        let server = Setup::default().certificate(certificate).start();
        let mount = filled(&server, 1);
        let token = server.token(&[&mount], "1h");
        let ca = format!("ca-cert = \"{}\"", server.ca_path().display());
        let site = with_token(server.address(), &mount, &token, &ca);
        get(&site, 0, "5s").exits(CONFIG).says(&[words]);
        finish(&mut site.keyhaul(["check"])).exits(CONFIG);
        starts_no_vm(&site, &["invalid configuration", words]);
        let named = format!("{ca}\ntls-server-name = \"elsewhere.example\"");
        let site = with_token(server.address(), &mount, &token, &named);
        match certificate {
            // The setting that was named mends it.
            Certificate::WrongName => {
                assert_eq!(get(&site, 0, "5s").ok().stdout, value(&mount, 0));
            }
            _ => drop(get(&site, 0, "5s").exits(CONFIG)),
        }
    }
}

#[test]
fn a_wrapped_secret_id_is_spent_once_and_never_by_check() {
    let server = shared();
    let mount = filled(server, 2);
    server.enable_auth("approle", &mount);
    let role = json!({"token_policies": [mount], "token_ttl": "1h"});
    let role_id = server.approle(&mount, "site", &role);
    let site = Site::new();
    let role_id = private(&site, "role-id", &role_id);
    let wrapped = server.wrapped_secret_id(&mount, "site", "10m");
    let wrapped = private(&site, "wrapped", &wrapped);
    let auth = format!(
        "auth = {{ method = \"approle\", mount = \"{mount}\", role-id = \"{role_id}\", wrapped-secret-id = \"{wrapped}\" }}"
    );
    name_store(&site, server.address(), &mount, &auth);
    let refs = site.file("refs", "web01/0\n").display().to_string();
    for _ in 0..2 {
        finish(&mut site.keyhaul(["check"])).ok();
        let checked = finish(&mut site.keyhaul(["check", "--refs", &refs])).ok();
        let told = String::from_utf8_lossy(&checked.stdout);
        assert!(told.contains("not read: that would spend"), "{told}");
    }
    assert_eq!(get(&site, 0, "5s").ok().stdout, value(&mount, 0));
    get(&site, 1, "5s")
        .exits(UNAUTHENTICATED)
        .says(&["used already"]);
    starts_no_vm(&site, &["not authenticated", "used already"]);
}

#[test]
fn a_proxy_that_stalls_or_swallows_costs_the_deadline_and_no_more() {
    let server = shared();
    let mount = filled(server, 50);
    let proxy = Proxy::to(server.address());
    let address = format!("http://{}", proxy.address());
    let token = server.token(&[&mount], "1h");
    let site = with_token(&address, &mount, &token, "");
    assert_eq!(get(&site, 3, "5s").ok().stdout, value(&mount, 3));
    let deadline = Duration::from_secs(1);
    for mode in [Mode::Stall, Mode::Swallow] {
        proxy.set(mode);
        let in_time = |what: &dyn Fn() -> Finished| {
            let start = Instant::now();
            let done = what();
            let took = start.elapsed();
            assert!(
                took >= deadline && took < deadline + SLACK,
                "{mode:?} {took:?}"
            );
            done
        };
        in_time(&|| get(&site, 3, "1s"))
            .exits(TIMEOUT)
            .says(&["web01/3"]);
        let many = || {
            let mut command = site.keyhaul(["--deadline", "1s", "resolve", "--runtime-dir"]);
            command.arg(site.runtime());
            finish(command.args((0..50).map(|number| format!("s{number}=web01/{number}"))))
        };
        let done = in_time(&many).exits(TIMEOUT);
        has_none(&done, &site);
        let run = || {
            let words = ["--deadline", "1s", "run", "--", "qemu-io"];
            let object = ["--object", "secret,id=s,ref=web01/0", "-c", "quit"];
            finish(site.keyhaul(words).args(object))
        };
        in_time(&run).exits(125).says(&["timed out"]);
    }
    proxy.set(Mode::Pass);
    assert_eq!(get(&site, 3, "5s").ok().stdout, value(&mount, 3));
}
