//! Logins that a person makes, against a real OpenBao: the token is in the kernel's keyring while it
//! lasts, and the commands that follow use it.

use keyhaul_e2e::{Finished, Site, at_terminal, finish, finish_with};
use keyhaul_servers::{OpenBao, Proxy};
use serde_json::{Value, json};

const CONFIG: i32 = 14;
const DENIED: i32 = 17;
const UNAUTHENTICATED: i32 = 22;
const UNAVAILABLE: i32 = 23;

const PASSWORD: &str = "canary-password-52";
const USERPASS: &str = "auth = { method = \"userpass\", username = \"ada\" }";

/// A server with one secret, and a user who may read it.
struct Bank {
    server: OpenBao,
    /// Between it and keyhaul, to see what is asked.
    proxy: Proxy,
}

impl Bank {
    fn new() -> Self {
        let server = OpenBao::dev();
        let body = json!({"data": {"value": "hunter2"}});
        server.write("secret/data/web01/root", &body);
        server.policy(
            "reader",
            "path \"secret/data/*\" { capabilities = [\"read\"] }",
        );
        server.enable_auth("userpass", "userpass");
        let options = json!({"token_policies": ["reader"], "token_ttl": "10m"});
        server.userpass("userpass", "ada", PASSWORD, &options);
        let proxy = Proxy::to(server.address());
        Self { server, proxy }
    }

    /// A site whose policy has this store, and the kept login of which goes with it.
    fn site(&self, auth: &str) -> Visitor {
        let site = Site::new();
        site.policy(&format!(
            "version = 1\n{}\n[[routes]]\nmatch = \"**\"\nstore = \"site\"\n",
            self.store("site", auth)
        ));
        Visitor(site)
    }

    fn store(&self, name: &str, auth: &str) -> String {
        let address = self.proxy.address();
        format!("[stores.{name}]\nurl = \"vault+http://{address}/secret\"\n{auth}\n")
    }

    /// How often somebody logged in so far.
    fn logins(&self) -> usize {
        self.asked("/v1/auth/userpass/login/")
    }

    fn asked(&self, part: &str) -> usize {
        let requests = self.proxy.requests();
        requests.iter().filter(|line| line.contains(part)).count()
    }

    /// Whether a token with this accessor lives.
    fn knows(&self, accessor: &str) -> bool {
        let asked = json!({"accessor": accessor});
        let path = "auth/token/lookup-accessor";
        let token = self.server.root_token();
        let reply = self.server.request("POST", path, token, Some(&asked));
        reply.status == 200
    }
}

/// A site that logs out when it is gone: the kernel's keyring is everybody's.
struct Visitor(Site);

impl Visitor {
    fn keyhaul(&self, arguments: &[&str]) -> Finished {
        finish(&mut self.0.keyhaul(arguments))
    }

    fn login(&self, arguments: &[&str], answer: &str) -> Finished {
        let mut command = self.0.keyhaul(["login"]);
        finish_with(command.args(arguments), answer.as_bytes())
    }
}

impl Drop for Visitor {
    fn drop(&mut self) {
        for store in ["site", "other"] {
            self.keyhaul(&["logout", store]);
        }
    }
}

fn report(done: &Finished) -> Value {
    serde_json::from_str(done.text()).expect("JSON")
}

#[test]
fn a_password_at_a_prompt_is_asked_for_once_a_day() {
    let bank = Bank::new();
    let site = bank.site(USERPASS);
    let first = site.keyhaul(&["get", "web01/root"]).exits(UNAUTHENTICATED);
    first.says(&["keyhaul login"]);
    assert_eq!(bank.logins(), 0);

    let asked = "Password of ada at site";
    let typed = format!("{PASSWORD}\n");
    let done = at_terminal(&site.0, &[], &["login"], &[(asked, &typed)]);
    assert_eq!(done.status, 0, "{}", done.seen);
    assert!(!done.seen.contains(PASSWORD) && done.echoes);
    assert!(done.seen.contains("logged in to site"), "{}", done.seen);
    assert!(done.seen.contains("reader"), "{}", done.seen);
    assert_eq!(bank.logins(), 1);

    for _ in 0..3 {
        let done = site.keyhaul(&["get", "web01/root"]).ok();
        assert_eq!(done.stdout, b"hunter2");
    }
    // What it may not is denied, and no reason to log in.
    site.keyhaul(&["delete", "--yes", "web01/root"])
        .exits(DENIED);
    assert_eq!(bank.logins(), 1);

    site.keyhaul(&["logout"]).ok().says(&["logged out of site"]);
    site.keyhaul(&["get", "web01/root"]).exits(UNAUTHENTICATED);
    let again = site.keyhaul(&["logout"]).ok();
    again.says(&["no kept login for site"]);
    assert_eq!(bank.logins(), 1);
}

#[test]
fn logging_out_revokes_at_the_server_and_a_new_login_the_one_before() {
    let bank = Bank::new();
    let site = bank.site(USERPASS);
    let login = || {
        // One newline, with or without a carriage return, is no part of a password.
        let done = site.login(&["--format", "json"], &format!("{PASSWORD}\r\n"));
        let report = report(&done.ok());
        assert_eq!(report["store"], "site");
        assert_eq!(report["renewable"], true);
        assert_eq!(report["policies"], json!(["default", "reader"]));
        assert!(report["expires"].is_string());
        assert!(!report.to_string().contains(PASSWORD));
        report["accessor"].as_str().expect("text").to_owned()
    };
    let first = login();
    assert!(bank.knows(&first));
    let second = login();
    assert!(bank.knows(&second) && !bank.knows(&first));
    site.keyhaul(&["logout"]).ok();
    assert!(!bank.knows(&second));
}

