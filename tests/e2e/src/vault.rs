//! Sites on a Vault mount of their own, in which every path has a value of its own: a wrong value would
//! show.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use keyhaul_servers::OpenBao;
use serde_json::json;

use crate::{Finished, Site, Vm, finish, opened};

fn unique() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    format!("apps{}", NUMBER.fetch_add(1, Ordering::Relaxed))
}

/// The value of the secret of this number in a mount.
pub fn value(mount: &str, number: usize) -> Vec<u8> {
    format!("{mount}: what number {number} opens").into_bytes()
}

/// A mount of its own with `count` secrets, `web01/0` and on, and a policy that may read them.
pub fn filled(server: &OpenBao, count: usize) -> String {
    let mount = unique();
    server.kv(&mount, 2);
    let write = |number| {
        let text = String::from_utf8(value(&mount, number)).expect("text");
        let body = json!({"data": {"value": text}});
        (format!("{mount}/data/web01/{number}"), body)
    };
    server.write_all(&(0..count).map(write).collect::<Vec<_>>());
    server.policy(
        &mount,
        &format!("path \"{mount}/*\" {{ capabilities = [\"read\", \"list\"] }}"),
    );
    mount
}

/// A policy with one store: a mount at an address, with more lines for it.
pub fn name_store(site: &Site, address: &str, mount: &str, lines: &str) {
    site.policy(&format!(
        "version = 1\n[stores.site]\nurl = \"vault+{address}/{mount}\"\n{lines}\n[[routes]]\nmatch = \"**\"\nstore = \"site\"\n"
    ));
}

/// A site with such a policy, and a token from a file.
pub fn with_token(address: &str, mount: &str, token: &str, lines: &str) -> Site {
    let site = Site::new();
    let source = private(&site, "token", token);
    let auth = format!("auth = {{ method = \"token\", token = \"{source}\" }}\n{lines}");
    name_store(&site, address, mount, &auth);
    site
}

/// A file for its owner alone, as a policy names it.
pub fn private(site: &Site, name: &str, text: &str) -> String {
    let path = site.file(name, text);
    fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("its mode");
    format!("file:{}", path.display())
}

/// Reads the secret of this number with a deadline.
pub fn get(site: &Site, number: usize, deadline: &str) -> Finished {
    let reference = format!("web01/{number}");
    finish(&mut site.keyhaul(["--deadline", deadline, "get", &reference]))
}

/// The command that resolves the first `count` secrets at once.
pub fn resolve(site: &Site, count: usize) -> Command {
    let mut command = site.keyhaul(["resolve", "--format", "json", "--runtime-dir"]);
    command.arg(site.runtime());
    command.args((0..count).map(|number| format!("s{number}=web01/{number}")));
    command
}

/// Every one of the first `count` values, and no other.
#[track_caller]
pub fn has_all(done: &Finished, mount: &str, count: usize) {
    let values = opened(done.text());
    assert_eq!(values.len(), count);
    for number in 0..count {
        assert_eq!(values[&format!("s{number}")], value(mount, number));
    }
}

/// Nothing was handed out, not even in part.
#[track_caller]
pub fn has_none(done: &Finished, site: &Site) {
    assert!(done.stdout.is_empty(), "{:?}", done.stdout.escape_ascii());
    assert_eq!(site.key_folders(), Vec::<PathBuf>::new());
}

/// A VM that needs a secret does not start, and says why.
#[track_caller]
pub fn starts_no_vm(site: &Site, words: &[&str]) {
    Vm::fail(site, &[], &["-object", "secret,id=s,ref=web01/0"])
        .exits(125)
        .says(words);
}
