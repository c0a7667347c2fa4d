//! The kinds of stores that a policy can name, each with all that it takes to be there: what tests
//! run over every backend stand on.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use serde_json::json;

use crate::certificates::write_private;
use crate::{OpenBao, SecretService, Setup, eventually};

/// A kind of store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// The user keyring of the kernel.
    Kernel,
    /// gnome-keyring, with values encrypted on the bus.
    SecretService,
    /// gnome-keyring, with values in the clear on the bus.
    SecretServicePlain,
    /// KV version 2 over TLS by a private authority, with a client certificate and an AppRole.
    VaultAppRole,
    /// The same server, with everything but the mount from `VAULT_…` variables, the token included.
    VaultEnvironment,
    /// KV version 2 over HTTP, with a token from a file.
    VaultHttp,
    /// The same in a namespace.
    VaultNamespace,
    /// KV version 1 over HTTP.
    VaultOne,
}

/// What carries values in the clear on their way to a store, where something does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Medium {
    /// The kernel's own calls for keys.
    Keys,
    /// Connections to this address.
    Tcp(SocketAddr),
    /// Connections to this socket.
    Unix(PathBuf),
}

/// An empty store of a kind, with nobody else in it, gone with the handle.
#[derive(Debug)]
pub struct Place {
    backend: Backend,
    /// The lines of the policy that are the store's own.
    pub settings: String,
    /// What must be in the environment.
    pub variables: Vec<(&'static str, String)>,
    /// What opens the store, each with its name: as secret as the values.
    pub credentials: Vec<(&'static str, Vec<u8>)>,
    /// What carries values in the clear.
    pub medium: Option<Medium>,
    inside: Inside,
}

/// Where its values are for programs other than keyhaul. Keeps what is there alive.
#[derive(Debug)]
enum Inside {
    Kernel(Keys),
    Service(Arc<SecretService>, String),
    /// The path before the secret's, and the value's place in the answer.
    Vault(&'static OpenBao, String, &'static str),
}

impl Backend {
    /// Every kind.
    pub const ALL: [Self; 8] = [
        Self::Kernel,
        Self::SecretService,
        Self::SecretServicePlain,
        Self::VaultAppRole,
        Self::VaultEnvironment,
        Self::VaultHttp,
        Self::VaultNamespace,
        Self::VaultOne,
    ];

    /// Whether it can write a secret only where there is none yet.
    pub fn creates(self) -> bool {
        !matches!(
            self,
            Self::SecretService | Self::SecretServicePlain | Self::VaultOne
        )
    }

    /// Whether it keeps old versions.
    pub fn keeps_versions(self) -> bool {
        matches!(
            self,
            Self::VaultAppRole | Self::VaultEnvironment | Self::VaultHttp | Self::VaultNamespace
        )
    }

    /// An empty store of this kind. What opens it goes to files in `folder`, for their owner alone.
    ///
    /// # Panics
    /// Where a server or a program is missing, or refuses.
    pub fn place(self, folder: &Path) -> Place {
        let mut words = Words::default();
        let inside = match self {
            Self::Kernel => words.kernel(),
            Self::SecretService => words.service(true),
            Self::SecretServicePlain => words.service(false),
            Self::VaultAppRole => words.approle(folder),
            Self::VaultEnvironment => words.environment(),
            Self::VaultHttp => words.http(2, folder),
            Self::VaultNamespace => words.namespace(folder),
            Self::VaultOne => words.http(1, folder),
        };
        let Words {
            settings,
            variables,
            credentials,
            medium,
        } = words;
        Place {
            backend: self,
            settings,
            variables,
            credentials,
            medium,
            inside,
        }
    }
}

impl Place {
    /// Of which kind it is.
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// A policy in which this store, `site`, serves everything.
    pub fn policy(&self) -> String {
        format!(
            "version = 1\n\n[stores.site]\n{}\n[[routes]]\nmatch = \"**\"\nstore = \"site\"\n",
            self.settings
        )
    }

    /// What is stored at a path, asked of the store by another program than keyhaul.
    pub fn holds(&self, path: &str) -> Option<Vec<u8>> {
        match &self.inside {
            Inside::Kernel(keys) => keys.read(path),
            Inside::Service(service, name) => {
                let asked = ["lookup", "service", name, "username", path];
                let done = service.command("secret-tool").args(asked).output();
                let done = done.unwrap_or_else(|error| panic!("secret-tool: {error}"));
                done.status.success().then_some(done.stdout)
            }
            Inside::Vault(server, before, value) => {
                let path = format!("{before}/{path}");
                let reply = server.request("GET", &path, server.root_token(), None);
                let text = reply.json.pointer(value)?.as_str()?;
                Some(text.as_bytes().to_vec())
            }
        }
    }
}

/// What a place is made of, as it is collected.
#[derive(Default)]
struct Words {
    settings: String,
    variables: Vec<(&'static str, String)>,
    credentials: Vec<(&'static str, Vec<u8>)>,
    medium: Option<Medium>,
}

impl Words {
    fn set(&mut self, key: &str, value: &str) {
        // What JSON writes as a string, TOML reads as one.
        let value = json!(value);
        self.settings.push_str(&format!("{key} = {value}\n"));
    }

    fn kernel(&mut self) -> Inside {
        let prefix = format!("keyhaul-test-{}-{}", std::process::id(), unique());
        self.set("url", "keyring+kernel:user");
        self.set("prefix", &prefix);
        self.medium = Some(Medium::Keys);
        Inside::Kernel(Keys(prefix))
    }

    fn service(&mut self, encrypted: bool) -> Inside {
        let service = secret_service();
        self.set("url", "keyring+secret-service:");
        self.set("bus", &service.address());
        let name = format!("keyhaul-{}", unique());
        self.set("service", &name);
        if !encrypted {
            self.set("session", "plain");
            self.medium = Some(Medium::Unix(service.bus().socket()));
        }
        Inside::Service(service, name)
    }

    fn http(&mut self, version: u8, folder: &Path) -> Inside {
        let server = development_server();
        let mount = unique();
        server.kv(&mount, version);
        server.policy(&mount, &rights(&mount));
        let token = server.token(&[&mount], "1h");
        self.over_http(server, &mount);
        self.token(&token, folder);
        match version {
            1 => Inside::Vault(server, mount, "/data/value"),
            _ => version_two(server, &mount),
        }
    }

    fn namespace(&mut self, folder: &Path) -> Inside {
        let server = development_server();
        let name = unique();
        server.namespace(&name);
        let mount = json!({"type": "kv", "options": {"version": "2"}});
        server.write(&format!("{name}/sys/mounts/apps"), &mount);
        eventually("the engine is ready", crate::openbao::LIMIT, || {
            let config = format!("{name}/apps/config");
            let reply = server.request("GET", &config, server.root_token(), None);
            reply.status == 200
        });
        let policy = json!({"policy": rights("apps")});
        server.write(&format!("{name}/sys/policies/acl/site"), &policy);
        let asked = json!({"policies": ["site"], "ttl": "1h"});
        let made = server.write(&format!("{name}/auth/token/create"), &asked);
        let token = made["auth"]["client_token"].as_str().expect("a token");
        self.over_http(server, "apps");
        self.set("namespace", &name);
        self.token(token, folder);
        version_two(server, &format!("{name}/apps"))
    }

    fn over_http(&mut self, server: &OpenBao, mount: &str) {
        self.set("url", &format!("vault+{}/{mount}", server.address()));
        let address = server.address().trim_start_matches("http://");
        let address = address.parse().expect("an address with a port");
        self.medium = Some(Medium::Tcp(address));
    }

    /// A token in a file.
    fn token(&mut self, token: &str, folder: &Path) {
        let path = folder.join(format!("{}.token", unique()));
        write_private(&path, token.as_bytes());
        self.settings.push_str(&format!(
            "auth = {{ method = \"token\", token = \"file:{}\" }}\n",
            path.display()
        ));
        self.credentials.push(("the token", token.into()));
    }

    fn approle(&mut self, folder: &Path) -> Inside {
        let server = tls_server();
        let mount = unique();
        server.kv(&mount, 2);
        server.policy(&mount, &rights(&mount));
        server.enable_auth("approle", &mount);
        let role = json!({"token_policies": [mount], "token_ttl": "1h"});
        let role_id = server.approle(&mount, "site", &role);
        let secret_id = server.secret_id(&mount, "site");
        let file = |name: &str, text: &str| {
            let path = folder.join(format!("{mount}.{name}"));
            write_private(&path, text.as_bytes());
            path.display().to_string()
        };
        let role_file = file("role-id", &role_id);
        let secret_file = file("secret-id", &secret_id);
        let (certificate, key) = server.client_certificate(&mount);
        self.set("url", &format!("vault+{}/{mount}", server.address()));
        self.set("ca-cert", &server.ca_path().display().to_string());
        self.set("client-cert", &certificate.display().to_string());
        self.set("client-key", &key.display().to_string());
        self.settings.push_str(&format!(
            "auth = {{ method = \"approle\", mount = \"{mount}\", role-id = \"file:{role_file}\", secret-id = \"file:{secret_file}\" }}\n"
        ));
        self.credentials.push(("the secret-id", secret_id.into()));
        self.client_key(&key);
        version_two(server, &mount)
    }

    fn environment(&mut self) -> Inside {
        let server = tls_server();
        let mount = unique();
        server.kv(&mount, 2);
        server.policy(&mount, &rights(&mount));
        let token = server.token(&[&mount], "1h");
        let (certificate, key) = server.client_certificate(&mount);
        self.set("url", &format!("vault:{mount}"));
        self.variables = vec![
            ("VAULT_ADDR", server.address().to_owned()),
            ("VAULT_CACERT", server.ca_path().display().to_string()),
            ("VAULT_CLIENT_CERT", certificate.display().to_string()),
            ("VAULT_CLIENT_KEY", key.display().to_string()),
            ("VAULT_TOKEN", token.clone()),
        ];
        self.credentials.push(("the token", token.into()));
        self.client_key(&key);
        version_two(server, &mount)
    }

    /// The secret number in a key of P-256, as it stands in PKCS#8 and in its PEM text.
    fn client_key(&mut self, path: &Path) {
        const BEFORE: [u8; 5] = [0x02, 0x01, 0x01, 0x04, 0x20];
        let done = Command::new("openssl")
            .args(["pkcs8", "-topk8", "-nocrypt", "-outform", "DER", "-in"])
            .arg(path)
            .output()
            .unwrap_or_else(|error| panic!("openssl: {error}: apt-get install openssl"));
        let at = done
            .stdout
            .windows(BEFORE.len())
            .position(|bytes| bytes == BEFORE)
            .expect("a key of P-256")
            + BEFORE.len();
        let number = done.stdout[at..at + 32].to_vec();
        self.credentials.push(("the client's key", number));
    }
}

/// Keys of the kernel that begin with this, taken away in the end.
#[derive(Debug)]
struct Keys(String);

impl Keys {
    fn read(&self, path: &str) -> Option<Vec<u8>> {
        let wanted = format!("{}:{path}", self.0);
        let (key, _) = self.all().into_iter().find(|(_, name)| *name == wanted)?;
        Some(keyctl(&["pipe", &key]))
    }

    /// Their numbers and descriptions.
    fn all(&self) -> Vec<(String, String)> {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).trim().to_owned();
        let listed = text(keyctl(&["rlist", "@u"]));
        let described = listed.split_whitespace().filter_map(|key| {
            // TYPE;UID;GID;PERMISSIONS;DESCRIPTION
            let described = text(keyctl(&["rdescribe", key]));
            let name = described.splitn(5, ';').nth(4)?.to_owned();
            name.starts_with(&self.0).then(|| (key.to_owned(), name))
        });
        described.collect()
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        for (key, _) in self.all() {
            keyctl(&["unlink", &key, "@u"]);
        }
    }
}

fn keyctl(arguments: &[&str]) -> Vec<u8> {
    let done = Command::new("keyctl").args(arguments).output();
    let done = done.unwrap_or_else(|error| panic!("keyctl: {error}: apt-get install keyutils"));
    done.stdout
}

fn version_two(server: &'static OpenBao, mount: &str) -> Inside {
    Inside::Vault(server, format!("{mount}/data"), "/data/data/value")
}

/// All that a store needs of its mount, and nothing beyond it.
fn rights(mount: &str) -> String {
    format!(
        "path \"{mount}/*\" {{\n  capabilities = [\"create\", \"read\", \"update\", \"patch\", \"delete\", \"list\"]\n}}\n"
    )
}

fn unique() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    format!("site{}", NUMBER.fetch_add(1, Ordering::Relaxed))
}

/// The development server that all of a test program's places share.
fn development_server() -> &'static OpenBao {
    static SERVER: OnceLock<OpenBao> = OnceLock::new();
    SERVER.get_or_init(OpenBao::dev)
}

/// The server with TLS that they share. It wants client certificates.
fn tls_server() -> &'static OpenBao {
    static SERVER: OnceLock<OpenBao> = OnceLock::new();
    SERVER.get_or_init(|| Setup::tls().require_client_certificates().start())
}

/// The Secret Service that those share who have it at the same time: its processes would outlive a
/// `static`.
fn secret_service() -> Arc<SecretService> {
    static SERVICE: Mutex<Weak<SecretService>> = Mutex::new(Weak::new());
    let mut kept = SERVICE.lock().unwrap_or_else(PoisonError::into_inner);
    kept.upgrade().unwrap_or_else(|| {
        let service = Arc::new(SecretService::start());
        *kept = Arc::downgrade(&service);
        service
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn every_place_has_a_policy_of_its_own_and_its_credentials_are_private() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut policies = Vec::new();
        for backend in Backend::ALL {
            let [one, other] = [backend.place(folder.path()), backend.place(folder.path())];
            assert_ne!(one.settings, other.settings, "{backend:?}");
            policies.push(one.policy());
            policies.push(other.policy());
            for (name, bytes) in &one.credentials {
                assert!(bytes.len() >= 16, "{name}");
            }
        }
        for entry in fs::read_dir(folder.path()).expect("a folder") {
            let found = entry.and_then(|entry| entry.metadata()).expect("an entry");
            assert_eq!(found.permissions().mode() & 0o077, 0);
        }
        policies.dedup();
        assert_eq!(policies.len(), 16);
    }
}
