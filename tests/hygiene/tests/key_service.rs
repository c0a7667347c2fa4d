//! The hunt over the key service: its server's memory, arguments, files and audit, its clients, and
//! what lies inside the TLS between them, where a log of bodies would see it.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use keyhaul_hygiene::hunt::own_memory;
use keyhaul_hygiene::needle::letters;
use keyhaul_hygiene::program::{Running, keyhaul, wait_until};
use keyhaul_hygiene::{House, Needle, assert_clean, files, memory, process, search};
use keyhaul_servers::{Identity, KeyService, free_port};
use serde_json::json;

const BETWEEN: &str = r#"
import socket, ssl, sys, threading

port, address, ca, certificate, key, client, client_key, there, back = sys.argv[1:]
host, _, far_port = address.rpartition(":")
here = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
here.load_cert_chain(certificate, key)
here.set_alpn_protocols(["h2", "http/1.1"])


def hand_on(source, sink, record):
    try:
        while data := source.recv(65536):
            record.write(data)
            sink.sendall(data)
    except OSError:
        pass
    for wire in (source, sink):
        try:
            wire.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


def between(wire):
    try:
        near = here.wrap_socket(wire, server_side=True)
        context = ssl.create_default_context(cafile=ca)
        context.load_cert_chain(client, client_key)
        context.set_alpn_protocols([near.selected_alpn_protocol() or "http/1.1"])
        far = socket.create_connection((host, int(far_port)))
        far = context.wrap_socket(far, server_hostname=host)
    except OSError:
        return wire.close()
    for ends in ((near, far, records[0]), (far, near, records[1])):
        threading.Thread(target=hand_on, args=ends, daemon=True).start()


records = [open(path, "ab", buffering=0) for path in (there, back)]
listener = socket.create_server(("127.0.0.1", int(port)))
while True:
    wire, _ = listener.accept()
    threading.Thread(target=between, args=(wire,), daemon=True).start()
"#;

/// The key server, and the houses of an operator and of a node.
struct Site {
    server: KeyService,
    manager: Identity,
    operator: House,
    node: House,
    between: Vec<Between>,
}

impl Site {
    /// Each client reaches the server through somebody who reads along.
    fn new() -> Self {
        let server = KeyService::start(keyhaul(), "");
        let manager = server.identity("manager/m");
        server.tell(&manager, "grants", &json!({"scope": "web01", "node": "y"}));
        let canary = letters(48);
        let mut between = Vec::new();
        let mut house = |who: &str| {
            let identity = server.identity(who);
            let man = Between::new(&server, &identity);
            let policy = server.policy(&identity, "");
            let house = House::with_canary(&canary);
            house.policy(&policy.replace(server.address(), &man.address));
            between.push(man);
            house
        };
        let (operator, node) = (house("operator/o"), house("node/y"));
        Self {
            server,
            manager,
            operator,
            node,
            between,
        }
    }

    /// Writes the secrets, and reads them.
    fn use_it(&self) {
        let canary = self.operator.canary().bytes();
        self.operator.succeeds(&["set", "web01/root"], canary);
        // Larger than one record of TLS.
        let large = canary.repeat(500);
        self.operator.succeeds(&["set", "web01/large"], &large);
        assert_eq!(self.node.tells(&["get", "web01/root"]).stdout, canary);
        assert_eq!(self.node.tells(&["get", "web01/large"]).stdout, large);
        own_memory(&self.node, &["--channel", "pipe"]);
    }
}

/// Somebody between a client and the server, who has the certificates of both: shows the server's
/// to the client and the client's to the server, and writes down what is handed on.
struct Between {
    address: String,
    ways: [PathBuf; 2],
    _program: Running,
}

