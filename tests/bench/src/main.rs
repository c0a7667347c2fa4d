//! Speed and memory, each figure beside a peer or a floor that ran in turn with it: machines differ
//! and are noisy, ratios less so. Prints a table; says of each target whether it is met.
//!
//! `make bench`, or `cargo build --release --workspace && cargo run --release -p keyhaul-bench`. With
//! names of groups as arguments, only these: `cold`, `cipher`, `vault`, `keyring`, `service`,
//! `plugins`.
#![expect(clippy::print_stdout, reason = "the table is what this program is for")]

mod cipher;
mod cold;
mod ground;
mod keyring;
mod measure;
mod plugins;
mod service;
mod vault;

use measure::Row;

/// What measures one kind of thing.
type Group = fn(&ground::Ground) -> Vec<Row>;

fn main() {
    let ground = match ground::Ground::prepare() {
        Ok(ground) => ground,
        Err(reason) => {
            println!("cannot measure: {reason}");
            std::process::exit(1);
        }
    };
    println!(
        "medians of whole processes, run in turn; lower is better unless the target says `at least`\n"
    );
    Row::heading();
    let groups: [(&str, Group); 6] = [
        ("cold", cold::rows),
        ("cipher", cipher::rows),
        ("vault", vault::rows),
        ("keyring", keyring::rows),
        ("service", service::rows),
        ("plugins", plugins::rows),
    ];
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let wants = |name: &str| wanted.is_empty() || wanted.iter().any(|word| word == name);
    for (_, rows) in groups.into_iter().filter(|(name, _)| wants(name)) {
        rows(&ground).iter().for_each(Row::print);
    }
}
