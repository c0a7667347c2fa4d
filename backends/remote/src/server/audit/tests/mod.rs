//! The audit as a whole: what is durable, what fails closed, what a verification sees.

mod disk;

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicU64, Ordering};

use keyhaul_core::{ErrorKind, Result};
use tempfile::TempDir;

use super::*;

fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("audit.jsonl");
    (folder, path)
}

fn entry(subject: &str) -> Entry {
    Entry {
        request: "req-1".into(),
        actor: "spiffe://site/node/y".into(),
        role: Some(crate::protocol::Role::Node),
        peer: "127.0.0.1:4711".into(),
        operation: Entry::READ,
        subject: Some(subject.into()),
        node: Some("y".into()),
        outcome: Entry::OK,
        reason: None,
        version: Some("3".into()),
        epoch: Some(7),
        migration: None,
        terms: serde_json::Map::new(),
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().build();
    runtime.expect("a runtime").block_on(future)
}

fn write(log: &AuditLog, subject: &str) -> Result<u64> {
    block_on(log.append(vec![entry(subject)]))
}

/// A log of `count` records, and its head.
fn written(path: &Path, count: usize) -> AuditHead {
    let log = AuditLog::open(path, None).expect("opened");
    for index in 0..count {
        write(&log, &format!("web01/secret-{index}")).expect("recorded");
    }
    log.head()
}

fn lines(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).expect("read");
    text.lines().map(str::to_owned).collect()
}

fn store(path: &Path, lines: &[String]) {
    fs::write(path, lines.join("\n") + "\n").expect("written");
    fs::set_permissions(path, PermissionsExt::from_mode(0o600)).expect("mode");
}

#[test]
fn records_are_chained_as_the_documentation_says() {
    let (_folder, path) = folder();
    written(&path, 3);
    // The documented program, in another language.
    let program = r#"
import hashlib, json, sys
previous = "0" * 64
for number, line in enumerate(open(sys.argv[1]), 1):
    content, _, rest = line.rpartition(',"hash":"')
    previous = hashlib.sha256((previous + content + "}").encode()).hexdigest()
    assert rest == previous + '"}\n', line
    record = json.loads(line)
    assert record["sequence"] == number and record["subject"] == f"web01/secret-{number - 1}"
    assert record["actor"] == "spiffe://site/node/y" and record["role"] == "node" and record["epoch"] == 7
print(number)
"#;
    let verify = |path: &Path| {
        std::process::Command::new("python3")
            .arg("-c")
            .arg(program)
            .arg(path)
            .output()
            .expect("python3, of the package of that name")
    };
    let output = verify(&path);
    assert_eq!(output.stdout, b"3\n", "{output:?}");
    // The control: one digit changed.
    let mut changed = lines(&path);
    changed[1] = changed[1].replace("\"epoch\":7", "\"epoch\":8");
    store(&path, &changed);
    assert!(!verify(&path).status.success());
}

#[test]
fn the_chain_goes_on_after_a_restart_and_a_torn_line_is_cut_off() {
    let (_folder, path) = folder();
    let head = written(&path, 3);
    let mut file = fs::OpenOptions::new()
        .append(true)
        .open(&path)
        .expect("there");
    file.write_all(b"{\"sequence\":4,\"time\":\"2026-")
        .expect("torn");
    let verified = verify(std::slice::from_ref(&path), Some(&head)).expect("sound but for the end");
    assert!(verified.torn && verified.records == 3);
    let log = AuditLog::open(&path, Some(head)).expect("opened");
    assert_eq!(write(&log, "web01/later").expect("recorded"), 4);
    let head = log.head();
    drop(log);
    let verified = verify(&[path], Some(&head)).expect("sound");
    let expected = Verified {
        first: 1,
        records: 4,
        head,
        torn: false,
    };
    assert_eq!(verified, expected);
}

