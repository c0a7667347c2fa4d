use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::layers::{BreakerSettings, LayerSettings};
use crate::registry::{Limits, OptionSpec};
use crate::{SecretStore, StoreFactory};

const GOOD: &str = r#"
version = 1

[stores.site]
url = "vault+https://vault.example.com:8200/secret"
auth = { method = "approle", role-id = "file:/etc/keyhaul/role-id" }
timeout = "3s"
retries = 0

[stores.local]
url = "file:///var/lib/keyhaul/secrets"

[[routes]]
match = "prod-*/**"
stores = ["site", "local"]
path = "vms/{scope}/{name}"
field = "passphrase"
encoding = "base64"

[[routes]]
match = "**"
store = "local"

[audit]
path = "/var/log/keyhaul/audit.jsonl"
"#;

fn errors(text: &str) -> Vec<String> {
    let errors = Policy::parse("p.toml", text).expect_err(text);
    errors
        .iter()
        .map(|error| format!("{error} — {}", error.advice().unwrap_or("")))
        .collect()
}

fn target(policy: &Policy, reference: &str) -> Target {
    policy
        .target(&Reference::parse(reference).expect("valid"))
        .expect("routed")
}

#[test]
fn the_first_matching_route_decides() {
    let policy = Policy::parse("p.toml", GOOD).expect("valid");
    assert_eq!(
        target(&policy, "prod-1/disk/root").stores,
        ["site", "local"]
    );
    let found = target(&policy, "prod-1/disk/root?version=4");
    assert_eq!(found.stores, ["site"]);
    assert_eq!(found.path.as_str(), "vms/prod-1/disk/root");
    assert_eq!(found.version.as_ref().map(Version::as_str), Some("4"));
    assert_eq!(found.field.as_ref().map(Field::as_str), Some("passphrase"));
    assert_eq!(found.encoding, Encoding::Base64);
    assert_eq!(found.route, "p.toml:14");
    assert_eq!(
        target(&policy, "prod-1/a#mine")
            .field
            .expect("field")
            .as_str(),
        "mine"
    );
    let found = target(&policy, "test/root~next");
    assert_eq!(
        (found.stores[0].as_str(), found.path.as_str()),
        ("local", "test/root~next")
    );
    assert_eq!(policy.stores["site"].timeout, Some(Duration::from_secs(3)));
    assert_eq!(policy.stores["site"].retries, Some(0));
    assert_eq!(
        policy.stores["site"]
            .config
            .options
            .table("auth")
            .and_then(|t| t.text("method")),
        Some("approle")
    );
    assert_eq!(
        policy.audit.as_deref(),
        Some(Path::new("/var/log/keyhaul/audit.jsonl"))
    );
}

/// A backend whose stores have limits, or none.
#[derive(Debug)]
struct Limited(Option<Limits>);

impl StoreFactory for Limited {
    fn schemes(&self) -> &[&'static str] {
        &["limited"]
    }
    fn summary(&self) -> &'static str {
        "a backend made by a test"
    }
    fn options(&self) -> &[OptionSpec] {
        &[]
    }
    fn is_key_service(&self) -> bool {
        false
    }
    fn limits(&self) -> Option<Limits> {
        self.0
    }
    fn alias(&self) -> Option<&'static str> {
        None
    }
    fn open(&self, _: &StoreConfig) -> Result<Arc<dyn SecretStore>> {
        Ok(Arc::new(crate::MemoryStore::new("limited")))
    }
}

