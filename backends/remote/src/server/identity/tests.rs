use super::*;

fn rule(uri: &str, role: Role) -> Rule {
    Rule::new(uri, role, "server.toml:1:1".into()).expect(uri)
}

fn roles() -> Roles {
    let mut roles = Roles::default();
    for (uri, role) in [
        ("spiffe://site/node/{name}", Role::Node),
        ("spiffe://site/manager/*", Role::Manager),
        ("spiffe://site/operator", Role::Operator),
    ] {
        roles.add(rule(uri, role)).expect(uri);
    }
    roles
}

#[test]
fn a_uri_has_the_role_and_the_name_of_its_rule() {
    let roles = roles();
    let node = roles
        .identify("spiffe://site/node/y.example")
        .expect("a node");
    assert_eq!((node.role, &*node.name), (Role::Node, "y.example"));
    let manager = roles
        .identify("spiffe://site/manager/a")
        .expect("a manager");
    assert_eq!(manager.role, Role::Manager);
    assert_eq!(manager.name, manager.uri);
    let operator = roles.identify("spiffe://site/operator").expect("one");
    assert_eq!(operator.role, Role::Operator);
}

#[test]
fn what_only_resembles_a_rule_is_nobody() {
    let roles = roles();
    for uri in [
        "",
        "spiffe://site/node/",
        "spiffe://site/node",
        "spiffe://site/node/y/z",
        "spiffe://site/node/y/",
        "spiffe://site/node/-y",
        "spiffe://site/node/..",
        "spiffe://site/node/y%2f",
        "spiffe://site/node/y?z",
        "spiffe://site/node/y#z",
        "spiffe://site/node/@y",
        "spiffe://site/node/{name}",
        "SPIFFE://site/node/y",
        "spiffe://site/Node/y",
        "spiffe://other/node/y",
        "spiffe://site//node/y",
        "spiffe://site/operator/x",
        "spiffe://site/node/y\n",
        "xspiffe://site/node/y",
        &format!("spiffe://site/node/{}", "y".repeat(124)),
    ] {
        assert!(roles.identify(uri).is_err(), "{uri}");
    }
    let longest = format!("spiffe://site/node/{}", "y".repeat(123));
    assert!(roles.identify(&longest).is_ok(), "the control");
}

#[test]
fn rules_that_meet_are_refused() {
    for (one, other, expected) in [
        ("a:b/*", "a:b/{name}", true),
        ("a:b/x*", "a:b/*y", true),
        ("a:b/x*y", "a:b/x*z", false),
        ("a:b/x*", "a:b/y*", false),
        ("a:b/*", "a:b/*/c", false),
        ("a:b/c", "a:b/c", true),
        ("a:b/*c*", "a:b/d", false),
        ("a:b/*c*", "a:b/dce", true),
        ("a:b/a*a", "a:b/a", false),
    ] {
        let mut roles = Roles::default();
        roles.add(rule(one, Role::Operator)).expect("the first");
        let added = roles.add(rule(other, Role::Manager));
        assert_eq!(added.is_err(), expected, "{one} {other}");
    }
}

#[test]
fn rules_by_which_two_certificates_are_one_node_are_refused_unless_that_is_meant() {
    let named = |uri: &str, name: Option<&str>| {
        let rule = rule(uri, Role::Node);
        match name {
            None => rule,
            Some(name) => rule.named(name).expect(name),
        }
    };
    let first = ("spiffe://a/node/{name}", None);
    let fixed = ("spiffe://a/y", Some("y"));
    for (one, other, refused) in [
        (first, ("spiffe://b/node/{name}", None), true),
        (first, ("spiffe://b/y", Some("y")), true),
        (fixed, ("spiffe://b/y", Some("y")), true),
        (fixed, ("spiffe://b/z", Some("z")), false),
    ] {
        let (one, other) = (named(one.0, one.1), named(other.0, other.1));
        let mut roles = Roles::default();
        roles.add(one.clone()).expect("the first");
        let added = roles.add(other.clone());
        assert_eq!(added.is_err(), refused, "{one:?} {other:?}");
        if let Err(rule) = added {
            assert!(rule.contains("server.toml:1:1") && rule.contains("`shared = true`"));
        }
        // Both have to say so.
        let both = |one: Rule, other: Rule| {
            let mut roles = Roles::default();
            roles.add(one).and_then(|()| roles.add(other)).is_ok()
        };
        let shared = |rule: &Rule| rule.clone().shared().expect("a node's");
        assert!(both(shared(&one), shared(&other)));
        assert_eq!(both(shared(&one), other), !refused);
    }
    for many in [
        rule("spiffe://*/node/{name}", Role::Node),
        named("spiffe://a/y*", Some("y")),
    ] {
        let refused = Roles::default().add(many.clone());
        assert!(refused.is_err_and(|rule| rule.contains("`shared = true`")));
        let shared = many.shared().expect("a node's");
        Roles::default().add(shared).expect("meant");
    }
    // Who is no node is known by the whole URI.
    assert!(rule("spiffe://a/manager", Role::Manager).shared().is_err());
    Roles::default()
        .add(rule("spiffe://*/manager/*", Role::Manager))
        .expect("many managers");
}

#[test]
fn rules_that_say_nonsense_are_refused() {
    for uri in [
        "",
        "node",
        "*:x",
        "a:{name}/{name}",
        "a:x{name}",
        "a:b c",
        "a:{other}",
    ] {
        assert!(Rule::new(uri, Role::Node, String::new()).is_err(), "{uri}");
    }
    let node = || rule("a:b/*", Role::Node);
    assert!(node().named("y").is_ok());
    assert!(node().named("y z").is_err());
    let all = ScopePattern::parse("*").expect("a pattern");
    assert!(node().scoped(vec![all]).is_err());
    assert!(rule("a:b/{name}", Role::Node).named("y").is_err());
    assert!(Roles::default().add(node()).is_err());
}

#[test]
fn scopes_are_matched_whole() {
    let covers =
        |pattern: &str, scope: &str| ScopePattern::parse(pattern).expect(pattern).matches(scope);
    assert!(covers("*", "@site"));
    assert!(covers("acme.*", "acme.web01"));
    assert!(!covers("acme.*", "acme"));
    assert!(!covers("acme.*", "xacme.web01"));
    assert!(covers("a*b*c", "a-b-b-c") && !covers("a*b*c", "a-b-b"));
    for text in ["", "a/b", "a b", "a~"] {
        assert!(ScopePattern::parse(text).is_err(), "{text}");
    }
}
