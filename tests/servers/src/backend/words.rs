//! The policy's words for a store of each kind, and the servers behind them.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use serde_json::json;

use super::{Inside, Keys, Medium};
use crate::certificates::write_private;
use crate::{OpenBao, SecretService, Setup, eventually};

/// What a place is made of, as it is collected.
#[derive(Default)]
pub(super) struct Words {
    pub(super) settings: String,
    pub(super) variables: Vec<(&'static str, String)>,
    pub(super) credentials: Vec<(&'static str, Vec<u8>)>,
    pub(super) medium: Option<Medium>,
}

impl Words {
    fn set(&mut self, key: &str, value: &str) {
        // What JSON writes as a string, TOML reads as one.
        let value = json!(value);
        self.settings.push_str(&format!("{key} = {value}\n"));
    }

    pub(super) fn kernel(&mut self) -> Inside {
        let prefix = format!("keyhaul-test-{}-{}", std::process::id(), unique());
        self.set("url", "keyring+kernel:user");
        self.set("prefix", &prefix);
        self.medium = Some(Medium::Keys);
        Inside::Kernel(Keys(prefix))
    }

    pub(super) fn service(&mut self, encrypted: bool) -> Inside {
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

    pub(super) fn http(&mut self, version: u8, folder: &Path) -> Inside {
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

    pub(super) fn namespace(&mut self, folder: &Path) -> Inside {
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

    pub(super) fn approle(&mut self, folder: &Path) -> Inside {
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

    pub(super) fn environment(&mut self) -> Inside {
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
