//! Migrations against a model of a few lines, whatever comes in whatever order.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const NODES: [&str; 3] = ["x", "y", "z"];
const SCOPE: &str = "web01";
const HOUR: i64 = 3600;

#[derive(Clone, Debug)]
enum Step {
    Abort,
    Begin(usize, usize),
    Commit,
    Expire,
    Fetch(usize),
    Grant(usize),
    Pass(i64),
    Quarantine(usize),
    Release(usize),
    Reopen,
    Revoke(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let node = || 0..NODES.len();
    let step = prop_oneof![
        3 => Just(Step::Abort),
        6 => (node(), node()).prop_map(|(from, to)| Step::Begin(from, to)),
        3 => Just(Step::Commit),
        2 => Just(Step::Expire),
        5 => node().prop_map(Step::Fetch),
        4 => node().prop_map(Step::Grant),
        4 => prop_oneof![Just(HOUR / 2), Just(HOUR), Just(1)].prop_map(Step::Pass),
        1 => node().prop_map(Step::Quarantine),
        2 => node().prop_map(Step::Release),
        2 => Just(Step::Reopen),
        1 => node().prop_map(Step::Revoke),
    ];
    prop::collection::vec(step, 1..50)
}

/// The latest ticket.
#[derive(Clone, Debug)]
struct Latest {
    from: usize,
    to: usize,
    state: TicketState,
    fetched: bool,
    ends: i64,
    /// Whether the target still holds what the ticket gave it.
    given: bool,
    /// Whether somebody took a grant by hand since it began.
    interfered: bool,
}

impl Latest {
    fn runs(&self) -> bool {
        matches!(self.state, TicketState::Open | TicketState::Undecided)
    }
}

/// Who holds a grant, as the rules say.
#[derive(Debug, Default)]
struct Model {
    now: i64,
    held: BTreeSet<usize>,
    quarantined: BTreeSet<usize>,
    latest: Option<Latest>,
}

impl Model {
    fn running(&self) -> Option<&Latest> {
        self.latest.as_ref().filter(|ticket| ticket.runs())
    }

    fn lose(&mut self, node: usize) {
        self.held.remove(&node);
        if let Some(ticket) = &mut self.latest {
            ticket.interfered = true;
            ticket.given &= ticket.to != node;
        }
    }

