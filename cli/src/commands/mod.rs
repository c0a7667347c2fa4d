//! The commands, one file each: their arguments, and what they do.

pub mod audit;
pub mod check;
pub mod completions;
pub mod copy;
pub mod delete;
pub mod explain;
pub mod generate;
pub mod get;
pub mod grant;
pub mod grants;
pub mod help;
pub mod list;
pub mod login;
pub mod logout;
pub mod man;
pub mod migrate;
pub mod node;
pub mod pki;
pub mod plugin;
pub mod resolve;
pub mod restore;
pub mod revoke;
pub mod run;
pub mod serve;
mod service;
pub mod set;
pub mod stat;
pub mod store;
pub mod what_can;
pub mod who_can;

use std::collections::BTreeMap;
use std::time::SystemTime;

use clap::Args;
use keyhaul_core::{
    Error, ErrorKind, Metadata, Policy, PutMode, PutOptions, Reference, Request, Version, Wanted,
};

use crate::output::Format;
use crate::times;

/// How a command prints data.
#[derive(Args, Clone, Copy, Debug)]
pub struct Output {
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// What a new value carries with it.
#[derive(Args, Clone, Debug)]
pub struct Carried {
    /// When the store stops giving it out: RFC 3339, or a duration from now, as 90d
    #[arg(long, value_name = "WHEN", value_parser = times::moment)]
    pub expires: Option<SystemTime>,

    /// A label, which is no secret; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    pub labels: Vec<(String, String)>,
}

impl Carried {
    fn options(self, mode: PutMode, request: Request) -> PutOptions {
        PutOptions::default()
            .mode(mode)
            .expires(self.expires)
            .labels(BTreeMap::from_iter(self.labels))
            .request(request)
    }
}

/// A reference on the command line.
fn reference(text: &str) -> Result<Reference, String> {
    Reference::parse(text).map_err(in_one_line)
}

/// What is to be read, on the command line: a reference, or a place in a store.
fn wanted(text: &str) -> Result<Wanted, String> {
    Wanted::parse(text).map_err(in_one_line)
}

fn in_one_line(error: Error) -> String {
    match error.advice() {
        Some(advice) => format!("{} ({advice})", error.message()),
        None => error.message().to_owned(),
    }
}

/// A version on the command line.
fn version(text: &str) -> Result<Version, String> {
    Version::new(text).map_err(|error| error.message().to_owned())
}

/// The error of a create that found the secret there, with the option that replaces it.
fn replace_advice(error: Error, advice: &'static str) -> Error {
    if error.kind() == ErrorKind::AlreadyExists {
        error.with_advice(advice)
    } else {
        error
    }
}

/// The rule that a store's name breaks where it is to be one of a kind; `unlike` says of which it is not.
fn no_such(policy: &Policy, wanted: &str, unlike: &str) -> String {
    match policy.stores.get(wanted) {
        Some(entry) => {
            let scheme = entry.config.url.scheme();
            format!("store `{wanted}` is a {scheme} store, {unlike}")
        }
        None => format!("{} has no store `{wanted}`", policy.name),
    }
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("a label is KEY=VALUE".to_owned()),
    }
}

/// `, version 3` where the store has versions.
fn version_words(metadata: &Metadata) -> String {
    metadata
        .version
        .as_ref()
        .map_or(String::new(), |version| format!(", version {version}"))
}
