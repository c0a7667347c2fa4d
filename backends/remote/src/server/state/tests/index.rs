//! The fetch index: what the audit says, and nothing else.

use super::*;
use crate::protocol::Fetch;
use crate::server::audit::{AuditLog, Entry};

/// A state that follows an audit.
struct Following {
    bench: Bench,
    audit: Option<AuditLog>,
}

impl Following {
    fn new() -> Self {
        let mut following = Self {
            bench: Bench::new(),
            audit: None,
        };
        following.reopen();
        following
    }

    fn path(&self) -> PathBuf {
        self.bench.folder.path().join("audit.jsonl")
    }

    fn reopen(&mut self) {
        self.audit = None;
        self.bench.reopen();
        self.follow();
    }

    fn follow(&mut self) {
        let state = self.bench.state();
        let audit = AuditLog::open(&self.path(), state.anchor()).expect("opened");
        state.follow(&audit, false).expect("followed");
        self.audit = Some(audit);
    }

    fn audit(&self) -> &AuditLog {
        self.audit.as_ref().expect("open")
    }

    fn record(&self, operation: &'static str, outcome: &'static str, node: &str, subject: &str) {
        let entry = Entry {
            request: "r".into(),
            actor: "a".into(),
            role: None,
            peer: "p".into(),
            operation,
            subject: Some(subject.into()),
            node: Some(node.into()),
            outcome,
            reason: None,
            version: Some(self.audit().head().sequence.to_string()),
            epoch: None,
            migration: None,
            terms: serde_json::Map::new(),
        };
        block_on(self.audit().append(vec![entry])).expect("recorded");
    }

    fn reads(&self, node: &str, subject: &str) {
        self.record(Entry::READ, Entry::OK, node, subject);
    }

    fn fetched(&self, node: &str) -> Vec<Fetch> {
        let state = self.bench.state();
        block_on(state.quarantine(node))
            .expect("quarantined")
            .fetched
    }
}

fn counts(fetched: &[Fetch]) -> Vec<(&str, &str, u64)> {
    fetched
        .iter()
        .map(|fetch| {
            let version = fetch.version.as_deref().expect("one");
            (fetch.secret.as_str(), version, fetch.count)
        })
        .collect()
}

#[test]
fn a_quarantine_names_exactly_what_was_fetched() {
    let mut following = Following::new();
    following.reads("y", "web01/b");
    following.reads("y", "web01/a");
    following.reads("z", "web02/a");
    following.reads("y", "web01/b");
    following.record(Entry::READ, "PermissionDenied", "y", "web01/refused");
    following.record(Entry::READ, "begin", "y", "web01/begun");
    following.record("stat", Entry::OK, "y", "web01/stat");
    let expected = [("web01/a", "1", 1), ("web01/b", "3", 2)];
    let fetched = following.fetched("y");
    assert_eq!(counts(&fetched), expected);
    assert!(fetched[1].first < fetched[1].last && fetched[1].first < fetched[0].first);
    following.reopen();
    assert_eq!(following.fetched("y"), fetched);
    assert_eq!(counts(&following.fetched("z")), [("web02/a", "2", 1)]);
    assert!(following.fetched("nobody").is_empty());
    let page = block_on(following.bench.state().nodes(&Paging::default())).expect("a page");
    assert_eq!(page.nodes[1].last_fetch, Some(fetched[1].last));
}

#[test]
fn what_a_crash_lost_of_the_index_is_counted_from_the_audit_once() {
    let mut following = Following::new();
    following.reads("y", "web01/a");
    block_on(following.bench.state().flush()).expect("flushed");
    assert_eq!(following.bench.state().indexed(), 1);
    // The state as it stands now, with an audit that has gone on since.
    let crashed = Bench::new();
    for suffix in ["", "-wal"] {
        let name = format!("service.db{suffix}");
        let to = crashed.folder.path().join(format!("crashed{suffix}"));
        std::fs::copy(following.bench.folder.path().join(name), to).expect("copied");
    }
    for _ in 0..5 {
        following.reads("y", "web01/a");
        following.reads("y", "web01/b");
    }
    let log = following.path();
    following.audit = None;
    let state = State::open(&crashed.folder.path().join("crashed"), crashed.settings());
    let state = state.expect("opened");
    assert_eq!(state.indexed(), 1);
    for _ in 0..2 {
        // Once more over what is known by then: nothing is counted twice.
        let audit = AuditLog::open(&log, state.anchor()).expect("opened");
        state.follow(&audit, false).expect("followed");
        let answer = block_on(state.quarantine("y")).expect("quarantined");
        assert_eq!(
            counts(&answer.fetched),
            [("web01/a", "9", 6), ("web01/b", "10", 5)]
        );
        assert_eq!(state.indexed(), 11);
        assert_eq!(state.anchor(), Some(audit.head()));
    }
}

