//! A command that starts QEMU: which words hold references, who uses which secret, and the same
//! command with ciphertext in the references' place.
//!
//! What a person types is QEMU's own syntax with one property more, `ref`, in objects of type
//! `secret`. Every word that holds none stays what it is, to the byte.

mod consumers;
mod limits;
mod objects;
mod program;

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

pub use consumers::{Consumer, Use};
pub use limits::{Finding, Severity, check, check_expiry};

use self::objects::Objects;
use self::program::{Program, Words};
use super::object::{Property, check_word, properties};
use super::{Ciphertext, Dialect, KeySource, MasterObject};
use crate::{Error, ErrorKind, Result, Wanted};

/// A word of the command, counted from 0, the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Which word.
    pub word: usize,
    /// The option it belongs to, as it is written.
    pub option: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "argument {} ({})", self.word, self.option)
    }
}

/// How an object is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `{"qom-type":"secret",…}`.
    Json,
    /// `secret,id=…`.
    KeyValue,
}

/// An object with a reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefObject {
    /// Its id, which devices name.
    pub id: String,
    /// What it shall hold.
    pub reference: Wanted,
    /// Where it stands.
    pub place: Place,
    /// How it is written.
    pub form: Form,
    /// The word of its option, before which the master key's object can go.
    option_at: usize,
    /// Where the object begins in its word.
    offset: usize,
    /// The bytes of `ref=…` in the object, in key=value form.
    span: std::ops::Range<usize>,
}

/// A command that starts QEMU, understood as far as secrets go.
pub struct CommandLine {
    words: Vec<OsString>,
    program: Program,
    references: Vec<RefObject>,
    consumers: Vec<Use>,
    findings: Vec<Finding>,
    master_id: String,
}

impl CommandLine {
    /// Reads a command: the program, or a wrapper with its own options before it, and arguments.
    ///
    /// # Errors
    /// `InvalidReference` with the argument and the rule, where an object has a `ref` that cannot
    /// be one.
    pub fn parse(args: &[OsString]) -> Result<Self> {
        let (program, start) = Program::find(args);
        let words = Words::read(program, args, start);
        let objects = Objects::read(args, &words)?;
        let consumers = consumers::find(program, args, &words, &objects);
        let mut findings = objects.findings;
        findings.extend(limits::plain_options(args, &words));
        Ok(Self {
            words: args.to_vec(),
            program,
            references: objects.references,
            consumers,
            findings,
            master_id: fresh_id(args)?,
        })
    }

    /// The command as it was given.
    pub fn words(&self) -> &[OsString] {
        &self.words
    }

    /// The objects with a reference, in order.
    pub fn references(&self) -> &[RefObject] {
        &self.references
    }

    /// Who uses which secret, references or not, in order.
    pub fn consumers(&self) -> &[Use] {
        &self.consumers
    }

    /// Who uses the secret of this id.
    pub fn consumers_of<'a>(&'a self, id: &'a str) -> impl Iterator<Item = &'a Use> {
        self.consumers
            .iter()
            .filter(move |user| user.secret_id == id)
    }

    /// What is unwise about the command as it stands.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// The id of the master key's object: in no word of the command.
    pub fn master_id(&self) -> &str {
        &self.master_id
    }

    /// The command with ciphertext in the place of every reference, and the master key's object
    /// before the first of them. An object keeps its form and its other properties.
    ///
    /// # Errors
    /// `TooLarge` where an object would be longer than an argument can be; `Internal` where a
    /// reference has no secret.
    pub fn rewrite(
        &self,
        source: &KeySource,
        secrets: &[(String, Ciphertext)],
    ) -> Result<Vec<OsString>> {
        let master = MasterObject::new(self.master_id.as_str(), source.clone())?;
        let mut rewritten = Vec::with_capacity(self.words.len() + 2);
        let mut references = self.references.iter().peekable();
        for (at, word) in self.words.iter().enumerate() {
            if let Some(first) = self
                .references
                .first()
                .filter(|first| first.option_at == at)
            {
                rewritten.push(OsString::from(&first.place.option));
                rewritten.push(master.render(Dialect::Args)?.into());
            }
            match references.next_if(|object| object.place.word == at) {
                Some(object) => rewritten.push(self.rewrite_word(word, object, secrets)?),
                None => rewritten.push(word.clone()),
            }
        }
        Ok(rewritten)
    }

    fn rewrite_word(
        &self,
        word: &OsStr,
        object: &RefObject,
        secrets: &[(String, Ciphertext)],
    ) -> Result<OsString> {
        let found = secrets.iter().find(|(id, _)| *id == object.id);
        let (_, ciphertext) = found.ok_or_else(|| {
            Error::new(
                ErrorKind::Internal,
                format!("the object `{}` was given no secret", object.id),
            )
        })?;
        let properties = properties(&self.master_id, ciphertext);
        let (option, text) = word.as_bytes().split_at(object.offset);
        let mut rewritten = Vec::with_capacity(word.len() + ciphertext.data_base64_len() + 128);
        rewritten.extend_from_slice(option);
        match object.form {
            Form::Json => rewrite_json(text, &properties, &mut rewritten)?,
            Form::KeyValue => {
                rewritten.extend_from_slice(&text[..object.span.start]);
                rewritten.extend_from_slice(joined(&properties).as_bytes());
                rewritten.extend_from_slice(&text[object.span.end..]);
            }
        }
        check_word(&object.id, rewritten.len())?;
        Ok(OsString::from_vec(rewritten))
    }
}

impl fmt::Debug for CommandLine {
    /// What was understood, not the words: one may be a password in the clear.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommandLine")
            .field("program", &self.program)
            .field("references", &self.references)
            .field("consumers", &self.consumers)
            .field("findings", &self.findings)
            .finish_non_exhaustive()
    }
}

fn joined(properties: &[(&'static str, Property<'_>)]) -> String {
    let mut text = String::with_capacity(256);
    for (key, value) in properties {
        if !text.is_empty() {
            text.push(',');
        }
        value.write_pair(key, &mut text);
    }
    text
}

fn rewrite_json(
    text: &[u8],
    properties: &[(&'static str, Property<'_>)],
    rewritten: &mut Vec<u8>,
) -> Result<()> {
    let failed = |error: serde_json::Error| {
        Error::new(ErrorKind::Internal, "rewriting a JSON object").with_source(error)
    };
    let mut members: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(text).map_err(failed)?;
    members.remove("ref");
    for (key, value) in properties {
        members.insert((*key).into(), value.json());
    }
    serde_json::to_writer(rewritten, &members).map_err(failed)
}

/// An id that is part of no word.
fn fresh_id(words: &[OsString]) -> Result<String> {
    loop {
        let id = format!("keyhaul-{}", crate::random::hex(4)?);
        let taken = |word: &OsString| {
            word.as_bytes()
                .windows(id.len())
                .any(|part| part == id.as_bytes())
        };
        if !words.iter().any(taken) {
            return Ok(id);
        }
    }
}

#[cfg(test)]
mod consumer_tests;
#[cfg(test)]
mod tests;
