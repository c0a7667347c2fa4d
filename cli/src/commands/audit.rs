use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use keyhaul_core::{Error, ErrorKind, misleads};
use keyhaul_remote::protocol::AuditHead;
use keyhaul_remote::server::verify_audit;
use serde::Serialize;
use serde_json::Value;

use super::Output;
use super::service::Common;
use crate::failure::Outcome;
use crate::global::Global;
use crate::output::{self, Format};

const EXAMPLES: &str = "\
Examples:
  keyhaul audit show --last 20
  keyhaul audit show | grep 02fca85c05c3a9c2            all of one request
  keyhaul audit verify audit.jsonl.1 audit.jsonl --head 4711:9f86d0…";

/// A number that no record reaches: the greatest that every reader of JSON can hold.
const BEYOND: u64 = (1 << 53) - 1;

/// Arguments of `audit`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Print a key service's records, as an operator
    Show {
        /// Only those after this number
        #[arg(long, value_name = "NUMBER")]
        after: Option<u64>,

        /// At most so many, from the oldest on [default: all there are]
        #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
        limit: Option<u64>,

        /// Only so many of the latest, and of these only what the operator's scopes reach
        #[arg(long, value_name = "NUMBER", conflicts_with_all = ["after", "limit"])]
        last: Option<u64>,

        #[command(flatten)]
        common: Common,
    },
    /// Hold files of a key service's audit against their chain, the oldest first. Asks nobody
    Verify {
        /// The files
        #[arg(value_name = "FILE", required = true)]
        files: Vec<PathBuf>,

        /// A record that must be there, as it was noted elsewhere: without it, what was cut off at
        /// the end leaves no trace
        #[arg(long, value_name = "NUMBER:HASH", value_parser = head)]
        head: Option<AuditHead>,

        #[command(flatten)]
        output: Output,
    },
}

#[derive(Serialize)]
struct Shown {
    records: Vec<Value>,
    head: AuditHead,
}

#[derive(Serialize)]
struct Sound {
    first: u64,
    records: u64,
    head: AuditHead,
    torn: bool,
    /// Whether the end was held against a head that was kept elsewhere.
    anchored: bool,
}

/// Shows and verifies a key service's audit.
pub fn run(global: &Global, arguments: Arguments) -> Outcome {
    match arguments.task {
        Task::Show {
            after,
            limit,
            last,
            common,
        } => show(global, after, limit, last, common),
        Task::Verify {
            files,
            head,
            output,
        } => {
            let found = verify_audit(&files, head.as_ref())
                .map_err(|error| files.iter().find_map(|file| other(file)).unwrap_or(error))?;
            let sound = Sound {
                first: found.first,
                records: found.records,
                head: found.head,
                torn: found.torn,
                anchored: head.is_some(),
            };
            print(&sound, output)
        }
    }
}

fn show(
    global: &Global,
    mut after: Option<u64>,
    limit: Option<u64>,
    last: Option<u64>,
    common: Common,
) -> Outcome {
    let keys = common.open(global)?;
    if let Some(last) = last {
        // Where the chain ends is told with every page, also with an empty one: the oldest records
        // may be gone.
        let answer = keys.ask(keys.service.audit(Some(BEYOND), Some(1), &keys.request))?;
        after = Some(answer.head.sequence.saturating_sub(last));
    }
    // To look is recorded too, and is none of the latest that were meant.
    let mut left = last.or(limit);
    let mut records = Vec::new();
    loop {
        let most = left.map(|left| usize::try_from(left).unwrap_or(usize::MAX));
        let answer = keys.ask(keys.service.audit(after, most, &keys.request))?;
        left = left.map(|left| left.saturating_sub(answer.records.len() as u64));
        match keys.format {
            Format::Json => records.extend(answer.records),
            // Page by page: an audit can be long.
            Format::Text => {
                let lines: String = answer.records.iter().map(line).collect();
                output::bytes(lines.as_bytes())?;
            }
        }
        match answer.next {
            Some(next) if left != Some(0) && Some(next) != after => after = Some(next),
            _ if keys.format == Format::Json => {
                let head = answer.head;
                return Ok(output::json(&Shown { records, head })?);
            }
            _ => {
                let AuditHead { sequence, hash } = answer.head;
                output::words(format_args!("head {sequence}:{hash}"));
                return Ok(());
            }
        }
    }
}

/// A record in one line: number and time, who, from where, what, how it went, and why.
fn line(record: &Value) -> String {
    let text = |key: &str| match record.get(key) {
        Some(Value::String(text)) if !text.is_empty() => Some(text.clone()),
        Some(Value::String(_) | Value::Null) | None => None,
        Some(other) => Some(other.to_string()),
    };
    let keys = [
        "sequence",
        "time",
        "actor",
        "peer",
        "operation",
        "subject",
        "node",
        "outcome",
        "reason",
        "request",
    ];
    let words: Vec<String> = keys
        .into_iter()
        .filter_map(|key| Some((key, text(key)?)))
        .map(|(key, text)| match key {
            "node" | "request" => format!("{key}={text}"),
            "reason" => format!("({text})"),
            _ => text,
        })
        .collect();
    // From afar: nothing of it steers a terminal.
    let line = words.join(" ").replace(misleads, " ");
    line + "\n"
}

/// What a file is that does not verify because it is no key service's audit, where it can be told.
fn other(file: &Path) -> Option<Error> {
    // The verification has opened it before: it is a file, and waits for nobody.
    let mut start = Vec::new();
    let opened = File::open(file).ok()?;
    opened.take(64 * 1024).read_to_end(&mut start).ok()?;
    let line = start.split(|byte| *byte == b'\n').next()?;
    let what = if start.starts_with(b"SQLite format 3\0") {
        "a database, as a key service's `state` is"
    } else {
        let record: Value = serde_json::from_slice(line).ok()?;
        let has = |key| record.get(key).is_some();
        if !has("event") || has("hash") {
            return None;
        }
        "the log of a policy's `[audit]`, whose records have no chain to verify"
    };
    let message = format!("{} is {what}", file.display());
    Some(Error::new(ErrorKind::InvalidConfig, message).with_advice(
        "`audit verify` holds the file that a key service's `audit` names against its chain",
    ))
}

fn print(sound: &Sound, output: Output) -> Outcome {
    if output.format == Format::Json {
        return Ok(output::json(sound)?);
    }
    let AuditHead { sequence, hash } = &sound.head;
    output::line(format_args!(
        "{} records, {} to {sequence}: the chain holds",
        sound.records, sound.first
    ))?;
    output::line(format_args!("head {sequence}:{hash}"))?;
    if sound.first != 1 {
        output::warning(
            &format!("the records before {} were not given", sound.first),
            Some("name the older files too, the oldest first"),
        );
    }
    if sound.torn {
        output::warning(
            "half a record follows: the service died in the middle of a write, or is writing now",
            None,
        );
    }
    if !sound.anchored {
        output::warning(
            "what was cut off at the end would leave no trace",
            Some(
                "give --head with what `keyhaul audit show` printed at another time, kept elsewhere",
            ),
        );
    }
    Ok(())
}

/// `NUMBER:HASH` on the command line.
fn head(text: &str) -> Result<AuditHead, String> {
    let rule = "a head is NUMBER:HASH, the hash in 64 hexadecimal digits";
    let (sequence, hash) = text.split_once(':').ok_or(rule)?;
    let is_hash = hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
    match sequence.parse() {
        Ok(sequence) if is_hash => Ok(AuditHead {
            sequence,
            hash: hash.to_ascii_lowercase(),
        }),
        _ => Err(rule.to_owned()),
    }
}
