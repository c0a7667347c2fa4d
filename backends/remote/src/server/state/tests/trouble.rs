//! Locked, full, foreign and shared files.

use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

use rusqlite::Connection;

use super::*;

#[test]
fn a_locked_database_is_unavailable_within_the_limit_and_changes_nothing() {
    let mut bench = Bench::new();
    let before = bench.grant("web01", "y");
    let other = Connection::open(bench.path()).expect("another program");
    other.execute_batch("BEGIN EXCLUSIVE").expect("locked");
    let begun = Instant::now();
    let refused = bench
        .grant_with("web02", "y", &[], None)
        .expect_err("locked");
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    assert!(refused.advice().is_some());
    let revoke = RevokeRequest {
        scope: "web01".into(),
        node: "y".into(),
        if_epoch: None,
    };
    assert_eq!(
        kind(block_on(bench.state().revoke(&revoke))),
        ErrorKind::Unavailable
    );
    assert_eq!(kind(bench.begin("web01", "y", "z")), ErrorKind::Unavailable);
    // Three times the limit of 200 ms, and room for a slow machine.
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
    assert!(
        bench.reads("y", "web01/root"),
        "what was decided is served on"
    );
    assert!(!bench.reads("y", "web02/root") && !bench.reads("z", "web01/root"));
    other.execute_batch("ROLLBACK").expect("free again");
    bench.reopen();
    assert_eq!(bench.state().what_can("y"), [before]);
    assert!(!bench.reads("z", "web01/root"));
    assert_eq!(
        bench.grant("web02", "y").epoch,
        2,
        "the failures took no epoch"
    );
}

#[test]
fn one_that_fails_takes_nothing_from_those_it_waited_with() {
    let bench = Bench::new();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let request = |scope: String, node: &str| GrantRequest {
        scope,
        node: node.into(),
        names: Vec::new(),
        expires: None,
        if_epoch: None,
    };
    let state = bench.state();
    let outcomes = runtime.block_on(async {
        let grants = (0..200).map(|index| async move {
            // Each third is refused.
            let node = if index % 3 == 0 { "@none" } else { "y" };
            state
                .grant(MANAGER, &request(format!("web-{index}"), node))
                .await
        });
        futures_util::future::join_all(grants).await
    });
    let mut epochs: Vec<u64> = outcomes.iter().flatten().map(|grant| grant.epoch).collect();
    epochs.sort_unstable();
    // 200 less the 67 multiples of three from 0 to 198.
    assert_eq!(epochs, (1..=133).collect::<Vec<u64>>());
    for (index, outcome) in outcomes.iter().enumerate() {
        assert_eq!(outcome.is_err(), index % 3 == 0);
        assert_eq!(bench.reads("y", &format!("web-{index}/a")), index % 3 != 0);
    }
}

#[test]
fn without_room_nothing_is_changed_and_later_it_is() {
    let bench = Bench::new();
    bench.grant("web01", "y");
    // The database may not grow past the pages it has, which is SQLite's own full disk.
    let pages = "PRAGMA max_page_count = 1";
    let limited = block_on(bench.state().change(move |work| {
        let pages = work.db.query_row(pages, [], |row| row.get::<_, i64>(0));
        pages.map_err(|_| Error::new(ErrorKind::Internal, "no limit"))
    }));
    let limited = limited.expect("limited");
    let (mut granted, mut refused) = (Vec::new(), None);
    for index in 0..2000 {
        let scope = format!("{}-{index}", "long".repeat(25));
        match bench.grant_with(&scope, "y", &[], None) {
            Ok(_) => granted.push(scope),
            Err(error) => {
                refused = Some((scope, error));
                break;
            }
        }
    }
    let (scope, error) = refused.unwrap_or_else(|| panic!("never full: {limited} pages"));
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    assert!(!bench.reads("y", &format!("{scope}/a")));
    assert!(
        granted
            .iter()
            .all(|scope| bench.reads("y", &format!("{scope}/a")))
    );
    block_on(bench.state().change(|work| {
        let more = "PRAGMA max_page_count = 100000";
        let pages = work.db.query_row(more, [], |row| row.get::<_, i64>(0));
        pages.map_err(|_| Error::new(ErrorKind::Internal, "no limit"))
    }))
    .expect("room again");
    bench.grant(&scope, "y");
    assert!(bench.reads("y", &format!("{scope}/a")));
}

