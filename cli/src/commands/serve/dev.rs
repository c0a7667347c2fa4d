//! A key service to try things out: an authority, certificates, a store, a policy for each role.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use keyhaul_core::{Error, ErrorKind, Policy, Result, random};
use keyhaul_remote::pki::{Authority, Record, Subject};

use crate::failure::Outcome;
use crate::output;

const NAME: &str = "dev";
/// Whoever tries things out has certificates of his own, under these roles.
const CLIENTS: [(&str, &str); 4] = [
    ("manager", "manager"),
    ("operator", "operator"),
    ("node-a", "node"),
    ("node-b", "node"),
];
const LIFETIME: Duration = Duration::from_secs(30 * 86_400);
/// A certificate that lasts no longer than this is renewed.
const LEAST: SignedDuration = SignedDuration::from_hours(7 * 24);

/// A folder with all that a service needs.
pub struct Site {
    folder: PathBuf,
}

impl Site {
    /// Makes what is not there yet. What is there, secrets and grants included, stays.
    pub fn prepare(folder: &Path, listen: SocketAddr) -> Outcome<Self> {
        let mut builder = DirBuilder::new();
        let made = builder.recursive(true).mode(0o700).create(folder);
        let whole = made.and_then(|()| fs::canonicalize(folder));
        let folder = whole.map_err(|error| Error::io(folder.display(), error))?;
        let site = Self { folder };
        site.certify(listen)?;
        site.write("store.toml", &site.store()?)?;
        site.write("service.toml", &service(listen))?;
        let path = site.path("store.toml");
        let policy = Policy::load(&keyhaul_core::policy::Location::File(path))?;
        if let Some(entry) = policy.stores.get("local") {
            keyhaul_file::initialise(&entry.config)?;
        }
        Ok(site)
    }

    /// The service's configuration.
    pub fn config(&self) -> PathBuf {
        self.path("service.toml")
    }

    /// Writes each role's policy, now that it is known where the service listens.
    pub fn lead_to(&self, addresses: &[SocketAddr]) -> Outcome {
        let address = first(addresses)?;
        for (name, _) in CLIENTS {
            self.write(&format!("{name}.toml"), &self.client(name, address)?)?;
        }
        Ok(())
    }

