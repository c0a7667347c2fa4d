//! Tombstones are kept, and age by both clocks.

use super::*;

#[test]
fn tombstones_are_remembered() {
    let mut bench = Bench::new();
    let tombstone = |subject: &str, seconds| Tombstone {
        subject: subject.into(),
        version: "3".into(),
        // As exact as a store may be.
        created: "2026-01-01T00:00:00.123456789Z".parse().expect("a time"),
        until: bench.at(seconds).expect("a time"),
        left: Duration::from_secs(seconds.unsigned_abs()),
    };
    let all = [
        tombstone("a/x", 10),
        tombstone("a/y", 20),
        tombstone("ab/x", 30),
    ];
    for tombstone in &all {
        block_on(bench.state().put_tombstone(tombstone)).expect("buried");
    }
    bench.reopen();
    assert_eq!(bench.state().tombstone("a/x").as_ref(), Some(&all[0]));
    assert_eq!(bench.state().tombstones_below("a/"), all[..2]);
    assert_eq!(bench.state().tombstones_below("a"), all);
    bench.pass(20);
    assert_eq!(
        bench.state().due(),
        [],
        "the wall clock alone deletes nothing"
    );
    block_on(bench.state().age(Duration::from_secs(15))).expect("counted");
    bench.reopen();
    let due = bench.state().due();
    assert_eq!(due.len(), 1);
    assert_eq!(
        (due[0].subject.as_str(), due[0].left),
        ("a/x", Duration::ZERO)
    );
    block_on(bench.state().age(Duration::from_secs(50))).expect("counted");
    let subjects = |due: Vec<Tombstone>| due.into_iter().map(|t| t.subject).collect::<Vec<_>>();
    assert_eq!(
        subjects(bench.state().due()),
        ["a/x", "a/y"],
        "nor does running alone"
    );
    let back = block_on(bench.state().take_tombstone("a/x")).expect("back");
    assert_eq!(back.as_ref(), Some(&due[0]));
    assert_eq!(
        block_on(bench.state().take_tombstone("a/x")).expect("none"),
        None
    );
    bench.reopen();
    assert_eq!(bench.state().tombstone("a/x"), None);
}
