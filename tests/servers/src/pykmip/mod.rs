//! PyKMIP, a KMIP server in Python, and its client.

use std::ffi::OsStr;
use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::daemon::{Daemon, FOLDER, new_log};
use crate::wait::{eventually, free_port};
use crate::{Authority, Issued};

/// Longer than a busy machine takes for any step.
const LIMIT: Duration = Duration::from_secs(60);

/// A policy by which everybody may find an object and only its owner may have it.
const SHOWN: &str = r#"{"shown": {"preset": {"SECRET_DATA": {
    "LOCATE": "ALLOW_ALL", "GET_ATTRIBUTES": "ALLOW_ALL",
    "GET": "ALLOW_OWNER", "DESTROY": "ALLOW_OWNER"}}}}"#;

/// What the standard says of a server and PyKMIP does not do of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KmipRule {
    /// An object that was destroyed stays, with its name and without its value (KMIP 1.2, 4.21): asking
    /// for it is an Illegal Operation, destroying it again is Permission Denied (11.12, 11.22).
    DestroyedStay,
    /// Nothing is found by Application Specific Information: that is an Invalid Field. No rule of the
    /// standard's, but servers may know few attributes.
    NoSearch,
    /// A name is one object's (3.2): registering another with it is an Invalid Field (11.4).
    UniqueNames,
}

/// A PyKMIP server with mutual TLS and storage in a file. An object belongs to the client that
/// registered it, who is the common name of its certificate.
#[derive(Debug)]
pub struct PyKmip {
    daemon: Option<Daemon>,
    authority: Authority,
    port: u16,
    clients: AtomicUsize,
    folder: TempDir,
    rules: Vec<KmipRule>,
}

impl PyKmip {
    /// A server.
    pub fn start() -> Self {
        Self::strict(&[])
    }

    /// A server that keeps these rules, too.
    pub fn strict(rules: &[KmipRule]) -> Self {
        let authority = Authority::new("pykmip");
        let folder = tempfile::tempdir().expect("folder");
        let issued = authority.server(&["127.0.0.1", "localhost"]);
        issued.write(folder.path(), "server");
        fs::write(folder.path().join("ca.crt"), authority.pem()).expect("written");
        let policies = folder.path().join("policies");
        fs::create_dir(&policies).expect("made");
        fs::write(policies.join("shown.json"), SHOWN).expect("written");
        let mut server = Self {
            daemon: None,
            authority,
            port: 0,
            clients: AtomicUsize::new(0),
            folder,
            rules: rules.to_vec(),
        };
        // Another process can take a port that was free a moment ago.
        for _ in 0..5 {
            server.port = free_port();
            if server.launch() {
                return server;
            }
        }
        panic!("PyKMIP does not start:\n{}", server.log());
    }

    /// `kmip://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("kmip://127.0.0.1:{}", self.port)
    }

    /// The port it listens at.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The authority that issued the server's certificate, and whose clients it believes.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The file with the authority's certificate.
    pub fn ca_path(&self) -> PathBuf {
        self.folder.path().join("ca.crt")
    }

    /// A certificate for the client of this name, in files: the certificate's and the key's.
    pub fn client(&self, name: &str) -> (PathBuf, PathBuf) {
        self.write(&self.authority.client(name))
    }

    /// A certificate in files that go with the server.
    pub fn write(&self, issued: &Issued) -> (PathBuf, PathBuf) {
        let number = self.clients.fetch_add(1, Ordering::Relaxed);
        issued.write(self.folder.path(), &format!("client-{number}"))
    }

    /// Runs PyKMIP's own client, as `client.py` beside this file says, and gives what it prints.
    pub fn ask(&self, identity: &(PathBuf, PathBuf), arguments: &[&str]) -> String {
        let output = Command::new(python())
            .arg(script("client.py"))
            .arg(self.port.to_string())
            .args([&identity.0, &identity.1, &self.ca_path()])
            .args(arguments)
            .output()
            .expect("python starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Kills the server.
    pub fn kill(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            daemon.stop();
        }
    }

    /// Starts a killed server at its port, with what it had.
    pub fn start_again(&mut self) {
        assert!(self.daemon.is_none(), "it runs");
        assert!(self.launch(), "it does not start again:\n{}", self.log());
    }

    /// Stops the process as it stands: it keeps its connections and answers nothing.
    pub fn freeze(&self) {
        self.running().signal(Signal::STOP);
    }

    /// Lets a frozen process go on.
    pub fn thaw(&self) {
        self.running().signal(Signal::CONT);
    }

    /// What the server has said, its own log last.
    pub fn log(&self) -> String {
        let said = self.daemon.as_ref().map(Daemon::log).unwrap_or_default();
        let own = fs::read_to_string(self.folder.path().join("own.log")).unwrap_or_default();
        said + &own
    }

    /// Whether it came up.
    fn launch(&mut self) -> bool {
        let folder = self.folder.path();
        let at = |name: &str| folder.join(name).display().to_string();
        let settings = format!(
            "[server]\nhostname=127.0.0.1\nport={}\ncertificate_path={}\nkey_path={}\nca_path={}\n\
             auth_suite=TLS1.2\npolicy_path={}\nlogging_level=INFO\ndatabase_path={}\n",
            self.port,
            at("server.crt"),
            at("server.key"),
            at("ca.crt"),
            at("policies"),
            at("database"),
        );
        fs::write(folder.join("server.conf"), settings).expect("written");
        let _ = fs::remove_file(folder.join("own.log"));
        let arguments = [
            script("server.py").display().to_string(),
            "--config_path".to_owned(),
            at("server.conf"),
            "--log_path".to_owned(),
            at("own.log"),
        ];
        let log = new_log(folder, "pykmip.log");
        let home = folder.as_os_str();
        let rules = format!("{:?}", self.rules);
        let environment: [(&str, &OsStr); 3] = [
            ("HOME", home),
            (FOLDER, home),
            ("PYKMIP_RULES", rules.as_ref()),
        ];
        self.daemon = Some(Daemon::start(&python(), &arguments, &environment, &log));
        let mut up = false;
        eventually("PyKMIP listens", LIMIT, || {
            // The log first: a connection that comes to nothing fills it.
            up = self.log().contains("Loading policy: shown")
                && TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok();
            up || !self.running().is_alive()
        });
        up
    }

    fn running(&self) -> &Daemon {
        self.daemon.as_ref().expect("the server was killed")
    }
}

impl Drop for PyKmip {
    #[expect(
        clippy::print_stderr,
        reason = "a failed test shows what its server said"
    )]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("PyKMIP at {} said:\n{}", self.port, self.log());
        }
    }
}

/// The Python of the environment that scripts/setup makes.
fn python() -> PathBuf {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools/python");
    let installed = fs::read_to_string(tools.join("keyhaul-tools")).unwrap_or_default();
    assert!(
        installed.contains("PyKMIP"),
        "PyKMIP is not installed: scripts/setup test"
    );
    tools.join("bin/python")
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src/pykmip")
        .join(name)
}