#[test]
fn every_change_of_the_file_is_found_where_it_is() {
    let (_folder, path) = folder();
    let head = written(&path, 6);
    let sound = lines(&path);
    let check = |changed: Vec<String>| {
        store(&path, &changed);
        verify(std::slice::from_ref(&path), Some(&head))
    };
    check(sound.clone()).expect("the control");

    let forged = {
        // A chain made anew from the third record on, hashes and all.
        let other = tempfile::tempdir().expect("folder");
        let other = other.path().join("audit.jsonl");
        store(&other, &sound[..2]);
        let log = AuditLog::open(&other, None).expect("opened");
        for _ in 0..4 {
            write(&log, "web01/harmless").expect("recorded");
        }
        drop(log);
        lines(&other)
    };
    verify_alone(&forged);
    let with = |change: &dyn Fn(&mut Vec<String>)| {
        let mut lines = sound.clone();
        change(&mut lines);
        lines
    };
    let cases: [(&str, Vec<String>, &str, &str); 10] = [
        (
            "edit",
            with(&|l| l[2] = l[2].replace("secret-2", "secret-9")),
            ":3",
            "was changed",
        ),
        (
            "edit of the first",
            with(&|l| l[0] = l[0].replace("secret-0", "x")),
            ":1",
            "was changed",
        ),
        (
            "edit of the last",
            with(&|l| l[5] = l[5].replace("secret-5", "x")),
            ":6",
            "was changed",
        ),
        ("removal", with(&|l| drop(l.remove(2))), ":3", "missing: 3"),
        (
            "removal of the first",
            with(&|l| drop(l.remove(0))),
            ":1",
            "stood before it",
        ),
        ("order", with(&|l| l.swap(2, 3)), ":3", "missing: 3"),
        (
            "repetition",
            with(&|l| l.insert(3, l[2].clone())),
            ":4",
            "holds record 3 where 4",
        ),
        (
            "insertion",
            with(&|l| l.insert(3, "{}".into())),
            ":4",
            "no record",
        ),
        (
            "truncation",
            with(&|l| l.truncate(4)),
            "",
            "up to 6 were cut off",
        ),
        ("all made anew", forged, ":6", "made anew"),
    ];
    for (what, changed, place, message) in cases {
        let error = check(changed).expect_err(what);
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{what}");
        assert!(error.message().contains(message), "{what}: {error}");
        let found = error.context().place.clone().unwrap_or_default();
        assert!(found.ends_with(place), "{what}: {found}");
    }
}

/// Without a head from elsewhere, what was made anew is sound.
fn verify_alone(lines: &[String]) {
    let (_folder, path) = folder();
    store(&path, lines);
    assert_eq!(verify(&[path], None).expect("sound").records, 6);
}

#[test]
fn a_log_that_lacks_what_the_service_remembers_is_refused() {
    let (_folder, path) = folder();
    let head = written(&path, 6);
    let sound = lines(&path);
    let open = |changed: &[String]| {
        store(&path, changed);
        AuditLog::open(&path, Some(head.clone())).map(drop)
    };
    open(&sound).expect("the control");
    let error = open(&sound[..5]).expect_err("truncated");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.message().contains("lacks record 6"), "{error}");
    assert!(
        error
            .advice()
            .is_some_and(|advice| advice.contains("audit.jsonl.1"))
    );
    let error = open(&sound[1..]).expect_err("without its beginning");
    assert!(error.message().contains("first record"), "{error}");
    fs::remove_file(&path).expect("removed");
    let error = AuditLog::open(&path, Some(head.clone())).expect_err("gone");
    assert!(error.message().contains("lacks record 6"), "{error}");
    fs::remove_file(&path).expect("the empty one");
    let other = written(&path, 6);
    assert_ne!(other, head);
    let error = AuditLog::open(&path, Some(head)).expect_err("another's");
    assert!(error.message().contains("not the one"), "{error}");
}

