//! A Secret Service: gnome-keyring on a session bus of its own.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// How long something may take to be there.
const LIMIT: Duration = Duration::from_secs(20);

/// What installs everything that is called here.
const INSTALL: &str = "apt-get install gnome-keyring dbus libsecret-tools keyutils";

const PASSWORD: &[u8] = b"the login password";

/// A D-Bus session bus with a home and a runtime folder of its own, and nobody on it. It starts no
/// services: the ones that this machine has installed stay out.
#[derive(Debug)]
pub struct SessionBus {
    folder: TempDir,
    daemon: Child,
}

impl SessionBus {
    /// Starts it, and waits until it answers.
    ///
    /// # Panics
    /// Where it does not start.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["home", "data", "run"] {
            let path = folder.path().join(name);
            fs::create_dir(&path).expect("a folder");
            fs::set_permissions(&path, PermissionsExt::from_mode(0o700)).expect("its mode");
        }
        let config = folder.path().join("bus.conf");
        fs::write(&config, configuration(&folder.path().join("run/bus"))).expect("written");
        let daemon = Command::new("dbus-daemon")
            .arg(format!("--config-file={}", config.display()))
            .args(["--nofork", "--nopidfile"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log(&folder, "bus"))
            .spawn()
            .unwrap_or_else(|error| panic!("dbus-daemon: {error}; {INSTALL}"));
        let bus = Self { folder, daemon };
        bus.until("the bus to answer", || {
            bus.asks(
                "org.freedesktop.DBus",
                "/",
                "org.freedesktop.DBus.GetId",
                &[],
            )
            .is_some()
        });
        bus
    }

    /// Its address, for a store's option `bus`.
    pub fn address(&self) -> String {
        format!("unix:path={}", self.socket().display())
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("run/bus")
    }

    /// A program in this session: its bus, its home.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let inside = |name| self.folder.path().join(name);
        let mut command = Command::new(program);
        command
            .env("DBUS_SESSION_BUS_ADDRESS", self.address())
            .env("HOME", inside("home"))
            .env("XDG_DATA_HOME", inside("data"))
            .env("XDG_RUNTIME_DIR", inside("run"))
            .env_remove("DISPLAY")
            .env_remove("WAYLAND_DISPLAY")
            .env_remove("GNOME_KEYRING_CONTROL");
        command
    }

    /// Calls a method and gives what it printed; none where it failed.
    fn asks(&self, whom: &str, object: &str, method: &str, arguments: &[&str]) -> Option<String> {
        let asked = self
            .command("dbus-send")
            .args(["--session", "--print-reply", "--reply-timeout=5000"])
            .arg(format!("--dest={whom}"))
            .args([object, method])
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap_or_else(|error| panic!("dbus-send: {error}; {INSTALL}"));
        let said = String::from_utf8_lossy(&asked.stdout).into_owned();
        asked.status.success().then_some(said)
    }

    fn until(&self, what: &str, reached: impl Fn() -> bool) {
        let start = Instant::now();
        while !reached() {
            let logs = ["bus", "service"].map(|name| {
                fs::read_to_string(self.folder.path().join(name).with_extension("log"))
                    .unwrap_or_default()
            });
            assert!(start.elapsed() < LIMIT, "waiting for {what}: {logs:?}");
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for SessionBus {
    fn drop(&mut self) {
        end(&mut self.daemon);
    }
}

/// gnome-keyring on a [`SessionBus`], with a default collection `login` that is unlocked.
#[derive(Debug)]
pub struct SecretService {
    /// Ended first: the service is a client of the bus.
    daemon: Child,
    bus: SessionBus,
}

impl SecretService {
    /// Starts bus and service, and waits until the default collection is there.
    ///
    /// # Panics
    /// Where one does not start.
    pub fn start() -> Self {
        let bus = SessionBus::start();
        let daemon = serve(&bus);
        Self { daemon, bus }
    }

    /// The bus it is on.
    pub fn bus(&self) -> &SessionBus {
        &self.bus
    }

    /// The bus' address, for a store's option `bus`.
    pub fn address(&self) -> String {
        self.bus.address()
    }

    /// A program in this session, as `secret-tool`.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        self.bus.command(program)
    }

    /// Locks the default collection.
    pub fn lock(&self) {
        let locked = service_asks(
            &self.bus,
            "Lock",
            &["array:objpath:/org/freedesktop/secrets/collection/login"],
        );
        assert!(locked.is_some(), "locked");
    }

    /// Stops the service's process: it neither answers nor ends.
    pub fn freeze(&self) {
        kill_process(pid(&self.daemon), Signal::STOP).expect("stopped");
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        kill_process(pid(&self.daemon), Signal::CONT).expect("continued");
    }

    /// Kills the service. The bus stays.
    pub fn kill(&mut self) {
        end(&mut self.daemon);
        let bus = &self.bus;
        bus.until("the name to be free", || {
            service_asks(bus, "ReadAlias", &["string:default"]).is_none()
        });
    }

    /// Starts the service anew on the same bus, over the same files.
    pub fn restart(&mut self) {
        end(&mut self.daemon);
        self.daemon = serve(&self.bus);
    }
}

impl Drop for SecretService {
    fn drop(&mut self) {
        end(&mut self.daemon);
    }
}

/// Starts the service, gives it the password, and waits for the default collection.
fn serve(bus: &SessionBus) -> Child {
    let mut daemon = bus
        .command("gnome-keyring-daemon")
        .args(["--foreground", "--components=secrets", "--unlock"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(log(&bus.folder, "service"))
        .spawn()
        .unwrap_or_else(|error| panic!("gnome-keyring-daemon: {error}; {INSTALL}"));
    // Closed with the end of the statement: the password ends there.
    let written = daemon
        .stdin
        .take()
        .map(|mut input| input.write_all(PASSWORD));
    written.expect("a pipe").expect("written");
    bus.until("the default collection", || {
        service_asks(bus, "ReadAlias", &["string:default"])
            .is_some_and(|said| said.contains("/collection/"))
    });
    daemon
}

fn service_asks(bus: &SessionBus, method: &str, arguments: &[&str]) -> Option<String> {
    bus.asks(
        "org.freedesktop.secrets",
        "/org/freedesktop/secrets",
        &format!("org.freedesktop.Secret.Service.{method}"),
        arguments,
    )
}

fn configuration(socket: &Path) -> String {
    format!(
        r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>unix:path={}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow send_destination="*"/>
    <allow receive_sender="*"/>
    <allow own="*"/>
  </policy>
</busconfig>
"#,
        socket.display()
    )
}

fn log(folder: &TempDir, name: &str) -> File {
    let path = folder.path().join(name).with_extension("log");
    File::options()
        .create(true)
        .append(true)
        .open(path)
        .expect("a log")
}

fn pid(child: &Child) -> Pid {
    Pid::from_child(child)
}

/// Ends a child by its number, and waits for it. Once its end was seen, nothing is sent.
fn end(child: &mut Child) {
    if matches!(child.try_wait(), Ok(None)) {
        let _ = child.kill();
        let _ = child.wait();
    }
}