#[test]
fn layers_are_the_policys_and_else_the_backends() {
    let layers = |lines: &str, limits| {
        let text = format!("version = 1\n[stores.a]\nurl = \"limited://a\"\n{lines}\n");
        let policy = Policy::parse("p.toml", &text).expect(lines);
        policy.stores["a"].layers(&Limited(limits))
    };
    let own = Some(Limits::new(8, Some(100)));
    let seconds = Duration::from_secs;

    let silent = layers("", None);
    assert_eq!(silent, LayerSettings::default());
    let silent = layers("", own);
    assert_eq!(silent.limits, own);
    assert_eq!(silent.breaker, Some(BreakerSettings::new(5, seconds(5))));
    assert_eq!(silent.cache, None);

    let limits = |lines, limits| layers(lines, limits).limits;
    assert_eq!(
        limits("concurrency = 2", own),
        Some(Limits::new(2, Some(100)))
    );
    assert_eq!(limits("rate = 7", own), Some(Limits::new(8, Some(7))));
    assert_eq!(limits("concurrency = 2", None), Some(Limits::new(2, None)));
    assert_eq!(limits("rate = 7", None), Some(Limits::new(16, Some(7))));

    let breaker = |lines, limits| layers(lines, limits).breaker;
    assert_eq!(breaker("breaker = false", own), None);
    assert_eq!(
        breaker("breaker = true", None),
        Some(BreakerSettings::new(5, seconds(5)))
    );
    assert_eq!(
        breaker("breaker = { failures = 2, pause = \"1m\" }", None),
        Some(BreakerSettings::new(2, seconds(60)))
    );

    let cache = |lines| layers(lines, None).cache;
    assert_eq!(cache("cache = false"), None);
    assert_eq!(
        cache("cache = \"30s\""),
        Some(CacheSettings::new(seconds(30)))
    );
    assert_eq!(cache("cache = 30"), Some(CacheSettings::new(seconds(30))));
    assert_eq!(
        cache("cache = { ttl = \"1m\", entries = 9, bytes = 4096 }"),
        Some(CacheSettings::new(seconds(60)).bounded(9, 4096))
    );
}

/// A mistyped key may be meant for the layers or for the backend: both lists are known.
#[test]
fn a_mistyped_key_of_a_store_is_held_against_those_of_every_store_too() {
    let refusal = |line: &str| {
        let text = format!("version = 1\n[stores.a]\nurl = \"limited://a\"\n{line}\n");
        let policy = Policy::parse("p.toml", &text).expect(line);
        let registry = Registry::new().with(Limited(None));
        registry.check(&policy.stores["a"].config)
    };
    let error = refusal("tiemout = \"5s\"").expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    assert_eq!(error.advice(), Some("did you mean `timeout`?"));
    assert!(error.message().contains("cache"), "{error}");
    refusal("timeout = \"5s\"").expect("a key of every store");
}

#[test]
fn every_error_names_its_place_and_what_is_known() {
    let all = errors(
        "version = 1\nstore = 3\n[stores.a]\nurl = \"file:///x\"\n[[routes]]\nmatch = \"**\"\nstoer = \"a\"\n[[routes]]\nmatch = \"a//b\"\nstore = \"a\"\n",
    );
    assert_eq!(all.len(), 3, "{all:?}");
    assert!(all[0].contains("unknown key `store`; known are: audit, routes, stores, version at p.toml:2:1 — did you mean `stores`?"), "{all:?}");
    assert!(
        all[1].contains("unknown key of a route `stoer`") && all[1].contains("p.toml:7:1"),
        "{all:?}"
    );
    assert!(
        all[2].contains("empty segment") && all[2].contains("p.toml:9:9"),
        "{all:?}"
    );
}

