//! Migrations.

use super::*;

/// `web01` runs on y and migrates to z.
fn migrating() -> (Bench, Ticket) {
    let bench = Bench::new();
    bench
        .grant_with("web01", "y", &["root"], bench.at(100_000))
        .expect("granted");
    let ticket = bench.begin("web01", "y", "z").expect("begun");
    (bench, ticket)
}

fn readers(bench: &Bench) -> (bool, bool) {
    (
        bench.reads("y", "web01/root"),
        bench.reads("z", "web01/root"),
    )
}

fn state(bench: &Bench, ticket: &Ticket) -> TicketState {
    block_on(bench.state().ticket(&by_id(ticket)))
        .expect("known")
        .state
}

#[test]
fn the_target_reads_what_the_source_does_and_commit_leaves_it_alone() {
    let (mut bench, ticket) = migrating();
    assert_eq!(readers(&bench), (true, true));
    assert!(!bench.reads("z", "web01/other"), "the source's names");
    let held = &bench.state().what_can("z")[0];
    assert_eq!(held.migration.as_ref(), Some(&ticket.id));
    assert_eq!(bench.begin("web01", "y", "z").expect("again"), ticket);
    bench.reopen();
    assert_eq!(readers(&bench), (true, true));
    let permit = bench
        .state()
        .may_read("z", &reference("web01/root"))
        .expect("permitted");
    let done = bench.commit(&ticket).expect("committed");
    assert_eq!(done.state, TicketState::Committed);
    assert!(bench.state().still_holds(&permit), "it reads on");
    assert_eq!(bench.commit(&ticket).expect("again"), done);
    assert_eq!(kind(bench.abort(&ticket)), ErrorKind::Conflict);
    bench.pass(90_000);
    bench.expire();
    bench.reopen();
    assert_eq!(readers(&bench), (false, true));
    let held = &bench.state().what_can("z")[0];
    assert_eq!(
        (held.migration.as_ref(), held.expires),
        (None, bench.at(100_000))
    );
}

#[test]
fn abort_leaves_the_source_alone() {
    let (mut bench, ticket) = migrating();
    bench.fetch("z", "web01/root").expect("fetched");
    let done = bench.abort(&ticket).expect("aborted");
    assert_eq!((done.state, done.fetched), (TicketState::Aborted, true));
    assert_eq!(bench.abort(&ticket).expect("again"), done);
    assert_eq!(kind(bench.commit(&ticket)), ErrorKind::Conflict);
    bench.reopen();
    assert_eq!(readers(&bench), (true, false));
    bench
        .begin("web01", "y", "z")
        .expect("another one can begin");
}

#[test]
fn a_ticket_expires_where_the_target_fetched_nothing() {
    let (mut bench, ticket) = migrating();
    bench.pass(3599);
    assert_eq!(readers(&bench), (true, true), "an hour, where nobody says");
    let permit = bench
        .state()
        .may_read("z", &reference("web01/root"))
        .expect("permitted");
    bench.pass(1);
    // Before anybody has written it down.
    assert_eq!(readers(&bench), (true, false));
    assert_eq!(
        bench.denial("z", "web01/root"),
        "the migration's time is over"
    );
    assert_eq!(
        kind(block_on(bench.state().fetched(&[permit]))),
        ErrorKind::PermissionDenied
    );
    let ended = bench.expire();
    assert_eq!((ended.len(), ended[0].state), (1, TicketState::Expired));
    assert!(bench.expire().is_empty(), "each once");
    assert_eq!(
        bench.abort(&ticket).expect("the same outcome").state,
        TicketState::Expired
    );
    assert_eq!(kind(bench.commit(&ticket)), ErrorKind::Conflict);
    bench.reopen();
    assert_eq!(readers(&bench), (true, false));
    assert!(bench.state().what_can("z").is_empty());
}

#[test]
fn a_ticket_is_undecided_where_the_target_has_fetched() {
    for commit in [true, false] {
        let (mut bench, ticket) = migrating();
        bench.fetch("z", "web01/root").expect("fetched");
        bench.pass(7200);
        assert_eq!(readers(&bench), (true, true));
        let ended = bench.expire();
        assert_eq!((ended.len(), ended[0].state), (1, TicketState::Undecided));
        assert!(bench.expire().is_empty(), "each once");
        bench.reopen();
        assert_eq!(bench.expire(), ended, "and once more after a start");
        assert_eq!(readers(&bench), (true, true));
        let refused = bench.begin("web01", "y", "z").expect_err("not decided");
        assert_eq!(refused.kind(), ErrorKind::Conflict);
        bench.fetch("z", "web01/root").expect("it may run there");
        if commit {
            assert_eq!(
                bench.commit(&ticket).expect("decided").state,
                TicketState::Committed
            );
            assert_eq!(readers(&bench), (false, true));
        } else {
            assert_eq!(
                bench.abort(&ticket).expect("decided").state,
                TicketState::Aborted
            );
            assert_eq!(readers(&bench), (true, false));
        }
    }
}

