//! Our reading and writing of QEMU's options, held against QEMU's own parsers.

mod support;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use keyhaul_core::qemu::option::{Options, escape};
use keyhaul_core::qemu::{CommandLine, Dialect, KeySource, MasterObject};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};
use serde_json::json;
use support::{Emulator, output};

/// Values that are likely to be misread.
fn odd_text() -> impl Strategy<Value = String> {
    prop_oneof![
        proptest::collection::vec(
            prop_oneof![
                Just(','),
                Just('='),
                Just('.'),
                Just('"'),
                Just('\''),
                Just('\\'),
                Just(' '),
                Just('{'),
                Just('%'),
                Just('a'),
                Just('\u{e4}'),
                Just('\u{1f511}'),
                Just('\n'),
            ],
            0..12,
        )
        .prop_map(String::from_iter),
        "[^\\x00]{0,20}",
    ]
}

fn samples<T>(strategy: impl Strategy<Value = T>, count: usize) -> Vec<T> {
    let mut runner = TestRunner::new(Config::default());
    (0..count)
        .map(|_| strategy.new_tree(&mut runner).expect("a value").current())
        .collect()
}

#[test]
fn qemu_reads_back_every_escaped_value() {
    let values = samples(odd_text(), 400);
    let words: Vec<_> = values
        .iter()
        .enumerate()
        .flat_map(|(n, value)| {
            [
                "-object".to_owned(),
                format!("secret,id=s{n},data={}", escape(value)),
            ]
        })
        .collect();
    let mut emulator = Emulator::start(&words).expect("accepted");
    for (n, value) in values.iter().enumerate() {
        assert_eq!(
            emulator.property(&format!("s{n}"), "data"),
            Ok(value.as_str().into())
        );
    }
}

/// Raw text, commas and all, as QEMU's monitor takes it: what QEMU accepts, we read alike.
#[test]
fn we_read_what_qemu_reads() {
    let mut emulator = Emulator::start(&[] as &[&str]).expect("started");
    let piece = prop_oneof![
        Just(",,"),
        Just(","),
        Just("="),
        Just("iv="),
        Just("format=raw"),
        Just("data="),
        Just("x"),
        Just("a.b"),
        Just("\u{e4}"),
        Just("\\"),
        Just("data=y"),
        Just(",data="),
    ];
    let texts = samples(proptest::collection::vec(piece, 0..7), 600);
    let mut accepted = 0;
    for (n, text) in texts.into_iter().enumerate() {
        let word = format!("secret,id=s{n},data={}", text.concat());
        let reply = emulator.ask(&json!({
            "execute": "human-monitor-command", "arguments": {"command-line": format!("object_add {word}")},
        }));
        if reply != Ok("".into()) {
            continue;
        }
        accepted += 1;
        let ours = Options::of_pairs(word.as_bytes(), Some("qom-type"));
        for name in ["data", "iv"] {
            // What was not given is empty.
            let theirs = emulator
                .property(&format!("s{n}"), name)
                .expect("a property");
            assert_eq!(
                ours.get(name).or(Some("")),
                theirs.as_str(),
                "{name} of {word}"
            );
        }
        assert_eq!(ours.get("qom-type"), Some("secret"));
    }
    assert!(accepted > 60, "QEMU took only {accepted}");
}

/// `-drive` has the other parser.
#[test]
fn drives_are_read_alike() {
    let folder = tempfile::tempdir().expect("folder");
    let names = samples("[a-z,=. %'\"\\\\\u{e4}]{1,12}", 60);
    let mut words = Vec::new();
    let mut paths = Vec::new();
    for (n, name) in names.iter().enumerate() {
        let path = folder.path().join(format!("{n}{name}"));
        std::fs::write(&path, [0; 512]).expect("written");
        let path = path.to_str().expect("UTF-8").to_owned();
        let word = format!(
            "if=none,id=d{n},format=raw,file={},read-only=on",
            escape(&path)
        );
        assert_eq!(
            Options::of_pairs(word.as_bytes(), None).get("file"),
            Some(path.as_str())
        );
        words.extend(["-drive".to_owned(), word]);
        paths.push(path);
    }
    let mut emulator = Emulator::start(&words).expect("accepted");
    let blocks = emulator
        .ask(&json!({"execute": "query-block"}))
        .expect("answered");
    for (n, path) in paths.iter().enumerate() {
        let device = format!("d{n}");
        let block = blocks
            .as_array()
            .and_then(|blocks| {
                blocks
                    .iter()
                    .find(|block| block["device"] == device.as_str())
            })
            .expect("the drive");
        assert_eq!(block["inserted"]["file"], path.as_str());
    }
}

