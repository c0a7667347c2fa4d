//! A service killed at any instant amid migrations.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use super::crash::say;
use super::*;

const FOLDER: &str = "KEYHAUL_TEST_MOVES_FOLDER";
/// Guests that move to and fro at the same time.
const GUESTS: usize = 6;
/// How many steps are acknowledged in all before it is enough.
const STEPS: usize = 400;

/// Run again by the test below, and killed by it; by itself it has nothing to do.
#[test]
fn guests_move_until_it_is_killed() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    let path = PathBuf::from(folder).join("service.db");
    let state = State::open(&path, StateSettings::default()).expect("opened");
    let state = Arc::new(state);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let guests = (0..GUESTS).map(|guest| {
            let state = Arc::clone(&state);
            tokio::spawn(async move {
                for turn in guest.. {
                    go(&state, &format!("web{guest}"), turn).await;
                }
            })
        });
        for guest in guests.collect::<Vec<_>>() {
            guest.await.expect("goes on for ever");
        }
    });
}

/// Moves a guest from where it is, or fails to. Says what is about to be done, and what is
/// acknowledged.
async fn go(state: &State, scope: &str, turn: usize) {
    let holders = holders(state, scope);
    let [from] = &holders.iter().collect::<Vec<_>>()[..] else {
        panic!("{scope} is held by {holders:?}");
    };
    let to = if *from == "y" { "z" } else { "y" };
    let step = |word: &str| say(&format!("{word} {scope} {from} {to}"));
    let begin = begin(scope, from, to);
    step("begin");
    state.begin(MANAGER, &begin).await.expect("begun");
    step("begun");
    // Where the target has fetched, and where it has not.
    if turn.is_multiple_of(3) {
        let root = reference(&format!("{scope}/root"));
        let permit = state.may_read(to, &root).expect("permitted");
        state.fetched(&[permit]).await.expect("fetched");
    }
    let end = end(scope, from, to);
    if turn.is_multiple_of(2) {
        step("commit");
        state.commit(&end).await.expect("committed");
        step("committed");
    } else {
        step("abort");
        state.abort(&end).await.expect("aborted");
        step("aborted");
    }
}

fn begin(scope: &str, from: &str, to: &str) -> BeginRequest {
    BeginRequest {
        scope: scope.into(),
        from: from.into(),
        to: to.into(),
        seconds: None,
    }
}

fn end(scope: &str, from: &str, to: &str) -> EndRequest {
    EndRequest {
        id: None,
        scope: Some(scope.into()),
        from: Some(from.into()),
        to: Some(to.into()),
    }
}

fn holders(state: &State, scope: &str) -> BTreeSet<String> {
    let page = state.grants(Some(scope), None, &Paging::default(), &|_| true);
    let grants = page.expect("a page").grants;
    grants.into_iter().map(|grant| grant.node).collect()
}

/// What a guest's last line said: a step, and both nodes.
type Last = (String, String, String);

/// Those who may hold the scope after it.
fn allowed((step, from, to): &Last) -> Vec<BTreeSet<String>> {
    let one = |node: &String| BTreeSet::from([node.clone()]);
    let both = BTreeSet::from([from.clone(), to.clone()]);
    match step.as_str() {
        "begin" => vec![one(from), both],
        "begun" => vec![both],
        "commit" => vec![both, one(to)],
        "committed" => vec![one(to)],
        "abort" => vec![both, one(from)],
        "aborted" => vec![one(from)],
        other => panic!("{other}"),
    }
}

#[test]
fn whoever_moves_is_held_by_source_or_target_after_a_kill_and_each_step_can_be_said_again() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("service.db");
    let open = || State::open(&path, StateSettings::default()).expect("opened");
    let state = open();
    for guest in 0..GUESTS {
        let request = GrantRequest {
            scope: format!("web{guest}"),
            node: "y".into(),
            names: Vec::new(),
            expires: None,
            if_epoch: None,
        };
        block_on(state.grant(MANAGER, &request)).expect("granted");
    }
    drop(state);
    let (mut acknowledged, mut unsure, mut round) = (0, BTreeMap::new(), 0_usize);
    while acknowledged < STEPS {
        round += 1;
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "--nocapture", "--test-threads=1"])
            .arg("server::state::tests::moves::guests_move_until_it_is_killed")
            .env(FOLDER, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a child");
        // Another instant each round.
        let lines_to_go = 10 + round * 37 % 90;
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let whole = |line: std::io::Result<String>| {
            let line = line.ok()?;
            let said = line.strip_prefix('@')?.to_owned();
            // A line that the kill cut short was not acknowledged.
            (said.split(' ').count() == 4).then_some(said)
        };
        let mut said: Vec<String> = lines.by_ref().filter_map(whole).take(lines_to_go).collect();
        let begun = std::time::Instant::now();
        while begun.elapsed() < Duration::from_micros(round as u64 * 97 % 1500) {
            std::hint::spin_loop();
        }
        child.kill().expect("killed");
        child.wait().expect("reaped");
        said.extend(lines.filter_map(whole));

        let mut last: BTreeMap<String, Last> = BTreeMap::new();
        for line in &said {
            let words: Vec<&str> = line.split(' ').collect();
            let [step, scope, from, to] = words[..] else {
                panic!("{line}");
            };
            acknowledged += usize::from(step.ends_with("ed") || step == "begun");
            let step = (step.to_owned(), from.to_owned(), to.to_owned());
            last.insert(scope.to_owned(), step);
        }
        let state = open();
        for (scope, last) in last {
            let found = holders(&state, &scope);
            let told = format!("{scope} in round {round}: {last:?}, {found:?}");
            assert!(allowed(&last).contains(&found), "{told}");
            let (step, from, to) = last;
            if allowed(&(step.clone(), from.clone(), to.clone())).len() > 1 {
                *unsure.entry(step.clone()).or_insert(0) += 1;
            }
            // The manager says its last word again, done or not, and then brings the guest to rest.
            let (begin, end) = (begin(&scope, &from, &to), end(&scope, &from, &to));
            let rests = match step.as_str() {
                "begin" | "begun" => {
                    block_on(state.begin(MANAGER, &begin)).expect(&told);
                    assert_eq!(holders(&state, &scope).len(), 2, "{told}");
                    block_on(state.abort(&end)).expect(&told);
                    from
                }
                "commit" | "committed" => {
                    block_on(state.commit(&end)).expect(&told);
                    to
                }
                _ => {
                    block_on(state.abort(&end)).expect(&told);
                    from
                }
            };
            assert_eq!(holders(&state, &scope), BTreeSet::from([rests]), "{told}");
        }
    }
    // The control: the kill came amid each kind of step.
    assert_eq!(unsure.len(), 3, "{unsure:?} in {round} rounds");
}
