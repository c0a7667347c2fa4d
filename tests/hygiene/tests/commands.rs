//! The canary goes through every command. It comes out of `get`, and nowhere else.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use keyhaul_hygiene::terminal::Terminal;
use keyhaul_hygiene::trace::Trace;
use keyhaul_hygiene::{House, Needle, assert_clean, search};

#[test]
fn only_get_tells_the_secret() {
    let house = House::new();
    let canary = house.canary().bytes().to_vec();
    let file = house.canary_file().display().to_string();
    house.succeeds(&["set", "web01/root", "--from", &file], b"");
    house.also_store_keys();
    house.succeeds(
        &["set", "web01/piped", "--create", "--label", "use=test"],
        &canary,
    );
    let line = [canary.as_slice(), b"\n"].concat();
    house.succeeds(
        &["set", "web01/piped", "--strip-newline", "--if-version", "1"],
        &line,
    );
    house.succeeds(&["set", "web01/line", "--expires", "90d"], &line);

    assert_eq!(house.tells(&["get", "web01/root"]).stdout, canary);
    assert_eq!(
        house.tells(&["get", "web01/piped?version=1"]).stdout,
        canary
    );
    house.tells(&["get", "web01/line", "--format", "json"]);

    let refs = house.write("refs", "web01/root\nweb01/piped\nweb01/line\n");
    let refs = refs.display().to_string();
    for format in ["text", "json"] {
        house.succeeds(&["list", "--format", format], b"");
        house.succeeds(&["list", "--store", "default", "--format", format], b"");
        house.succeeds(&["stat", "web01/line", "--format", format], b"");
        house.succeeds(&["explain", "web01/root", "--format", format], b"");
        house.succeeds(&["check", "--refs", &refs, "--format", format], b"");
        house.succeeds(&["store", "recipients", "--format", format], b"");
    }
    let runtime_dir = house.runtime_dir();
    for format in ["args", "json", "qmp", "readconfig"] {
        let wanted = ["web01/root", "other=web01/piped", "--format", format];
        let done = house.succeeds(
            &[&["resolve", "--runtime-dir", &runtime_dir], &wanted[..]].concat(),
            b"",
        );
        let words = done.words();
        let (_, folder) = words
            .rsplit_once("--release ")
            .expect("the way to take it away");
        house.succeeds(&["resolve", "--release", folder.trim()], b"");
    }
    let object = "secret,id=root,ref=web01/root";
    house.succeeds(
        &[
            "run",
            "--dry-run",
            "--",
            "qemu-img",
            "info",
            "--object",
            object,
            "x",
        ],
        b"",
    );
    house.succeeds(&["completions", "bash"], b"");
    house.succeeds(&["help", "exit-codes"], b"");
    let pages = house.inside().join("tmp").display().to_string();
    house.succeeds(&["man", "--output", &pages], b"");

    house.succeeds(&["store", "init"], b"");
    let recovery = house.outside().join("recovery").display().to_string();
    // Made outside: the recovery identity is to be kept apart.
    let recipient = fs::read_to_string(made_by(&house, &recovery)).expect("its recipient");
    house.succeeds(&["store", "rewrap", "--recipient", recipient.trim()], b"");
    let source = format!("file:{recovery}");
    house.succeeds(&["store", "rewrap", "--identity", &source], b"");
    house.tells(&["get", "web01/root"]);

    let all = ["delete", "--yes", "web01/root", "web01/piped", "web01/line"];
    house.succeeds(&all, b"");
    house.end(&[]);
}

/// Makes a recovery identity, untraced since it lies outside; the file its recipient was put into.
fn made_by(house: &House, identity: &str) -> std::path::PathBuf {
    let (status, out, words) =
        keyhaul_hygiene::program::finish(&mut house.keyhaul(&["store", "identity", identity]), b"");
    assert!(status.success(), "{}", String::from_utf8_lossy(&words));
    for needle in keyhaul_hygiene::store::identity(identity.as_ref()) {
        assert_clean(&search("standard output", &out, &[&needle]));
        assert_clean(&search("standard error", &words, &[&needle]));
        house.also(needle);
    }
    let file = house.outside().join("recipient");
    fs::write(&file, out).expect("written");
    file
}

