//! Secrets from a real OpenBao on this machine: keyhaul beside the least program that could do the
//! same, and beside what people use.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use keyhaul_servers::{Mode, OpenBao, Proxy};
use serde_json::json;
use tempfile::TempDir;

use crate::ground::{Ground, MANY};
use crate::measure::{Row, in_blocks, in_turn, mib, millis, peak_kib};

const ROUNDS: usize = 31;
/// For programs that take a tenth of a second and more.
const FEW: usize = 10;
/// How often a program runs before its peer has its turn.
const BLOCK: usize = 5;
const DELAY: Duration = Duration::from_millis(5);
const PEAK_MIB: i64 = 14;

pub fn rows(ground: &Ground) -> Vec<Row> {
    let clear = Vault::over(OpenBao::dev());
    let tls = Vault::over(OpenBao::tls());
    let mut rows = Vec::new();
    for (name, vault) in [("HTTP", &clear), ("TLS", &tls)] {
        for variant in [Variant::Token, Variant::VersionAsked, Variant::AppRole] {
            rows.push(beside_minimal(ground, name, vault, variant));
        }
        rows.push(beside_curl(ground, name, vault));
        rows.push(beside_bao(ground, name, vault));
        rows.push(beside_secretspec(ground, name, vault));
    }
    rows.push(many(ground, "loopback", &tls, tls.server.address()));
    let far = Proxy::to(tls.server.address());
    far.set(Mode::Delay(DELAY));
    let address = format!("https://{}", far.address());
    rows.push(many(ground, "5 ms away each way", &tls, &address));
    rows.push(memory(ground, &tls));
    rows
}

/// How keyhaul comes to a value.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Variant {
    /// By a token, with the KV version declared: one request, as the least program makes.
    Token,
    /// By a token, and the server is asked which KV version it is: two requests.
    VersionAsked,
    /// By a login: two requests, one of which makes the server write.
    AppRole,
}

impl Variant {
    const fn name(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::VersionAsked => "token, version asked",
            Self::AppRole => "approle",
        }
    }
}

/// A server with [`MANY`] secrets, and what its clients need.
struct Vault {
    server: OpenBao,
    folder: TempDir,
}

impl Vault {
    fn over(server: OpenBao) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let vault = Self { server, folder };
        vault.server.kv("bench", 2);
        for number in 0..MANY {
            let body = json!({"data": {"value": format!("{number:032}")}});
            vault.server.write(&path(number), &body);
        }
        vault.server.policy(
            "bench",
            r#"path "bench/data/web01/*" { capabilities = ["read"] }"#,
        );
        let options = json!({"token_policies": "bench"});
        vault.server.enable_auth("approle", "approle");
        let role_id = vault.server.approle("approle", "bench", &options);
        vault.file("role-id", &role_id);
        vault.file("secret-id", &vault.server.secret_id("approle", "bench"));
        vault.file("token", &vault.server.token(&["bench"], "24h"));
        vault
    }

    fn has_tls(&self) -> bool {
        self.server.address().starts_with("https:")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).expect("written");
        fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("its mode");
        path
    }

    /// keyhaul with a policy that leads to `address`.
    fn keyhaul(&self, ground: &Ground, address: &str, variant: Variant) -> Command {
        let source = |name: &str| format!("\"file:{}\"", self.path(name).display());
        let auth = match variant {
            Variant::Token | Variant::VersionAsked => {
                format!("{{ method = \"token\", token = {} }}", source("token"))
            }
            Variant::AppRole => format!(
                "{{ method = \"approle\", role-id = {}, secret-id = {} }}",
                source("role-id"),
                source("secret-id")
            ),
        };
        let ca = match self.has_tls() {
            true => format!("ca-cert = \"{}\"\n", self.server.ca_path().display()),
            false => String::new(),
        };
        let version = match variant {
            Variant::VersionAsked => "",
            _ => "kv-version = \"2\"\n",
        };
        let policy = format!(
            "version = 1\n\n[stores.site]\nurl = \"vault+{address}/bench\"\nauth = {auth}\n{ca}{version}\n\
             [[routes]]\nmatch = \"**\"\nstore = \"site\"\n"
        );
        let name = format!(
            "{}-{}.toml",
            address.replace(['/', ':'], "-"),
            variant.name()
        );
        let mut command = ground.keyhaul();
        command.arg("--config").arg(ground.policy(&name, &policy));
        command
    }

    fn get(&self, ground: &Ground, variant: Variant) -> Command {
        let mut command = self.keyhaul(ground, self.server.address(), variant);
        command.args(["get", "web01/disk-0"]);
        command
    }

    /// The least program, for the first `count` secrets.
    fn minimal(&self, ground: &Ground, address: &str, count: usize) -> Command {
        let mut command = Command::new(&ground.minimal);
        let ca = match self.has_tls() {
            true => self.server.ca_path(),
            false => "-".into(),
        };
        command.env_clear().arg(ca).arg(self.path("token"));
        command.args((0..count).map(|number| format!("{address}/v1/{}", path(number))));
        command
    }

    /// The system's authorities and the server's: what a program without an option of its own for
    /// an authority believes at a site that has one.
    fn bundle(&self) -> PathBuf {
        let system = fs::read_to_string("/etc/ssl/certs/ca-certificates.crt").unwrap_or_default();
        let own = fs::read_to_string(self.server.ca_path()).expect("the authority");
        self.file("bundle.crt", &format!("{system}\n{own}"))
    }

    /// A program of somebody else's, with what such programs read from their environment.
    fn peer(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("HOME", self.folder.path())
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("VAULT_ADDR", self.server.address())
            .env("VAULT_TOKEN", self.server.root_token());
        if self.has_tls() {
            command
                .env("VAULT_CACERT", self.server.ca_path())
                .env("SSL_CERT_FILE", self.bundle());
        }
        command
    }
}

