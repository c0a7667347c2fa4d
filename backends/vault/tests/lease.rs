//! Credentials on a lease: a real database engine, over a real Redis.

mod support;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use keyhaul_core::{
    DeleteOptions, ErrorKind, Field, GetOptions, ListOptions, PutOptions, Recipe, SecretStore as _,
};
use keyhaul_servers::{Daemon, eventually, free_port};
use keyhaul_vault::VaultStore;
use serde_json::{Value, json};
use support::{fresh, path, secret, server, store, store_as};

const PASSWORD: &str = "of-the-admin";
const LIMIT: Duration = Duration::from_secs(30);

/// A Redis, and the engine `database` that makes users in it.
struct Redis {
    port: u16,
    _daemon: Daemon,
}

fn redis() -> &'static Redis {
    static REDIS: OnceLock<Redis> = OnceLock::new();
    REDIS.get_or_init(|| {
        let redis = Redis::start();
        server().write("sys/mounts/database", &json!({"type": "database"}));
        let connection = json!({
            "plugin_name": "redis-database-plugin", "host": "127.0.0.1", "port": redis.port,
            "username": "default", "password": PASSWORD, "allowed_roles": "*",
        });
        server().write("database/config/redis", &connection);
        redis
    })
}

impl Redis {
    fn start() -> Self {
        let program = program();
        for attempt in 0..5 {
            let port = free_port();
            let log = server().folder().join(format!("redis-{attempt}.log"));
            fs::write(&log, "").expect("a log");
            let port_text = port.to_string();
            let arguments = [
                "--port",
                &port_text,
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--requirepass",
                PASSWORD,
            ];
            let daemon = Daemon::start(&program, arguments, &[], &log);
            let mut up = false;
            eventually("Redis answers or ends", LIMIT, || {
                up = ask(port, "default", PASSWORD, "PING")
                    .is_ok_and(|reply| reply.contains("PONG"));
                up || !daemon.is_alive()
            });
            // Somebody else may have taken the port.
            if up && daemon.is_alive() {
                return Self {
                    port,
                    _daemon: daemon,
                };
            }
        }
        panic!("Redis does not start");
    }

    fn ask(&self, user: &str, password: &str, command: &str) -> String {
        ask(self.port, user, password, command).expect("Redis answers")
    }

    /// How many users the engine has made for a role.
    fn users_of(&self, role: &str) -> usize {
        let users = self.ask("default", PASSWORD, "ACL USERS");
        users.matches(&format!("_{}_", role.to_uppercase())).count()
    }
}

/// Redis' own program: on the PATH.
fn program() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([Path::new("/usr/bin").to_owned()])
        .map(|folder| folder.join("redis-server"))
        .find(|program| program.is_file())
        .expect("redis-server is not installed: apt-get install redis-server")
}

/// What Redis answers to a command as a user.
fn ask(port: u16, user: &str, password: &str, command: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(LIMIT))?;
    write!(stream, "AUTH {user} {password}\r\n{command}\r\nQUIT\r\n")?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply)?;
    Ok(reply)
}

/// A role of its own, and a store of what it makes.
fn role(options: &[(&str, &str)]) -> (String, VaultStore) {
    redis();
    let role = fresh("reader").replace('-', "");
    let rights = json!({
        "db_name": "redis", "creation_statements": "[\"~*\",\"+@read\",\"+ping\"]",
        "default_ttl": "1h", "max_ttl": "2h",
    });
    server().write(&format!("database/roles/{role}"), &rights);
    let mut all = vec![("engine", "leased")];
    all.extend(options);
    (role, store("database", &all))
}

