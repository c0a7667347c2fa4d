//! Grants, quarantines, and time.

use super::*;

#[test]
fn a_grant_lets_one_node_read_one_scope_until_it_is_revoked() {
    let mut bench = Bench::new();
    assert_eq!(
        bench.denial("y", "web01/root"),
        "the node holds no grant of the scope"
    );
    bench.grant("web01", "y");
    for _ in 0..2 {
        assert!(bench.reads("y", "web01/root"));
        assert!(!bench.reads("z", "web01/root"));
        assert!(!bench.reads("y", "web02/root"));
        assert!(bench.state().is_granted("web01") && !bench.state().is_granted("web02"));
        bench.reopen();
    }
    assert!(bench.revoke("web01", "y"));
    assert!(!bench.revoke("web01", "y"), "there is none any more");
    for _ in 0..2 {
        assert!(!bench.reads("y", "web01/root") && !bench.state().is_granted("web01"));
        bench.reopen();
    }
}

#[test]
fn the_same_terms_change_nothing_and_other_terms_replace_them() {
    let mut bench = Bench::new();
    let first = bench
        .grant_with("web01", "y", &["b", "a"], bench.at(60))
        .expect("granted");
    assert_eq!(first.epoch, 1);
    let again = bench.grant_with("web01", "y", &["a", "b", "a"], bench.at(60));
    assert_eq!(again.expect("the same"), first);
    let other = bench
        .grant_with("web01", "y", &["a"], bench.at(60))
        .expect("replaced");
    assert_eq!(other.epoch, 2);
    assert!(bench.reads("y", "web01/a") && !bench.reads("y", "web01/b"));
    let longer = bench
        .grant_with("web01", "y", &["a"], None)
        .expect("replaced");
    assert_eq!((longer.epoch, longer.expires), (3, None));
    bench.revoke("web01", "z");
    bench.reopen();
    assert_eq!(
        bench.grant("web02", "y").epoch,
        4,
        "what changed nothing took no epoch"
    );
    bench.revoke("web02", "y");
    bench.reopen();
    assert_eq!(bench.grant("web02", "y").epoch, 6);
}

/// Two managers, of whom one has looked before the other changed something.
#[test]
fn a_change_that_is_meant_for_another_grant_changes_nothing() {
    let bench = Bench::new();
    let grant = |names: &[&str], if_epoch| {
        let request = GrantRequest {
            scope: "web01".into(),
            node: "y".into(),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            expires: None,
            if_epoch,
        };
        block_on(bench.state().grant(MANAGER, &request))
    };
    let revoke = |if_epoch| {
        let request = RevokeRequest {
            scope: "web01".into(),
            node: "y".into(),
            if_epoch,
        };
        block_on(bench.state().revoke(&request))
    };
    let conflict = |error: Error, words: &str| {
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        assert!(error.message().contains(words), "{error}");
    };
    // Given where there is none; told twice, the same.
    let first = grant(&["a"], Some(0)).expect("there was none");
    assert_eq!(grant(&["a"], Some(0)).expect("the same again"), first);
    conflict(grant(&["b"], Some(0)).expect_err("held"), "already");
    let second = grant(&["b"], Some(first.epoch)).expect("the one that was seen");
    assert!(second.epoch > first.epoch);
    // Who saw the first neither changes nor takes the second.
    conflict(
        grant(&["c"], Some(first.epoch)).expect_err("changed"),
        "by now",
    );
    conflict(revoke(Some(first.epoch)).expect_err("changed"), "by now");
    assert!(bench.reads("y", "web01/b") && !bench.reads("y", "web01/c"));
    assert!(
        revoke(Some(second.epoch))
            .expect("the one that was seen")
            .revoked
    );
    // A revocation holds against who would lengthen what it took, and can be told twice.
    conflict(
        grant(&["c"], Some(second.epoch)).expect_err("gone"),
        "no longer",
    );
    assert!(!revoke(Some(second.epoch)).expect("gone before").revoked);
    assert!(!bench.reads("y", "web01/b"));
    // The control: who does not say what was seen has the last word.
    grant(&["c"], None).expect("granted");
    assert!(bench.reads("y", "web01/c"));
}

#[test]
fn names_are_matched_as_in_a_route() {
    let bench = Bench::new();
    bench
        .grant_with("web01", "y", &["disk-*", "luks/**"], None)
        .expect("granted");
    for (secret, expected) in [
        ("web01/disk-root", true),
        ("web01/disk-root?version=3", true),
        ("web01/luks/a/b", true),
        ("web01/disk-a/b", false),
        ("web01/vnc", false),
        ("web02/disk-root", false),
    ] {
        assert_eq!(bench.reads("y", secret), expected, "{secret}");
        let nodes = bench.state().who_can(&reference(secret));
        assert_eq!(!nodes.is_empty(), expected, "{secret}");
    }
    assert_eq!(
        bench.denial("y", "web01/vnc"),
        "the grant does not cover the name"
    );
}