#[test]
fn each_malformed_policy_is_refused() {
    let store = "version = 1\n[stores.a]\nurl = \"file:///x\"\n";
    let route = |line: &str| format!("{store}[[routes]]\nmatch = \"**\"\n{line}\n");
    for (text, expected) in [
        ("".to_owned(), "begins with `version = 1`"),
        (
            "version = 2".into(),
            "version 2 is not known; known is: 1 at p.toml:1:11",
        ),
        ("version = \"1\"".into(), "`version` is a whole number"),
        (
            "version = 1\n[stores.a]\n".into(),
            "store `a` needs a `url`",
        ),
        (
            "version = 1\n[stores.a]\nurl = \"x\"".into(),
            "is not a URL",
        ),
        (
            "version = 1\n[stores.a]\nurl = 1".into(),
            "`url` is a text at p.toml:3:7",
        ),
        (
            format!("{store}timeout = \"soon\""),
            "`timeout` takes a duration",
        ),
        (
            format!("{store}timeout = 0"),
            "longer than nothing at p.toml:4:11",
        ),
        (format!("{store}retries = -1"), "`retries` is 0 to 100"),
        (
            format!("{store}concurrency = 0"),
            "`concurrency` is 1 to 1024",
        ),
        (
            format!("{store}rate = \"5/s\""),
            "`rate` takes a whole number",
        ),
        (format!("{store}direct = 1"), "`direct` takes true or false"),
        (
            format!("{store}breaker = 5"),
            "`breaker` is true, false or {",
        ),
        (
            format!("{store}breaker = {{ failures = 0 }}"),
            "`failures` is 1 to 1000",
        ),
        (
            format!("{store}breaker = {{ pause = 0 }}"),
            "`pause` is longer than nothing",
        ),
        (
            format!("{store}breaker = {{ pause = \"61s\" }}"),
            "`pause` is at most 60 s",
        ),
        (
            format!("{store}breaker = {{ retries = 1 }}"),
            "unknown option `retries`; known are: failures, pause at p.toml:4:",
        ),
        (format!("{store}cache = true"), "`cache` is a duration"),
        (format!("{store}cache = 0"), "`ttl` is longer than nothing"),
        (
            format!("{store}cache = {{ entries = 5 }}"),
            "`cache` is a duration",
        ),
        (
            format!("{store}cache = {{ ttl = 5, entries = 20000 }}"),
            "`entries` is 1 to 10000",
        ),
        (
            format!("{store}ratio = 1.5"),
            "cannot be a number with a point",
        ),
        (route(""), "either `store` or `stores`"),
        (
            route("store = \"a\"\nstores = [\"a\"]"),
            "either `store` or `stores`",
        ),
        (route("stores = []"), "names one store at least"),
        (
            route("store = \"b\""),
            "unknown store `b`; known are: a at p.toml:5",
        ),
        (
            route("store = \"a\"\npath = \"x/{vm}\""),
            "no other braces at p.toml:7:8",
        ),
        (
            route("store = \"a\"\npath = \"/x/{name}\""),
            "does not start or end with `/`",
        ),
        (
            route("store = \"a\"\npath = \"../{name}\""),
            "no `.` or `..`",
        ),
        (route("store = \"a\"\nfield = \"a b\""), "a field is"),
        (
            route("store = \"a\"\nencoding = \"base46\""),
            "unknown encoding `base46`; known are: base64, hex, raw, text at p.toml:7:12 — did you mean `base64`?",
        ),
        (
            format!(
                "{}[[routes]]\nmatch = \"x/**\"\nstore = \"a\"",
                route("store = \"a\"")
            ),
            "`x/**` is never reached: `**` at p.toml:5 comes first at p.toml:8",
        ),
        (
            format!("{store}[audit]\npath = \"log\""),
            "the audit's `path` is absolute",
        ),
        (
            format!("{store}[audit]\nfile = \"/log\""),
            "unknown key of [audit] `file`",
        ),
        (
            "version = 1\nversion = 1".into(),
            "duplicate key at p.toml:2:1",
        ),
        ("version = ".into(), "p.toml:1:"),
    ] {
        let all = errors(&text);
        assert!(
            all.iter().any(|error| error.contains(expected)),
            "{expected}: {all:?}"
        );
    }
}

#[test]
fn a_credential_in_the_wrong_place_is_not_repeated() {
    for text in [
        "version = 1\n[stores.a]\nurl = \"vault+https://u:hunter2@v/\"",
        "version = 1\n[stores.a]\nurl = \"file:///x\"\ntoken = hunter2",
    ] {
        let all = errors(text).join("\n");
        assert!(!all.contains("hunter2"), "{all}");
    }
}

