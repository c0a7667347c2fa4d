//! Several processes at one store.

mod support;

use std::collections::HashMap;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, ExitCode, Stdio};

use keyhaul_core::{
    ErrorKind, GetOptions, PutMode, PutOptions, SecretBytes, SecretPath, SecretStore,
    SecretStoreExt,
};
use keyhaul_file::FileStore;
use support::processes::{block_on, child};
use support::*;

const PROCESSES: usize = 8;
const INCREMENTS: u64 = 50;
const RACES: usize = 20;

fn main() -> ExitCode {
    processes::main(
        &[
            (
                "compare_and_set_loses_nothing",
                compare_and_set_loses_nothing,
            ),
            ("one_creator_wins", one_creator_wins),
            (
                "everybody_makes_the_same_new_store",
                everybody_makes_the_same_new_store,
            ),
            (
                "readers_never_see_half_a_value",
                readers_never_see_half_a_value,
            ),
        ],
        &[
            ("increment", increment),
            ("create", create),
            ("first", first),
            ("overwrite", overwrite),
        ],
    )
}

/// Children that all begin when the last one is ready.
struct Crowd(Vec<Child>);

impl Crowd {
    fn start(role: &str, host: &Host) -> Self {
        let start = |number: usize| {
            let mut command = child(role);
            command
                .arg(host.root())
                .arg(host.identity())
                .arg(number.to_string());
            command.stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut child = command.spawn().expect("a child");
            let mut ready = [0];
            let out = child.stdout.as_mut().expect("piped");
            out.read_exact(&mut ready).expect("ready");
            child
        };
        let mut crowd = Self((0..PROCESSES).map(start).collect());
        for child in &mut crowd.0 {
            let input = child.stdin.as_mut().expect("piped");
            input.write_all(b"g").expect("told to go");
        }
        crowd
    }

    /// What each said, once all are done.
    fn finish(self) -> Vec<String> {
        let finish = |child: Child| {
            let output = child.wait_with_output().expect("done");
            assert!(output.status.success(), "a child failed");
            String::from_utf8(output.stdout).expect("text")
        };
        self.0.into_iter().map(finish).collect()
    }
}

/// In a child: the store, once all are ready.
fn join_crowd(arguments: &[String]) -> FileStore {
    let config = config(Path::new(&arguments[0]), Path::new(&arguments[1]), vec![]);
    let store = FileStore::open(&config).expect("valid");
    say("r");
    std::io::stdin().read_exact(&mut [0]).expect("told to go");
    store
}

fn compare_and_set_loses_nothing() {
    let host = Host::new();
    let store = host.store();
    block_on(put(&store, "counter", b"0"));
    let conflicts: u64 = Crowd::start("increment", &host)
        .finish()
        .iter()
        .map(|said| said.trim().parse::<u64>().expect("a number"))
        .sum();
    let total = PROCESSES as u64 * INCREMENTS;
    let secret = block_on(store.get(&path("counter"), &GetOptions::default())).expect("read");
    assert_eq!(secret.value.expose(), total.to_string().as_bytes());
    assert_eq!(
        secret.metadata.version,
        Some(version(&(total + 1).to_string()))
    );
    // The control: they did get in each other's way.
    assert!(conflicts > 0);
}

fn increment(arguments: &[String]) {
    let store = join_crowd(arguments);
    let (mut done, mut conflicts) = (0, 0);
    while done < INCREMENTS {
        let secret = block_on(store.get(&path("counter"), &GetOptions::default())).expect("read");
        let number: u64 = std::str::from_utf8(secret.value.expose())
            .expect("text")
            .parse()
            .expect("a number");
        let next = SecretBytes::copy_from((number + 1).to_string().as_bytes());
        let mode = PutMode::Update(secret.metadata.version.expect("versions"));
        match block_on(store.put(&path("counter"), &next, &PutOptions::default().mode(mode))) {
            Ok(_) => done += 1,
            Err(error) if error.kind() == ErrorKind::Conflict => conflicts += 1,
            Err(error) => panic!("{error:?}"),
        }
    }
    say(&conflicts.to_string());
}

fn one_creator_wins() {
    let host = Host::new();
    let said = Crowd::start("create", &host).finish();
    let mut winners: HashMap<&str, Vec<usize>> = HashMap::new();
    for (number, won) in said.iter().enumerate() {
        for name in won.split_whitespace() {
            winners.entry(name).or_default().push(number);
        }
    }
    assert_eq!(winners.len(), RACES);
    for (name, winners) in winners {
        assert_eq!(winners.len(), 1, "{name} has one creator");
        let value = block_on(get(&host.store(), name)).expect("read");
        assert_eq!(value, winners[0].to_string().into_bytes(), "{name}");
    }
}

fn create(arguments: &[String]) {
    let store = join_crowd(arguments);
    let value = SecretBytes::copy_from(arguments[2].as_bytes());
    for race in 0..RACES {
        let name = format!("race/{race}");
        let options = PutOptions::default().mode(PutMode::Create);
        match block_on(store.put(&path(&name), &value, &options)) {
            Ok(_) => say(&format!("{name}\n")),
            Err(error) => assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error:?}"),
        }
    }
}

fn everybody_makes_the_same_new_store() {
    for _ in 0..5 {
        let host = Host::new();
        Crowd::start("first", &host).finish();
        let store = host.store();
        let all = block_on(store.list_all(&SecretPath::root())).expect("listed");
        assert_eq!(all.len(), PROCESSES);
        for path in all {
            assert!(
                block_on(store.get(&path, &GetOptions::default())).is_ok(),
                "{path}"
            );
        }
        assert_eq!(
            keyhaul_file::recipients(&host.config())
                .expect("listed")
                .len(),
            1
        );
    }
}

fn first(arguments: &[String]) {
    let store = join_crowd(arguments);
    block_on(put(&store, &format!("vm{}/root", arguments[2]), b"value"));
}

fn readers_never_see_half_a_value() {
    let host = Host::new();
    let store = host.store();
    block_on(put(&store, "shared/value", &[b'0'; 5000]));
    let crowd = Crowd::start("overwrite", &host);
    let mut seen = std::collections::HashSet::new();
    let last = || {
        block_on(store.stat(&path("shared/value"), &GetOptions::default()))
            .expect("there")
            .version
    };
    while last() != Some(version(&(1 + PROCESSES * RACES).to_string())) {
        let value = block_on(get(&store, "shared/value")).expect("always there");
        assert_eq!(value.len(), 5000);
        assert!(value.iter().all(|byte| *byte == value[0]), "a mixture");
        seen.insert(value[0]);
    }
    crowd.finish();
    assert!(
        seen.len() > 1,
        "the control: values did change while they were read"
    );
}

fn overwrite(arguments: &[String]) {
    let store = join_crowd(arguments);
    for _ in 0..RACES {
        block_on(put(
            &store,
            "shared/value",
            &arguments[2].as_bytes().repeat(5000),
        ));
    }
}

#[expect(clippy::print_stdout, reason = "the parent reads it")]
fn say(text: &str) {
    print!("{text}");
    std::io::stdout().flush().expect("the parent reads");
}
