//! The key service over a store that is slow: a VM waits for its secrets, or does not start and says
//! why, in time.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use keyhaul_e2e::{Disk, PASSPHRASE, Site, Vm, guest_words, keyhaul};
use keyhaul_servers::{KeyService, Mode, OpenBao, Proxy};
use serde_json::json;

/// How much later each byte comes, there and back.
const DELAY: Duration = Duration::from_millis(700);
/// How long a VM's start may take where somebody says so, and what a busy machine adds to it.
const DEADLINE: (&str, Duration) = ("3s", Duration::from_secs(3));
const BUSY: Duration = Duration::from_secs(12);

/// A service over an OpenBao that is reached through a proxy, and a host that runs a guest.
struct Ground {
    _bao: OpenBao,
    proxy: Proxy,
    server: KeyService,
    host: Site,
    disk: PathBuf,
}

impl Ground {
    fn new() -> Self {
        let bao = OpenBao::tls();
        bao.kv("slow", 2);
        let body = json!({"data": {"value": PASSPHRASE}});
        bao.write_all(&[("slow/data/web01/root".to_owned(), body)]);
        bao.policy("slow", "path \"slow/*\" { capabilities = [\"read\"] }");
        let proxy = Proxy::to(bao.address());
        let mut server = KeyService::start(keyhaul(), "");
        let token = server.path("token");
        fs::write(&token, bao.token(&["slow"], "1h")).expect("written");
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        fs::set_permissions(&token, private).expect("its mode");
        server.write_policy(&format!(
            "version = 1\n[stores.site]\nurl = \"vault+https://{}/slow\"\nca-cert = \"{}\"\n\
             kv-version = \"2\"\nauth = {{ method = \"token\", token = \"file:{}\" }}\n\
             [[routes]]\nmatch = \"**\"\nstore = \"site\"\npath = \"{{scope}}/{{name}}\"\n",
            proxy.address(),
            bao.ca_path().display(),
            token.display(),
        ));
        server.restart();
        let manager = server.identity("manager/m");
        server.tell(&manager, "grants", &json!({"scope": "web01", "node": "y"}));
        let host = Site::new();
        host.policy(&server.policy(&server.identity("node/y"), ""));
        let disk = host.disk(Disk::Luks);
        Self {
            _bao: bao,
            proxy,
            server,
            host,
            disk,
        }
    }

    fn words(&self) -> Vec<String> {
        guest_words("secret,id=root,ref=web01/root", Disk::Luks, &self.disk)
    }

    /// Starts the guest, has it read its disk, and says how long its start took.
    fn boots(&self) -> Duration {
        let words = self.words();
        let begun = Instant::now();
        let mut vm = Vm::start(
            &self.host,
            &[],
            &words.iter().map(String::as_str).collect::<Vec<_>>(),
        );
        let took = begun.elapsed();
        vm.resume();
        assert!(vm.reads_own_disk(), "{}", vm.log());
        assert!(vm.quit().success());
        took
    }

    /// Starts the guest with little patience, which is to fail, and says so.
    #[track_caller]
    fn gives_up(&self) {
        let words = self.words();
        let begun = Instant::now();
        let refused = Vm::fail(
            &self.host,
            &["--deadline", DEADLINE.0],
            &words.iter().map(String::as_str).collect::<Vec<_>>(),
        );
        let took = begun.elapsed();
        refused.exits(125).says(&["timed out", "web01/root"]);
        assert!(took < DEADLINE.1 + BUSY, "{took:?}");
        assert!(!self.host.path("vm/pid").exists(), "QEMU was started");
    }
}

#[test]
fn a_guest_waits_for_a_slow_store_and_not_for_ever() {
    let ground = Ground::new();
    ground.boots();

    ground.proxy.set(Mode::Delay(DELAY));
    // There and back.
    let took = ground.boots();
    assert!(took >= 2 * DELAY, "the store was not slow: {took:?}");

    ground.proxy.set(Mode::Swallow);
    ground.gives_up();
    // Who needs no store is answered at once, and the service itself is well.
    let manager = ground.server.identity("manager/m");
    let begun = Instant::now();
    let grant = json!({"scope": "web02", "node": "y"});
    ground.server.tell(&manager, "grants", &grant);
    assert!(begun.elapsed() < BUSY, "{:?}", begun.elapsed());

    // What was held back comes to nobody; the next start is served, by itself.
    ground.proxy.set(Mode::Reset);
    ground.proxy.set(Mode::Pass);
    ground.boots();
}
