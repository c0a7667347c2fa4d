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
    let named = |id: Option<&Ticket>, [scope, from, to]: [&str; 3]| {
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let id = id.map(|ticket| ticket.id.clone());
        let (scope, from, to) = (text(scope), text(from), text(to));
        let request = EndRequest {
            id,
            scope,
            from,
            to,
        };
        block_on(bench.state().ticket(&request)).map(|ticket| ticket.id)
    };
    let none = ["", "", ""];
    assert_eq!(named(Some(&first), none).expect("found"), first.id);
    assert_eq!(
        named(None, ["web01", "y", "z"]).expect("the latest"),
        second.id
    );
    assert_eq!(
        named(Some(&third), ["web02", "", "z"]).expect("both"),
        third.id
    );
    for wrong in [["web01", "y", "x"], ["web01", "x", "z"]] {
        assert_eq!(kind(named(None, wrong)), ErrorKind::Conflict, "{wrong:?}");
        let wrong = ["", wrong[1], wrong[2]];
        assert_eq!(kind(named(Some(&second), wrong)), ErrorKind::Conflict);
    }
    assert_eq!(
        kind(named(Some(&third), ["web01", "", ""])),
        ErrorKind::NotFound
    );
    assert_eq!(kind(named(None, ["web09", "y", "z"])), ErrorKind::NotFound);
    for part in [none, ["web01", "", ""], ["web01", "y", ""], ["", "y", "z"]] {
        assert_eq!(
            kind(named(None, part)),
            ErrorKind::InvalidReference,
            "{part:?}"
        );
    }

    let list = |scope, state, limit, after| {
        let query = Paging { limit, after };
        let page = block_on(bench.state().tickets(scope, state, &query, |_| true)).expect("a page");
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
    let query = Paging {
        limit: None,
        after: Some("x".into()),
    };
    let refused = block_on(bench.state().tickets(None, None, &query, |_| true));
    assert_eq!(kind(refused), ErrorKind::InvalidReference);
}

/// A commit that was meant for a migration which ended, and another has begun since.
#[test]
fn a_commit_by_scope_ends_no_other_migration() {
    let (bench, first) = migrating();
    bench.abort(&first).expect("aborted");
    bench.begin("web01", "y", "w").expect("begun");
    let meant = EndRequest {
        id: None,
        scope: Some("web01".into()),
        from: Some("y".into()),
        to: Some("z".into()),
    };
    let refused = block_on(bench.state().commit(&meant));
    assert_eq!(kind(refused), ErrorKind::Conflict);
    assert_eq!(
        kind(block_on(bench.state().abort(&meant))),
        ErrorKind::Conflict
    );
    assert!(bench.reads("y", "web01/root") && bench.reads("w", "web01/root"));
    let right = EndRequest {
        to: Some("w".into()),
        ..meant
    };
    block_on(bench.state().commit(&right)).expect("the control");
    assert!(!bench.reads("y", "web01/root") && bench.reads("w", "web01/root"));
}

#[test]
fn what_ended_is_told_until_it_was() {
    let (mut bench, ticket) = migrating();
    bench
        .grant_with("web02", "y", &[], bench.at(60))
        .expect("granted");
    bench.pass(3600);
    block_on(bench.state().flush()).expect("swept");
    let first = notices(&bench);
    let ended: Vec<(&str, &str)> = first
        .iter()
        .map(|ended| match ended {
            Ended::Ticket(ticket) => ("ticket", ticket.id.as_str()),
            Ended::Grant(grant) => ("grant", grant.scope.as_str()),
        })
        .collect();
    assert_eq!(ended.len(), 2, "{ended:?}");
    assert!(ended.contains(&("ticket", ticket.id.as_str())) && ended.contains(&("grant", "web02")));
    // The audit could not be written: asked again, before and after a start.
    assert_eq!(notices(&bench), first);
    bench.reopen();
    assert_eq!(notices(&bench).len(), 2);
    assert_eq!(bench.expire().len(), 1, "the ticket, and told now");
    assert!(notices(&bench).is_empty());
    bench.reopen();
    assert!(notices(&bench).is_empty(), "once is enough");
}

/// Whoever looks makes the disk do nothing: the file and its log stay as they are.
#[test]
fn looking_writes_nothing() {
    let (bench, ticket) = migrating();
    let sizes = || {
        ["service.db", "service.db-wal"].map(|name| {
            let file = std::fs::read(bench.folder.path().join(name)).expect("read");
            (file.len(), file)
        })
    };
    // Were anything written down, the time would be.
    bench.pass(1);
    let before = sizes();
    let page = Paging::default();
    for _ in 0..10 {
        block_on(bench.state().ticket(&by_id(&ticket))).expect("known");
        block_on(bench.state().tickets(None, None, &page, |_| true)).expect("a page");
        block_on(bench.state().nodes(&page)).expect("a page");
    }
    assert!(sizes() == before, "something was written");
    block_on(bench.state().flush()).expect("flushed");
    assert!(sizes() != before, "the control");
}
