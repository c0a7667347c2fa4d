//! The key service under load, beside a bare server with the same TLS and beside OpenBao with its
//! audit: in turn, by one generator of load, each in a process of its own.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};

use keyhaul_servers::{Authority, Identity, KeyService, OpenBao, Setup};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::ground::Ground;
use crate::measure::{Row, median, mib};

/// Connections that are kept, for reads.
const CONNECTIONS: usize = 64;
/// Nodes of the boot storm, each with a certificate of its own.
const NODES: usize = 200;
/// Secrets of one VM in the boot storm.
const BATCH: usize = 20;
/// Idle connections whose memory is counted.
const IDLE: usize = 1000;
/// Rounds in turn, and how long reads go on in each.
const ROUNDS: usize = 5;
const MILLIS: u64 = 2000;

pub fn rows(ground: &Ground) -> Vec<Row> {
    let service = Service::start(ground);
    let at_rest = resident_kib(service.server.pid());
    let floor = Floor::start(ground, &service);
    let bao = Bao::start(&service.folder);
    let mut rows = reads(ground, &service, &floor, &bao);
    rows.push(storm(ground, &service, &floor));
    // Another server: what the load has left behind is not what idle connections cost.
    drop((service, floor, bao));
    rows.extend(memory(ground, at_rest));
    rows
}

/// The key service with secrets, and nodes that may read them.
struct Service {
    server: KeyService,
    nodes: Vec<Identity>,
    folder: TempDir,
}

impl Service {
    fn start(ground: &Ground) -> Self {
        let server = KeyService::start(&ground.keyhaul, "");
        let manager = server.identity("manager/bench");
        for number in 0..BATCH {
            let body = json!({
                "secret": format!("web01/disk-{number}"), "alphabet": "alphanumeric", "length": 32,
            });
            server.tell(&manager, "secrets/generate", &body);
        }
        let nodes = (0..NODES).map(|number| {
            let body = json!({"scope": "web01", "node": format!("n{number}")});
            server.tell(&manager, "grants", &body);
            server.identity(&format!("node/n{number}"))
        });
        let nodes = nodes.collect();
        let folder = tempfile::tempdir().expect("a folder");
        Self {
            server,
            nodes,
            folder,
        }
    }

    fn ca(&self) -> PathBuf {
        self.server.ca_path()
    }

    /// A read of the first `count` secrets.
    fn order(&self, count: usize, connections: usize, work: &Value) -> Value {
        let items: Vec<Value> = (0..count)
            .map(|number| json!({"secret": format!("web01/disk-{number}")}))
            .collect();
        // The base point: a key like any other for who seals to it.
        let key = "CQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        let body = json!({"key": key, "nonce": "AAECAwQFBgcICQoLDA0ODw==", "items": items});
        order(
            self.server.address(),
            &self.ca(),
            &self.nodes,
            "POST /v1/secrets/read",
            &[("content-type", "application/json")],
            &body.to_string(),
            connections,
            work,
        )
    }
}

/// A process that ends when its input does.
struct Piped {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<std::process::ChildStdout>,
}

impl Piped {
    fn start(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self {
            input: child.stdin.take(),
            output: BufReader::new(child.stdout.take().expect("piped")),
            child,
        }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("it speaks");
        line
    }
}

impl Drop for Piped {
    fn drop(&mut self) {
        self.input = None;
        let _ = self.child.wait();
    }
}

/// The bare server, with the key service's own certificates.
struct Floor {
    address: String,
    _process: Piped,
}

impl Floor {
    fn start(ground: &Ground, service: &Service) -> Self {
        let mut command = Command::new(&ground.floor);
        command
            .arg(service.server.path("server.crt"))
            .arg(service.server.path("server.key"))
            .arg(service.ca());
        let mut process = Piped::start(command);
        Self {
            address: process.line().trim().to_owned(),
            _process: process,
        }
    }

    fn order(&self, service: &Service, connections: usize, work: &Value) -> Value {
        order(
            &self.address,
            &service.ca(),
            &service.nodes,
            "GET /",
            &[],
            "",
            connections,
            work,
        )
    }
}

/// OpenBao with its audit, one secret, and a token that may read it.
struct Bao {
    server: OpenBao,
    identity: Identity,
    token: String,
}

impl Bao {
    fn start(folder: &TempDir) -> Self {
        let server = Setup::tls().require_client_certificates().audited().start();
        server.kv("bench", 2);
        server.write(
            "bench/data/web01/disk-0",
            &json!({"data": {"value": "x".repeat(32)}}),
        );
        server.policy(
            "bench",
            r#"path "bench/data/web01/*" { capabilities = ["read"] }"#,
        );
        let authority: &Authority = server.authority();
        let (certificate, key) = authority.client("bench").write(folder.path(), "bao-client");
        Self {
            token: server.token(&["bench"], "24h"),
            identity: Identity { certificate, key },
            server,
        }
    }

    fn order(&self, work: &Value) -> Value {
        let address = self.server.address().trim_start_matches("https://");
        order(
            address,
            &self.server.ca_path(),
            std::slice::from_ref(&self.identity),
            "GET /v1/bench/data/web01/disk-0",
            &[("x-vault-token", &self.token)],
            "",
            CONNECTIONS,
            work,
        )
    }
}