#[test]
fn a_master_key_is_read_from_any_path_in_every_dialect() {
    let folder = tempfile::tempdir().expect("folder");
    for name in [
        "a,b",
        "a,,b",
        "=,",
        "{x}",
        "a b",
        "\u{e4}\u{1f511}",
        "a\\nb",
        "%d",
        "'",
        "a\"b",
    ] {
        let path = folder.path().join(name);
        std::fs::write(&path, [7; 32]).expect("written");
        let path = path.to_str().expect("UTF-8").to_owned();
        let object = MasterObject::new("m", KeySource::File(path.clone())).expect("valid");
        let mut emulators = Vec::new();
        for dialect in [Dialect::Args, Dialect::Json] {
            let rendered = object.render(dialect).expect("rendered");
            emulators.push(Emulator::start(&["-object", &rendered]).expect("accepted"));
        }
        let mut bare = Emulator::start(&[] as &[&str]).expect("started");
        bare.ask_text(&object.render(Dialect::Qmp).expect("rendered"))
            .expect("accepted");
        emulators.push(bare);
        match object.render(Dialect::Readconfig) {
            Ok(rendered) => {
                let config = folder.path().join("config");
                std::fs::write(&config, rendered).expect("written");
                let config = config.to_str().expect("UTF-8");
                emulators.push(Emulator::start(&["-readconfig", config]).expect("accepted"));
            }
            Err(error) => assert!(name.contains('"'), "{error}"),
        }
        for emulator in &mut emulators {
            assert_eq!(emulator.property("m", "file"), Ok(path.as_str().into()));
        }
    }
}

/// Whether we take the word after `option` for its value: then what follows it is no object.
fn takes_value(before: &[&str], option: &str) -> bool {
    let words: Vec<_> = before
        .iter()
        .copied()
        .chain([option, "--object", "secret,id=a,ref=v/a"])
        .map(OsString::from)
        .collect();
    CommandLine::parse(&words)
        .expect("valid")
        .references()
        .is_empty()
}

/// QEMU names the first word that is no option: the one right after a flag, or the one after that.
#[test]
fn we_know_which_options_of_the_emulator_take_a_value() {
    let help = output(Command::new("qemu-system-x86_64").arg("-help"));
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    let mut names: BTreeSet<_> = help
        .lines()
        .filter(|line| line.starts_with('-'))
        .flat_map(|line| line.split(|c: char| c.is_whitespace() || c == '/'))
        .filter_map(|word| word.strip_prefix('-'))
        .filter(|name| name.starts_with(|c: char| c.is_ascii_alphanumeric()))
        .map(|name| name.trim_end_matches(|c: char| !c.is_ascii_alphanumeric()))
        .map(|name| {
            name.split(['[', '=', ','])
                .next()
                .unwrap_or_default()
                .to_owned()
        })
        .collect();
    assert!(names.len() > 100, "the help has changed its form");
    // What the help does not list.
    names.extend(
        [
            "qtest",
            "qtest-log",
            "g",
            "prom-env",
            "semihosting-config",
            "preconfig",
            "old-param",
        ]
        .map(str::to_owned),
    );
    let mut known = 0;
    for name in &names {
        let option = format!("-{name}");
        let said = output(Command::new("qemu-system-x86_64").args([&option, "-kh1", "-kh2"]));
        let said = String::from_utf8_lossy(&said.stderr).into_owned();
        let expected = match () {
            () if said.contains("-kh1: invalid option") => false,
            () if said.contains("-kh2: invalid option") => true,
            () if said.contains(&format!("{option}: invalid option")) => continue,
            () => panic!("{option}: {said}"),
        };
        known += 1;
        assert_eq!(
            takes_value(&["qemu-system-x86_64"], &option),
            expected,
            "{option}"
        );
    }
    assert!(known > 100, "only {known} of {} are options", names.len());
}

