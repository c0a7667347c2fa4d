//! What tests fill a server with. All of it panics where the server refuses.

use serde_json::{Value, json};

use super::OpenBao;

impl OpenBao {
    /// Mounts a key-value engine, version 1 or 2, and waits until it is ready.
    pub fn kv(&self, mount: &str, version: u8) {
        let options = json!({"type": "kv", "options": {"version": version.to_string()}});
        self.write(&format!("sys/mounts/{mount}"), &options);
        // A new engine of version 2 refuses requests while it prepares its storage.
        if version == 2 {
            crate::wait::eventually("the engine is ready", super::LIMIT, || {
                let config = format!("{mount}/config");
                self.request("GET", &config, self.root_token(), None).status == 200
            });
        }
    }

    /// Writes many things as root, over one connection: paths and bodies.
    pub fn write_all(&self, writes: &[(String, Value)]) {
        let token = [("X-Vault-Token", self.root_token())];
        let statuses = self.curl.ask_all("POST", &token, writes);
        let statuses = statuses.unwrap_or_else(|error| panic!("{error}\n{}", self.log()));
        assert_eq!(statuses.len(), writes.len());
        assert!(statuses.iter().all(|status| *status < 300), "{statuses:?}");
    }

    /// Makes a namespace. In paths, it stands first: `NAME/sys/mounts`.
    pub fn namespace(&self, name: &str) {
        self.write(&format!("sys/namespaces/{name}"), &json!({}));
    }

    /// Writes a policy.
    pub fn policy(&self, name: &str, hcl: &str) {
        self.write(&format!("sys/policies/acl/{name}"), &json!({"policy": hcl}));
    }

    /// Makes a token with these policies, renewable, for `ttl` (`1h`).
    pub fn token(&self, policies: &[&str], ttl: &str) -> String {
        let made = self.token_with(&json!({"policies": policies, "ttl": ttl}));
        made["client_token"].as_str().expect("a token").to_owned()
    }

    /// Makes a token as `auth/token/create` takes it: `auth` of the answer.
    pub fn token_with(&self, options: &Value) -> Value {
        self.write("auth/token/create", options)["auth"].clone()
    }

    /// Revokes a token and all that it made.
    pub fn revoke(&self, token: &str) {
        self.write("auth/token/revoke", &json!({"token": token}));
    }

    /// Enables a way to log in, at a path of its own.
    pub fn enable_auth(&self, method: &str, mount: &str) {
        self.write(&format!("sys/auth/{mount}"), &json!({"type": method}));
    }

    /// Makes a role for AppRole, with the options of `auth/approle/role`: its role id.
    pub fn approle(&self, mount: &str, role: &str, options: &Value) -> String {
        let path = format!("auth/{mount}/role/{role}");
        self.write(&path, options);
        text(&self.read(&format!("{path}/role-id")), "/data/role_id")
    }

    /// Makes a secret id for a role of AppRole.
    pub fn secret_id(&self, mount: &str, role: &str) -> String {
        let path = format!("auth/{mount}/role/{role}/secret-id");
        text(&self.write(&path, &json!({})), "/data/secret_id")
    }

    /// Makes a secret id that is wrapped for `ttl`: the wrapping token.
    pub fn wrapped_secret_id(&self, mount: &str, role: &str, ttl: &str) -> String {
        let path = format!("auth/{mount}/role/{role}/secret-id");
        let headers = [("X-Vault-Wrap-TTL", ttl)];
        let none = json!({});
        let reply = self.request_with("POST", &path, self.root_token(), &headers, Some(&none));
        reply.text("/wrap_info/token")
    }

    /// Makes a user.
    pub fn userpass(&self, mount: &str, user: &str, password: &str, options: &Value) {
        let mut options = options.clone();
        options["password"] = Value::from(password);
        self.write(&format!("auth/{mount}/users/{user}"), &options);
    }

    /// Lets clients with a certificate of `authority_pem` log in under the role `role`.
    pub fn cert(&self, mount: &str, role: &str, authority_pem: &str, options: &Value) {
        let mut options = options.clone();
        options["certificate"] = Value::from(authority_pem);
        self.write(&format!("auth/{mount}/certs/{role}"), &options);
    }

    /// Trusts JSON web tokens signed by a key, and makes a role with the options of
    /// `auth/jwt/role`.
    pub fn jwt(&self, mount: &str, public_key_pem: &str, role: &str, options: &Value) {
        let keys = json!({"jwt_validation_pubkeys": [public_key_pem]});
        self.write(&format!("auth/{mount}/config"), &keys);
        self.write(&format!("auth/{mount}/role/{role}"), options);
    }
}

fn text(answer: &Value, pointer: &str) -> String {
    let text = answer.pointer(pointer).and_then(Value::as_str);
    text.unwrap_or_else(|| panic!("no text at {pointer}"))
        .to_owned()
}