/// What the generator of load is told.
#[expect(
    clippy::too_many_arguments,
    reason = "the generator's own words, in one place"
)]
fn order(
    address: &str,
    ca: &std::path::Path,
    identities: &[Identity],
    line: &str,
    headers: &[(&str, &str)],
    body: &str,
    connections: usize,
    work: &Value,
) -> Value {
    let identities: Vec<Value> = identities
        .iter()
        .map(|who| json!([who.certificate, who.key]))
        .collect();
    json!({
        "address": address, "ca": ca, "identities": identities, "line": line, "headers": headers,
        "body": body, "connections": connections, "work": work,
    })
}

/// What the generator counted.
struct Tally {
    per_second: f64,
    p50: f64,
    p99: f64,
}

/// Loads a server, and keeps its connections until the process is dropped.
fn load(ground: &Ground, order: &Value) -> (Tally, Piped) {
    let mut process = Piped::start(Command::new(&ground.load));
    let input = process.input.as_mut().expect("until it is dropped");
    writeln!(input, "{order}").expect("it listens");
    let line = process.line();
    let counted: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("no tally: {line}"));
    let number = |name: &str| counted[name].as_f64().expect("a number");
    let tally = Tally {
        per_second: number("requests") / number("seconds"),
        p50: number("p50_micros") / 1000.0,
        p99: number("p99_micros") / 1000.0,
    };
    (tally, process)
}

/// Medians of several servers, loaded in turn.
fn in_turn<const N: usize>(ground: &Ground, orders: [Value; N]) -> [Tally; N] {
    let mut runs: [Vec<Tally>; N] = std::array::from_fn(|_| Vec::new());
    for _ in 0..ROUNDS {
        for (order, runs) in orders.iter().zip(&mut runs) {
            runs.push(load(ground, order).0);
        }
    }
    runs.map(|runs| Tally {
        per_second: middle(&runs, |tally| tally.per_second),
        p50: middle(&runs, |tally| tally.p50),
        p99: middle(&runs, |tally| tally.p99),
    })
}

fn middle(runs: &[Tally], of: impl Fn(&Tally) -> f64) -> f64 {
    // In thousandths: whole numbers have an order.
    let values = runs.iter().map(|run| (of(run) * 1000.0) as u64).collect();
    median(values) as f64 / 1000.0
}

fn reads(ground: &Ground, service: &Service, floor: &Floor, bao: &Bao) -> Vec<Row> {
    let work = json!({"kept": MILLIS});
    let orders = [
        service.order(1, CONNECTIONS, &work),
        floor.order(service, CONNECTIONS, &work),
        bao.order(&work),
    ];
    let [ours, floor, bao] = in_turn(ground, orders);
    let what = format!("key service, reads, {CONNECTIONS} kept connections");
    let of_floor = ours.per_second / floor.per_second;
    let of_bao = ours.per_second / bao.per_second;
    let of_p99 = ours.p99 / bao.p99;
    let shown = |tally: &Tally| format!("{:.0}/s", tally.per_second);
    let measured = format!("{}, p50 {:.1} ms", shown(&ours), ours.p50);
    vec![
        Row {
            what: what.clone(),
            measured: measured.clone(),
            beside: format!("bare server {}, ratio {of_floor:.2}", shown(&floor)),
            target: "at least 0.3 of it".into(),
            met: Some(of_floor >= 0.3),
        },
        Row {
            what: what.clone(),
            measured,
            beside: format!("OpenBao, audited {}, {of_bao:.1} times", shown(&bao)),
            target: "at least 10 times faster".into(),
            met: Some(of_bao >= 10.0),
        },
        Row {
            what: format!("{what}, p99"),
            measured: format!("{:.1} ms", ours.p99),
            beside: format!(
                "OpenBao {:.1} ms, ratio {of_p99:.3}; bare {:.1} ms",
                bao.p99, floor.p99
            ),
            target: "below 0.1 of OpenBao's".into(),
            met: Some(of_p99 < 0.1),
        },
    ]
}

fn storm(ground: &Ground, service: &Service, floor: &Floor) -> Row {
    let work = json!("storm");
    let orders = [
        service.order(BATCH, NODES, &work),
        floor.order(service, NODES, &work),
    ];
    let [ours, floor] = in_turn(ground, orders);
    let ratio = ours.per_second / floor.per_second;
    Row {
        what: format!("key service, {NODES} nodes boot: handshake, {BATCH} secrets"),
        measured: format!("{:.0} nodes/s", ours.per_second),
        beside: format!(
            "bare handshakes {:.0}/s, ratio {ratio:.2}",
            floor.per_second
        ),
        target: "at least 0.6 of it".into(),
        met: Some(ratio >= 0.6),
    }
}

fn memory(ground: &Ground, at_rest: i64) -> [Row; 2] {
    let service = Service::start(ground);
    let order = service.order(1, IDLE, &json!("idle"));
    let (_, kept) = load(ground, &order);
    let idle = resident_kib(service.server.pid());
    drop(kept);
    let row = |what: &str, kib: i64, most: i64| Row {
        what: format!("key service, resident memory, {what}"),
        measured: mib(kib),
        beside: String::new(),
        target: format!("at most {most} MiB"),
        met: Some(kib <= most * 1024),
    };
    [
        row("at rest", at_rest, 16),
        row(&format!("{IDLE} idle connections"), idle, 60),
    ]
}

/// Resident memory of a process, in KiB.
fn resident_kib(pid: u32) -> i64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .expect("its resident memory");
    let kib = line.trim().trim_end_matches("kB").trim();
    kib.parse().expect("a number of KiB")
}
