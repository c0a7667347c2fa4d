//! Migrations against a model of a few lines, whatever comes in whatever order: with restarts and
//! kills in between, and a clock that is set forward and back.

mod rules;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::*;
use rules::{Lie, Model};

const NODES: [&str; 3] = ["x", "y", "z"];
const SCOPE: &str = "web01";
const SECRET: &str = "web01/root";
const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;

#[derive(Clone, Copy, Debug)]
pub enum Step {
    Begin(usize, usize),
    /// The wall clock is set, and no time goes by.
    Clock(i64),
    End(End, Which),
    /// What the service does every few seconds.
    Expire,
    Fetch(usize),
    /// For so many seconds, or for ever.
    Grant(usize, Option<i64>),
    /// What was not written down is lost.
    Kill,
    Pass(i64),
    Quarantine(usize),
    Release(usize),
    Reopen,
    Revoke(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Abort,
    Commit,
}

/// Which migration is ended.
#[derive(Clone, Copy, Debug)]
pub enum Which {
    /// That many before the latest, by its id.
    Earlier(usize),
    /// The latest, by its scope and nodes.
    Latest,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let node = || 0..NODES.len();
    let which = || {
        prop_oneof![
            3 => Just(Which::Latest),
            1 => (0..3_usize).prop_map(Which::Earlier),
        ]
    };
    // Whole minutes, which the service writes down whenever one has gone by.
    let time = || prop_oneof![Just(MINUTE), Just(HOUR / 2), Just(HOUR), Just(2 * HOUR)];
    let step = prop_oneof![
        7 => (node(), node()).prop_map(|(from, to)| Step::Begin(from, to)),
        2 => (time(), any::<bool>()).prop_map(|(time, back)| Step::Clock(if back { -time } else { time })),
        3 => which().prop_map(|which| Step::End(End::Abort, which)),
        3 => which().prop_map(|which| Step::End(End::Commit, which)),
        2 => Just(Step::Expire),
        6 => node().prop_map(Step::Fetch),
        4 => node().prop_map(|node| Step::Grant(node, None)),
        2 => (node(), time()).prop_map(|(node, time)| Step::Grant(node, Some(time))),
        2 => Just(Step::Kill),
        4 => time().prop_map(Step::Pass),
        1 => node().prop_map(Step::Quarantine),
        2 => node().prop_map(Step::Release),
        1 => Just(Step::Reopen),
        1 => node().prop_map(Step::Revoke),
    ];
    // By itself, hardly anything would lead to a migration that goes on for a while.
    let begun = (node(), node()).prop_map(|(from, to)| {
        vec![
            Step::Release(from),
            Step::Grant(from, None),
            Step::Begin(from, to),
            Step::Fetch(to),
            Step::Pass(HOUR),
        ]
    });
    let steps = prop_oneof![
        10 => step.prop_map(|step| vec![step]),
        3 => (begun, 3..=5_usize).prop_map(|(steps, most)| steps[..most].to_vec()),
    ];
    prop::collection::vec(steps, 1..40).prop_map(|steps| steps.concat())
}

/// A state, and the tickets that it has given out.
struct Real {
    bench: Bench,
    ids: Vec<String>,
}

impl Real {
    fn new() -> Self {
        let bench = Bench::new();
        for node in NODES {
            block_on(bench.state().quarantine(node)).expect("known from now on");
            block_on(bench.state().release(node)).expect("released");
        }
        // Somebody else, whom nothing of all this concerns.
        bench.grant("web02", "w");
        Self {
            bench,
            ids: Vec::new(),
        }
    }

    /// Does a step for real; whether it succeeds.
    fn step(&mut self, step: &Step, model: &Model) -> bool {
        let bench = &mut self.bench;
        match *step {
            Step::Begin(from, to) => match bench.begin(SCOPE, NODES[from], NODES[to]) {
                Ok(ticket) => {
                    if !self.ids.contains(&ticket.id) {
                        self.ids.push(ticket.id);
                    }
                    true
                }
                Err(_) => false,
            },
            Step::Clock(seconds) => {
                bench.step(seconds);
                true
            }
            Step::End(end, which) => {
                let request = self.meant(which, model);
                let state = self.bench.state();
                match end {
                    End::Abort => block_on(state.abort(&request)).is_ok(),
                    End::Commit => block_on(state.commit(&request)).is_ok(),
                }
            }
            Step::Expire => {
                bench.expire();
                true
            }
            Step::Fetch(node) => bench.fetch(NODES[node], SECRET).is_ok(),
            Step::Grant(node, length) => {
                let end = length.and_then(|length| bench.at(model.now + length));
                bench.grant_with(SCOPE, NODES[node], &[], end).is_ok()
            }
            Step::Kill => {
                // Where the clock was set back, only what is written down tells the time; the
                // service sees to that every few seconds.
                if model.wall < model.now {
                    bench.expire();
                }
                bench.kill();
                true
            }
            Step::Pass(seconds) => {
                bench.pass(seconds);
                true
            }
            Step::Quarantine(node) => block_on(bench.state().quarantine(NODES[node])).is_ok(),
            Step::Release(node) => block_on(bench.state().release(NODES[node])).is_ok(),
            Step::Reopen => {
                bench.reopen();
                true
            }
            Step::Revoke(node) => {
                bench.revoke(SCOPE, NODES[node]);
                true
            }
        }
    }