impl Between {
    fn new(server: &KeyService, client: &Identity) -> Self {
        let port = free_port();
        let name = format!("between-{port}");
        let ways = ["there", "back"].map(|way| server.path(&format!("{name}-{way}")));
        let child = Command::new("python3")
            .args(["-c", BETWEEN, &port.to_string(), server.address()])
            .arg(server.ca_path())
            .args(["server.crt", "server.key"].map(|name| server.path(name)))
            .args([&client.certificate, &client.key])
            .args(&ways)
            .stdin(Stdio::null())
            .spawn();
        let program = child.unwrap_or_else(|error| {
            panic!("python3 is not installed: apt-get install python3 ({error})")
        });
        let address = format!("127.0.0.1:{port}");
        assert!(wait_until(|| std::net::TcpStream::connect(&address).is_ok()));
        Self {
            address,
            ways,
            _program: program.into(),
        }
    }

    /// All that went through, there and back.
    fn recorded(&self) -> Vec<u8> {
        let read = |way: &PathBuf| fs::read(way).expect("a record");
        self.ways.iter().flat_map(read).collect()
    }
}

#[test]
fn inside_the_tls_values_are_sealed() {
    let site = Site::new();
    site.use_it();
    let canary = site.node.canary();
    for man in &site.between {
        let recorded = man.recorded();
        let holds = |word: &str| recorded.windows(word.len()).any(|w| w == word.as_bytes());
        assert!(
            holds("\"enc\"") && holds("\"salt\""),
            "no sealed value went through"
        );
        assert!(holds("web01/root") && holds("web01/large"));
        // 24,000 bytes went through twice, and in base64 at that.
        assert!(recorded.len() > 32_000, "{} bytes", recorded.len());
        assert_clean(&search("inside the TLS", &recorded, &[canary]));
    }

    // The control: who sends it unsealed is read, whatever the server makes of it.
    let text = String::from_utf8(canary.bytes().to_vec()).expect("letters");
    let man = &site.between[1];
    let done = Command::new("curl")
        .args(["--silent", "--output", "/dev/null", "--cacert"])
        .arg(site.server.ca_path())
        .args(["--json", &json!({"value": text}).to_string()])
        .arg(format!("https://{}/v1/secrets/write", man.address))
        .status();
    assert!(done.expect("curl").success());
    let finds = search("inside the TLS", &man.recorded(), &[canary]);
    assert_eq!(finds.len(), 1, "{finds:?}");
}

#[test]
fn the_server_keeps_nothing_of_a_value() {
    let site = Site::new();
    site.use_it();
    let canary = site.node.canary();
    // What a manager has made is as secret, and shows as little.
    let made = json!({"secret": "web01/made", "alphabet": "alphanumeric", "length": 48});
    site.server.tell(&site.manager, "secrets/generate", &made);
    let value = site.node.run(&["get", "web01/made"], b"").stdout;
    let made = Needle::new("the generated value", &value);
    let needles = [canary, &made];

    let pid = site.server.pid();
    assert!(wait_until(|| process::sleeps(pid)));
    let scanned = memory::scan(pid, &needles).expect("readable by root");
    assert!(scanned.bytes > 1_000_000, "{scanned:?}");
    assert_clean(&scanned.finds);
    assert_clean(&process::scan_all(&needles));
    let log = site.server.log();
    assert_clean(&search("the server's log", log.as_bytes(), &needles));
    let folder = site.server.path(".");
    assert_clean(&files::scan(&folder, &[], &needles).expect("readable"));
    // The control: beside these files it would be found.
    let beside = site.server.path("control");
    fs::write(&beside, canary.bytes()).expect("written");
    let finds = files::scan(&folder, &[], &needles).expect("readable");
    assert_eq!(finds.len(), 1, "{finds:?}");
    fs::remove_file(beside).expect("removed");

    let audit = fs::read_to_string(site.server.path("audit/audit.jsonl")).expect("the audit");
    assert!(audit.contains("web01/root") && audit.contains("web01/made"));
    site.operator.end(&[]);
    site.node.end(&[]);
}