#[test]
fn records_in_a_file_that_was_moved_away_are_counted_too() {
    let mut following = Following::new();
    let (path, moved) = (following.path(), following.path().with_extension("jsonl.1"));
    for _ in 0..2 {
        following.reads("y", "web01/a");
    }
    std::fs::rename(&path, &moved).expect("moved");
    block_on(following.audit().reopen()).expect("a new one");
    following.reads("y", "web01/a");
    // A state that knows nothing of it yet.
    let fresh = Bench::new();
    let head = following.audit().head();
    following.audit = None;
    let audit = AuditLog::open(&path, Some(head)).expect("opened");
    fresh.state().follow(&audit, false).expect("followed");
    let answer = block_on(fresh.state().quarantine("y")).expect("quarantined");
    assert_eq!(counts(&answer.fetched), [("web01/a", "2", 3)]);
}

#[test]
fn what_is_buffered_is_written_down_within_seconds() {
    let following = Following::new();
    following.reads("y", "web01/a");
    let begun = std::time::Instant::now();
    while following.bench.state().indexed() < 1 {
        assert!(
            begun.elapsed() < Duration::from_secs(10),
            "never written down"
        );
        std::thread::yield_now();
    }
}

#[test]
fn a_truncated_audit_is_refused_by_what_the_state_remembers() {
    let mut following = Following::new();
    for _ in 0..3 {
        following.reads("y", "web01/a");
    }
    following.reopen();
    let log = following.path();
    following.audit = None;
    following.bench.reopen();
    let text = std::fs::read_to_string(&log).expect("read");
    let shorter: String = text.split_inclusive('\n').take(2).collect();
    std::fs::write(&log, shorter).expect("written");
    let anchor = following.bench.state().anchor();
    assert_eq!(anchor.as_ref().map(|anchor| anchor.sequence), Some(3));
    assert_eq!(kind(AuditLog::open(&log, anchor)), ErrorKind::Corrupt);
    std::fs::write(&log, text).expect("put back");
    following.follow();
}

#[test]
fn a_field_is_kept_with_the_secret() {
    let mut following = Following::new();
    for field in ["user", "key", "user"] {
        let mut entry = super::crash::read_of(&following.bench.grant("web01", "y"));
        entry.term("field", serde_json::Value::from(field));
        block_on(following.audit().append(vec![entry])).expect("recorded");
    }
    following.reads("y", "web01/x");
    let names = |following: &Following| -> Vec<(String, u64)> {
        let fetched = following.fetched("y").into_iter();
        fetched.map(|fetch| (fetch.secret, fetch.count)).collect()
    };
    let expected = [("web01/x", 1), ("web01/x#key", 1), ("web01/x#user", 2)];
    let expected = expected.map(|(name, count)| (name.to_owned(), count));
    assert_eq!(names(&following), expected);
    // From the file, as after a crash that lost what was buffered.
    let fresh = Bench::new();
    let log = following.path();
    following.audit = None;
    let audit = AuditLog::open(&log, None).expect("opened");
    fresh.state().follow(&audit, true).expect("followed");
    let answer = block_on(fresh.state().quarantine("y")).expect("quarantined");
    let again: Vec<(String, u64)> = answer
        .fetched
        .into_iter()
        .map(|fetch| (fetch.secret, fetch.count))
        .collect();
    assert_eq!(again, expected);
}

#[test]
fn a_state_that_is_older_than_the_audit_is_refused() {
    let mut following = Following::new();
    let tell = |following: &Following, operation, node: &str| {
        let mut entry = super::crash::read_of(&following.bench.grant("web01", "w"));
        entry.operation = operation;
        entry.node = Some(node.into());
        entry.epoch = Some(following.bench.state().epoch());
        block_on(following.audit().append(vec![entry])).expect("recorded");
    };
    following.bench.grant("web01", "y");
    tell(&following, "grant", "y");
    block_on(following.bench.state().flush()).expect("flushed");
    // A backup; then what it holds is revoked.
    let backup = tempfile::tempdir().expect("folder");
    let copy = |from: &std::path::Path, to: &std::path::Path| {
        for suffix in ["", "-wal"] {
            let name = format!("service.db{suffix}");
            let _ = std::fs::remove_file(to.join(&name));
            if from.join(&name).exists() {
                std::fs::copy(from.join(&name), to.join(&name)).expect("copied");
            }
        }
    };
    copy(following.bench.folder.path(), backup.path());
    assert!(following.bench.revoke("web01", "y"));
    tell(&following, "revoke", "y");
    following.reopen();
    // Brought back.
    following.audit = None;
    following.bench.state = None;
    copy(backup.path(), following.bench.folder.path());
    following.bench.reopen();
    assert!(following.bench.reads("y", "web01/root"), "un-revoked");
    let state = following.bench.state();
    let audit = AuditLog::open(&following.path(), state.anchor()).expect("opened");
    let error = state.follow(&audit, false).expect_err("older");
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.message().contains("revoke web01/x at y"), "{error}");
    let advice = error.advice().expect("the way out");
    assert!(advice.contains("accept-older-state"), "{advice}");
    state.follow(&audit, true).expect("accepted");
    drop(audit);
    // For one start; the next one needs it no more.
    following.reopen();
    assert!(following.bench.grant("web02", "y").epoch > 3);
}

#[test]
fn a_quarantine_that_is_undone_by_an_older_state_is_seen_too() {
    let bench = Bench::new();
    let before = bench.state().epoch();
    block_on(bench.state().quarantine("nobody")).expect("quarantined");
    assert!(bench.state().epoch() > before);
}
