//! A client of QEMU's monitor.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};

use crate::LIMIT;

/// A connection to QEMU's monitor.
#[derive(Debug)]
pub struct Qmp {
    reader: BufReader<UnixStream>,
    /// What has happened and nobody has asked for yet.
    events: VecDeque<Value>,
}

impl Qmp {
    /// The monitor of a QEMU that has connected.
    pub fn of(stream: UnixStream) -> Self {
        stream.set_nonblocking(false).expect("waits");
        stream.set_read_timeout(Some(LIMIT)).expect("a time limit");
        let mut qmp = Self {
            reader: BufReader::new(stream),
            events: VecDeque::new(),
        };
        let greeting = qmp.line();
        assert!(greeting.get("QMP").is_some(), "{greeting}");
        qmp.call("qmp_capabilities", json!({}))
            .expect("capabilities");
        qmp
    }

    /// Sends a command; gives its answer, or what QEMU says is wrong.
    pub fn call(&mut self, command: &str, arguments: Value) -> Result<Value, String> {
        self.send(&json!({"execute": command, "arguments": arguments}).to_string())
    }

    /// Sends a command that is written already.
    pub fn send(&mut self, line: &str) -> Result<Value, String> {
        // In one piece: QEMU acts on the last brace, and may be gone before a newline that follows.
        let stream = self.reader.get_mut();
        stream.write_all(line.as_bytes()).expect("QEMU listens");
        loop {
            let mut answer = self.line();
            if answer.get("event").is_some() {
                self.events.push_back(answer);
                continue;
            }
            if let Some(error) = answer.get("error") {
                return Err(error["desc"].as_str().unwrap_or_default().to_owned());
            }
            return Ok(answer["return"].take());
        }
    }

    /// Waits for an event of this name that `fits`, past all others: its data.
    pub fn event(&mut self, name: &str, fits: impl Fn(&Value) -> bool) -> Value {
        loop {
            let mut event = match self.events.pop_front() {
                Some(event) => event,
                None => self.line(),
            };
            if event["event"] == name && fits(&event["data"]) {
                return event["data"].take();
            }
        }
    }

    fn line(&mut self) -> Value {
        let mut line = String::new();
        self.reader.read_line(&mut line).expect("QEMU answers");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("QMP {line:?}: {error}"))
    }
}