fn path(number: usize) -> String {
    format!("bench/data/web01/disk-{number}")
}

fn beside_minimal(ground: &Ground, name: &str, vault: &Vault, variant: Variant) -> Row {
    let minimal = vault.minimal(ground, vault.server.address(), 1);
    let [ours, minimal] = in_turn(ROUNDS, [vault.get(ground, variant), minimal]);
    let ratio = ours.as_secs_f64() / minimal.as_secs_f64();
    let held = variant == Variant::Token;
    Row {
        what: format!("get from OpenBao, {name}, {}, cold", variant.name()),
        measured: millis(ours),
        beside: format!(
            "minimal reqwest program {}, ratio {ratio:.2}",
            millis(minimal)
        ),
        target: match held {
            true => "at most 1.7 times".into(),
            false => "none: one request more".into(),
        },
        met: held.then_some(ratio <= 1.7),
    }
}

fn beside_curl(ground: &Ground, name: &str, vault: &Vault) -> Row {
    let mut curl = vault.peer(Path::new("curl"));
    // From a file: an argument would show it.
    let header = format!("X-Vault-Token: {}", vault.server.root_token());
    curl.args(["-sf", "-H"])
        .arg(format!("@{}", vault.file("header", &header).display()));
    if vault.has_tls() {
        curl.arg("--cacert").arg(vault.server.ca_path());
    }
    curl.arg(format!("{}/v1/{}", vault.server.address(), path(0)));
    faster(ground, name, vault, "curl", curl, ROUNDS, None)
}

fn beside_bao(ground: &Ground, name: &str, vault: &Vault) -> Row {
    let mut bao = vault.peer(&keyhaul_servers::bao());
    bao.args(["kv", "get", "-field=value", "bench/web01/disk-0"]);
    faster(ground, name, vault, "bao kv get", bao, FEW, Some(20.0))
}

fn beside_secretspec(ground: &Ground, name: &str, vault: &Vault) -> Row {
    let found = std::env::var_os("PATH").and_then(|folders| {
        std::env::split_paths(&folders)
            .map(|folder| folder.join("secretspec"))
            .find(|program| program.is_file())
    });
    let unmeasured = |why: &str| Row {
        what: format!("get from OpenBao, {name}, token, cold"),
        measured: String::new(),
        beside: format!("secretspec: {why}"),
        target: "at least 2 times faster".into(),
        met: None,
    };
    let Some(program) = found else {
        return unmeasured("not installed here");
    };
    let project = "[project]\nname = \"web01\"\nrevision = \"1.0\"\n\n[profiles.default]\n\
                   DISK = { description = \"a disk's passphrase\", required = true }\n";
    vault.file("secretspec.toml", project);
    // Its own place for it.
    let at = "bench/data/secretspec/web01/default/DISK";
    vault
        .server
        .write(at, &json!({"data": {"value": format!("{:032}", 0)}}));
    let host = vault.server.address().replacen("https://", "", 1);
    let host = host.replacen("http://", "", 1);
    let plain = if vault.has_tls() { "" } else { "&tls=false" };
    let mut command = vault.peer(&program);
    command.current_dir(vault.folder.path()).args([
        "get",
        "DISK",
        "--provider",
        &format!("openbao://{host}/bench?kv=2{plain}"),
    ]);
    faster(
        ground,
        name,
        vault,
        "secretspec get",
        command,
        ROUNDS,
        Some(2.0),
    )
}

/// keyhaul beside a slower program.
fn faster(
    ground: &Ground,
    name: &str,
    vault: &Vault,
    what: &str,
    peer: Command,
    rounds: usize,
    target: Option<f64>,
) -> Row {
    let [ours, peer] = in_blocks(rounds, BLOCK, [vault.get(ground, Variant::Token), peer]);
    let ratio = peer.as_secs_f64() / ours.as_secs_f64();
    Row {
        what: format!("get from OpenBao, {name}, token, cold"),
        measured: millis(ours),
        beside: format!("{what} {}, {ratio:.1} times", millis(peer)),
        target: match target {
            Some(target) => format!("at least {target} times faster"),
            None => "none".into(),
        },
        met: target.map(|target| ratio >= target),
    }
}

/// All secrets of one VM, in one process.
fn many(ground: &Ground, name: &str, vault: &Vault, address: &str) -> Row {
    let ours = ground.run_by(
        vault.keyhaul(ground, address, Variant::Token),
        &["--exec"],
        MANY,
    );
    let [ours, minimal] = in_turn(21, [ours, vault.minimal(ground, address, MANY)]);
    let ratio = ours.as_secs_f64() / minimal.as_secs_f64();
    Row {
        what: format!("run --exec, {MANY} from OpenBao, TLS, {name}"),
        measured: millis(ours),
        beside: format!(
            "minimal HTTP/2 program {}, ratio {ratio:.2}",
            millis(minimal)
        ),
        target: "at most 1.2 times".into(),
        met: Some(ratio <= 1.2),
    }
}

fn memory(ground: &Ground, vault: &Vault) -> Row {
    let address = vault.server.address();
    let ours = ground.run_by(vault.keyhaul(ground, address, Variant::Token), &[], MANY);
    let ours = peak_kib(&ground.peak, 11, &ours);
    let minimal = peak_kib(&ground.peak, 11, &vault.minimal(ground, address, MANY));
    Row {
        what: format!("run, {MANY} from OpenBao, TLS, peak resident memory"),
        measured: mib(ours),
        beside: format!("minimal HTTP/2 program {}", mib(minimal)),
        target: format!("at most {PEAK_MIB} MiB"),
        met: Some(ours <= PEAK_MIB * 1024),
    }
}