#[tokio::test]
async fn a_credential_is_made_for_the_reader_and_opens_the_database() {
    let (role, store) = role(&[("field", "*")]);
    let before = SystemTime::now();
    let secret = store
        .get(&path(&format!("creds/{role}")), &GetOptions::default())
        .await
        .expect("lent");
    let map: Value = serde_json::from_slice(secret.value.expose()).expect("a map");
    let text = |name: &str| map[name].as_str().expect("text").to_owned();
    let reply = redis().ask(&text("username"), &text("password"), "PING");
    assert!(reply.contains("PONG"), "{reply}");
    let control = redis().ask(&text("username"), "another", "PING");
    assert!(control.contains("WRONGPASS"), "{control}");
    let lease = secret.metadata.lease.expect("a lease");
    assert!(
        lease.id.starts_with(&format!("database/creds/{role}/")),
        "{}",
        lease.id
    );
    assert_eq!(
        (lease.duration, lease.renewable),
        (Duration::from_secs(3600), true)
    );
    let expires = secret.metadata.expires.expect("an end");
    let hour = expires.duration_since(before).expect("later");
    assert!(
        hour >= Duration::from_secs(3600) && hour < Duration::from_secs(3660),
        "{hour:?}"
    );
}

#[tokio::test]
async fn one_reading_of_many_makes_one_credential_for_each_path() {
    let (role, store) = role(&[]);
    let at = path(&format!("creds/{role}"));
    let none = path("creds/none");
    let answers = store
        .get_many(&[at.clone(), none, at.clone()], &GetOptions::default())
        .await;
    let [one, none, two] = answers.try_into().expect("three");
    let (one, two) = (one.expect("lent"), two.expect("lent"));
    assert!(one.value == two.value && one.metadata == two.metadata);
    let error = none.expect_err("no such role");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.message().contains("unknown role"), "{error}");
    assert_eq!(redis().users_of(&role), 1);
    let user = GetOptions::default().field(Some(Field::new("username").expect("a field")));
    store.get(&at, &user).await.expect("lent");
    assert_eq!(redis().users_of(&role), 2, "another reading makes another");
}

#[tokio::test]
async fn stat_shows_the_lease_and_gives_the_credential_back() {
    let (role, as_root) = role(&[]);
    let at = path(&format!("creds/{role}"));
    let metadata = as_root
        .stat(&at, &GetOptions::default())
        .await
        .expect("stat");
    assert_eq!(
        metadata.lease.expect("a lease").duration,
        Duration::from_secs(3600)
    );
    assert_eq!(redis().users_of(&role), 0);

    // Who may not give it back is shown the lease all the same; the credential lives on.
    let policy = fresh("lender");
    server().policy(
        &policy,
        &format!("path \"database/creds/{role}\" {{ capabilities = [\"read\"] }}"),
    );
    let lender = store_as(
        &server().token(&[&policy], "1h"),
        "database",
        &[("engine", "leased")],
    );
    lender
        .stat(&at, &GetOptions::default())
        .await
        .expect("stat");
    assert_eq!(redis().users_of(&role), 1);
}

#[tokio::test]
async fn nothing_is_written_deleted_or_listed() {
    let (role, store) = role(&[]);
    let at = path(&format!("creds/{role}"));
    let unsupported = |kind: ErrorKind| assert_eq!(kind, ErrorKind::Unsupported);
    let put = store.put(&at, &secret("x"), &PutOptions::default()).await;
    unsupported(put.expect_err("no write").kind());
    let made = store
        .generate(&at, &Recipe::default(), &PutOptions::default())
        .await;
    unsupported(made.expect_err("no write").kind());
    unsupported(
        store
            .delete(&at, &DeleteOptions::default())
            .await
            .expect_err("no delete")
            .kind(),
    );
    unsupported(
        store
            .list(&path("creds"), &ListOptions::default())
            .await
            .expect_err("no list")
            .kind(),
    );
    let version =
        GetOptions::default().version(Some(keyhaul_core::Version::new("1").expect("one")));
    unsupported(
        store
            .get(&at, &version)
            .await
            .expect_err("no versions")
            .kind(),
    );
    store.probe().await.expect("reached");
    assert_eq!(redis().users_of(&role), 0);
}
