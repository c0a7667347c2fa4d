//! The least policy that keyhaul prints, given to a real OpenBao: enough, and no more.

use keyhaul_e2e::{Finished, Site, finish, finish_with};
use keyhaul_servers::OpenBao;
use serde_json::json;

const DENIED: i32 = 17;

/// A site with a policy of three routes to a Vault, one of them to a field.
fn site(server: &OpenBao) -> Site {
    let site = Site::new();
    let address = server.address();
    site.policy(&format!(
        "version = 1\n\
         [stores.site]\nurl = \"vault+{address}/secret\"\nauth = {{ method = \"token\", token = \"env:SITE_TOKEN\" }}\n\
         [[routes]]\nmatch = \"web01/**\"\nstore = \"site\"\npath = \"vms/{{scope}}/{{name}}\"\n\
         [[routes]]\nmatch = \"@site/ceph\"\nstore = \"site\"\npath = \"shared/ceph\"\nfield = \"key\"\n\
         [[routes]]\nmatch = \"all/**\"\nstore = \"site\"\npath = \"{{name}}\"\n"
    ));
    site
}

fn keyhaul(site: &Site, token: &str, arguments: &[&str]) -> Finished {
    finish_with(
        site.keyhaul(arguments).env("SITE_TOKEN", token),
        b"new value",
    )
}

#[test]
fn the_printed_policy_is_enough_and_no_more() {
    let server = OpenBao::dev();
    let site = site(&server);
    // Without the route that reaches everything.
    let policy = std::fs::read_to_string(site.path("keyhaul.toml")).expect("the policy");
    let (narrow, _) = policy.rsplit_once("[[routes]]").expect("a last route");
    for (path, field) in [
        ("vms/web01/root", "value"),
        ("vms/web01/luks/0", "value"),
        ("shared/ceph", "key"),
        ("vms/web02/root", "value"),
        ("shared/other", "key"),
    ] {
        let body = json!({"data": {field: path}});
        server.write(&format!("secret/data/{path}"), &body);
    }

    // Printed without a token: it asks no server.
    site.policy(narrow);
    let read = finish(&mut site.keyhaul(["check", "--vault-policy"])).ok();
    let written = ["check", "--vault-policy", "--write"];
    let write = finish(&mut site.keyhaul(written)).ok();
    server.policy("read", read.text());
    server.policy("write", write.text());
    let reader = server.token(&["read"], "10m");
    let writer = server.token(&["write"], "10m");

    for token in [&reader, &writer] {
        let root = keyhaul(&site, token, &["get", "web01/root"]).ok();
        assert_eq!(root.stdout, b"vms/web01/root");
        let deep = keyhaul(&site, token, &["get", "web01/luks/0"]).ok();
        assert_eq!(deep.stdout, b"vms/web01/luks/0");
        let ceph = keyhaul(&site, token, &["get", "@site/ceph"]).ok();
        assert_eq!(ceph.stdout, b"shared/ceph");
    }
    // More than that the reader may not, neither here nor beside it.
    keyhaul(&site, &reader, &["set", "web01/root"]).exits(DENIED);
    keyhaul(&site, &reader, &["delete", "--yes", "web01/root"]).exits(DENIED);

    keyhaul(&site, &writer, &["set", "web01/root"]).ok();
    keyhaul(&site, &writer, &["set", "web01/new", "--label", "a=b"]).ok();
    keyhaul(&site, &writer, &["generate", "web01/made"]).ok();
    keyhaul(&site, &writer, &["set", "@site/ceph"]).ok();
    let listed = keyhaul(&site, &writer, &["list", "web01"]).ok();
    assert!(
        listed.text().contains("web01/new") && listed.text().contains("web01/made"),
        "{}",
        listed.text()
    );
    keyhaul(&site, &writer, &["delete", "--yes", "web01/new"]).ok();
    let stat = keyhaul(&site, &writer, &["stat", "web01/root"]).ok();
    assert!(stat.text().contains('2'), "{}", stat.text());

    site.policy(&policy);
    for token in [&reader, &writer] {
        for beside in ["all/vms/web02/root", "all/shared/other"] {
            keyhaul(&site, token, &["get", beside]).exits(DENIED);
            keyhaul(&site, token, &["set", beside]).exits(DENIED);
        }
    }
    // The control: the server's root may.
    keyhaul(
        &site,
        server.root_token(),
        &["get", "all/vms/web02/root#value"],
    )
    .ok();
}

#[test]
fn a_policy_without_a_vault_has_none_to_print() {
    let done = finish(&mut Site::new().keyhaul(["check", "--vault-policy"]));
    done.exits(14).says(&["has no Vault store"]);
}
