//! `plugin inspect`: what a plugin is, and the rules.

use std::path::Path;

use serde_json::{Value, json};

use super::site::Site;
use super::trials::sha256sum;
use super::{INVALID_CONFIG, PERMISSION_DENIED, TOO_LARGE};

/// What came of each rule, in order.
fn outcomes(document: &Value) -> Vec<&str> {
    let rules = document["rules"].as_array().expect("rules").iter();
    rules
        .map(|rule| rule["outcome"].as_str().expect("text"))
        .collect()
}

#[test]
fn a_library_says_what_it_is_and_takes() {
    let site = Site::new();
    let jar = site.rust_jar();
    let inspect = |more: &[&str]| site.keyhaul(&[&["plugin", "inspect", &jar], more].concat());
    let document = inspect(&["--format=json"]).ok().json();
    assert_eq!(document["kind"], "library");
    assert_eq!(document["interface"], "1.0");
    assert_eq!(document["version"], env!("CARGO_PKG_VERSION"));
    let digest = sha256sum(&site, &jar);
    assert_eq!(document["sha256"], digest);
    assert_eq!(outcomes(&document), ["passed"; 10]);
    let options = document["options"].as_array().expect("options");
    let largest = options.iter().find(|option| option["name"] == "largest");
    assert_eq!(
        *largest.expect("declared"),
        json!({
            "name": "largest", "kind": "integer", "default": "65536",
            "help": "The longest value that fits, in bytes.",
        })
    );
    let functions = document["functions"].as_array().expect("functions");
    assert!(functions.contains(&"get_many".into()), "{functions:?}");
    assert_eq!(document["max_value"], 65536);
    let text = inspect(&["--option=largest=7"]).ok();
    let text = text
        .prints(&format!("\nsha256 = \"{digest}\"\n"))
        .prints("\n  largest: a whole number [default: 65536]\n      The longest value that fits, in bytes.\n")
        .prints("\nlongest value: 7 bytes\n");
    // The line that it prints is a line of a policy that loads it.
    let line = text.out.lines().find(|line| line.starts_with("sha256 = "));
    site.policy(&format!(
        "url = \"plugin://{jar}\"\n{}",
        line.expect("a line")
    ));
    site.by_policy(&["check"]).ok();
}

#[test]
fn a_store_that_needs_options_to_open_says_so_and_the_rest_is_known() {
    let site = Site::new();
    let program = site.write(
        "needs.sh",
        "#!/bin/sh\nread -r line\necho '{\"keyhaul\":1,\"name\":\"needs\",\"version\":\"3\",\"capabilities\":[\"read\"],\
         \"options\":[{\"name\":\"server\",\"kind\":\"text\",\"required\":true,\"help\":\"Whom to ask.\"}]}'\nread -r line\n",
        0o755,
    );
    let inspect = |more: &[&str]| site.keyhaul(&[&["plugin", "inspect", &program], more].concat());
    let document = inspect(&["--format=json"]).ok().json();
    assert_eq!(document["name"], "needs");
    assert_eq!(document["interface"], "1");
    assert_eq!(
        document["options"][0],
        json!({ "name": "server", "kind": "text", "required": true, "help": "Whom to ask." })
    );
    assert_eq!(document["not_opened"]["kind"], "InvalidConfig");
    assert!(document.get("capabilities").is_none());
    assert_eq!(outcomes(&document), ["passed"; 3]);
    inspect(&[]).ok().prints("\n  server: a text, required\n");
    // A file of options with none in it gives none.
    let none = site.write("options.toml", "", 0o600);
    inspect(&["--options-file", &none]).ok();
    let document = inspect(&["--option=server=x", "--format=json"]).ok().json();
    assert_eq!(document["capabilities"], json!(["read"]));
    // What it was given is wrong: then nothing is well.
    for wrong in ["--option=servre=x", "--option=server=7"] {
        let refused = inspect(&[wrong, "--format=json"]).ends(INVALID_CONFIG);
        assert_eq!(refused.json()["not_opened"]["kind"], "InvalidConfig");
    }
}

#[test]
fn the_rule_that_refuses_is_shown_and_those_after_it_are_not_reached() {
    let site = Site::new();
    let jar = site.jar();
    let refused_of = |kind: &str, path: &str, status: i32| {
        let inspect = ["plugin", "inspect", "--kind", kind, path];
        let done = site
            .keyhaul(&[&inspect[..], &["--format=json"]].concat())
            .ends(status);
        let document = done.json();
        let outcomes = outcomes(&document);
        let at = outcomes
            .iter()
            .position(|one| *one == "refused")
            .expect("one");
        assert!(outcomes[..at].iter().all(|one| *one == "passed"));
        assert!(outcomes[at + 1..].iter().all(|one| *one == "not-reached"));
        assert!(document["refused"]["advice"].is_string() || status != PERMISSION_DENIED);
        document["rules"][at]["rule"]
            .as_str()
            .expect("a rule")
            .to_owned()
    };
    let refused_at = |path: &str, status: i32| refused_of("library", path, status);
    let mode = |path: &str, mode: u32| {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(path, mode).expect("mode");
    };
    mode(&jar, 0o775);
    let rule = refused_at(&jar, PERMISSION_DENIED);
    assert!(rule.starts_with("it is a regular file"), "{rule}");
    mode(&jar, 0o755);
    let inner = site.folder("inner");
    let copy = format!("{inner}/libjar.so");
    std::fs::copy(&jar, &copy).expect("copied");
    mode(&inner, 0o777);
    let rule = refused_at(&copy, PERMISSION_DENIED);
    assert!(rule.starts_with("every folder above it"), "{rule}");
    mode(&inner, 0o755);
    site.keyhaul(&["plugin", "inspect", &copy]).ok();
    let link = site.text("liblink.so");
    std::os::unix::fs::symlink(&jar, &link).expect("linked");
    let rule = refused_at(&link, PERMISSION_DENIED);
    assert!(rule.contains("is no link"), "{rule}");
    assert!(rule.starts_with("it is a regular file"), "{rule}");
    let rule = refused_at(&site.text("libnone.so"), INVALID_CONFIG);
    assert!(rule.starts_with("it is a regular file"), "{rule}");
    let rule = refused_at(&site.text("none/libnone.so"), INVALID_CONFIG);
    assert!(rule.starts_with("every folder above it"), "{rule}");
    let long = std::fs::File::create(site.path("liblong.so")).expect("made");
    long.set_len((256 << 20) + 1).expect("grown");
    let rule = refused_at(&site.text("liblong.so"), TOO_LARGE);
    assert!(rule.starts_with("it has at most 256 MiB"), "{rule}");

    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plugin/broken.c");
    let other = site.compile("libother.so", &source, &["-DOF_ANOTHER_TIME"]);
    let rule = refused_at(&other, 24);
    assert!(rule.contains("version 1 of the interface"), "{rule}");
    // Nobody is told to pin it; its digest is there for whoever looks for the cause.
    let text = site.keyhaul(&["plugin", "inspect", &other]).ends(24);
    let digest = sha256sum(&site, &other);
    let text = text.prints(&format!("SHA-256: {digest}\n"));
    assert!(!text.out.contains("to pin it"), "{}", text.out);

    let program = site.program("shell/folder.sh");
    mode(&program, 0o757);
    let rule = refused_of("program", &program, PERMISSION_DENIED);
    assert!(rule.contains("nobody else can write there"), "{rule}");
}