#[test]
fn a_policy_is_read_with_its_drop_ins_in_name_order() {
    let folder = tempfile::tempdir().expect("folder");
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("parent")).expect("folder");
        std::fs::write(&path, text).expect("written");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).expect("mode");
        path
    };
    let main = write(
        "keyhaul.toml",
        "version = 1\n[stores.a]\nurl = \"file:///a\"\n[[routes]]\nmatch = \"a/*\"\nstore = \"a\"\n",
    );
    write(
        "keyhaul.d/20-c.toml",
        "version = 1\n[[routes]]\nmatch = \"c/*\"\nstore = \"b\"\n",
    );
    let drop_in = write(
        "keyhaul.d/10-b.toml",
        "version = 1\n[stores.b]\nurl = \"file:///b\"\n[[routes]]\nmatch = \"b/*\"\nstore = \"b\"\n",
    );
    write("keyhaul.d/30-old.toml~", "nonsense");
    let location = Location::File(main.clone());
    let policy = Policy::load(&location).expect("valid");
    let patterns: Vec<String> = policy
        .routes
        .iter()
        .map(|r| r.pattern.to_string())
        .collect();
    assert_eq!(patterns, ["a/*", "b/*", "c/*"]);
    assert_eq!(policy.routes[1].place, format!("{}:5", drop_in.display()));

    write(
        "keyhaul.d/40-again.toml",
        "version = 1\n[stores.a]\nurl = \"file:///z\"\n",
    );
    let all = Policy::load(&location).expect_err("declared twice");
    assert!(all[0].message().contains("declared at"), "{all:?}");
    std::fs::remove_file(folder.path().join("keyhaul.d/40-again.toml")).expect("removed");

    for path in [&main, &drop_in, &folder.path().join("keyhaul.d")] {
        let mode = path.metadata().expect("there").permissions();
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o777)).expect("mode");
        let all = Policy::load(&location).expect_err("writable by others");
        assert_eq!(all[0].kind(), ErrorKind::PermissionDenied);
        assert!(
            all[0]
                .advice()
                .is_some_and(|advice| advice.contains("chmod go-w"))
        );
        std::fs::set_permissions(path, mode).expect("mode");
    }
    Policy::load(&location).expect("valid again");
}

#[test]
fn a_folder_in_which_others_could_replace_the_policy_is_refused() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("keyhaul.toml");
    std::fs::write(&path, "version = 1").expect("written");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("mode");
    let load = |mode| {
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(mode)).expect("mode");
        Policy::load(&Location::File(path.clone()))
    };
    for mode in [0o770, 0o777, 0o702] {
        let all = load(mode).expect_err("others could replace it");
        assert_eq!(all[0].kind(), ErrorKind::PermissionDenied);
        assert!(all[0].message().contains("the policy's folder"), "{all:?}");
    }
    for mode in [0o700, 0o755, 0o1777] {
        load(mode).expect("nobody else can replace it");
    }
}

#[test]
fn root_reads_no_users_policy() {
    if !rustix::process::geteuid().is_root() {
        // Without root the same rule refuses root-owned files of nobody: covered by the mode check.
        return;
    }
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("keyhaul.toml");
    std::fs::write(&path, "version = 1").expect("written");
    std::os::unix::fs::chown(&path, Some(65534), None).expect("chown");
    let all = Policy::load(&Location::File(path)).expect_err("a user's");
    assert!(
        all[0].message().contains("root reads no user's policy"),
        "{all:?}"
    );
}

#[test]
fn a_policy_that_is_a_pipe_is_refused_and_not_waited_for() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("keyhaul.toml");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, mode).expect("pipe");
    let all = Policy::load(&Location::File(path)).expect_err("a pipe");
    assert!(all[0].message().contains("is not a file"), "{all:?}");
}

#[test]
fn a_missing_policy_and_an_unrouted_reference_say_so() {
    let all =
        Policy::load(&Location::File("/nonexistent/keyhaul.toml".into())).expect_err("missing");
    assert_eq!(all[0].kind(), ErrorKind::InvalidConfig);
    let policy = Policy::parse("p.toml", "version = 1").expect("empty but valid");
    let error = policy
        .target(&Reference::parse("a/b").expect("valid"))
        .expect_err("no route");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("no route of p.toml matches"));
}