#[test]
fn we_know_which_options_of_the_tools_take_a_value() {
    // An option at the end of the line, without the value it would take.
    let asks = |before: &[&str], option: &str| {
        let said = output(Command::new(before[0]).args(&before[1..]).arg(option));
        let said = String::from_utf8_lossy(&said.stderr).into_owned();
        let unknown = ["unrecognized option", "invalid option", "unknown option"]
            .iter()
            .any(|words| said.contains(words));
        let asked =
            said.contains("missing argument for option") || said.contains("requires an argument");
        (!unknown).then_some(asked)
    };
    let subcommands = [
        "amend", "bench", "bitmap", "check", "commit", "compare", "convert", "create", "dd",
        "info", "map", "rebase", "snapshot",
    ];
    let mut known = 0;
    for subcommand in subcommands {
        let before = ["qemu-img", subcommand];
        for letter in "abcdfgilmnopqrstuBCFOPSTUW".chars() {
            let option = format!("-{letter}");
            if let Some(expected) = asks(&before, &option) {
                known += 1;
                assert_eq!(
                    takes_value(&before, &option),
                    expected,
                    "{subcommand} {option}"
                );
            }
        }
    }
    let long = [
        "add",
        "aio",
        "backing-chain",
        "bitmap",
        "bitmaps",
        "cache",
        "connect",
        "discard",
        "disable",
        "export-name",
        "flush-interval",
        "force",
        "force-share",
        "format",
        "granularity",
        "image-opts",
        "list",
        "load-snapshot",
        "max-length",
        "merge",
        "nocache",
        "no-drain",
        "offset",
        "output",
        "pattern",
        "pid-file",
        "read-only",
        "salvage",
        "selinux-label",
        "size",
        "snapshot",
        "socket",
        "source-file",
        "source-format",
        "start-offset",
        "target-image-opts",
        "target-is-zero",
        "tls-authz",
        "tls-creds",
        "tls-hostname",
        "trace",
    ];
    let tools = subcommands.map(|subcommand| vec!["qemu-img", subcommand]);
    let tools = tools.into_iter().chain([vec!["qemu-io"], vec!["qemu-nbd"]]);
    for before in tools {
        for name in long {
            let option = format!("--{name}");
            // In qemu-img, this abbreviates a flag.
            if before[0] == "qemu-img" && name == "bitmap" {
                continue;
            }
            if let Some(expected) = asks(&before, &option) {
                known += 1;
                assert_eq!(
                    takes_value(&before, &option),
                    expected,
                    "{before:?} {option}"
                );
            }
        }
    }
    assert!(known > 150, "only {known} are options");
}

#[test]
fn qemu_takes_the_abbreviations_that_we_take() {
    let folder = tempfile::tempdir().expect("folder");
    let image = folder.path().join("x");
    let create = |option: &[&str], image: &Path| {
        output(
            Command::new("qemu-img")
                .args(["create", "-f", "raw"])
                .args(option)
                .arg(image)
                .arg("1M"),
        )
    };
    for option in [
        &["--obj", "secret,id=a,data=x"][..],
        &["--ob=secret,id=a,data=x"],
    ] {
        let made = create(option, &image);
        assert!(made.status.success(), "{made:?}");
        let words = [&["qemu-img", "create"][..], option].concat();
        let words: Vec<_> = words
            .iter()
            .map(|word| word.replace("data=x", "ref=v/a").into())
            .collect();
        assert_eq!(
            CommandLine::parse(&words)
                .expect("valid")
                .references()
                .len(),
            1
        );
    }
}
