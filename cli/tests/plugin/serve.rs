//! A key service whose policy names plugins.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::site::{Done, Site};

/// No step takes a tenth of it.
const LIMIT: Duration = Duration::from_secs(60);

/// A service, which is ended with the value.
struct Service<'a> {
    site: &'a Site,
    child: Child,
    notified: UnixDatagram,
}

impl<'a> Service<'a> {
    /// The service of this site, whose clients are told where it is.
    fn start(site: &'a Site) -> Self {
        let config = site.text("dev/service.toml");
        let service = Self::run_as(site, &["serve", "--config", &config]);
        let said = service.said();
        let line = said
            .lines()
            .find_map(|line| line.strip_prefix("listening on "));
        let address = line.expect("an address");
        for role in ["manager", "node-a", "node-b", "operator"] {
            let name = format!("dev/{role}.toml");
            let text = fs::read_to_string(site.path(&name)).expect("made");
            let (before, after) = text.split_once("127.0.0.1:").expect("an address");
            let port = after.find(|c: char| !c.is_ascii_digit()).expect("an end");
            site.write(
                &name,
                &format!("{before}{address}{}", &after[port..]),
                0o600,
            );
        }
        service
    }

    fn run_as(site: &'a Site, arguments: &[&str]) -> Self {
        let socket = site.path("notify");
        let _ = fs::remove_file(&socket);
        let notified = UnixDatagram::bind(&socket).expect("bound");
        notified.set_read_timeout(Some(LIMIT)).expect("set");
        let file = |name| fs::File::create(site.path(name)).expect("made");
        let child = site
            .command(env!("CARGO_BIN_EXE_keyhaul"))
            .args(arguments)
            .env("NOTIFY_SOCKET", &socket)
            .stdin(Stdio::null())
            .stdout(file("out"))
            .stderr(file("err"))
            .spawn()
            .expect("started");
        let service = Self {
            site,
            child,
            notified,
        };
        service.told("READY=1");
        service
    }

    fn told(&self, expected: &str) {
        let mut buffer = [0; 256];
        let length = self.notified.recv(&mut buffer).expect("told");
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        assert_eq!(text.lines().next(), Some(expected), "{}", self.said());
    }

    fn said(&self) -> String {
        fs::read_to_string(self.site.path("err")).expect("there")
    }

    fn run(&self, role: &str, arguments: &[&str]) -> Done {
        let config = self.site.text(&format!("dev/{role}.toml"));
        self.site
            .keyhaul(&[&["--config", &config], arguments].concat())
    }

    fn set(&self, reference: &str, value: &str) {
        let file = self.site.write("value", value, 0o600);
        self.run("operator", &["set", reference, "--from", &file])
            .ok();
    }

    fn status(&self) -> String {
        fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("status")
    }

    /// The libraries that it has loaded.
    fn libraries(&self) -> usize {
        let maps = fs::read_to_string(format!("/proc/{}/maps", self.child.id())).expect("maps");
        let lines = maps
            .lines()
            .filter(|line| line.contains("memfd:keyhaul-plugin"));
        // ADDRESSES MODE OFFSET DEVICE INODE PATH, several for each.
        let inodes: BTreeSet<&str> = lines.filter_map(|line| line.split(' ').nth(4)).collect();
        inodes.len()
    }

    fn reload(&self) {
        kill_process(Pid::from_child(&self.child), Signal::HUP).expect("told");
        self.told("RELOADING=1");
        self.told("READY=1");
    }

    fn end(mut self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("told");
        self.told("STOPPING=1");
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("waited") {
                break status;
            }
            assert!(begun.elapsed() < LIMIT, "{}", self.said());
            std::thread::sleep(Duration::from_millis(5));
        };
        assert!(status.success(), "{status}: {}", self.said());
    }
}

impl Drop for Service<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A site whose service serves from this store.
fn site_with(store: impl FnOnce(&Site) -> String) -> Site {
    let site = Site::new();
    let make = [
        "serve",
        "--dev",
        "--folder",
        "dev",
        "--listen",
        "127.0.0.1:0",
    ];
    Service::run_as(&site, &make).end();
    let policy = format!(
        "version = 1\n[stores.odd]\n{}\n[[routes]]\nmatch = \"**\"\nstore = \"odd\"\n",
        store(&site)
    );
    site.write("dev/store.toml", &policy, 0o600);
    site
}