/// A store's name, `retries` and `timeout` in milliseconds.
type WrittenStore = (String, Option<u32>, Option<u64>);
/// A route's scope, store, path template, field and encoding.
type WrittenRoute = (String, usize, Option<String>, Option<String>, Encoding);

/// A policy as data, to be written as TOML and read back.
#[derive(Clone, Debug)]
struct Written {
    stores: Vec<WrittenStore>,
    routes: Vec<WrittenRoute>,
    catch_all: bool,
}

impl Written {
    fn text(&self) -> String {
        let mut text = String::from("version = 1\n");
        let mut line = |line: String| writeln!(text, "{line}").expect("a String takes all");
        for (index, (name, retries, timeout)) in self.stores.iter().enumerate() {
            line(format!("[stores.{name:?}]\nurl = \"file:///srv/{index}\""));
            retries
                .iter()
                .for_each(|number| line(format!("retries = {number}")));
            timeout
                .iter()
                .for_each(|millis| line(format!("timeout = \"{millis}ms\"")));
        }
        for (scope, store, path, field, encoding) in &self.routes {
            let name = &self.stores[*store].0;
            line(format!(
                "[[routes]]\nmatch = \"{scope}/**\"\nstore = {name:?}"
            ));
            path.iter()
                .for_each(|path| line(format!("path = \"{path}\"")));
            field
                .iter()
                .for_each(|field| line(format!("field = \"{field}\"")));
            line(format!("encoding = \"{encoding}\""));
        }
        if self.catch_all {
            line(format!(
                "[[routes]]\nmatch = \"**\"\nstores = [{:?}]",
                self.stores[0].0
            ));
        }
        text
    }
}

fn written() -> impl Strategy<Value = Written> {
    let word = || "[a-z][a-z0-9-]{0,8}";
    let store = (
        word(),
        prop::option::of(0..=100_u32),
        prop::option::of(1..100_000_u64),
    );
    let stores = prop::collection::btree_map(store.0, (store.1, store.2), 1..5);
    let path = prop::option::of("(all/)?\\{scope\\}/(x-)?\\{name\\}");
    let route = (
        0..100_usize,
        path,
        prop::option::of(word()),
        prop::sample::select(Encoding::ALL),
    );
    let routes = prop::collection::btree_map("[a-z]{1,6}[0-9]", route, 0..6);
    (stores, routes, any::<bool>()).prop_map(|(stores, routes, catch_all)| {
        let stores: Vec<_> = stores
            .into_iter()
            .map(|(name, (r, t))| (name, r, t))
            .collect();
        let count = stores.len();
        let route =
            |(scope, (store, path, field, encoding))| (scope, store % count, path, field, encoding);
        Written {
            routes: routes.into_iter().map(route).collect(),
            stores,
            catch_all,
        }
    })
}

proptest! {
    #[test]
    fn what_is_written_is_what_is_read(written in written()) {
        let policy = Policy::parse("p.toml", &written.text()).expect("sound");
        prop_assert_eq!(policy.stores.len(), written.stores.len());
        for (name, retries, timeout) in &written.stores {
            prop_assert_eq!(policy.stores[name].retries, *retries);
            prop_assert_eq!(policy.stores[name].timeout, timeout.map(Duration::from_millis));
        }
        for (scope, store, path, field, encoding) in &written.routes {
            let found = target(&policy, &format!("{scope}/disk/0"));
            prop_assert_eq!(&found.stores, std::slice::from_ref(&written.stores[*store].0));
            let path = path.as_deref().unwrap_or("{scope}/{name}");
            let path = path.replace("{scope}", scope).replace("{name}", "disk/0");
            prop_assert_eq!(found.path.as_str(), path);
            prop_assert_eq!(found.field.as_ref().map(Field::as_str), field.as_deref());
            prop_assert_eq!(found.encoding, *encoding);
        }
        let elsewhere = policy.target(&Reference::parse("UPPER/x").expect("valid"));
        prop_assert_eq!(elsewhere.is_ok(), written.catch_all);
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "\\PC{0,200}") {
        let _ = Policy::parse("p.toml", &text);
    }
}
