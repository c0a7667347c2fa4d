//! `plugin list`: the plugins of a policy.

use serde_json::Value;

use super::PERMISSION_DENIED;
use super::broken::broken_as;
use super::site::Site;
use super::trials::sha256sum;

#[test]
fn each_plugin_of_the_policy_is_listed_with_its_digest() {
    let site = Site::new();
    let (jar, folder) = (site.jar(), site.folder("kept"));
    let (digest, program) = (sha256sum(&site, &jar), site.program("shell/folder.sh"));
    site.policy(&format!(
        "url = \"plugin://{jar}\"\nsha256 = \"{digest}\"\n\
         [stores.even]\nurl = \"plugin+exec://{program}\"\nargs = [\"{folder}\"]\n\
         [stores.files]\nurl = \"file://{folder}/no-plugin\"\nidentity = \"file:{folder}/no.key\""
    ));
    let list = |more: &[&str]| site.by_policy(&[&["plugin", "list"], more].concat());
    let document = list(&["--format=json"]).ok().json();
    let plugins = document["plugins"].as_array().expect("plugins");
    let by_name = |name: &str| -> &Value {
        let found = plugins.iter().find(|plugin| plugin["store"] == name);
        found.expect("listed")
    };
    assert_eq!(plugins.len(), 2);
    let odd = by_name("odd");
    assert_eq!(
        (&odd["kind"], &odd["name"]),
        (&"library".into(), &"jar-in-c".into())
    );
    assert_eq!(
        (&odd["sha256"], &odd["pinned"]),
        (&digest.clone().into(), &true.into())
    );
    assert_eq!(
        (&odd["loads"], &odd["version"]),
        (&true.into(), &"1.0".into())
    );
    assert_eq!(odd["capabilities"][0], "read");
    let even = by_name("even");
    assert_eq!(
        (&even["kind"], &even["name"]),
        (&"program".into(), &"folder".into())
    );
    assert_eq!(even["sha256"], sha256sum(&site, &program));
    list(&[])
        .ok()
        .prints("store:   odd\n")
        .prints(&format!("SHA-256: {digest} (pinned)\n"));
}

#[test]
fn one_that_does_not_load_says_why_and_the_others_are_listed() {
    let site = Site::new();
    let (jar, rust) = (site.jar(), site.rust_jar());
    let pin = "0".repeat(64);
    site.policy(&format!(
        "url = \"plugin://{jar}\"\nsha256 = \"{pin}\"\n[stores.other]\nurl = \"plugin://{rust}\""
    ));
    let list = site.by_policy(&["plugin", "list"]).ends(PERMISSION_DENIED);
    let list = list.prints("loads:   no\n").prints("loads:   yes\n");
    list.prints("is not the one that the policy pins")
        .prints(&sha256sum(&site, &jar));
    let document = site.by_policy(&["plugin", "list", "--format=json"]);
    let document = document.ends(PERMISSION_DENIED).json();
    assert_eq!(document["plugins"][0]["error"]["kind"], "PermissionDenied");
    assert_eq!(document["plugins"][0]["loads"], false);
}

/// Each is looked at in a process of its own.
#[test]
fn whatever_one_does_when_it_is_loaded_the_others_are_listed() {
    let site = Site::new();
    let stores = ["CRASHES_AT_LOAD", "EXITS_AT_LOAD", "HANGS_AT_LOAD"].map(|mistake| {
        let path = broken_as(&site, &format!("lib{mistake}.so"), mistake);
        format!("[stores.{mistake}]\nurl = \"plugin://{path}\"\n")
    });
    let jar = site.jar();
    let folder = site.text("secrets");
    site.policy(&format!(
        "url = \"plugin://{jar}\"\n{}[stores.files]\nurl = \"file://{folder}\"\nidentity = \"file:{folder}.key\"\n",
        stores.concat()
    ));
    let list = |more: &[&str]| {
        let arguments = ["plugin", "list", "--format=json", "--deadline=10s"];
        site.by_policy(&[&arguments, more].concat())
    };
    let done = list(&[]).ends(super::MIXED);
    let document = done.json();
    let plugins = document["plugins"].as_array().expect("plugins").iter();
    let told: Vec<_> = plugins
        .map(|plugin| (text(&plugin["store"]), text(&plugin["error"]["kind"])))
        .collect();
    let expected = [
        ("CRASHES_AT_LOAD", "Internal"),
        ("EXITS_AT_LOAD", "Internal"),
        ("HANGS_AT_LOAD", "Timeout"),
        ("odd", ""),
    ];
    assert_eq!(told, expected, "{}", done.words);

    let document = list(&["odd", "odd"]).ok().json();
    assert_eq!(document["plugins"].as_array().map(Vec::len), Some(1));
    list(&["files"])
        .ends(super::INVALID_CONFIG)
        .says("store `files` is a file store, and no plugin");
    list(&["odd", "even"])
        .ends(super::INVALID_CONFIG)
        .says("has no store `even`")
        .says("its plugins are: CRASHES_AT_LOAD, EXITS_AT_LOAD, HANGS_AT_LOAD, odd");
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[test]
fn a_policy_without_plugins_says_so() {
    let site = Site::new();
    let folder = site.text("secrets");
    site.policy(&format!(
        "url = \"file://{folder}\"\nidentity = \"file:{folder}.key\""
    ));
    let done = site
        .by_policy(&["plugin", "list"])
        .ok()
        .says("names no plugin");
    assert_eq!(done.out, "");
    let empty = site
        .by_policy(&["plugin", "list", "--format=json"])
        .ok()
        .json();
    assert_eq!(empty["plugins"].as_array().map(Vec::len), Some(0));
    site.write(
        "keyhaul.toml",
        "version = 1\n[stores.odd]\nurl = \"plugni:///x\"\n",
        0o600,
    );
    site.by_policy(&["plugin", "list"])
        .ends(super::INVALID_CONFIG)
        .says("plugin");
}