#[test]
fn the_first_fetch_is_durable_before_it_is_answered() {
    let (mut bench, ticket) = migrating();
    bench.fetch("z", "web01/root").expect("fetched");
    // As a crash leaves it.
    let copy = tempfile::tempdir().expect("folder");
    for suffix in ["", "-wal"] {
        let name = format!("service.db{suffix}");
        std::fs::copy(bench.folder.path().join(&name), copy.path().join(&name)).expect("copied");
    }
    bench.state = None;
    bench.folder = copy;
    bench.reopen();
    assert!(
        block_on(bench.state().ticket(&by_id(&ticket)))
            .expect("known")
            .fetched
    );
    bench.pass(7200);
    assert_eq!(bench.expire()[0].state, TicketState::Undecided);
}

/// The moment between two looks at memory, when a ticket ends while its first fetch is under way.
#[test]
fn a_fetch_that_comes_after_its_ticket_ended_is_refused() {
    type End = fn(&Bench, &Ticket);
    let ends: [(&str, End); 4] = [
        ("abort", |bench, ticket| {
            drop(bench.abort(ticket).expect("aborted"))
        }),
        ("time", |bench, _| bench.pass(3600)),
        ("revoke", |bench, _| assert!(bench.revoke("web01", "z"))),
        ("quarantine", |bench, _| {
            block_on(bench.state().quarantine("z")).expect("quarantined");
        }),
    ];
    let late = |bench: &Bench, ticket: &Ticket| {
        let id = ticket.id.clone();
        block_on(
            bench
                .state()
                .change(move |work| super::super::tickets::fetch(work, &id)),
        )
    };
    for (what, end) in ends {
        let (bench, ticket) = migrating();
        end(&bench, &ticket);
        assert_eq!(
            kind(late(&bench, &ticket)),
            ErrorKind::PermissionDenied,
            "{what}"
        );
        let known = block_on(bench.state().ticket(&by_id(&ticket))).expect("known");
        assert!(!known.fetched, "{what}");
    }
    let (bench, ticket) = migrating();
    late(&bench, &ticket).expect("the control");
}

#[test]
fn what_cannot_begin_is_refused() {
    let bench = Bench::new();
    bench.grant("web01", "y");
    bench.grant("web01", "x");
    block_on(bench.state().quarantine("q")).expect("quarantined");
    assert_eq!(
        kind(bench.begin("web01", "y", "y")),
        ErrorKind::InvalidReference
    );
    assert_eq!(
        kind(bench.begin("web01", "nobody", "z")),
        ErrorKind::Conflict
    );
    assert_eq!(kind(bench.begin("web02", "y", "z")), ErrorKind::Conflict);
    assert_eq!(
        kind(bench.begin("web01", "y", "x")),
        ErrorKind::Conflict,
        "it holds one"
    );
    let error = bench.begin("web01", "y", "q").expect_err("quarantined");
    assert!(
        error
            .advice()
            .is_some_and(|advice| advice.contains("node release q"))
    );
    for seconds in [0, 86_401, u64::MAX] {
        let request = BeginRequest {
            scope: "web01".into(),
            from: "y".into(),
            to: "z".into(),
            seconds: Some(seconds),
        };
        let refused = block_on(bench.state().begin(MANAGER, &request));
        assert_eq!(kind(refused), ErrorKind::InvalidReference, "{seconds}");
    }
    bench
        .grant_with("web03", "y", &[], bench.at(10))
        .expect("granted");
    bench.pass(10);
    assert_eq!(
        kind(bench.begin("web03", "y", "z")),
        ErrorKind::Conflict,
        "expired"
    );
    let ticket = bench.begin("web01", "y", "z").expect("the control");
    assert_eq!(
        kind(bench.begin("web01", "y", "w")),
        ErrorKind::Conflict,
        "two at once"
    );
    assert_eq!(
        kind(bench.begin("web01", "x", "z")),
        ErrorKind::Conflict,
        "two at once"
    );
    assert_eq!(
        kind(bench.grant_with("web01", "z", &["a"], None)),
        ErrorKind::Conflict
    );
    bench.abort(&ticket).expect("aborted");
    bench
        .grant_with("web01", "z", &["a"], None)
        .expect("granted");
}