#[test]
fn a_file_serves_one_process_and_is_nobody_elses() {
    let mut bench = Bench::new();
    let error = State::open(&bench.path(), bench.settings()).expect_err("in use");
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(
        error.message().contains("in use by another process"),
        "{error}"
    );
    // Whoever was refused took nothing from who has it.
    bench.grant("web01", "y");
    for entry in std::fs::read_dir(bench.folder.path()).expect("a folder") {
        let entry = entry.expect("an entry");
        let mode = entry.metadata().expect("there").permissions().mode();
        assert_eq!(mode & 0o7777, 0o600, "{entry:?}");
    }
    bench.state = None;
    std::fs::set_permissions(bench.path(), PermissionsExt::from_mode(0o644)).expect("mode");
    let refused = State::open(&bench.path(), bench.settings());
    assert_eq!(kind(refused), ErrorKind::PermissionDenied);
    std::fs::set_permissions(bench.path(), PermissionsExt::from_mode(0o600)).expect("mode");
    bench.reopen();
    assert!(bench.reads("y", "web01/root"), "the control");
}

#[test]
fn what_is_no_state_or_a_newer_one_is_refused() {
    let mut bench = Bench::new();
    bench.state = None;
    let version = |version: i64| {
        let db = Connection::open(bench.path()).expect("opened");
        db.pragma_update(None, "user_version", version)
            .expect("set");
    };
    version(2);
    let error = State::open(&bench.path(), bench.settings()).expect_err("newer");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.message().contains("version 2"), "{error}");
    version(1);
    drop(State::open(&bench.path(), bench.settings()).expect("the control"));

    let other = bench.folder.path().join("other.db");
    drop(super::super::super::private::open(&other, "state").expect("made"));
    let db = Connection::open(&other).expect("opened");
    db.execute_batch("CREATE TABLE mine (x)").expect("made");
    drop(db);
    let refused = State::open(&other, bench.settings());
    assert_eq!(kind(refused), ErrorKind::InvalidConfig);
    std::fs::write(
        &other,
        "no database at all, but long enough to be looked at".repeat(100),
    )
    .expect("written");
    assert_eq!(
        kind(State::open(&other, bench.settings())),
        ErrorKind::Corrupt
    );
    let nowhere = bench.folder.path().join("no/such/service.db");
    assert_eq!(
        kind(State::open(&nowhere, bench.settings())),
        ErrorKind::InvalidConfig
    );
}

#[test]
fn a_change_that_panics_is_taken_back_and_others_go_on() {
    let bench = Bench::new();
    bench.grant("web01", "y");
    let broken = block_on(bench.state().change(|work| -> Result<()> {
        work.next_epoch();
        super::super::grants::take(work, "web01", "y")?;
        panic!("on purpose")
    }));
    assert_eq!(kind(broken), ErrorKind::Internal);
    assert!(bench.reads("y", "web01/root"));
    assert_eq!(bench.grant("web02", "y").epoch, 2, "it took no epoch");
    let looked = block_on(
        bench
            .state()
            .look(|_| -> Result<()> { panic!("on purpose") }),
    );
    assert_eq!(kind(looked), ErrorKind::Unavailable);
    bench.grant("web03", "y");
}

#[test]
fn without_its_thread_nothing_is_permitted_or_changed() {
    struct Bomb;
    impl writer::Job for Bomb {
        fn run(&mut self, _: &mut Work<'_>) -> bool {
            false
        }
        fn answer(self: Box<Self>, _: Option<&Error>) {
            panic!("on purpose");
        }
    }
    let bench = Bench::new();
    bench.grant("web01", "y");
    let permit = bench.state().may_read("y", &reference("web01/root"));
    let permit = permit.expect("the control");
    let sent = bench.state().commands.send(Command::Change(Box::new(Bomb)));
    assert!(sent.is_ok());
    let begun = Instant::now();
    while bench.reads("y", "web01/root") {
        assert!(begun.elapsed() < Duration::from_secs(10), "it reads on");
        std::thread::yield_now();
    }
    assert!(!bench.state().still_holds(&permit));
    assert!(!bench.reads("y", "@host.y/tpm"));
    let refused = bench.grant_with("web02", "y", &[], None);
    assert_eq!(kind(refused), ErrorKind::Unavailable);
    let page = Paging::default();
    assert_eq!(
        kind(block_on(bench.state().nodes(&page))),
        ErrorKind::Unavailable
    );
}

