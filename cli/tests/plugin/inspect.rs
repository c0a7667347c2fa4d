//! `plugin inspect`: what a plugin is, and the rules.

use std::path::Path;

use serde_json::{Value, json};

use super::PERMISSION_DENIED;
use super::site::Site;
use super::trials::sha256sum;

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
    assert_eq!(outcomes(&document), ["passed"; 9]);
    let options = document["options"].as_array().expect("options");
    let largest = options.iter().find(|option| option["name"] == "largest");
    assert_eq!(
        *largest.expect("declared"),
        json!({
            "name": "largest", "kind": "a whole number", "default": "65536",
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
    let document = inspect(&["--option=server=x", "--format=json"]).ok().json();
    assert_eq!(document["capabilities"], json!(["read"]));
}

#[test]
fn the_rule_that_refuses_is_shown_and_those_after_it_are_not_reached() {
    let site = Site::new();
    let jar = site.jar();
    let refused_at = |path: &str, status: i32| {
        let done = site
            .keyhaul(&["plugin", "inspect", path, "--format=json"])
            .ends(status);
        let document = done.json();
        let outcomes = outcomes(&document);
        let at = outcomes
            .iter()
            .position(|one| *one == "refused")
            .expect("one");
        assert!(outcomes[..at].iter().all(|one| *one == "passed"));
        assert!(outcomes[at + 1..].iter().all(|one| *one == "not-reached"));
        assert!(document["refused"]["advice"].is_string() || status == 24);
        document["rules"][at]["rule"]
            .as_str()
            .expect("a rule")
            .to_owned()
    };
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
    refused_at(&link, PERMISSION_DENIED);

    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plugin/broken.c");
    let other = site.compile("libother.so", &source, &["-DOF_ANOTHER_TIME"]);
    let rule = refused_at(&other, 24);
    assert!(rule.contains("version 1 of the interface"), "{rule}");

    let program = site.program("shell/folder.sh");
    mode(&program, 0o757);
    let rule = refused_at(&program, PERMISSION_DENIED);
    assert!(rule.contains("nobody else can write there"), "{rule}");
}