#[test]
fn a_generated_secret_is_told_by_nobody_not_even_its_maker() {
    let house = House::new();
    let mut made = Vec::new();
    for (name, alphabet) in [("a", "alphanumeric"), ("b", "bytes"), ("c", "hex")] {
        let reference = format!("web01/{name}");
        let words = [
            "generate",
            &reference,
            "--length",
            "48",
            "--alphabet",
            alphabet,
        ];
        made.push((reference.clone(), house.succeeds(&words, b"")));
    }
    for (reference, done) in made {
        let value = house.run(&["get", &reference], b"").stdout;
        let needle = Needle::new(&reference, &value);
        assert_clean(&done.scan(&[&needle]));
        house.also(needle);
    }
    house.succeeds(&["generate", "web01/a", "--overwrite"], b"");
    house.end(&[]);
}

#[test]
fn a_secret_typed_at_the_prompt_is_never_shown() {
    let house = House::new();
    let canary = [house.canary().bytes(), b"\r"].concat();
    let (mut command, file) = house.traced::<&str>(&[]);
    // Without --non-interactive, which is the second last word.
    let program = command
        .get_args()
        .take_while(|word| *word != "-vvvv")
        .map(Into::into);
    let words: Vec<std::ffi::OsString> = program.collect();
    command = house.furnish(std::process::Command::new("strace"));
    command.args(words).args(["-vvvv", "set", "web01/typed"]);
    let mut terminal = Terminal::start(command);
    terminal.expect("Value of web01/typed: ", 1);
    // At once: the echo must be off before the question is seen.
    terminal.type_in(&canary);
    terminal.expect("The same again: ", 1);
    terminal.type_in(&canary);
    let (status, screen) = terminal.end();
    assert!(status.success(), "{}", String::from_utf8_lossy(&screen));
    assert_clean(&search("the screen", &screen, &[house.canary()]));
    assert_clean(
        &Trace::read(&file)
            .expect("a trace")
            .scan(&[house.canary()], |_| false),
    );
    assert_eq!(
        house.tells(&["get", "web01/typed"]).stdout,
        house.canary().bytes()
    );
    house.end(&[]);
}

#[test]
fn with_audit_and_encodings_only_the_clear_text_store_holds_it_in_the_clear() {
    let house = House::new();
    let (plain, coded) = (house.inside().join("plain"), house.inside().join("coded"));
    for folder in [&plain, &coded] {
        fs::create_dir(folder).expect("folder");
        fs::set_permissions(folder, PermissionsExt::from_mode(0o700)).expect("mode");
    }
    let policy = house.write("keyhaul.toml", policy(&house));
    let policy = policy.display().to_string();
    let canary = house.canary().bytes().to_vec();
    for scope in ["sealed", "hex", "plain", "coded"] {
        let reference = format!("{scope}/root");
        let with = |words: &[&str]| -> Vec<String> {
            let words = words.iter().map(ToString::to_string);
            ["--config".to_owned(), policy.clone()]
                .into_iter()
                .chain(words)
                .collect()
        };
        if ["plain", "coded"].contains(&scope) {
            // In the clear on purpose: the control for files, and for what strace sees.
            let done = house.run(&with(&["set", &reference]), &canary);
            assert!(done.status.success(), "{}", done.words());
            assert!(
                !done.scan(&[house.canary()]).is_empty(),
                "{scope}: strace saw no clear text"
            );
            assert_clean(&search("standard error", &done.stderr, &[house.canary()]));
        } else {
            house.succeeds(&with(&["set", &reference]), &canary);
        }
        house.succeeds(&with(&["stat", &reference]), b"");
        house.succeeds(&with(&["list"]), b"");
        assert_eq!(house.tells(&with(&["get", &reference])).stdout, canary);
    }
    for folder in [&plain, &coded] {
        let found = keyhaul_hygiene::files::scan(folder, &[], &[house.canary()]);
        assert_eq!(found.expect("readable").len(), 1, "{}", folder.display());
    }
    let audit = fs::read_to_string(house.inside().join("audit.jsonl")).expect("an audit");
    assert!(audit.lines().count() >= 12, "{audit}");
    house.end(&[&plain, &coded]);
}

fn policy(house: &House) -> String {
    let inside = house.inside().display();
    format!(
        r#"
version = 1
[audit]
path = "{inside}/audit.jsonl"
[stores.sealed]
url = "file://{inside}/sealed"
identity = "file:{inside}/identity"
create = true
[stores.plain]
url = "file+plain://{inside}/plain"
[stores.coded]
url = "file+plain://{inside}/coded"
[[routes]]
match = "plain/**"
store = "plain"
[[routes]]
match = "coded/**"
store = "coded"
encoding = "base64"
[[routes]]
match = "hex/**"
store = "sealed"
encoding = "hex"
[[routes]]
match = "**"
store = "sealed"
"#
    )
}