    /// Prints what to type.
    pub fn announce(&self, addresses: &[SocketAddr]) -> Outcome {
        let address = first(addresses)?;
        let folder = output::shell_quoted(self.folder.as_os_str());
        output::line(format_args!(
            "A key service to try things out. In another terminal:

  cd {}

An operator sets a value, and cannot read it:
  echo hunter2 | keyhaul --config operator.toml set --strip-newline web01/root-disk
A manager lets node-a read web01, and cannot read it:
  keyhaul --config manager.toml grant web01 node-a
node-a reads it; node-b is refused:
  keyhaul --config node-a.toml get web01/root-disk
  keyhaul --config node-b.toml get web01/root-disk
Who can, and without keyhaul:
  keyhaul --config manager.toml who-can web01/root-disk
  curl --cacert pki/ca.pem --cert pki/manager.pem --key pki/manager.key https://{address}/v1/grants",
            folder.display(),
        ))?;
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn certify(&self, listen: SocketAddr) -> Result<()> {
        let pki = self.path("pki");
        let authority = match Authority::open(&pki) {
            Err(error) if error.kind() == ErrorKind::InvalidConfig => {
                Authority::create(&pki, NAME)?
            }
            other => other?,
        };
        let issued = authority.list()?;
        let mut ips = vec![
            IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(Ipv6Addr::LOCALHOST),
        ];
        if !listen.ip().is_unspecified() && !ips.contains(&listen.ip()) {
            ips.push(listen.ip());
        }
        let server = Subject::server("server", vec!["localhost".to_owned()], ips.clone());
        let covers = |record: &Record| ips.iter().all(|ip| record.ips.contains(ip));
        self.ensure(&authority, &issued, &server, covers)?;
        for (name, role) in CLIENTS {
            let subject = Subject::client(name, format!("spiffe://{NAME}/{role}/{name}"));
            self.ensure(&authority, &issued, &subject, |_| true)?;
        }
        Ok(())
    }

    /// A certificate that will do for a while.
    fn ensure(
        &self,
        authority: &Authority,
        issued: &[Record],
        subject: &Subject,
        fits: impl Fn(&Record) -> bool,
    ) -> Result<()> {
        let stem = subject.stem();
        let latest = issued.iter().rfind(|record| record.stem == stem);
        let Some(live) = latest.filter(|record| record.is_live()) else {
            return authority.issue(subject, LIFETIME).map(drop);
        };
        let there = |end: &str| self.path(&format!("pki/{stem}.{end}")).exists();
        if !fits(live) {
            authority.revoke(stem)?;
            authority.issue(subject, LIFETIME)?;
        } else if live.expires.duration_since(Timestamp::now()) < LEAST
            || !there("pem")
            || !there("key")
        {
            authority.renew(stem, LIFETIME)?;
        }
        Ok(())
    }

    /// What the service serves.
    fn store(&self) -> Result<String> {
        let url = url::Url::from_file_path(self.path("secrets")).map_err(|()| not_utf8())?;
        let identity = self.text("identity")?;
        Ok(format!(
            "version = 1\n\n[stores.local]\nurl = {}\nidentity = {}\ncreate = true\n\n[[routes]]\nmatch = \"**\"\nstore = \"local\"\n",
            literal(url.as_str()),
            literal(&format!("file:{identity}")),
        ))
    }

    /// A policy that leads to the service, with the certificate of `name`.
    fn client(&self, name: &str, address: SocketAddr) -> Result<String> {
        Ok(format!(
            "version = 1\n\n[stores.keys]\nurl = {}\nca-cert = {}\nclient-cert = {}\nclient-key = {}\n\n[[routes]]\nmatch = \"**\"\nstore = \"keys\"\n",
            literal(&format!("keyhaul+https://{address}")),
            literal(&self.text("pki/ca.pem")?),
            literal(&self.text(&format!("pki/{name}.pem"))?),
            literal(&format!("file:{}", self.text(&format!("pki/{name}.key"))?)),
        ))
    }

    fn text(&self, name: &str) -> Result<String> {
        let path = self.path(name).into_os_string().into_string();
        path.map_err(|_| not_utf8())
    }

    /// Replaces a file, whole.
    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.path(name);
        let temporary = self.path(&format!(".{name}.{}", random::hex(8)?));
        let write = || {
            let mut options = OpenOptions::new();
            let options = options.write(true).create_new(true).mode(0o600);
            let mut file: File = options.open(&temporary)?;
            file.write_all(text.as_bytes())?;
            fs::rename(&temporary, &path)
        };
        write().map_err(|error| {
            let _ = fs::remove_file(&temporary);
            Error::io(path.display(), error)
        })
    }
}

/// The service's configuration; paths in it are relative to it.
fn service(listen: SocketAddr) -> String {
    format!(
        r#"version = 1
listen = ["{listen}"]
policy = "store.toml"
state = "service.db"
audit = "audit.jsonl"

[tls]
certificate = "pki/server.pem"
key = "pki/server.key"
client-ca = "pki/ca.pem"
crl = "pki/crl.pem"

[[roles]]
uri = "spiffe://{NAME}/manager/{{name}}"
role = "manager"

[[roles]]
uri = "spiffe://{NAME}/node/{{name}}"
role = "node"

[[roles]]
uri = "spiffe://{NAME}/operator/{{name}}"
role = "operator"
"#
    )
}

/// Where the policies lead.
fn first(addresses: &[SocketAddr]) -> Result<SocketAddr> {
    let first = addresses.first().copied().map(reachable);
    first.ok_or_else(|| Error::new(ErrorKind::Internal, "the service listens nowhere"))
}

/// Where a client on this machine finds a service that listens everywhere.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => (Ipv4Addr::LOCALHOST, address.port()).into(),
        IpAddr::V6(ip) if ip.is_unspecified() => (Ipv6Addr::LOCALHOST, address.port()).into(),
        _ => address,
    }
}

/// A TOML string: what JSON writes as one, TOML reads as one.
fn literal(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn not_utf8() -> Error {
    Error::new(ErrorKind::InvalidConfig, "the folder's path is not UTF-8")
        .with_advice("name another by --folder")
}