    /// Does a step; whether it succeeds.
    fn step(&mut self, step: &Step) -> bool {
        match *step {
            Step::Expire | Step::Reopen => true,
            Step::Pass(seconds) => {
                self.now += seconds;
                if let Some(ticket) = &mut self.latest
                    && ticket.state == TicketState::Open
                    && ticket.ends <= self.now
                {
                    if ticket.fetched {
                        ticket.state = TicketState::Undecided;
                    } else {
                        ticket.state = TicketState::Expired;
                        if ticket.given {
                            self.held.remove(&ticket.to);
                        }
                    }
                }
                true
            }
            Step::Grant(node) => {
                let target = self.running().is_some_and(|ticket| ticket.to == node);
                !target && !self.quarantined.contains(&node) && {
                    self.held.insert(node);
                    true
                }
            }
            Step::Revoke(node) => {
                self.lose(node);
                true
            }
            Step::Quarantine(node) => {
                self.lose(node);
                self.quarantined.insert(node);
                true
            }
            // Each is known: it was quarantined at the beginning, and released.
            Step::Release(node) => {
                self.quarantined.remove(&node);
                true
            }
            Step::Fetch(node) => {
                let reads = self.held.contains(&node);
                if let Some(ticket) = &mut self.latest
                    && ticket.runs()
                    && ticket.to == node
                    && reads
                {
                    ticket.fetched = true;
                }
                reads
            }
            Step::Begin(from, to) => {
                if from == to {
                    return false;
                }
                if let Some(ticket) = self.running() {
                    let same = (ticket.from, ticket.to) == (from, to);
                    return same && ticket.state == TicketState::Open && ticket.given;
                }
                let free = !self.held.contains(&to) && !self.quarantined.contains(&to);
                if !free || !self.held.contains(&from) {
                    return false;
                }
                self.held.insert(to);
                self.latest = Some(Latest {
                    from,
                    to,
                    state: TicketState::Open,
                    fetched: false,
                    ends: self.now + HOUR,
                    given: true,
                    interfered: false,
                });
                true
            }
            Step::Commit => match &mut self.latest {
                Some(ticket) if ticket.runs() && ticket.given => {
                    self.held.remove(&ticket.from);
                    ticket.state = TicketState::Committed;
                    true
                }
                Some(ticket) => ticket.state == TicketState::Committed,
                None => false,
            },
            Step::Abort => match &mut self.latest {
                Some(ticket) if ticket.runs() => {
                    if ticket.given && !self.held.contains(&ticket.from) {
                        return false;
                    }
                    if ticket.given {
                        self.held.remove(&ticket.to);
                    }
                    ticket.state = TicketState::Aborted;
                    true
                }
                Some(ticket) => ticket.state != TicketState::Committed,
                None => false,
            },
        }
    }
}

/// The latest ticket, by its scope and nodes where there is one.
fn latest(bench: &Bench) -> EndRequest {
    let all = block_on(
        bench
            .state()
            .tickets(Some(SCOPE), None, &Paging::default(), |_| true),
    );
    let all = all.expect("a page").tickets;
    let node =
        |of: fn(&Ticket) -> &String| Some(all.first().map_or("n0".into(), |t| of(t).clone()));
    EndRequest {
        id: None,
        scope: Some(SCOPE.into()),
        from: node(|ticket| &ticket.from),
        to: node(|ticket| &ticket.to),
    }
}

/// Does a step for real; whether it succeeds.
fn real(bench: &mut Bench, step: &Step) -> bool {
    match *step {
        Step::Abort => block_on(bench.state().abort(&latest(bench))).is_ok(),
        Step::Begin(from, to) => bench.begin(SCOPE, NODES[from], NODES[to]).is_ok(),
        Step::Commit => block_on(bench.state().commit(&latest(bench))).is_ok(),
        Step::Expire => block_on(bench.state().expire()).is_ok(),
        Step::Fetch(node) => bench.fetch(NODES[node], "web01/root").is_ok(),
        Step::Grant(node) => bench.grant_with(SCOPE, NODES[node], &[], None).is_ok(),
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

fn check(steps: &[Step]) -> Result<(), TestCaseError> {
    let mut bench = Bench::new();
    let mut model = Model::default();
    for node in NODES {
        block_on(bench.state().quarantine(node)).expect("known from now on");
        block_on(bench.state().release(node)).expect("released");
    }
    for (number, step) in steps.iter().enumerate() {
        let before = model.held.clone();
        let expected = model.step(step);
        prop_assert_eq!(
            real(&mut bench, step),
            expected,
            "step {}: {:?} {:?}",
            number,
            step,
            model
        );
        let readers = (0..NODES.len()).filter(|node| bench.reads(NODES[*node], "web01/root"));
        let readers: BTreeSet<usize> = readers.collect();
        prop_assert_eq!(
            &readers,
            &model.held,
            "step {}: {:?} {:?}",
            number,
            step,
            model
        );

        // What the rules are for. None is without a grant where the guest may run, unless
        // somebody took it by hand …
        let by_hand = matches!(step, Step::Revoke(_) | Step::Quarantine(_));
        let interfered = model
            .latest
            .as_ref()
            .is_some_and(|ticket| ticket.interfered);
        if !by_hand && !interfered && !before.is_empty() {
            prop_assert!(
                !readers.is_empty(),
                "step {}: {:?} {:?}",
                number,
                step,
                model
            );
        }
        if let Some(ticket) = model.running()
            && !interfered
        {
            let both = readers.contains(&ticket.from) && readers.contains(&ticket.to);
            prop_assert!(both, "step {}: {:?} {:?}", number, step, model);
        }
        // … and never are two migrations under way.
        let all = block_on(
            bench
                .state()
                .tickets(Some(SCOPE), None, &Paging::default(), |_| true),
        );
        let all = all.expect("a page").tickets;
        let runs =
            |ticket: &&Ticket| matches!(ticket.state, TicketState::Open | TicketState::Undecided);
        prop_assert!(all.iter().filter(runs).count() <= 1);
        if let Some(latest) = &model.latest {
            prop_assert_eq!(
                (all[0].state, all[0].fetched),
                (latest.state, latest.fetched)
            );
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn migrations_do_what_the_rules_say_in_any_order(steps in steps()) {
        check(&steps)?;
    }
}
