use clap::Args;
use keyhaul_core::{Reference, Resolver};
use serde::Serialize;

use super::{Output, reference};
use crate::failure::Outcome;
use crate::global::Global;
use crate::output::{self, Fields, Format};
use crate::session::Session;

/// Arguments of `explain`.
#[derive(Args, Debug)]
pub struct Arguments {
    /// The secret, as web01/root-disk
    #[arg(value_name = "REF", value_parser = reference)]
    reference: Reference,

    #[command(flatten)]
    output: Output,
}

#[derive(Serialize)]
struct Explanation {
    reference: Reference,
    uuid: String,
    policy: String,
    route: String,
    r#match: String,
    passed_over: Vec<PassedOver>,
    stores: Vec<Served>,
    path: String,
    version: Option<String>,
    field: Option<String>,
    encoding: &'static str,
    notes: Vec<&'static str>,
}

#[derive(Serialize)]
struct PassedOver {
    route: String,
    r#match: String,
}

#[derive(Serialize)]
struct Served {
    name: String,
    url: String,
}

/// Says where a reference leads, without touching a store.
pub fn run(global: &Global, arguments: Arguments) -> Outcome {
    let session = Session::open(global)?;
    let explanation = explain(&session.resolver, arguments.reference)?;
    match arguments.output.format {
        Format::Json => output::json(&explanation)?,
        Format::Text => output::line(lines(&explanation))?,
    }
    Ok(())
}

fn explain(resolver: &Resolver, reference: Reference) -> keyhaul_core::Result<Explanation> {
    let policy = resolver.policy();
    let target = policy.target(&reference)?;
    let before = policy
        .routes
        .iter()
        .take_while(|route| route.place != target.route);
    let served = target
        .stores
        .iter()
        .filter_map(|name| policy.stores.get(name));
    let mut notes = Vec::new();
    if reference.version().is_some() {
        notes.push("a pinned version is the store's own: it does not survive a move to another");
    }
    if reference.is_staged() {
        notes.push("a staged value of a rotation, not yet current");
    }
    if reference.scope() == "@host" {
        notes.push("@host is the asking host's own scope");
    }
    Ok(Explanation {
        uuid: reference.uuid().to_string(),
        policy: policy.name.clone(),
        r#match: target.pattern.to_string(),
        passed_over: before
            .map(|route| PassedOver {
                route: route.place.clone(),
                r#match: route.pattern.to_string(),
            })
            .collect(),
        stores: served
            .map(|entry| Served {
                name: entry.config.name.clone(),
                url: entry.config.url.to_string(),
            })
            .collect(),
        path: target.path.to_string(),
        version: target.version.map(|version| version.to_string()),
        field: target.field.map(|field| field.to_string()),
        encoding: target.encoding.name(),
        route: target.route,
        notes,
        reference,
    })
}

fn lines(explanation: &Explanation) -> Fields {
    let mut fields = Fields::default();
    fields.push("reference", explanation.reference.short());
    fields.push("uuid", &explanation.uuid);
    fields.push("policy", &explanation.policy);
    for passed in &explanation.passed_over {
        fields.push(
            "no match",
            format_args!("`{}` at {}", passed.r#match, passed.route),
        );
    }
    fields.push(
        "match",
        format_args!("`{}` at {}", explanation.r#match, explanation.route),
    );
    for (index, store) in explanation.stores.iter().enumerate() {
        let label = if index == 0 { "store" } else { "else store" };
        fields.push(label, format_args!("{} ({})", store.name, store.url));
    }
    fields.push("path", &explanation.path);
    fields.push_some("version", explanation.version.as_ref());
    fields.push_some("field", explanation.field.as_ref());
    fields.push("encoding", explanation.encoding);
    for note in &explanation.notes {
        fields.push("note", note);
    }
    fields
}
