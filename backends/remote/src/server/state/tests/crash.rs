//! A service killed at any instant.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use super::*;
use crate::server::audit::{AuditLog, Entry, verify};

const FOLDER: &str = "KEYHAUL_TEST_CRASH_FOLDER";
/// Who changes grants at the same time, each its own scopes.
const WRITERS: usize = 8;
const SCOPES: usize = 5;

/// Run again by the test below, and killed by it; by itself it has nothing to do.
#[test]
fn grants_until_it_is_killed() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    let (state, audit) = open(Path::new(&folder));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (state, audit) = (Arc::new(state), Arc::new(audit));
    runtime.block_on(async {
        let writers = (0..WRITERS).map(|writer| {
            let (state, audit) = (Arc::clone(&state), Arc::clone(&audit));
            tokio::spawn(async move {
                for turn in 0.. {
                    change(&state, &audit, format!("w{writer}-{}", turn % SCOPES)).await;
                }
            })
        });
        for writer in writers.collect::<Vec<_>>() {
            writer.await.expect("goes on for ever");
        }
    });
}

/// Grants what is not granted, revokes what is, and records a read of it. Says what is about to be
/// done, and what is acknowledged.
async fn change(state: &State, audit: &AuditLog, scope: String) {
    if state.is_granted(&scope) {
        say(&format!("revoke {scope}"));
        let node = "y".into();
        let request = RevokeRequest {
            scope,
            node,
            if_epoch: None,
        };
        let answer = state.revoke(&request).await.expect("revoked");
        say(&format!("revoked {} {}", request.scope, answer.epoch));
    } else {
        say(&format!("grant {scope}"));
        let request = GrantRequest {
            scope,
            node: "y".into(),
            names: Vec::new(),
            expires: None,
            if_epoch: None,
        };
        let grant = state.grant(MANAGER, &request).await.expect("granted");
        say(&format!("granted {} {}", grant.scope, grant.epoch));
        let number = audit.append(vec![read_of(&grant)]).await.expect("recorded");
        say(&format!("recorded {} {number}", grant.scope));
    }
}

/// The record of a read under `grant`.
pub fn read_of(grant: &Grant) -> Entry {
    Entry {
        request: "r".into(),
        actor: "a".into(),
        role: None,
        peer: "p".into(),
        operation: Entry::READ,
        subject: Some(format!("{}/x", grant.scope)),
        node: Some("y".into()),
        outcome: Entry::OK,
        reason: None,
        version: None,
        epoch: Some(grant.epoch),
        migration: None,
        terms: serde_json::Map::new(),
    }
}

pub fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "@{line}").expect("the parent reads");
    out.flush().expect("the parent reads");
}

pub fn open(folder: &Path) -> (State, AuditLog) {
    let state = State::open(&folder.join("service.db"), StateSettings::default());
    let state = state.expect("opened");
    let audit = AuditLog::open(&folder.join("audit.jsonl"), state.anchor()).expect("opened");
    state.follow(&audit, false).expect("followed");
    (state, audit)
}

#[test]
fn every_acknowledged_grant_and_revoke_holds_after_a_kill() {
    let folder = tempfile::tempdir().expect("folder");
    let log = folder.path().join("audit.jsonl");
    // What is known of each scope; none where a change was under way.
    let mut known: BTreeMap<String, Option<bool>> = BTreeMap::new();
    let (mut acknowledged, mut unsure, mut round) = (0, 0, 0_usize);
    while acknowledged < 1000 {
        round += 1;
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "--nocapture", "--test-threads=1"])
            .arg("server::state::tests::crash::grants_until_it_is_killed")
            .env(FOLDER, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a child");
        // Another instant each round: after 10 to 160 lines, and some way into the next change.
        let lines_to_go = 10 + round * 37 % 150;
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut said: Vec<String> = lines
            .by_ref()
            .map_while(std::result::Result::ok)
            .filter(|line| line.starts_with('@'))
            .take(lines_to_go)
            .collect();
        let begun = std::time::Instant::now();
        while begun.elapsed() < Duration::from_micros(round as u64 * 97 % 1500) {
            std::hint::spin_loop();
        }
        child.kill().expect("killed");
        child.wait().expect("reaped");
        let rest = lines.map_while(std::result::Result::ok);
        said.extend(rest.filter(|line| line.starts_with('@')));

        let (mut epoch, mut recorded) = (0, 0);
        for line in &said {
            let words: Vec<&str> = line[1..].split(' ').collect();
            match words.as_slice() {
                ["grant" | "revoke", scope] => {
                    known.insert((*scope).into(), None);
                }
                ["granted" | "revoked", scope, number] => {
                    known.insert((*scope).into(), Some(words[0] == "granted"));
                    // A line cut short by the kill ends in a shorter number, which is no greater.
                    epoch = epoch.max(number.parse().unwrap_or(0));
                    acknowledged += 1;
                }
                ["recorded", _, number] => recorded = recorded.max(number.parse().unwrap_or(0)),
                _ => {}
            }
        }
        let (state, audit) = open(folder.path());
        for (scope, granted) in &mut known {
            let found = state.is_granted(scope);
            match granted {
                Some(granted) => assert_eq!(found, *granted, "{scope} in round {round}"),
                None => {
                    unsure += 1;
                    *granted = Some(found);
                }
            }
        }
        let request = GrantRequest {
            scope: format!("round-{round}"),
            node: "z".into(),
            names: Vec::new(),
            expires: None,
            if_epoch: None,
        };
        let later = block_on(state.grant(MANAGER, &request)).expect("granted");
        assert!(later.epoch > epoch, "{} after {epoch}", later.epoch);
        let head = audit.head();
        assert!(
            head.sequence >= recorded,
            "{} of {recorded} records",
            head.sequence
        );
        let records = verify(std::slice::from_ref(&log), Some(&head))
            .expect("sound")
            .records;
        block_on(state.flush()).expect("flushed");
        let fetched = block_on(state.quarantine("y")).expect("quarantined");
        let counted: u64 = fetched.fetched.iter().map(|fetch| fetch.count).sum();
        assert_eq!(counted, records, "the index is what the audit says");
        block_on(state.release("y")).expect("released");
        known
            .values_mut()
            .for_each(|granted| *granted = Some(false));
    }
    assert!(unsure > 0, "no change was ever under way: {round} rounds");
}