#[test]
fn rotation_goes_on_in_a_new_file() {
    let (folder, path) = folder();
    let older = folder.path().join("audit.jsonl.1");
    let log = AuditLog::open(&path, None).expect("opened");
    for _ in 0..3 {
        write(&log, "web01/a").expect("recorded");
    }
    let anchor = log.head();
    block_on(log.reopen()).expect("nothing to do");
    fs::rename(&path, &older).expect("moved");
    write(&log, "web01/b").expect("still into the old one");
    block_on(log.reopen()).expect("a new one");
    for _ in 0..2 {
        write(&log, "web01/c").expect("recorded");
    }
    let head = log.head();
    assert_eq!((lines(&older).len(), lines(&path).len()), (4, 2));
    let both = [older.clone(), path.clone()];
    assert_eq!(verify(&both, Some(&head)).expect("sound").records, 6);
    assert_eq!(
        verify(&both[1..], Some(&head)).expect("sound alone").first,
        5
    );
    verify(&[path.clone(), older.clone()], None).expect_err("in the wrong order");
    // A file that somebody put in its place is not written to.
    fs::write(&path, "x").expect("written");
    fs::remove_file(&path).expect("removed");
    fs::write(&path, "hello\n").expect("written");
    fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("mode");
    let error = block_on(log.reopen()).expect_err("not empty");
    assert_eq!(error.kind(), ErrorKind::Conflict);
    drop(log);

    // Rotated while the service is down: it goes on from the file beside.
    fs::remove_file(&path).expect("removed");
    let log = AuditLog::open(&path, Some(anchor)).expect("found beside");
    assert_eq!(log.head().sequence, 4);
    assert_eq!(write(&log, "web01/d").expect("recorded"), 5);
    let head = log.head();
    drop(log);
    assert_eq!(verify(&both, Some(&head)).expect("sound").records, 5);
}

#[test]
fn a_page_holds_what_is_wanted_and_says_where_the_next_begins() {
    let (_folder, path) = folder();
    let log = AuditLog::open(&path, None).expect("opened");
    let entries = (0..3000).map(|index| entry(&format!("scope-{}/x", index % 3)));
    assert_eq!(
        block_on(log.append(entries.collect())).expect("recorded"),
        1
    );
    let numbers = |answer: &AuditAnswer| {
        let number = |record: &serde_json::Value| record["sequence"].as_u64().expect("a number");
        answer.records.iter().map(number).collect::<Vec<_>>()
    };
    for after in [0, 1, 999, 1500, 2998, 2999, 3000, 5000] {
        let page = log.read(after, 2, &|_| true).expect("read");
        let expected: Vec<u64> = (after + 1..=3000).take(2).collect();
        assert_eq!(numbers(&page), expected);
        assert_eq!(page.next.is_some(), after + 2 < 3000, "{after}");
    }
    let (mut seen, mut after) = (Vec::new(), 0);
    loop {
        let wanted = |subject: Option<&str>| subject.is_some_and(|s| s.starts_with("scope-1/"));
        let page = log.read(after, 300, &wanted).expect("read");
        seen.extend(numbers(&page));
        match page.next {
            Some(next) => after = next,
            None => break,
        }
    }
    let expected: Vec<u64> = (1..=3000).filter(|number| number % 3 == 2).collect();
    assert_eq!(seen, expected);
}

#[test]
fn a_file_that_somebody_else_changes_is_not_gone_on_with() {
    let (_folder, path) = folder();
    let log = AuditLog::open(&path, None).expect("opened");
    write(&log, "web01/a").expect("recorded");
    let error = AuditLog::open(&path, None).expect_err("a second one");
    assert_eq!(error.kind(), ErrorKind::Conflict);
    let sound = fs::read(&path).expect("read");
    let file = fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .expect("there");
    file.set_len(0).expect("emptied");
    let error = write(&log, "web01/b").expect_err("changed");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    // Put back, it goes on.
    fs::write(&path, sound).expect("restored");
    assert_eq!(write(&log, "web01/b").expect("recorded"), 2);
}

