//! Every backend does what the file store does: the same commands, the same VM, another policy file.

use keyhaul_e2e::{Disk, PASSPHRASE, Site, Vm, WRONG_PASSPHRASE, finish, finish_with};
use keyhaul_servers::{Backend, Mode, Proxy};
use serde_json::Value;

const UNAVAILABLE: i32 = 23;
const UNSUPPORTED: i32 = 24;

/// The main job, to the letter: one VM, one set of commands, and one policy file after the other.
#[test]
fn swapping_the_policy_file_is_the_only_difference() {
    let mut site = Site::new();
    let disk = site.disk(Disk::Luks);
    let objects = [
        "-object",
        "secret,id=right,ref=web01/root",
        "-object",
        "secret,id=wrong,ref=web01/wrong",
    ];
    let words = Vm::words(&site, &objects);
    let start = |site: &Site| {
        site.set("web01/root", PASSPHRASE.as_bytes());
        site.set("web01/wrong", WRONG_PASSPHRASE.as_bytes());
        let mut vm = Vm::of(site, site.run(&[], &words));
        vm.tells_right_from_wrong(Disk::Luks, &disk);
        assert!(vm.quit().success());
    };
    start(&site);
    for backend in Backend::ALL {
        site.swap(backend);
        // The secrets stayed where they were, and no VM starts without them.
        Vm::fail(&site, &[], &objects)
            .exits(125)
            .says(&["not found", "web01/root", "web01/wrong"]);
        start(&site);
        let held = site.place().holds("web01/root");
        assert_eq!(held.as_deref(), Some(PASSPHRASE.as_bytes()), "{backend:?}");
    }
}

#[test]
fn the_commands_over_the_kernels_keyring() {
    commands(Backend::Kernel);
}

#[test]
fn the_commands_over_a_secret_service() {
    commands(Backend::SecretService);
    commands(Backend::SecretServicePlain);
}

#[test]
fn the_commands_over_kv_version_1() {
    commands(Backend::VaultOne);
}

#[test]
fn the_commands_over_kv_version_2() {
    commands(Backend::VaultHttp);
}

#[test]
fn the_commands_over_tls_with_an_approle() {
    commands(Backend::VaultAppRole);
}

#[test]
fn the_commands_with_everything_from_the_environment() {
    commands(Backend::VaultEnvironment);
}

#[test]
fn the_commands_in_a_namespace() {
    commands(Backend::VaultNamespace);
}

/// Every command once, and what only some stores can do is refused by the others in so many words.
fn commands(backend: Backend) {
    let site = Site::on(backend);
    let end = |arguments: &[&str]| finish(&mut site.keyhaul(arguments));
    end(&["check"]).ok();

    // To the byte, whatever the bytes.
    let every: Vec<u8> = (0..=255).collect();
    let values: [&[u8]; 5] = [
        b"plain",
        b"line\n",
        &every,
        "ü \"\\ \u{1f511}".as_bytes(),
        b"",
    ];
    for value in values {
        site.set("web01/value", value);
        assert_eq!(site.get("web01/value"), value, "{backend:?}");
    }
    site.set("web01/value", b"canary-4711");
    assert_eq!(
        site.place().holds("web01/value").as_deref(),
        Some(&b"canary-4711"[..])
    );
    site.set("web01/data/0", b"another");
    site.set("@site/ca", b"shared");

    let listed = end(&["list"]).ok();
    for reference in ["web01/value", "web01/data/0", "@site/ca"] {
        assert!(listed.text().contains(reference), "{}", listed.text());
    }
    let stat = end(&["stat", "--format", "json", "web01/value"]).ok();
    let known: Value = serde_json::from_slice(&stat.stdout).expect("JSON");
    assert_eq!(known["version"].is_string(), backend.keeps_versions());
    for told in [&listed, &stat] {
        assert!(!told.text().contains("canary") && !told.stderr.contains("canary"));
    }

    let made = end(&["generate", "--overwrite", "--length", "40", "web01/made"]).ok();
    let value = site.get("web01/made");
    assert!(value.len() == 40 && value.iter().all(u8::is_ascii_alphanumeric));
    assert!(
        !made
            .stderr
            .contains(std::str::from_utf8(&value).expect("text"))
    );
    let create = |reference: &str| {
        let mut command = site.keyhaul(["set", "--create", reference]);
        finish_with(&mut command, b"first")
    };
    if backend.creates() {
        create("web01/first").ok();
        create("web01/first").exits(10);
        end(&["generate", "web01/made"]).exits(10);
        end(&["generate", "web01/another"]).ok();
    } else {
        create("web01/first").exits(UNSUPPORTED);
        end(&["generate", "web01/another"]).exits(UNSUPPORTED);
        end(&["get", "web01/first"]).exits(16);
    }
    if backend.keeps_versions() {
        let first = known["version"].as_str().expect("a version");
        let version = format!("web01/value?version={first}");
        site.set("web01/value", b"second");
        assert_eq!(site.get(&version), b"canary-4711");
        let mut again = site.keyhaul(["set", "web01/value", "--if-version", first]);
        finish_with(&mut again, b"third").exits(11);
    } else {
        end(&["get", "web01/value?version=1"]).exits(UNSUPPORTED);
        site.set("web01/value", b"second");
    }
    assert_eq!(site.get("web01/value"), b"second");

    resolves(&site);
    let refs = site.file("refs", "web01/value\nweb01/data/0\n");
    let refs = refs.to_str().expect("text");
    end(&["check", "--refs", refs]).ok();
    end(&["explain", "web01/value"]).ok();

    for _ in 0..2 {
        end(&["delete", "--yes", "web01/value"]).ok();
        end(&["get", "web01/value"])
            .exits(16)
            .says(&["web01/value"]);
    }
    end(&["check", "--refs", refs]).exits(16);
    let listed = end(&["list"]).ok();
    assert!(!listed.text().contains("web01/value"), "{}", listed.text());
    assert_eq!(site.get("web01/data/0"), b"another");
}

