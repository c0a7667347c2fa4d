//! The key service as a site runs it: the program's own process, over an encrypted file store.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::certificates::write_private;
use crate::curl::{Curl, Reply};
use crate::daemon::{Daemon, new_log};
use crate::wait::eventually;
use crate::{Authority, free_port};

const JSON: [(&str, &str); 1] = [("content-type", "application/json")];
/// Longer than a busy machine takes for any step.
const LIMIT: Duration = Duration::from_secs(30);

/// A running key service, with an authority for it and all its clients.
///
/// Nodes are `spiffe://site/node/NAME`, managers `spiffe://site/manager/NAME`, operators
/// `spiffe://site/operator/NAME`.
#[derive(Debug)]
pub struct KeyService {
    daemon: Option<Daemon>,
    program: PathBuf,
    address: String,
    authority: Authority,
    folder: TempDir,
}

/// A client's certificate and its key, in files.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl KeyService {
    /// The program's words before its configuration.
    pub const SERVE: [&str; 2] = ["serve", "--config"];

    /// A service of `program`, which is keyhaul, and waits until it serves. `more` are lines for the
    /// end of its configuration.
    pub fn start(program: &Path, more: &str) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("keyhaul-service-")
            .tempdir()
            .expect("a folder");
        let authority = Authority::new("keyhaul tests");
        let root = folder.path();
        fs::write(root.join("ca.crt"), authority.pem()).expect("written");
        fs::create_dir(root.join("audit")).expect("a folder");
        authority
            .server(&["127.0.0.1", "localhost"])
            .write(root, "server");
        let mut service = Self {
            daemon: None,
            program: program.to_owned(),
            address: String::new(),
            authority,
            folder,
        };
        service.write_policy(&format!(
            "version = 1\n\n[stores.local]\nurl = \"file://{0}/secrets\"\nidentity = \"file:{0}/identity\"\n\
             create = true\n\n[[routes]]\nmatch = \"**\"\nstore = \"local\"\n",
            service.path(".").display(),
        ));
        for _ in 0..5 {
            service.address = format!("127.0.0.1:{}", free_port());
            service.configure(more);
            match service.try_launch() {
                Ok(()) => return service,
                Err(log) if log.contains("in use") => {}
                Err(log) => panic!("the key service did not start:\n{log}"),
            }
        }
        panic!("no port on loopback stays free");
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The authority of the server's certificate and of its clients'.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The file with the authority's certificate.
    pub fn ca_path(&self) -> PathBuf {
        self.path("ca.crt")
    }

    /// A path in its folder: `audit/audit.jsonl`, `service.db`, `secrets`, `service.toml`, `keyhaul.toml`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A fresh certificate for who this is, `node/y` or `manager/m`.
    pub fn identity(&self, who: &str) -> Identity {
        let uri = format!("spiffe://site/{who}");
        let issued = self.authority.client_of(&[&uri]);
        let (certificate, key) = issued.write(self.folder.path(), &who.replace('/', "-"));
        Identity { certificate, key }
    }

    /// A policy whose one store is this service, asked as `identity`. `more` are lines for the store.
    pub fn policy(&self, identity: &Identity, more: &str) -> String {
        format!(
            "version = 1\n\n[stores.service]\nurl = \"keyhaul+https://{}\"\nca-cert = \"{}\"\n\
             client-cert = \"{}\"\nclient-key = \"file:{}\"\n{more}\n\n[[routes]]\nmatch = \"**\"\nstore = \"service\"\n",
            self.address,
            self.ca_path().display(),
            identity.certificate.display(),
            identity.key.display(),
        )
    }

    /// Replaces the policy that says where its secrets lie; read at the next start or reload.
    pub fn write_policy(&self, text: &str) {
        write_private(&self.path("keyhaul.toml"), text.as_bytes());
    }

    /// Asks it by curl as `identity`, with the answer whatever the status: `path` is below `/v1/`.
    ///
    /// # Errors
    /// Why there is no answer at all.
    pub fn ask(
        &self,
        identity: Option<&Identity>,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Reply, String> {
        let headers: &[(&str, &str)] = if body.is_some() { &JSON } else { &[] };
        self.curl(identity).ask(method, path, headers, body)
    }

    /// Posts many bodies as `identity`, one after the other over one connection: the statuses, in
    /// order, 0 where there was no answer.
    pub fn tell_all(&self, identity: &Identity, asked: &[(String, Value)]) -> Vec<u16> {
        self.curl(Some(identity)).try_all("POST", &JSON, asked)
    }

    /// The program that posts `body` as `identity`: for who kills it before it is done.
    pub fn telling(&self, identity: &Identity, path: &str, body: &Value) -> Command {
        let curl = self.curl(Some(identity));
        curl.asking(self.folder.path(), "POST", path, &JSON, Some(body))
    }

    /// The same, and it must succeed.
    pub fn tell(&self, identity: &Identity, path: &str, body: &Value) -> Value {
        let reply = self.ask(Some(identity), "POST", path, Some(body));
        let reply = reply.unwrap_or_else(|error| panic!("{path}: {error}\n{}", self.log()));
        assert_eq!(reply.status, 200, "{path}: {reply:?}");
        reply.json
    }

    /// The server's process id.
    pub fn pid(&self) -> u32 {
        self.running().pid()
    }

    /// What it has said since its last start.
    pub fn log(&self) -> String {
        self.daemon.as_ref().map(Daemon::log).unwrap_or_default()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        self.running().signal(signal);
    }

    /// Kills it as it stands, by `SIGKILL`.
    pub fn kill(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            daemon.stop();
        }
    }

    /// Starts it again at its old address, and waits until it serves.
    pub fn restart(&mut self) {
        self.kill();
        let started = self.try_launch();
        started.unwrap_or_else(|log| panic!("the key service did not start again:\n{log}"));
    }

    fn curl(&self, identity: Option<&Identity>) -> Curl {
        Curl {
            address: format!("https://{}", self.address),
            ca: Some(self.ca_path()),
            client: identity.map(|who| (who.certificate.clone(), who.key.clone())),
        }
    }

    fn configure(&self, more: &str) {
        let root = self.folder.path().display();
        let role = |uri: &str, role: &str, more: &str| {
            format!("[[roles]]\nuri = \"spiffe://site/{uri}\"\nrole = \"{role}\"\n{more}\n")
        };
        let roles = [
            role("node/{name}", "node", ""),
            role("manager/{name}", "manager", ""),
            role("operator/{name}", "operator", ""),
        ]
        .concat();
        let text = format!(
            "version = 1\nlisten = [\"{}\"]\npolicy = \"{root}/keyhaul.toml\"\nstate = \"{root}/service.db\"\n\
             audit = \"{root}/audit/audit.jsonl\"\n\n[tls]\ncertificate = \"{root}/server.crt\"\nkey = \"{root}/server.key\"\n\
             client-ca = \"{root}/ca.crt\"\n\n{roles}\n{more}",
            self.address
        );
        write_private(&self.path("service.toml"), text.as_bytes());
    }

    /// The log, where it ended instead.
    fn try_launch(&mut self) -> Result<(), String> {
        let log = new_log(self.folder.path(), "service.log");
        let config = self.path("service.toml");
        let arguments = Self::SERVE.map(OsStr::new);
        let arguments = arguments.into_iter().chain([config.as_os_str()]);
        let home = self.folder.path().as_os_str();
        let environment = [("HOME", home)];
        self.daemon = Some(Daemon::start(&self.program, arguments, &environment, &log));
        let who = self.identity("operator/fixture");
        let mut ended = false;
        eventually("the key service serves", LIMIT, || {
            ended = !self.running().is_alive();
            ended
                || self
                    .ask(Some(&who), "GET", "service", None)
                    .is_ok_and(|reply| reply.status == 200)
        });
        if ended { Err(self.log()) } else { Ok(()) }
    }

    fn running(&self) -> &Daemon {
        self.daemon.as_ref().expect("the service was stopped")
    }
}

impl Drop for KeyService {
    #[expect(
        clippy::print_stderr,
        reason = "a failed test shows what its server said"
    )]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("The key service at {} said:\n{}", self.address, self.log());
        }
    }
}
