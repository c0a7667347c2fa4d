//! The host's side of the protocol without a process, for the fuzz targets.

use std::sync::Arc;

use keyhaul_core::registry::Options;
use keyhaul_core::{Error, ListOptions, Page, Result, SecretBytes, SecretPath};
use tokio::sync::Semaphore;

use crate::lines::Lines;
use crate::options;
use crate::redact::Redactor;
use crate::requests::Open;
use crate::store::page;
use crate::talk::{Heard, Talk};
use crate::wire::{Reply, Wants};

/// The most entries of the page that is asked for.
pub const LIMIT: usize = 4;

/// What the host took from a plugin.
#[derive(Debug, Default)]
pub struct Taken {
    /// Refusals, of the plugin's and of the host's.
    pub errors: Vec<Error>,
    /// Pages of the listing below `p`.
    pub pages: Vec<Page>,
    /// How long the values were.
    pub values: Vec<usize>,
}

/// Takes all that a plugin writes, in pieces of at most `piece` bytes. It was asked for a secret (1),
/// for three in a batch (2) and for a listing (3), and `passed` has passed before.
pub fn hear(written: &[u8], piece: usize, passed: &SecretBytes) -> Taken {
    let mut taken = Taken::default();
    if let Err(error) = converse(written, piece.max(1), passed, &mut taken) {
        taken.errors.push(error);
    }
    taken
}

fn converse(written: &[u8], piece: usize, passed: &SecretBytes, taken: &mut Taken) -> Result<()> {
    let talk = Talk::new(Redactor::shared()?);
    talk.redactor().remember(passed);
    let mut answers = Vec::new();
    let room = Arc::new(Semaphore::new(3));
    let asked = [
        (Wants::Value, None),
        (Wants::Value, Some(3)),
        (Wants::Page, None),
    ];
    for (wants, paths) in asked {
        // There is room for each.
        let Ok(room) = room.clone().try_acquire_owned() else {
            break;
        };
        let (open, outcomes) = Open::new(wants, paths, room);
        let id = talk.requests().next_id();
        talk.requests().add(id, open)?;
        answers.push((id, outcomes));
    }
    let mut lines = Lines::new(talk.longest_line());
    for part in written.chunks(piece) {
        let mut rest = part;
        while !rest.is_empty() {
            let room = lines.room();
            let count = room.len().min(rest.len());
            room[..count].copy_from_slice(&rest[..count]);
            lines.came(count);
            rest = &rest[count..];
            while let Some(line) = lines.next()? {
                match talk.take(line)? {
                    Heard::Hello => {
                        options::check(&Options::default(), &talk.hello()?.options, "policy")?;
                        lines.set_limit(talk.longest_line());
                    }
                    Heard::Part => {}
                    Heard::Whole(open) => open.tell(),
                }
                for (id, outcomes) in &mut answers {
                    for outcome in outcomes.try_recv().into_iter().flatten() {
                        take(*id, outcome, taken);
                    }
                }
            }
        }
    }
    Ok(())
}

fn take(id: u64, outcome: Result<Reply>, taken: &mut Taken) {
    let reply = match outcome {
        Ok(reply) => reply,
        Err(error) => return taken.errors.push(error),
    };
    if id != 3 {
        let value = reply.value.iter().map(SecretBytes::len);
        return taken.values.extend(value);
    }
    let below = SecretPath::new("p");
    let options = ListOptions::default().limit(Some(LIMIT));
    match below.and_then(|prefix| page(reply, &prefix, &options)) {
        Ok(page) => taken.pages.push(page),
        Err(error) => taken.errors.push(error),
    }
}

/// `words` of a plugin as they are shown, where `value` has passed.
///
/// # Errors
/// Where the system has no randomness to give.
pub fn shown(words: &[u8], value: &[u8], limit: usize) -> Result<String> {
    let mut redactor = Redactor::new()?;
    redactor.remember(&SecretBytes::copy_from(value));
    Ok(redactor.clean(words, limit))
}
