//! The book's tables of keys say what the program knows: no key is missing, none is made up.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use keyhaul_core::StoreFactory;
use keyhaul_core::layers::{BreakerSettings, LayerSettings};
use keyhaul_core::policy::store_keys;
use keyhaul_core::registry::{OptionKind, OptionSpec};
use keyhaul_file::FileFactory;
use keyhaul_keyring::KeyringFactory;
use keyhaul_plugin_host::{PluginFactory, Rule};
use keyhaul_plugin_process::ProcessFactory;
use keyhaul_remote::client::RemoteFactory;
use keyhaul_vault::VaultFactory;

/// Each backend, and the page that describes it.
fn backends() -> [(Box<dyn StoreFactory>, &'static str); 6] {
    [
        (Box::new(FileFactory), "file-store.md"),
        (Box::new(KeyringFactory), "keyring.md"),
        (Box::new(PluginFactory::default()), "plugin-library.md"),
        (Box::new(ProcessFactory), "plugin-process.md"),
        (Box::new(RemoteFactory), "key-service.md"),
        (Box::new(VaultFactory), "vault.md"),
    ]
}

fn page(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../docs")
        .join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What stands in backticks in the first column of the tables whose first column is headed `head`.
fn keys(text: &str, head: &str) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    let mut inside = false;
    for line in text.lines() {
        let Some(row) = line.strip_prefix('|') else {
            inside = false;
            continue;
        };
        let first = row.split('|').next().unwrap_or_default().trim();
        if inside {
            keys.extend(first.split('`').skip(1).step_by(2).map(str::to_owned));
        }
        inside |= first == head;
    }
    keys
}

/// The part of `text` below the heading `heading`, up to the next of its level.
fn section<'a>(text: &'a str, heading: &str) -> &'a str {
    let (_, rest) = text
        .split_once(&format!("\n{heading}\n"))
        .unwrap_or_else(|| panic!("no heading {heading}"));
    rest.split("\n## ").next().unwrap_or(rest)
}

fn names(specs: &[OptionSpec]) -> BTreeSet<String> {
    specs.iter().map(|spec| spec.name.to_owned()).collect()
}

#[test]
fn every_option_of_every_backend_is_in_its_page_and_no_other() {
    for (factory, name) in backends() {
        let text = page(name);
        assert_eq!(keys(&text, "option"), names(factory.options()), "{name}");
        for spec in factory.options() {
            if let OptionKind::Table(inner) = spec.kind {
                let head = format!("key of `{}`", spec.name);
                assert_eq!(keys(&text, &head), names(inner), "{name}: {head}");
            }
        }
    }
}

#[test]
fn the_keys_of_every_store_are_in_the_policys_page_and_no_other() {
    let text = page("policy.md");
    let table = keys(section(&text, "## `[stores.NAME]`"), "key");
    assert_eq!(table, store_keys().map(str::to_owned).collect());
}

#[test]
fn every_scheme_is_in_the_policys_page_and_no_other() {
    let backends = backends();
    let known: BTreeSet<String> = backends
        .iter()
        .flat_map(|(factory, _)| factory.schemes())
        .map(|scheme| (*scheme).to_owned())
        .collect();
    assert_eq!(keys(&page("policy.md"), "scheme"), known);
}

#[test]
fn the_rules_for_libraries_are_in_their_page_in_order() {
    let text = page("plugin-library.md");
    let section = section(&text, "## What is loaded");
    let rows = section.lines().filter_map(|line| line.strip_prefix("| "));
    let told: Vec<&str> = rows.filter_map(|row| row.split(" | ").next()).collect();
    let rules = Rule::ALL.map(Rule::words);
    assert_eq!(told[1..], rules);
}

/// What holds where the policy is silent.
#[test]
fn the_layers_page_tells_the_defaults() {
    let text = page("layers.md");
    let has = |words: String| assert!(text.contains(&words), "{words}");
    let silent = LayerSettings::default();
    has(format!("| `timeout` | {} s |", silent.timeout.as_secs()));
    has(format!("| `retries` | {} |", silent.retries));
    has(format!("| `deadline` | {} s;", silent.deadline.as_secs()));
    let breaker = BreakerSettings::default();
    let (failures, pause) = (breaker.failures, breaker.pause.as_secs());
    has(format!("| `breaker` | {failures} failures and {pause} s "));
    let limits = VaultFactory.limits().expect("limits");
    assert_eq!(limits.rate, None);
    let at_once = limits.concurrency;
    has(format!("for Vault {at_once} at once and no rate"));
    assert_eq!(FileFactory.limits(), None);
    assert_eq!(KeyringFactory.limits(), None);
    assert_eq!(RemoteFactory.limits(), None);
}

/// The program tells the same, where the book is not at hand.
#[test]
fn help_has_every_scheme_and_option() {
    let help = Command::new(env!("CARGO_BIN_EXE_keyhaul"))
        .args(["help", "backends"])
        .output()
        .expect("started");
    assert!(help.status.success());
    let text = String::from_utf8(help.stdout).expect("text");
    let line = |opening: &str| {
        let found = text.lines().any(|line| line.trim().starts_with(opening));
        assert!(found, "{opening}\n{text}");
    };
    for (factory, _) in backends() {
        line(&factory.schemes().join(", "));
        line(factory.summary());
        for spec in factory.options() {
            line(&format!("{}: {}", spec.name, spec.kind.words()));
            line(spec.help);
            if let OptionKind::Table(inner) = spec.kind {
                inner.iter().for_each(|spec| line(spec.help));
            }
        }
    }
    assert!(store_keys().all(|key| text.lines().next().is_some_and(|line| line.contains(key))));
}

/// The control: what these tests rest on finds keys, and finds that one is missing.
#[test]
fn a_table_gives_its_first_columns_keys() {
    let text = "| option | default |\n|---|---|\n| `a`, `b` | `c` |\n\n| url |\n|---|\n| `d` |\n";
    let found = keys(text, "option");
    assert_eq!(found, BTreeSet::from(["a".to_owned(), "b".to_owned()]));
    assert_eq!(keys(text, "nothing"), BTreeSet::new());
}
