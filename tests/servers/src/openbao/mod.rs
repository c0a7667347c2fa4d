//! OpenBao, which speaks Vault's API.

mod cluster;
mod content;
mod setup;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

pub use cluster::Cluster;
pub use setup::{Certificate, Setup};

use crate::curl::{Curl, Reply};
use crate::daemon::{Daemon, FOLDER, new_log};
use crate::wait::eventually;
use crate::{Authority, Issued};

/// Longer than a busy machine takes for any step.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// One OpenBao server.
#[derive(Debug)]
pub struct OpenBao {
    daemon: Option<Daemon>,
    arguments: Vec<String>,
    curl: Curl,
    root_token: String,
    unseal_key: Option<String>,
    authority: Option<std::sync::Arc<Authority>>,
    socket: Option<PathBuf>,
    folder: TempDir,
}

impl OpenBao {
    /// A development server: in memory, unsealed, over HTTP, with `kv` version 2 at `secret/`.
    pub fn dev() -> Self {
        Setup::default().start()
    }

    /// A real server: raft storage, TLS by a private authority, initialised and unsealed.
    pub fn tls() -> Self {
        Setup::tls().start()
    }

    /// `nodes` such servers in a cluster.
    pub fn raft(nodes: usize) -> Cluster {
        Cluster::start(nodes)
    }

    /// `http://127.0.0.1:PORT` or `https://127.0.0.1:PORT`.
    pub fn address(&self) -> &str {
        &self.curl.address
    }

    /// A token that may do anything.
    pub fn root_token(&self) -> &str {
        &self.root_token
    }

    /// The file with the authority's certificate.
    pub fn ca_path(&self) -> PathBuf {
        assert!(self.authority.is_some(), "this server has no TLS");
        self.folder.path().join("ca.crt")
    }

    /// The authority that issued the server's certificate.
    pub fn authority(&self) -> &Authority {
        self.authority.as_deref().expect("this server has no TLS")
    }

    /// The unix socket, where one was asked for.
    pub fn socket(&self) -> &Path {
        self.socket.as_deref().expect("Setup::unix_socket")
    }

    /// A client certificate by the server's authority, in files: the certificate's and the key's.
    pub fn client_certificate(&self, name: &str) -> (PathBuf, PathBuf) {
        let issued: Issued = self.authority().client(name);
        issued.write(self.folder.path(), &format!("client-{name}"))
    }

    /// A folder that goes with the server.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The server's process id.
    pub fn pid(&self) -> u32 {
        self.running().pid()
    }

    /// What the server has said since its last start.
    pub fn log(&self) -> String {
        self.daemon.as_ref().map(Daemon::log).unwrap_or_default()
    }

    /// Asks the server, with its answer whatever the status.
    pub fn request(&self, method: &str, path: &str, token: &str, body: Option<&Value>) -> Reply {
        self.request_with(method, path, token, &[], body)
    }

    /// The same, with headers.
    pub fn request_with(
        &self,
        method: &str,
        path: &str,
        token: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Reply {
        let mut headers = headers.to_vec();
        if !token.is_empty() {
            headers.push(("X-Vault-Token", token));
        }
        self.curl
            .ask(method, path, &headers, body)
            .unwrap_or_else(|error| panic!("{method} {path}: {error}\n{}", self.log()))
    }

    /// Writes as root, and panics where the server refuses.
    pub fn write(&self, path: &str, body: &Value) -> Value {
        self.expect("POST", path, Some(body))
    }

    /// Reads as root, and panics where the server refuses.
    pub fn read(&self, path: &str) -> Value {
        self.expect("GET", path, None)
    }

    /// Deletes as root, and panics where the server refuses.
    pub fn delete(&self, path: &str) {
        self.expect("DELETE", path, None);
    }

    fn expect(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        let reply = self.request(method, path, &self.root_token, body);
        assert!(reply.status < 300, "{method} {path}: {reply:?}");
        reply.json
    }

    /// The status of the health endpoint: 200 active, 429 standby, 501 not initialised, 503 sealed.
    pub fn health(&self) -> Option<u16> {
        let reply = self.curl.ask("GET", "sys/health", &[], None);
        reply.ok().map(|reply| reply.status)
    }

    /// Seals the server.
    pub fn seal(&self) {
        self.write("sys/seal", &json!({}));
        self.await_health(&[503]);
    }

    /// Unseals the server.
    pub fn unseal(&self) {
        let key = self.unseal_key.as_ref().expect("a server with storage");
        let key = json!({"key": key});
        let reply = self.request("POST", "sys/unseal", "", Some(&key));
        assert_eq!(reply.status, 200, "unsealing: {reply:?}");
        self.await_health(&[200, 429]);
    }

    /// Kills the server. It can be started again where it has storage.
    pub fn stop(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            daemon.stop();
        }
    }

    /// Starts a stopped server at its old address, and leaves it sealed.
    pub fn start(&mut self) {
        assert!(self.unseal_key.is_some(), "a development server forgets");
        assert!(self.daemon.is_none(), "it runs");
        self.launch();
        self.await_health(&[503]);
    }

    /// Kills the server, starts it again at its address, and unseals it.
    pub fn restart(&mut self) {
        self.stop();
        self.start();
        self.unseal();
    }

    /// Has the server give up its leadership.
    pub fn step_down(&self) {
        self.write("sys/step-down", &json!({}));
    }

    /// Stops the process as it stands: it keeps its connections and answers nothing.
    pub fn freeze(&self) {
        self.running().signal(Signal::STOP);
    }

    /// Lets a frozen process go on.
    pub fn thaw(&self) {
        self.running().signal(Signal::CONT);
    }

    /// Waits until the health endpoint answers one of `statuses`.
    pub fn await_health(&self, statuses: &[u16]) {
        self.try_await_health(statuses)
            .unwrap_or_else(|log| panic!("OpenBao ended:\n{log}"));
    }

    /// The log, where the server ended instead.
    fn try_await_health(&self, statuses: &[u16]) -> Result<(), String> {
        let mut ended = false;
        eventually(&format!("health {statuses:?}"), LIMIT, || {
            ended = !self.running().is_alive();
            ended
                || self
                    .health()
                    .is_some_and(|status| statuses.contains(&status))
        });
        if ended { Err(self.log()) } else { Ok(()) }
    }

    fn launch(&mut self) {
        let log = new_log(self.folder.path(), "bao.log");
        let home = self.folder.path().as_os_str();
        let environment: [(&str, &OsStr); 2] = [("HOME", home), (FOLDER, home)];
        self.daemon = Some(Daemon::start(
            &program(),
            &self.arguments,
            &environment,
            &log,
        ));
    }

    fn running(&self) -> &Daemon {
        self.daemon.as_ref().expect("the server was stopped")
    }
}

impl Drop for OpenBao {
    #[expect(
        clippy::print_stderr,
        reason = "a failed test shows what its server said"
    )]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("OpenBao at {} said:\n{}", self.curl.address, self.log());
        }
    }
}

/// The server's program: on the PATH, or where scripts/setup puts it.
pub fn program() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools/bin");
    std::env::split_paths(&path)
        .chain([own])
        .map(|folder| folder.join("bao"))
        .find(|program| program.is_file())
        .expect("bao is not installed: scripts/setup test")
}