#[test]
fn all_who_wait_are_recorded_once_and_in_order() {
    let (_folder, path) = folder();
    let log = AuditLog::open(&path, None).expect("opened");
    let followed = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&followed);
    log.follow(
        0,
        Box::new(move |reads, _| {
            count.fetch_add(reads.len() as u64, Ordering::SeqCst);
        }),
    )
    .expect("followed");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let log = Arc::new(log);
    let numbers = runtime.block_on(async {
        let writers = (0..64).map(|writer| {
            let log = Arc::clone(&log);
            tokio::spawn(async move {
                let mut numbers = Vec::new();
                for index in 0..20 {
                    let subject = format!("web01/{writer}-{index}");
                    let first = log.append(vec![entry(&subject), entry(&subject)]).await;
                    numbers.push((first.expect("recorded"), subject));
                }
                numbers
            })
        });
        let mut all = Vec::new();
        for writer in writers.collect::<Vec<_>>() {
            all.extend(writer.await.expect("ended"));
        }
        all
    });
    let lines = lines(&path);
    assert_eq!(lines.len(), 64 * 20 * 2);
    for (first, subject) in numbers {
        for number in [first, first + 1] {
            let record: serde_json::Value =
                serde_json::from_str(&lines[number as usize - 1]).expect("JSON");
            assert_eq!(record["sequence"], number);
            assert_eq!(record["subject"], subject);
        }
    }
    assert_eq!(followed.load(Ordering::SeqCst), 64 * 20 * 2);
    verify(&[path], Some(&log.head())).expect("sound");
}

#[test]
fn a_page_goes_on_through_files_that_were_moved_away_or_says_what_is_missing() {
    let (folder, path) = folder();
    let log = AuditLog::open(&path, None).expect("opened");
    let moved = |number: u32| folder.path().join(format!("audit.jsonl.{number}"));
    for number in [1, 2] {
        for _ in 0..3 {
            write(&log, "web01/a").expect("recorded");
        }
        fs::rename(&path, moved(number)).expect("moved");
        block_on(log.reopen()).expect("a new one");
    }
    for _ in 0..2 {
        write(&log, "web01/a").expect("recorded");
    }
    let read = |after: u64, limit: usize| {
        let page = log.read(after, limit, &|_| true)?;
        let number = |record: &serde_json::Value| record["sequence"].as_u64().expect("a number");
        Ok((
            page.records.iter().map(number).collect::<Vec<_>>(),
            page.next,
        ))
    };
    assert_eq!(read(0, 100).expect("all"), ((1..=8).collect(), None));
    assert_eq!(read(1, 4).expect("some"), (vec![2, 3, 4, 5], Some(5)));
    assert_eq!(read(5, 4).expect("the rest"), (vec![6, 7, 8], None));
    assert_eq!(read(2, 1).expect("one"), (vec![3], Some(3)));
    fs::remove_file(moved(1)).expect("removed");
    let refused: Result<_> = read(0, 100);
    let error = refused.expect_err("1 to 3 are gone");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.message().contains("1 to 3") && error.message().contains("; 4 is the first"));
    assert_eq!(read(3, 100).expect("the others"), ((4..=8).collect(), None));
    fs::remove_file(moved(2)).expect("removed");
    let refused: Result<_> = read(3, 100);
    let error = refused.expect_err("4 to 6 are gone");
    assert!(error.message().contains("; 7 is the first"), "{error}");
    assert_eq!(read(6, 100).expect("the file"), (vec![7, 8], None));
    assert_eq!(read(8, 100).expect("nothing"), (vec![], None));
}

#[test]
fn what_waits_for_the_disk_has_a_bound_and_more_is_refused_at_once() {
    let (_folder, path) = folder();
    let log = AuditLog::open(&path, None).expect("opened");
    // As much as a disk that hangs would have left waiting.
    let all = u32::try_from(ROOM).expect("it fits");
    let waiting = log.room.try_acquire_many(all).expect("there is room");
    let begun = std::time::Instant::now();
    let error = write(&log, "web01/a").expect_err("no room");
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(begun.elapsed() < PATIENCE / 2, "at once");
    drop(waiting);
    assert_eq!(write(&log, "web01/a").expect("the control"), 1);
    // What is written has given its room back.
    let written = std::time::Instant::now();
    while log.room.available_permits() < ROOM {
        assert!(written.elapsed() < PATIENCE, "it is lost");
        std::thread::yield_now();
    }
}