#[test]
fn a_login_that_the_server_ended_is_told_from_none() {
    let bank = Bank::new();
    let site = bank.site(USERPASS);
    let done = site.login(&["--format", "json"], PASSWORD).ok();
    let accessor = report(&done)["accessor"].clone();
    let path = "auth/token/revoke-accessor";
    bank.server.write(path, &json!({"accessor": accessor}));
    let done = site.keyhaul(&["get", "web01/root"]);
    done.exits(UNAUTHENTICATED).says(&["keyhaul login"]);
    // And a new one mends it.
    site.login(&[], PASSWORD).ok();
    site.keyhaul(&["get", "web01/root"]).ok();
}

#[test]
fn a_wrong_password_keeps_nothing_and_shows_nothing() {
    let bank = Bank::new();
    let site = bank.site(USERPASS);
    let wrong = "canary-wrong-91";
    let done = site.login(&[], wrong).exits(UNAUTHENTICATED);
    done.says_nothing_of(&[wrong]);
    site.keyhaul(&["get", "web01/root"]).exits(UNAUTHENTICATED);
    // A login that holds is not lost by a wrong one after it.
    site.login(&[], PASSWORD).ok();
    site.login(&[], wrong).exits(UNAUTHENTICATED);
    site.keyhaul(&["get", "web01/root"]).ok();

    for nothing in ["", "\n"] {
        let done = site.login(&[], nothing).exits(CONFIG);
        done.says(&["nothing was entered"]);
    }
    let shy = ["login", "--non-interactive"];
    let done = at_terminal(&site.0, &[], &shy, &[]);
    assert_eq!(done.status, i64::from(CONFIG), "{}", done.seen);
}

#[test]
fn a_token_is_taken_from_standard_input_or_a_file() {
    let bank = Bank::new();
    let site = bank.site("");
    site.keyhaul(&["get", "web01/root"]).exits(UNAUTHENTICATED);
    let token = bank.server.token(&["reader"], "10m");
    let done = site.login(&[], &format!("{token}\n")).ok();
    done.says(&["logged in to site", "reader"])
        .says_nothing_of(&[&token]);
    assert_eq!(site.keyhaul(&["get", "web01/root"]).ok().stdout, b"hunter2");
    site.keyhaul(&["logout"]).ok();
    let dead = site.login(&[], &token).exits(UNAUTHENTICATED);
    dead.says_nothing_of(&[&token]);

    let token = bank.server.token(&["reader"], "10m");
    let file = site.0.file("token", &token);
    let from = ["--from", file.to_str().expect("text")];
    site.login(&from, "").ok();
    site.keyhaul(&["get", "web01/root"]).ok();
    site.login(&["--from", "no-such-file"], "")
        .exits(CONFIG)
        .says(&["no-such-file"]);
}

#[test]
fn the_store_is_named_where_there_is_a_choice() {
    let bank = Bank::new();
    let site = bank.site(USERPASS);
    let file = site.0.path("data/secrets").display().to_string();
    let both = format!(
        "version = 1\n{}{}[stores.local]\nurl = \"file://{file}\"\n[[routes]]\nmatch = \"**\"\nstore = \"site\"\n",
        bank.store("site", USERPASS),
        bank.store("other", ""),
    );
    site.0.policy(&both);
    let done = site.login(&[], PASSWORD).exits(CONFIG);
    done.says(&["several Vault stores", "other, site"]);
    site.login(&["site"], PASSWORD).ok();
    site.keyhaul(&["get", "web01/root"]).ok();
    // The other is another identity.
    let done = site.keyhaul(&["logout", "other"]).ok();
    done.says(&["no kept login for other"]);
    site.keyhaul(&["get", "web01/root"]).ok();
    let done = site.login(&["local"], PASSWORD).exits(CONFIG);
    done.says(&["`local` is a file store"]);
    let done = site.login(&["nosuch"], PASSWORD).exits(CONFIG);
    done.says(&["no store `nosuch`", "other, site"]);

    // A policy without any.
    let plain = Site::new();
    for command in ["login", "logout"] {
        let done = finish(&mut plain.keyhaul([command])).exits(CONFIG);
        done.says(&["no Vault store"]);
    }
}

#[test]
fn a_server_that_is_away_is_told_and_the_login_is_kept() {
    let bank = Bank::new();
    let site = bank.site(USERPASS);
    site.login(&[], PASSWORD).ok();
    bank.proxy.set(keyhaul_servers::Mode::Reset);
    site.keyhaul(&["logout"]).exits(UNAVAILABLE);
    bank.proxy.set(keyhaul_servers::Mode::Pass);
    // To be tried again: nothing was revoked, and nothing is forgotten.
    site.keyhaul(&["get", "web01/root"]).ok();
    site.keyhaul(&["logout"]).ok().says(&["logged out of site"]);
    assert_eq!(bank.logins(), 1);
}