    fn meant(&self, which: Which, model: &Model) -> EndRequest {
        let Some(meant) = model.meant(which).filter(|_| !self.ids.is_empty()) else {
            return EndRequest {
                id: Some("none".into()),
                scope: None,
                from: None,
                to: None,
            };
        };
        let migration = &model.migrations[meant];
        match which {
            Which::Earlier(_) => EndRequest {
                id: Some(self.ids[meant].clone()),
                scope: None,
                from: None,
                to: None,
            },
            Which::Latest => EndRequest {
                id: None,
                scope: Some(SCOPE.into()),
                from: Some(NODES[migration.from].into()),
                to: Some(NODES[migration.to].into()),
            },
        }
    }

    fn readers(&self) -> BTreeSet<usize> {
        let reads = |node: &usize| self.bench.reads(NODES[*node], SECRET);
        (0..NODES.len()).filter(reads).collect()
    }

    /// The tickets, the oldest first.
    fn tickets(&self) -> Vec<Ticket> {
        let page = Paging::default();
        let found = self
            .bench
            .state()
            .tickets(Some(SCOPE), None, &page, |_| true);
        let mut tickets = block_on(found).expect("a page").tickets;
        tickets.reverse();
        tickets
    }
}

/// How often something was seen: a test of what hardly ever happens would prove little.
type Seen = RefCell<BTreeMap<String, usize>>;

/// Holds a run of the service against the model, step by step, and both against what they are for.
fn check(steps: &[Step], lie: Option<Lie>, seen: &Seen) -> Result<(), TestCaseError> {
    let (mut real, mut model) = (Real::new(), Model::new(lie));
    for (number, step) in steps.iter().enumerate() {
        let before = real.readers();
        let fetched = kept(&model);
        let meant = match step {
            Step::End(_, which) => model.meant(*which).map(|at| model.migrations[at].clone()),
            _ => None,
        };
        let done = real.step(step, &model);
        let told = format!("step {number}: {step:?} {done} {model:?}");
        prop_assert_eq!(done, model.step(step), "{}", told);
        agree(&real, &model, &told)?;
        let readers = real.readers();

        // No command but those that say so leaves a guest without anybody who can start it.
        let by_hand = matches!(step, Step::Revoke(_) | Step::Quarantine(_));
        let by_time = matches!(step, Step::Pass(_) | Step::Clock(_));
        if !by_hand && !by_time && !before.is_empty() {
            prop_assert!(!readers.is_empty(), "{}", told);
        }
        // Who has fetched under a migration keeps the grant until somebody decides.
        if let Some(target) = fetched
            && !by_hand
            && !matches!(step, Step::End(..))
        {
            prop_assert!(readers.contains(&target), "{}", told);
        }
        // While it is not decided, the guest can be started on both.
        if let Some(running) = model.running() {
            let it = &model.migrations[running];
            let both = readers.contains(&it.from) && readers.contains(&it.to);
            prop_assert!(both || it.interfered, "{}", told);
        }
        if let (Some(meant), Step::End(end, _), true) = (meant, step, done)
            && meant.runs()
        {
            let (stays, goes) = match end {
                End::Abort => (meant.from, meant.to),
                End::Commit => (meant.to, meant.from),
            };
            prop_assert!(!readers.contains(&goes), "{}", told);
            prop_assert!(readers.contains(&stays) || meant.interfered, "{}", told);
        }
        // Whoever lost the answer says it again.
        if done && matches!(step, Step::Begin(..) | Step::End(..)) {
            let (tickets, epoch) = (real.tickets(), real.bench.state().epoch());
            prop_assert!(real.step(step, &model), "again, {}", told);
            prop_assert_eq!(real.tickets(), tickets, "again, {}", told);
            prop_assert_eq!(real.bench.state().epoch(), epoch, "again, {}", told);
        }
        let kind = format!("{step:?}");
        let kind = kind.split('(').next().unwrap_or_default().to_owned();
        *seen
            .borrow_mut()
            .entry(format!("{kind} {done}"))
            .or_default() += 1;
    }
    for migration in &model.migrations {
        let state = format!("{:?}", migration.state);
        *seen.borrow_mut().entry(state).or_default() += 1;
    }
    Ok(())
}

/// The target that has fetched under a migration that is not over, and whose grant has no end.
fn kept(model: &Model) -> Option<usize> {
    let it = &model.migrations[model.running()?];
    let lasts = model.held.get(&it.to)?.expires.is_none();
    (it.fetched && lasts).then_some(it.to)
}

fn agree(real: &Real, model: &Model, told: &str) -> Result<(), TestCaseError> {
    let held: BTreeSet<usize> = model.held.keys().copied().collect();
    prop_assert_eq!(real.readers(), held, "{}", told);
    let is = |ticket: &Ticket| (ticket.state, ticket.fetched);
    let tickets = real.tickets();
    let expected: Vec<_> = model
        .migrations
        .iter()
        .map(|it| (it.state, it.fetched))
        .collect();
    prop_assert_eq!(
        tickets.iter().map(is).collect::<Vec<_>>(),
        expected,
        "{}",
        told
    );
    let bench = &real.bench;
    prop_assert!(
        bench.reads("w", "web02/root") && !bench.reads("w", SECRET),
        "{}",
        told
    );
    prop_assert!(
        !NODES.iter().any(|node| bench.reads(node, "web02/root")),
        "{}",
        told
    );
    Ok(())
}

/// What a run of the model must have come to.
const OUTCOMES: [&str; 13] = [
    "Begin true",
    "Begin false",
    "End true",
    "End false",
    "Fetch true",
    "Fetch false",
    "Grant true",
    "Grant false",
    "Kill true",
    "Committed",
    "Aborted",
    "Expired",
    "Undecided",
];

#[test]
fn migrations_do_what_the_rules_say_in_any_order() {
    let seen = Seen::default();
    let mut runner = TestRunner::new(ProptestConfig {
        cases: 64,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let rare = |seen: &Seen| {
        let often = |what: &str| seen.borrow().get(what).copied().unwrap_or_default();
        OUTCOMES.into_iter().find(|what| often(what) < 5)
    };
    // Some outcomes are rare: it goes on until each was seen some times.
    for _ in 0..20 {
        // A sequence that fails is shown, as short as it can be made.
        let run = runner.run(&steps(), |steps| check(&steps, None, &seen));
        run.unwrap_or_else(|failure| panic!("{failure}"));
        if rare(&seen).is_none() {
            return;
        }
    }
    panic!("{:?}: {seen:?}", rare(&seen));
}

/// The control: rules that are wrong in one thing are found out by a sequence that comes to it.
#[test]
fn wrong_rules_are_found_out() {
    use Step::{Begin, Clock, Fetch, Grant, Kill, Pass, Revoke};
    let latest = |end| Step::End(end, Which::Latest);
    let seen = Seen::default();
    for (lie, more) in [
        (Lie::AbortKeepsTarget, vec![latest(End::Abort)]),
        (
            Lie::ClockTurnsBack,
            vec![Pass(HOUR), Clock(-HOUR), Grant(0, Some(HOUR)), Pass(MINUTE)],
        ),
        (Lie::CommitKeepsSource, vec![latest(End::Commit)]),
        (
            Lie::CommitWithoutTarget,
            vec![Revoke(1), latest(End::Commit)],
        ),
        (Lie::FetchedExpires, vec![Fetch(1), Pass(HOUR)]),
        (Lie::KillForgetsFetch, vec![Fetch(1), Kill]),
        (Lie::SecondBegin, vec![Begin(0, 2)]),
        (
            Lie::SourceTermsStay,
            vec![Grant(0, Some(MINUTE)), Pass(MINUTE)],
        ),
    ] {
        let steps = [vec![Grant(0, None), Begin(0, 1)], more].concat();
        check(&steps, None, &seen).unwrap_or_else(|failure| panic!("{lie:?}: {failure}"));
        assert!(check(&steps, Some(lie), &seen).is_err(), "{lie:?}");
    }
}