#[test]
fn revoking_by_hand_works_and_never_leaves_a_ticket_stuck() {
    // The target's: there is nothing to commit to.
    let (bench, ticket) = migrating();
    assert!(bench.revoke("web01", "z"));
    assert_eq!(readers(&bench), (true, false));
    assert_eq!(
        kind(bench.begin("web01", "y", "z")),
        ErrorKind::Conflict,
        "z cannot read"
    );
    assert_eq!(kind(bench.commit(&ticket)), ErrorKind::Conflict);
    bench.abort(&ticket).expect("aborted");
    // The source's: there is nothing to abort to.
    let (bench, ticket) = migrating();
    assert!(bench.revoke("web01", "y"));
    assert_eq!(readers(&bench), (false, true));
    assert_eq!(kind(bench.abort(&ticket)), ErrorKind::Conflict);
    bench.commit(&ticket).expect("committed");
    assert_eq!(readers(&bench), (false, true));
    // Both.
    let (bench, ticket) = migrating();
    assert!(bench.revoke("web01", "y") && bench.revoke("web01", "z"));
    assert_eq!(kind(bench.commit(&ticket)), ErrorKind::Conflict);
    assert_eq!(
        bench.abort(&ticket).expect("aborted").state,
        TicketState::Aborted
    );
}

#[test]
fn a_quarantine_decides_no_ticket() {
    let (bench, ticket) = migrating();
    bench.fetch("z", "web01/root").expect("fetched");
    block_on(bench.state().quarantine("z")).expect("quarantined");
    assert_eq!(readers(&bench), (true, false));
    assert_eq!(state(&bench, &ticket), TicketState::Open);
    assert_eq!(kind(bench.commit(&ticket)), ErrorKind::Conflict);
    bench.abort(&ticket).expect("aborted");
    let (bench, ticket) = migrating();
    block_on(bench.state().quarantine("y")).expect("quarantined");
    assert_eq!(readers(&bench), (false, true));
    assert_eq!(kind(bench.abort(&ticket)), ErrorKind::Conflict);
    bench.commit(&ticket).expect("committed");
    assert_eq!(readers(&bench), (false, true));
}

#[test]
fn other_terms_of_the_source_are_the_targets_too() {
    let (bench, ticket) = migrating();
    bench
        .grant_with("web01", "y", &["vnc"], None)
        .expect("other terms");
    assert!(bench.reads("z", "web01/vnc") && !bench.reads("z", "web01/root"));
    bench.commit(&ticket).expect("committed");
    let held = &bench.state().what_can("z")[0];
    assert_eq!(
        (held.names.as_slice(), held.expires),
        (["vnc".to_owned()].as_slice(), None)
    );
}

#[test]
fn tickets_are_named_by_id_or_scope_and_listed_in_pages() {
    let (bench, first) = migrating();
    bench.abort(&first).expect("aborted");
    let second = bench.begin("web01", "y", "z").expect("begun");
    bench.grant("web02", "y");
    let third = bench.begin("web02", "y", "z").expect("begun");
    let named = |id: Option<&Ticket>, scope: Option<&str>| {
        let id = id.map(|ticket| ticket.id.clone());
        let scope = scope.map(str::to_owned);
        block_on(bench.state().ticket(&EndRequest { id, scope })).map(|ticket| ticket.id)
    };
    assert_eq!(named(Some(&first), None).expect("found"), first.id);
    assert_eq!(named(None, Some("web01")).expect("the latest"), second.id);
    assert_eq!(named(Some(&third), Some("web02")).expect("both"), third.id);
    assert_eq!(
        kind(named(Some(&third), Some("web01"))),
        ErrorKind::NotFound
    );
    assert_eq!(kind(named(None, Some("web09"))), ErrorKind::NotFound);
    assert_eq!(kind(named(None, None)), ErrorKind::InvalidReference);

    let list = |scope, state, limit, after| {
        let query = PageQuery { limit, after };
        let page = block_on(bench.state().tickets(scope, state, &query)).expect("a page");
        let ids: Vec<String> = page.tickets.into_iter().map(|ticket| ticket.id).collect();
        (ids, page.next)
    };
    let ids = |tickets: &[&Ticket]| tickets.iter().map(|t| t.id.clone()).collect::<Vec<_>>();
    assert_eq!(
        list(None, None, None, None),
        (ids(&[&third, &second, &first]), None)
    );
    assert_eq!(
        list(Some("web01"), None, None, None).0,
        ids(&[&second, &first])
    );
    assert_eq!(
        list(None, Some(TicketState::Aborted), None, None).0,
        ids(&[&first])
    );
    let (page, next) = list(None, None, Some(2), None);
    assert_eq!(page, ids(&[&third, &second]));
    assert!(next.is_some());
    assert_eq!(list(None, None, Some(2), next), (ids(&[&first]), None));
    let query = PageQuery {
        limit: None,
        after: Some("x".into()),
    };
    let refused = block_on(bench.state().tickets(None, None, &query));
    assert_eq!(kind(refused), ErrorKind::InvalidReference);
}
