//! The client against servers that a test commands: several of them, bad days, bad answers, bad
//! certificates. Against the real server it is tried by the contract and by the attacks.

mod answers;
mod certificates;
mod keys;
mod servers;
mod site;
mod stage;
mod tasks;
mod writes;

use keyhaul_core::SecretPath;

fn path(text: &str) -> SecretPath {
    SecretPath::new(text).expect("a path")
}
