//! A person at a terminal.

use serde_json::{Value, json};

use crate::{Site, finish, keyhaul, program};

const SCRIPT: &str = include_str!("terminal.py");

/// What to wait for, and what to type then.
pub type Step<'a> = (&'a str, &'a str);

/// What happened at a terminal.
#[derive(Debug)]
pub struct AtTerminal {
    /// All that it showed.
    pub seen: String,
    /// The exit status; a signal's number below zero.
    pub status: i64,
    /// Whether it shows what is typed, at the end.
    pub echoes: bool,
}

/// Runs keyhaul at a terminal of its own.
#[track_caller]
pub fn at_terminal(
    site: &Site,
    variables: &[(&str, &str)],
    arguments: &[&str],
    steps: &[Step],
) -> AtTerminal {
    let mut argv = vec![keyhaul().to_str().expect("text")];
    argv.extend(arguments);
    let asked = json!({"steps": steps, "argv": argv}).to_string();
    let mut command = program("python3");
    site.surround(&mut command)
        .env("TERM", "xterm")
        .envs(variables.iter().copied())
        .args(["-c", SCRIPT, &asked]);
    let done = finish(&mut command).ok();
    let answer: Value = serde_json::from_str(done.text()).expect("JSON");
    AtTerminal {
        seen: answer["seen"].as_str().expect("text").to_owned(),
        status: answer["status"].as_i64().expect("a number"),
        echoes: answer["echoes"].as_bool().expect("yes or no"),
    }
}