#[test]
fn names_that_are_none_are_refused() {
    let bench = Bench::new();
    bench
        .grant_with("@site", "node-1.example", &["**"], None)
        .expect("the control");
    bench
        .grant_with("@host.z", "y", &[], None)
        .expect("another's, on purpose");
    for (scope, node, names) in [
        ("", "y", ""),
        ("a/b", "y", ""),
        ("secret:a", "y", ""),
        ("*", "y", ""),
        ("@host", "y", ""),
        ("..", "y", ""),
        ("a?version=1", "y", ""),
        ("a\nb", "y", ""),
        ("web01", "", ""),
        ("web01", "@y", ""),
        ("web01", "y/z", ""),
        ("web01", "-y", ""),
        ("web01", "y", "a//b"),
        ("web01", "y", "a b"),
    ] {
        let names: &[&str] = if names.is_empty() { &[] } else { &[names] };
        let refused = bench.grant_with(scope, node, names, None);
        assert_eq!(
            kind(refused),
            ErrorKind::InvalidReference,
            "{scope:?} {node:?} {names:?}"
        );
    }
    let many: Vec<String> = (0..65).map(|index| format!("a{index}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(
        kind(bench.grant_with("web01", "y", &many, None)),
        ErrorKind::TooLarge
    );
    bench
        .grant_with("web01", "y", &many[1..], None)
        .expect("as many as may be");
}

#[test]
fn a_node_reads_its_own_scope_and_no_others() {
    let bench = Bench::new();
    assert!(bench.reads("y", "@host.y/tpm"));
    assert_eq!(
        bench
            .state()
            .may_read("y", &reference("@host.y/tpm"))
            .expect("own")
            .epoch(),
        None
    );
    for secret in ["@host.z/tpm", "@host/tpm", "@host.y.z/tpm", "host.y/tpm"] {
        assert!(!bench.reads("y", secret), "{secret}");
    }
}

#[test]
fn what_has_expired_stays_so_whatever_the_clock_does() {
    let mut bench = Bench::new();
    bench
        .grant_with("web01", "y", &[], bench.at(60))
        .expect("granted");
    let refused = bench.grant_with("web02", "y", &[], bench.at(0));
    assert_eq!(
        kind(refused),
        ErrorKind::InvalidReference,
        "it would have ended already"
    );
    bench.pass(59);
    assert!(bench.reads("y", "web01/root"), "the control");
    let permit = bench
        .state()
        .may_read("y", &reference("web01/root"))
        .expect("permitted");
    bench.pass(1);
    assert_eq!(bench.denial("y", "web01/root"), "the grant has expired");
    assert!(!bench.state().still_holds(&permit));
    assert!(!bench.state().is_granted("web01") && bench.state().what_can("y").is_empty());
    // Set back by a day, in the running service and over a restart.
    bench.step(-86_400);
    assert!(!bench.reads("y", "web01/root"));
    bench.reopen();
    assert!(!bench.reads("y", "web01/root"));
    // Time still goes on: what is granted now ends too.
    let now = bench.state().now().as_second() - NEW_YEAR;
    assert!(now >= 60);
    bench
        .grant_with("web02", "y", &[], bench.at(now + 10))
        .expect("granted");
    bench.pass(9);
    assert!(bench.reads("y", "web02/root"), "the control");
    bench.pass(2);
    assert!(!bench.reads("y", "web02/root"));
}

#[test]
fn time_is_written_down_without_changes() {
    let mut bench = Bench::new();
    bench
        .grant_with("web01", "y", &[], bench.at(100))
        .expect("granted");
    bench.pass(200);
    assert!(bench.expire().is_empty());
    bench.step(-200);
    // As a crash leaves it: nothing is written as it closes.
    let copy = tempfile::tempdir().expect("folder");
    for suffix in ["", "-wal"] {
        let name = format!("service.db{suffix}");
        std::fs::copy(bench.folder.path().join(&name), copy.path().join(&name)).expect("copied");
    }
    bench.state = None;
    bench.folder = copy;
    bench.reopen();
    assert!(!bench.reads("y", "web01/root"));
}

#[test]
fn a_permit_holds_as_long_as_its_terms_do() {
    let bench = Bench::new();
    bench
        .grant_with("web01", "y", &["a"], None)
        .expect("granted");
    let permit = bench
        .state()
        .may_read("y", &reference("web01/a"))
        .expect("permitted");
    let holds = || bench.state().still_holds(&permit);
    assert!(holds());
    bench
        .grant_with("web01", "y", &["a"], bench.at(60))
        .expect("shorter");
    assert!(holds(), "the same names");
    bench.grant("web01", "y");
    assert!(holds(), "all names");
    bench
        .grant_with("web01", "y", &["b"], None)
        .expect("other names");
    assert!(!holds());
    bench.grant("web01", "y");
    assert!(holds());
    bench.revoke("web01", "y");
    assert!(!holds());
    assert_eq!(
        kind(block_on(bench.state().fetched(&[permit]))),
        ErrorKind::PermissionDenied
    );
}

#[test]
fn a_quarantined_node_has_nothing_and_gets_nothing() {
    let mut bench = Bench::new();
    bench.grant("web02", "y");
    bench.grant("web01", "y");
    bench.grant("web01", "z");
    let own = bench
        .state()
        .may_read("y", &reference("@host.y/tpm"))
        .expect("its own");
    let answer = block_on(bench.state().quarantine("y")).expect("quarantined");
    let scopes: Vec<&str> = answer
        .revoked
        .iter()
        .map(|grant| grant.scope.as_str())
        .collect();
    assert_eq!(scopes, ["web01", "web02"]);
    let again = block_on(bench.state().quarantine("y")).expect("again");
    assert!(again.revoked.is_empty());
    assert!(!bench.state().still_holds(&own));
    for _ in 0..2 {
        for secret in ["web01/root", "web02/root", "@host.y/tpm"] {
            assert_eq!(bench.denial("y", secret), "the node is quarantined");
        }
        assert!(bench.reads("z", "web01/root"), "the control");
        let error = bench
            .grant_with("web01", "y", &[], None)
            .expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert!(
            error
                .advice()
                .is_some_and(|advice| advice.contains("keyhaul node release y"))
        );
        bench.reopen();
    }
    let node = block_on(bench.state().release("y")).expect("released");
    assert_eq!((node.quarantined, node.grants), (None, 0));
    assert!(!bench.reads("y", "web01/root"), "nothing comes back");
    assert!(bench.reads("y", "@host.y/tpm"));
    bench.grant("web01", "y");
    assert_eq!(
        kind(block_on(bench.state().release("nobody"))),
        ErrorKind::NotFound
    );
}

#[test]
fn patterns_of_names_have_limits() {
    let bench = Bench::new();
    let granted = |names: &[String]| {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        bench.grant_with("web01", "y", &names, None)
    };
    let many = |count: usize| (0..count).map(|n| format!("n{n}")).collect::<Vec<_>>();
    granted(&many(64)).expect("64 of them");
    assert_eq!(kind(granted(&many(65))), ErrorKind::TooLarge);
    granted(&["x".repeat(512)]).expect("512 bytes");
    assert_eq!(kind(granted(&["x".repeat(513)])), ErrorKind::TooLarge);
    granted(&["a/b/c/d/e/f/**/g".into()]).expect("8 segments");
    assert_eq!(
        kind(granted(&["a/b/c/d/e/f/g/h/i".into()])),
        ErrorKind::TooLarge
    );
    assert!(bench.reads("y", "web01/a/b/c/d/e/f/g") && !bench.reads("y", "web01/a"));
}

#[test]
fn a_quarantine_says_whether_the_node_was_known_and_what_migrates() {
    let bench = Bench::new();
    bench.grant("web01", "y");
    let ticket = bench.begin("web01", "y", "z").expect("begun");
    bench.grant("web02", "y");
    let ended = bench.begin("web02", "y", "z").expect("begun");
    bench.abort(&ended).expect("aborted");
    for node in ["y", "z"] {
        let answer = block_on(bench.state().quarantine(node)).expect("quarantined");
        assert!(answer.known, "{node}");
        assert_eq!(answer.tickets, std::slice::from_ref(&ticket), "{node}");
    }
    let answer = block_on(bench.state().quarantine("w")).expect("quarantined");
    assert!(!answer.known && answer.tickets.is_empty());
    let refused = bench.grant_with("web03", "w", &[], None);
    assert_eq!(
        kind(refused),
        ErrorKind::Conflict,
        "unknown, and quarantined"
    );
    let answer = block_on(bench.state().quarantine("w")).expect("quarantined");
    assert!(answer.known, "by now");
}

#[test]
fn a_nodes_own_scope_has_its_holder_without_a_grant() {
    let bench = Bench::new();
    let own = reference("@host.y/tpm");
    let holders = || -> Vec<String> {
        let grants = bench.state().who_can(&own);
        grants.into_iter().map(|grant| grant.node).collect()
    };
    assert_eq!(holders(), ["y"]);
    assert!(bench.state().is_granted("@host.y") && !bench.state().is_granted("web01"));
    bench.grant("@host.y", "x");
    bench
        .grant_with("@host.y", "y", &["other"], None)
        .expect("granted");
    assert_eq!(holders(), ["x", "y"], "each once");
    assert!(bench.revoke("@host.y", "x"));
    block_on(bench.state().quarantine("y")).expect("quarantined");
    assert!(holders().is_empty() && !bench.state().is_granted("@host.y"));
    assert!(!bench.reads("y", "@host.y/tpm"), "as it is");
}
