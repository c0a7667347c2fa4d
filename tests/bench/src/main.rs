//! Speed and memory, each figure beside a peer or a floor that ran in turn with it: machines differ
//! and are noisy, ratios less so. Prints a table; says of each target whether it is met.
//!
//! `make bench`, or `cargo build --release --workspace && cargo run --release -p keyhaul-bench`.
#![expect(clippy::print_stdout, reason = "the table is what this program is for")]

mod cipher;
mod cold;
mod ground;
mod keyring;
mod measure;
mod vault;

use measure::Row;

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
    let groups = [cold::rows, cipher::rows, vault::rows, keyring::rows];
    for row in groups.into_iter().flat_map(|rows| rows(&ground)) {
        row.print();
    }
}
