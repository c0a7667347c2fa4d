use std::collections::BTreeMap;
use std::time::SystemTime;

use clap::Args;
use keyhaul_core::{GetOptions, Reference};
use serde::Serialize;

use super::{Output, reference};
use crate::failure::Outcome;
use crate::global::Global;
use crate::output::{self, Fields, Format};
use crate::session::Session;
use crate::times::shown;

/// Arguments of `stat`.
#[derive(Args, Debug)]
pub struct Arguments {
    /// The secret, as web01/root-disk
    #[arg(value_name = "REF", value_parser = reference)]
    reference: Reference,

    #[command(flatten)]
    output: Output,
}

#[derive(Serialize)]
struct Known {
    reference: Reference,
    uuid: String,
    store: String,
    path: String,
    version: Option<String>,
    created: Option<String>,
    expires: Option<String>,
    expired: bool,
    labels: BTreeMap<String, String>,
}

/// Says what is known of a secret besides its value.
pub fn run(global: &Global, arguments: Arguments) -> Outcome {
    let session = Session::open(global)?;
    let reference = arguments.reference;
    let options = GetOptions::default().request(session.request());
    let metadata = session.wait(session.resolver.stat(&reference, options))?;
    let target = session.resolver.policy().target(&reference)?;
    let known = Known {
        uuid: reference.uuid().to_string(),
        store: target.stores.first().cloned().unwrap_or_default(),
        path: target.path.to_string(),
        version: metadata.version.as_ref().map(ToString::to_string),
        created: metadata.created.map(shown),
        expires: metadata.expires.map(shown),
        expired: metadata.is_expired(SystemTime::now()),
        labels: metadata.labels,
        reference,
    };
    match arguments.output.format {
        Format::Json => output::json(&known)?,
        Format::Text => output::line(lines(&known))?,
    }
    Ok(())
}

fn lines(known: &Known) -> Fields {
    let mut fields = Fields::default();
    fields.push("reference", known.reference.short());
    fields.push("uuid", &known.uuid);
    fields.push("store", &known.store);
    fields.push("path", &known.path);
    fields.push_some("version", known.version.as_ref());
    fields.push_some("created", known.created.as_ref());
    let expiry = known.expires.as_ref();
    fields.push_some(
        "expires",
        expiry.map(|at| format!("{at}{}", if known.expired { " (expired)" } else { "" })),
    );
    for (key, value) in &known.labels {
        fields.push("label", format_args!("{key}={value}"));
    }
    fields
}