fn serves(site: &Site, is_there: impl FnOnce(&Service<'_>) -> bool) {
    let service = Service::start(site);
    service.set("web01/disk", "hunter2");
    service.run("manager", &["grant", "web01", "node-a"]).ok();
    assert_eq!(
        service.run("node-a", &["get", "web01/disk"]).ok().out,
        "hunter2"
    );
    service
        .run("node-b", &["get", "web01/disk"])
        .ends(super::PERMISSION_DENIED);
    service.run("manager", &["generate", "web01/made"]).ok();
    let made = service.run("node-a", &["get", "web01/made"]).ok();
    assert_eq!(made.out.len(), 32);
    assert!(is_there(&service), "served by something else");
    // It is still the process that nobody may look into: no core dumps, no tracing.
    assert!(
        service.status().contains("\nCoreDumping:\t0"),
        "{}",
        service.status()
    );
    let limits = fs::read_to_string(format!("/proc/{}/limits", service.child.id()));
    let core = limits.expect("limits");
    let core = core
        .lines()
        .find(|line| line.starts_with("Max core file size"));
    assert_eq!(core.expect("a line").split_whitespace().nth(4), Some("0"));
    service.end();
}

#[test]
fn a_library_behind_the_service_serves_its_nodes() {
    let site = site_with(|site| format!("url = \"plugin://{}\"", site.jar()));
    serves(&site, |service| {
        let maps = fs::read_to_string(format!("/proc/{}/maps", service.child.id()));
        maps.expect("maps").contains("memfd:keyhaul-plugin")
    });
}

#[test]
fn a_program_behind_the_service_serves_its_nodes_and_ends_with_it() {
    let site = site_with(|site| {
        let program = site.program("python/database.py");
        let database = site.text("secrets.db");
        format!("url = \"plugin+exec://{program}\"\nargs = [\"{database}\"]")
    });
    serves(&site, |_| running(&site.text("secrets.db")).len() == 1);
    // Its stdin has ended; it goes by itself.
    let begun = Instant::now();
    while !running(&site.text("secrets.db")).is_empty() {
        assert!(begun.elapsed() < LIMIT, "it runs on");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_program_that_dies_is_started_again_while_the_service_goes_on() {
    let site = site_with(|site| {
        let program = site.program("python/database.py");
        let database = site.text("secrets.db");
        format!("url = \"plugin+exec://{program}\"\nargs = [\"{database}\"]")
    });
    let service = Service::start(&site);
    service.set("web01/disk", "hunter2");
    service.run("manager", &["grant", "web01", "node-a"]).ok();
    let pids = running(&site.text("secrets.db"));
    assert_eq!(pids.len(), 1);
    let pid = Pid::from_raw(pids[0].parse().expect("a number")).expect("a process");
    kill_process(pid, Signal::KILL).expect("killed");
    // Asked again after the pause, by the retries of the service's own layers.
    assert_eq!(
        service.run("node-a", &["get", "web01/disk"]).ok().out,
        "hunter2"
    );
    assert_ne!(running(&site.text("secrets.db")), pids);
    service.end();
}

#[test]
fn a_plugin_that_does_not_load_is_said_and_the_service_goes_on() {
    let site = site_with(|site| {
        let pin = "0".repeat(64);
        format!("url = \"plugin://{}\"\nsha256 = \"{pin}\"", site.jar())
    });
    let service = Service::start(&site);
    let begun = Instant::now();
    while !service
        .said()
        .contains("is not the one that the policy pins")
    {
        assert!(begun.elapsed() < LIMIT, "{}", service.said());
        std::thread::sleep(Duration::from_millis(5));
    }
    service.run("manager", &["grants"]).ok();
    // Mended in the policy, and read anew.
    let policy = fs::read_to_string(site.path("dev/store.toml")).expect("there");
    let mended: Vec<&str> = policy
        .lines()
        .filter(|line| !line.starts_with("sha256"))
        .collect();
    site.write("dev/store.toml", &(mended.join("\n") + "\n"), 0o600);
    service.reload();
    service.set("web01/disk", "hunter2");
    service.end();
}

#[test]
fn a_reload_loads_a_library_again_only_where_it_has_changed() {
    let site = site_with(|site| format!("url = \"plugin://{}\"", site.jar()));
    let service = Service::start(&site);
    service.set("web01/disk", "hunter2");
    assert_eq!(service.libraries(), 1);
    let policy = |more: &str| {
        let text = fs::read_to_string(site.path("dev/store.toml")).expect("there");
        site.write("dev/store.toml", &(text + more), 0o600);
        service.reload();
        // The store is a new one, and has its library.
        service.set("web01/disk", "hunter2");
    };
    policy("[stores.other]\nurl = \"plugin:///nonexistent.so\"\n");
    assert_eq!(service.libraries(), 1);
    // As the policy has not changed, it is not looked at.
    super::broken::broken(&site, "NO_MISTAKE");
    fs::rename(site.path("libbroken.so"), site.path("libjar.so")).expect("replaced");
    policy("");
    assert_eq!(service.libraries(), 1);
    policy("[stores.third]\nurl = \"plugin:///nonexistent.so\"\n");
    assert_eq!(service.libraries(), 2);
    service.end();
}

#[test]
fn a_refused_library_is_in_the_service_once() {
    let site = site_with(|site| {
        let path = super::broken::broken(site, "OF_ANOTHER_TIME");
        format!("url = \"plugin://{path}\"")
    });
    let service = Service::start(&site);
    service.run("manager", &["grant", "web01", "node-a"]).ok();
    for _ in 0..5 {
        let got = service.run("node-a", &["get", "web01/disk"]);
        assert_ne!(got.status, 0);
    }
    assert_eq!(service.libraries(), 1);
    service.end();
}

/// While it hangs, it holds a lock of the system's linker, for which each new thread waits: only the end
/// does not.
#[test]
fn a_service_whose_library_hangs_when_it_is_loaded_ends_when_it_is_told_to() {
    let site = site_with(|site| {
        let path = super::broken::broken(site, "HANGS_AT_LOAD");
        format!("url = \"plugin://{path}\"")
    });
    let service = Service::start(&site);
    // The service asks its stores when it starts.
    let begun = Instant::now();
    while !service.said().contains("hangs when it is loaded") {
        assert!(begun.elapsed() < LIMIT, "{}", service.said());
        std::thread::sleep(Duration::from_millis(5));
    }
    service.end();
}

/// The processes among whose arguments this is one.
pub fn running(argument: &str) -> Vec<String> {
    let mut pids = Vec::new();
    for entry in fs::read_dir("/proc").expect("proc") {
        let path = entry.expect("entry").path();
        let Ok(line) = fs::read(path.join("cmdline")) else {
            continue;
        };
        let is_it = line
            .split(|byte| *byte == 0)
            .any(|word| word == argument.as_bytes());
        if is_it && let Some(name) = path.file_name() {
            pids.push(Path::new(name).display().to_string());
        }
    }
    pids
}
