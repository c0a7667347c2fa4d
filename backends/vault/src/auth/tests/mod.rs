//! Logins at a real OpenBao.

mod keeping;
mod lives;
mod methods;
mod refusals;

use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use keyhaul_core::registry::Options;
use keyhaul_core::{ErrorKind, Result};
use keyhaul_servers::{OpenBao, Proxy};
use reqwest::Method as Verb;
use serde_json::json;
use tempfile::TempDir;

use super::token::Token;
use super::{Identity, Method, Probed, Verdict};
use crate::environment::Environment;
use crate::http::{Address, Call, Http, Manner, Settings};

const LIMIT: Duration = Duration::from_secs(20);

/// One server for all of these tests: each has mounts of its own.
fn server() -> &'static OpenBao {
    static SERVER: OnceLock<OpenBao> = OnceLock::new();
    SERVER.get_or_init(|| {
        let server = OpenBao::dev();
        server.kv("apps", 1);
        server.write("apps/web", &json!({"value": "opened"}));
        server.policy("reader", "path \"apps/*\" { capabilities = [\"read\"] }");
        server
    })
}

/// A folder with credentials in files.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("folder"))
    }

    /// Writes a private file: its source.
    fn write(&self, name: &str, text: &str) -> String {
        use std::io::Write;
        let path = self.0.path().join(name);
        let mut options = std::fs::OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = file.open(&path).expect("opened");
        file.write_all(text.as_bytes()).expect("written");
        format!("file:{}", path.display())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

fn options(keys: &[(&str, &str)]) -> Options {
    Options::at("keyhaul.toml:1:1", keys.iter().copied())
}

fn method(keys: &[(&str, &str)]) -> Method {
    Method::from_options(&options(keys)).expect("a method")
}

fn http(address: &str) -> Arc<Http> {
    http_with(address, &[])
}

fn http_with(address: &str, keys: &[(&str, &str)]) -> Arc<Http> {
    let address = Address::parse(address, "it").expect("an address");
    let settings = Settings::new(Some(address), &options(keys), &Environment::of(&[]));
    Arc::new(Http::new(settings.expect("settings")))
}

fn identity(http: &Arc<Http>, method: Method) -> Identity {
    Identity::new(Arc::clone(http), method, Environment::of(&[]))
}

/// A proxy in front of the shared server, which counts requests, and a wire through it.
fn watched() -> (Proxy, Arc<Http>) {
    let proxy = Proxy::to(server().address());
    let http = http(&format!("http://{}", proxy.address()));
    (proxy, http)
}

fn count(proxy: &Proxy, request: &str) -> usize {
    let requests = proxy.requests();
    requests.iter().filter(|line| *line == request).count()
}

const LOOKUP: &str = "GET /v1/auth/token/lookup-self";
const RENEWAL: &str = "POST /v1/auth/token/renew-self";

/// A role of the shared server that may read, and the method to log in by it.
fn approle(files: &Files, mount: &str, options: &serde_json::Value) -> Method {
    let server = server();
    server.enable_auth("approle", mount);
    let role_id = server.approle(mount, "web", options);
    let role_id = files.write("role-id", &format!("{role_id}\n"));
    let secret_id = files.write("secret-id", &server.secret_id(mount, "web"));
    method(&[
        ("method", "approle"),
        ("mount", mount),
        ("role-id", &role_id),
        ("secret-id", &secret_id),
    ])
}

/// Reads `path` as a store does: with the identity's token, and once more where that was dead.
async fn read(http: &Http, identity: &Identity, path: &str) -> Result<()> {
    let token = identity.token(None).await?;
    let status = status(http, &token, path).await?;
    if status != 403 {
        assert_eq!(status, 200, "{path}");
        return Ok(());
    }
    match identity.denied(&token, None).await? {
        Verdict::Denied => Err(denied()),
        Verdict::Again(token) => match self::status(http, &token, path).await? {
            200 => Ok(()),
            _ => match identity.denied(&token, None).await? {
                Verdict::Denied => Err(denied()),
                Verdict::Again(_) => panic!("a new token after each refusal"),
            },
        },
    }
}

fn denied() -> keyhaul_core::Error {
    keyhaul_core::Error::new(ErrorKind::PermissionDenied, "denied")
}

async fn status(http: &Http, token: &Token, path: &str) -> Result<u16> {
    let manner = Manner {
        token: Some(token.value()),
        ..Manner::default()
    };
    let answer = http.send(Call::new(Verb::GET, path).manner(manner)).await?;
    Ok(answer.status)
}

fn text(token: &Token) -> String {
    String::from_utf8(token.value().expose().to_vec()).expect("a token is text")
}

/// Asks again and again until `condition` holds.
async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !condition().await {
        assert!(start.elapsed() < LIMIT, "{what}: not within {LIMIT:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
