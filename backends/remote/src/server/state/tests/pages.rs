//! Long answers come in pages, which show nothing of others.

use super::*;

#[test]
fn grants_and_nodes_come_in_pages() {
    let bench = Bench::new();
    for scope in ["c", "a", "b"] {
        for node in ["z", "x", "y"] {
            bench.grant(scope, node);
        }
    }
    let list = |scope, node, limit| {
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let query = Paging {
                limit: Some(limit),
                after,
            };
            let page = bench
                .state()
                .grants(scope, node, &query, &|_| true)
                .expect("a page");
            assert!(page.grants.len() <= limit);
            let named = page
                .grants
                .iter()
                .map(|grant| format!("{}/{}", grant.scope, grant.node));
            seen.extend(named);
            after = page.next;
            if after.is_none() {
                return seen.join(" ");
            }
        }
    };
    for limit in [1, 2, 3, 4, 9, 10] {
        assert_eq!(
            list(None, None, limit),
            "a/x a/y a/z b/x b/y b/z c/x c/y c/z"
        );
        assert_eq!(list(Some("b"), None, limit), "b/x b/y b/z");
        assert_eq!(list(None, Some("y"), limit), "a/y b/y c/y");
        assert_eq!(list(Some("c"), Some("x"), limit), "c/x");
        assert_eq!(list(Some("d"), None, limit), "");
    }
    let query = Paging {
        limit: Some(2),
        after: None,
    };
    let page = block_on(bench.state().nodes(&query)).expect("a page");
    let named: Vec<(&str, u64)> = page
        .nodes
        .iter()
        .map(|n| (n.node.as_str(), n.grants))
        .collect();
    assert_eq!(named, [("x", 3), ("y", 3)]);
    let query = Paging {
        limit: None,
        after: page.next,
    };
    let page = block_on(bench.state().nodes(&query)).expect("a page");
    assert_eq!(
        (page.nodes.len(), page.nodes[0].node.as_str(), page.next),
        (1, "z", None)
    );
}

#[test]
fn pages_and_their_cursors_show_nothing_of_others() {
    let bench = Bench::new();
    for scope in ["a-other", "mine-1", "mine-2", "mine-other", "z-other"] {
        for node in ["host-x", "host-y"] {
            if scope.ends_with("other") || node == "host-y" {
                bench.grant(scope, node);
            }
        }
    }
    bench.grant("mine-1", "host-w");
    for scope in ["a-other", "mine-1", "z-other", "mine-2", "mine-other"] {
        bench.begin(scope, "host-y", "host-z").expect("begun");
    }
    let mine = |scope: &str| scope.starts_with("mine-") && scope != "mine-other";
    let (grants, cursors) = walk(|query| {
        let page = bench
            .state()
            .grants(None, None, query, &mine)
            .expect("a page");
        (page.grants, page.next)
    });
    let named: Vec<String> = grants
        .iter()
        .map(|grant| format!("{}/{}", grant.scope, grant.node))
        .collect();
    let expected = [
        "mine-1/host-w",
        "mine-1/host-y",
        "mine-1/host-z",
        "mine-2/host-y",
        "mine-2/host-z",
    ];
    assert_eq!(named, expected);
    assert_eq!(cursors, expected[..4], "the last page has none");

    let (nodes, cursors) = walk(|query| {
        let page = bench.state().nodes_of(query, &mine);
        (page.nodes, page.next)
    });
    let named: Vec<(&str, u64)> = nodes.iter().map(|n| (n.node.as_str(), n.grants)).collect();
    assert_eq!(named, [("host-w", 1), ("host-y", 2), ("host-z", 2)]);
    assert_eq!(cursors, ["host-w", "host-y"]);

    let (tickets, cursors) = walk(|query| {
        let page = block_on(bench.state().tickets(None, None, query, mine)).expect("a page");
        (page.tickets, page.next)
    });
    let scopes: Vec<&str> = tickets.iter().map(|ticket| ticket.scope.as_str()).collect();
    assert_eq!(scopes, ["mine-2", "mine-1"]);
    assert_eq!(cursors, [tickets[0].id.as_str()]);
    // The control: whoever covers all sees all.
    let all = Paging::default();
    let all = block_on(bench.state().tickets(None, None, &all, |_| true)).expect("a page");
    assert_eq!(all.tickets.len(), 5);
}

/// Everything that a page by page of one shows, cursors and all.
fn walk<T>(page: impl Fn(&Paging) -> (Vec<T>, Option<String>)) -> (Vec<T>, Vec<String>) {
    let (mut seen, mut cursors, mut after) = (Vec::new(), Vec::new(), None);
    loop {
        let limit = Some(1);
        let (entries, next) = page(&Paging { limit, after });
        assert!(entries.len() <= 1);
        seen.extend(entries);
        cursors.extend(next.clone());
        after = next;
        if after.is_none() {
            return (seen, cursors);
        }
    }
}