/// Objects in every form, all or none.
fn resolves(site: &Site) {
    for format in ["args", "json", "qmp", "readconfig"] {
        let resolve = |references: &[&str]| {
            let mut command = site.keyhaul(["resolve", "--format", format, "--runtime-dir"]);
            finish(command.arg(site.runtime()).args(references))
        };
        let done = resolve(&["web01/value", "zero=web01/data/0"]).ok();
        for part in ["keyid", "zero"] {
            assert!(done.text().contains(part), "{format}: {}", done.text());
        }
        assert!(!done.text().contains("another") && !done.text().contains("second"));
        let done = resolve(&["web01/value", "web01/none", "web01/nil"]).exits(16);
        assert!(done.stdout.is_empty());
        assert_eq!(done.stderr.matches("error:").count(), 2, "{}", done.stderr);
    }
}

/// The next store is asked where the first is not there, and never where it says no.
#[test]
fn a_vm_starts_from_the_second_store_while_the_first_is_down() {
    let mut site = Site::new();
    let local = std::fs::read_to_string(site.path("keyhaul.toml")).expect("the policy");
    let (local, _) = local.split_once("[[routes]]").expect("a store and a route");
    site.set("web01/root", PASSPHRASE.as_bytes());
    site.set("web01/wrong", WRONG_PASSPHRASE.as_bytes());
    site.set("web01/local", b"only here");
    let local = local.to_owned();
    site.swap(Backend::VaultHttp);
    let Some(keyhaul_servers::Medium::Tcp(server)) = site.place().medium.clone() else {
        panic!("HTTP is over TCP");
    };
    let proxy = Proxy::to(&server.to_string());
    let vault = site
        .place()
        .settings
        .replace(&server.to_string(), &proxy.address().to_string());
    site.policy(&format!(
        "{local}[stores.site]\n{vault}\n[[routes]]\nmatch = \"**\"\nstores = [\"site\", \"local\"]\n"
    ));
    let disk = site.disk(Disk::Luks);
    let objects = [
        "-object",
        "secret,id=right,ref=web01/root",
        "-object",
        "secret,id=wrong,ref=web01/wrong",
    ];
    let starts = || {
        let mut vm = Vm::start(&site, &[], &objects);
        vm.tells_right_from_wrong(Disk::Luks, &disk);
        assert!(vm.quit().success());
        vm.log()
    };
    // While the first store is there its word holds, also that there is no such secret.
    Vm::fail(&site, &[], &objects)
        .exits(125)
        .says(&["not found"]);
    proxy.set(Mode::Reset);
    let log = starts();
    assert!(log.contains("site") && log.contains("local"), "{log}");
    assert_eq!(site.get("web01/local"), b"only here");
    // Writes go to the first, or nowhere.
    finish_with(&mut site.keyhaul(["set", "web01/new"]), b"new").exits(UNAVAILABLE);
    proxy.set(Mode::Pass);
    finish(&mut site.keyhaul(["get", "web01/local"])).exits(16);
    site.set("web01/root", PASSPHRASE.as_bytes());
    site.set("web01/wrong", WRONG_PASSPHRASE.as_bytes());
    starts();
}
