//! One TLS, one provider of cryptography, one HTTP client: a second one that a dependency drags in
//! would double what starts, what is audited and what must be patched.

use std::collections::BTreeSet;
use std::process::Command;

const ONCE: [&str; 6] = [
    "aws-lc-rs",
    "aws-lc-sys",
    "hyper",
    "reqwest",
    "rustls",
    "rustls-webpki",
];
const NEVER: [&str; 5] = [
    "native-tls",
    "openssl",
    "openssl-sys",
    "ring",
    "rustls-openssl",
];

type Tree = BTreeSet<(String, String)>;

/// Name and version of every crate in the whole workspace, the tests' included, on this platform.
fn tree() -> Tree {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--workspace", "--locked", "--offline"])
        .args(["--prefix=none", "--format={p}", "--edges=normal,build,dev"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo tree: {complaint}");
    let text = String::from_utf8(output.stdout).expect("text");
    let named = |line: &str| {
        let (name, rest) = line.split_once(" v")?;
        Some((name.to_owned(), rest.split_whitespace().next()?.to_owned()))
    };
    text.lines().filter_map(named).collect()
}

/// What breaks the rule, if anything.
fn broken(tree: &Tree) -> Vec<String> {
    let versions = |name: &str| -> Vec<&str> {
        let of_name = tree.iter().filter(|(found, _)| found == name);
        of_name.map(|(_, version)| version.as_str()).collect()
    };
    let once = ONCE.iter().map(|name| (name, 1, versions(name)));
    let never = NEVER.iter().map(|name| (name, 0, versions(name)));
    once.chain(never)
        .filter(|(_, wanted, found)| found.len() != *wanted)
        .map(|(name, wanted, found)| format!("{name}: {found:?} instead of {wanted}"))
        .collect()
}

#[test]
fn there_is_one_of_each() {
    let tree = tree();
    assert_eq!(broken(&tree), Vec::<String>::new());

    // Controls: a second version, and one that must not be.
    for (name, version) in [
        ("rustls", "0.19.1"),
        ("ring", "0.17.14"),
        ("openssl", "0.10.0"),
    ] {
        let mut worse = tree.clone();
        worse.insert((name.to_owned(), version.to_owned()));
        assert_eq!(broken(&worse).len(), 1, "{name}");
    }
    let without = tree.iter().filter(|(name, _)| name != "reqwest").cloned();
    assert_eq!(broken(&without.collect()).len(), 1);
}

#[test]
fn this_build_is_without_the_slow_source_of_entropy() {
    // From `.cargo/config.toml`; docs/adr/0011-tls.md has the reason.
    assert_eq!(option_env!("AWS_LC_SYS_NO_JITTER_ENTROPY"), Some("1"));
}