#[test]
fn what_nobody_waits_for_any_more_is_not_done_and_what_waits_has_a_bound() {
    let bench = Bench::new();
    let state = bench.state();
    let (let_go, held) = std::sync::mpsc::channel::<()>();
    let request = |scope: &str| GrantRequest {
        scope: scope.into(),
        node: "y".into(),
        expires: None,
        names: Vec::new(),
        if_epoch: None,
    };
    let (given_up, awaited) = (request("web01"), request("web02"));
    block_on(async {
        // The disk hangs, as far as the thread goes.
        let hangs = state.change(move |_| {
            let _ = held.recv();
            Ok(())
        });
        let mut hangs = std::pin::pin!(hangs);
        assert!(futures_util::poll!(&mut hangs).is_pending());
        let by = "spiffe://site/manager/m";
        {
            let change = state.grant(by, &given_up);
            let mut change = std::pin::pin!(change);
            assert!(futures_util::poll!(&mut change).is_pending());
        }
        let change = state.grant(by, &awaited);
        let mut change = std::pin::pin!(change);
        assert!(futures_util::poll!(&mut change).is_pending());
        // Two wait, and one is being done: there is room for so many.
        let left = state.room.available_permits();
        assert_eq!(left, ROOM - 3);
        let all = u32::try_from(left).expect("it fits");
        let full = state.room.try_acquire_many(all).expect("there is room");
        let refused = state.grant(by, &given_up).await;
        assert_eq!(kind(refused), ErrorKind::Timeout);
        drop(full);
        drop(let_go);
        hangs.await.expect("done");
        change.await.expect("done");
    });
    assert!(bench.reads("y", "web02/root"), "the control");
    assert!(!bench.reads("y", "web01/root"), "nobody waited for it");
    assert_eq!(bench.state().room.available_permits(), ROOM);
}

/// As [`Bench::settings`], over a database that another program keeps for longer than anybody waits.
fn patient(bench: &mut Bench) {
    bench.state = None;
    let settings = StateSettings {
        busy: Duration::from_secs(120),
        ..bench.settings()
    };
    bench.state = Some(State::open(&bench.path(), settings).expect("opened"));
}

#[test]
fn a_file_that_hangs_is_awaited_once_however_much_is_asked_of_it() {
    let mut bench = Bench::new();
    patient(&mut bench);
    for scope in ["web01", "web02", "web03"] {
        bench.grant(scope, "y");
    }
    bench.begin("web01", "y", "z").expect("begun");
    bench.begin("web02", "y", "z").expect("begun");
    let short = BeginRequest {
        scope: "web03".into(),
        from: "y".into(),
        to: "z".into(),
        seconds: Some(60),
    };
    let short = block_on(bench.state().begin(MANAGER, &short)).expect("begun");
    let short = by_id(&short);
    let state = bench.state();
    let permits: Vec<Permit> = ["web01/root", "web02/root"]
        .iter()
        .map(|text| state.may_read("z", &reference(text)).expect("granted"))
        .collect();
    bench.pass(61);
    let other = Connection::open(bench.path()).expect("another program");
    other.execute_batch("BEGIN EXCLUSIVE").expect("locked");

    let page = Paging::default();
    let begun = Instant::now();
    let (fetched, ticket, tickets, nodes, expired, told, flushed) = block_on(async {
        tokio::join!(
            state.fetched(&permits),
            state.ticket(&short),
            state.tickets(None, None, &page, |_| true),
            state.nodes(&page),
            state.expire(),
            state.told(vec!["x".into()]),
            state.flush(),
        )
    });
    let waited = begun.elapsed();
    assert_eq!(kind(fetched), ErrorKind::Timeout);
    assert_eq!(kind(ticket), ErrorKind::Timeout);
    assert_eq!(kind(tickets), ErrorKind::Timeout);
    assert_eq!(kind(nodes), ErrorKind::Timeout);
    assert_eq!(kind(expired), ErrorKind::Timeout);
    assert_eq!(kind(told), ErrorKind::Timeout);
    assert_eq!(kind(flushed), ErrorKind::Timeout);
    // One limit of ten seconds: two in turn would be twenty.
    assert!(waited < Duration::from_secs(15), "{waited:?}");

    // The control: what the hanging file was asked, it does when it is free.
    other.execute_batch("ROLLBACK").expect("free again");
    block_on(state.fetched(&permits)).expect("fetched");
    let tickets = block_on(state.tickets(None, None, &page, |_| true)).expect("listed");
    let fetched = |ticket: &&Ticket| ticket.fetched;
    assert_eq!(tickets.tickets.iter().filter(fetched).count(), 2);
}

#[test]
fn a_state_whose_file_hangs_is_left_behind_and_is_nobody_elses_before_its_thread_ends() {
    let mut bench = Bench::new();
    patient(&mut bench);
    bench.grant("web01", "y");
    let other = Connection::open(bench.path()).expect("another program");
    other.execute_batch("BEGIN EXCLUSIVE").expect("locked");
    let begun = Instant::now();
    bench.state = None;
    let waited = begun.elapsed();
    // It has tried, and given up after ten seconds.
    let expected = Duration::from_secs(9)..Duration::from_secs(20);
    assert!(expected.contains(&waited), "{waited:?}");
    let taken = State::open(&bench.path(), bench.settings());
    assert_eq!(kind(taken), ErrorKind::Conflict, "its thread may write yet");

    other.execute_batch("ROLLBACK").expect("free again");
    let begun = Instant::now();
    while let Err(error) = State::open(&bench.path(), bench.settings()) {
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert!(begun.elapsed() < Duration::from_secs(30), "{error}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
