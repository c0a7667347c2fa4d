//! A secret from a real gnome-keyring, beside libsecret's own tool.

use std::process::{Command, Stdio};

use keyhaul_servers::SecretService;

use crate::ground::Ground;
use crate::measure::{Row, in_blocks, millis};

const ROUNDS: usize = 31;

pub fn rows(ground: &Ground) -> Vec<Row> {
    let service = SecretService::start();
    ["plain", "dh"]
        .map(|session| row(ground, &service, session))
        .into()
}

fn row(ground: &Ground, service: &SecretService, session: &str) -> Row {
    let policy = format!(
        "version = 1\n\n[stores.desktop]\nurl = \"keyring+secret-service:\"\nbus = \"{}\"\n\
         session = \"{session}\"\n\n[[routes]]\nmatch = \"**\"\nstore = \"desktop\"\n",
        service.address()
    );
    let policy = ground.policy(&format!("keyring-{session}.toml"), &policy);
    let keyhaul = |words: &[&str]| {
        let mut command = ground.keyhaul();
        command.arg("--config").arg(&policy).args(words);
        command
    };
    let made = keyhaul(&["generate", "--overwrite", "web01/disk-0"])
        .stderr(Stdio::null())
        .status();
    assert!(made.expect("keyhaul").success(), "keyhaul generate");
    let mut tool = Command::new("secret-tool");
    tool.env("DBUS_SESSION_BUS_ADDRESS", service.address());
    tool.args(["lookup", "service", "keyhaul", "username", "web01/disk-0"]);
    let [ours, tool] = in_blocks(ROUNDS, 5, [keyhaul(&["get", "web01/disk-0"]), tool]);
    let ratio = tool.as_secs_f64() / ours.as_secs_f64();
    let least = if session == "plain" { 3.0 } else { 1.0 };
    Row {
        what: format!("get from a Secret Service, session {session}, cold"),
        measured: millis(ours),
        beside: format!("secret-tool lookup {}, {ratio:.1} times", millis(tool)),
        target: match session {
            "plain" => "at least 3 times faster".into(),
            _ => "not slower".into(),
        },
        met: Some(ratio >= least),
    }
}
