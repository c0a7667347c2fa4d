//! The `-object` words of a command: which hold references, and what is wrong with them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;

use super::limits::{Finding, plain_secret};
use super::program::{Opt, Words, value_of};
use super::{Form, Place, RefObject};
use crate::qemu::object::check_id;
use crate::qemu::option::{Options, pairs};
use crate::{Error, ErrorKind, Result, Wanted};

/// What a `secret` with a reference leaves to keyhaul.
const OURS: [&str; 5] = ["data", "file", "keyid", "iv", "format"];

/// All objects of a command.
#[derive(Debug, Default)]
pub(super) struct Objects {
    pub(super) references: Vec<RefObject>,
    /// Every object that could be read, references or not.
    pub(super) all: Vec<(Place, Options)>,
    pub(super) findings: Vec<Finding>,
}

impl Objects {
    pub(super) fn read(words: &[OsString], read: &Words) -> Result<Self> {
        let mut objects = Self::default();
        for opt in read.options.iter().filter(|opt| opt.name == "object") {
            objects
                .add(words, opt)
                .map_err(|error| error.with_place(place(words, opt)))?;
        }
        objects.refuse_duplicates()?;
        Ok(objects)
    }

    fn add(&mut self, words: &[OsString], opt: &Opt) -> Result<()> {
        let text = value_of(words, opt);
        let (form, options, span) = if text.first() == Some(&b'{') {
            match Options::of_json(text) {
                Some(options) => (Form::Json, options, 0..0),
                None if mentions_ref(text) => return Err(unreadable_json()),
                None => return Ok(()),
            }
        } else {
            let span = ref_span(text)?;
            let options = Options::of_pairs(text, Some("qom-type"));
            (Form::KeyValue, options, span.unwrap_or(0..0))
        };
        let has_ref = match form {
            Form::Json => options
                .iter()
                .any(|(key, _)| key == "ref" || key.starts_with("ref.")),
            Form::KeyValue => !span.is_empty(),
        };
        let place = place(words, opt);
        match options.get("qom-type") {
            Some("secret") if has_ref => {
                let (id, reference) = reference(&options)?;
                self.references.push(RefObject {
                    id,
                    reference,
                    place: place.clone(),
                    form,
                    option_at: opt.at,
                    offset: opt.offset,
                    span,
                });
            }
            Some("secret_keyring") if has_ref => {
                return Err(refuse(
                    "a secret_keyring takes its value from the kernel, not from a ref",
                )
                .with_advice("write the object as secret,id=…,ref=…"));
            }
            Some("secret") => self.findings.extend(plain_secret(&place, &options)),
            _ => {}
        }
        self.all.push((place, options));
        Ok(())
    }

    /// QEMU would refuse the second object of an id; better before a secret was fetched.
    fn refuse_duplicates(&self) -> Result<()> {
        let mut seen: BTreeMap<&str, &Place> = BTreeMap::new();
        for (place, options) in &self.all {
            let Some(id) = options.get("id") else {
                continue;
            };
            let earlier = seen.insert(id, place);
            let ours = self.references.iter().any(|object| object.id == id);
            if let Some(earlier) = earlier.filter(|_| ours) {
                return Err(
                    refuse(format!("the id `{id}` is that of {earlier} already"))
                        .with_advice("give each object an id of its own")
                        .with_place(place),
                );
            }
        }
        Ok(())
    }
}

/// Where `ref=…` stands in a key=value object.
fn ref_span(text: &[u8]) -> Result<Option<Range<usize>>> {
    let mut spans = pairs(text, Some("qom-type"))
        .into_iter()
        .filter(|pair| pair.key == b"ref")
        .map(|pair| pair.range);
    let first = spans.next();
    if spans.next().is_some() {
        return Err(refuse("an object has one ref"));
    }
    Ok(first)
}

fn reference(options: &Options) -> Result<(String, Wanted)> {
    if let Some(key) = OURS.into_iter().find(|key| options.get(key).is_some()) {
        return Err(
            refuse(format!("`{key}` and `ref` exclude each other in a secret")).with_advice(
                format!("leave `{key}` out: keyhaul sets {}", OURS.join(", ")),
            ),
        );
    }
    let id = options.get("id").ok_or_else(|| {
        refuse("a secret needs an id").with_advice("write it as secret,id=…,ref=…")
    })?;
    check_id(id)?;
    // A JSON ref that is an object or a list has no value of its own.
    let reference = options.get("ref").filter(|text| !text.is_empty());
    let reference = reference
        .ok_or_else(|| refuse("`ref` names no secret").with_advice("write it as ref=SCOPE/NAME"))?;
    Ok((id.to_owned(), Wanted::parse(reference)?))
}

/// Whether JSON that cannot be read has a member `ref`, by the look of it.
fn mentions_ref(text: &[u8]) -> bool {
    let quoted = [b"\"ref\"".as_slice(), b"'ref'"];
    quoted
        .iter()
        .any(|name| text.windows(name.len()).any(|part| part == *name))
}

fn unreadable_json() -> Error {
    refuse("the object is no plain JSON, and has a ref")
        .with_advice("write strings in double quotes, which QEMU takes as well, or use key=value")
}

fn refuse(rule: impl Into<Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidReference, rule)
}

/// The place of an option's value.
pub(super) fn place(words: &[OsString], opt: &Opt) -> Place {
    // `--object=…` names the option up to the `=`.
    let word = words[opt.at].as_bytes();
    let end = if opt.at == opt.value_at && opt.offset > 0 {
        let end = opt.offset;
        if word[end - 1] == b'=' { end - 1 } else { end }
    } else {
        word.len()
    };
    Place {
        word: opt.value_at,
        option: String::from_utf8_lossy(&word[..end]).into_owned(),
    }
}
