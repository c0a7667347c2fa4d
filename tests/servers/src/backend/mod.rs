//! The kinds of stores that a policy can name, each with all that it takes to be there: what tests
//! run over every backend stand on.

mod words;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use words::Words;

use crate::{OpenBao, SecretService};

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
