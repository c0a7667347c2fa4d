use clap::Args;
use keyhaul_core::{Resolver, Wanted};
use serde::Serialize;

use super::{Output, wanted};
use crate::failure::Outcome;
use crate::global::Global;
use crate::output::{self, Fields, Format};
use crate::session::Session;

/// Arguments of `explain`.
#[derive(Args, Debug)]
pub struct Arguments {
    /// The secret, as web01/root-disk
    #[arg(value_name = "REF", value_parser = wanted)]
    reference: Wanted,

    #[command(flatten)]
    output: Output,
}

#[derive(Serialize)]
struct Explanation {
    reference: Wanted,
    uuid: Option<String>,
    policy: String,
    route: String,
    r#match: Option<String>,
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

fn explain(resolver: &Resolver, reference: Wanted) -> keyhaul_core::Result<Explanation> {
    let policy = resolver.policy();
    let target = resolver.target(&reference)?;
    let routes = reference.reference().map_or(&[][..], |_| &policy.routes);
    let before = routes.iter().take_while(|r| r.place != target.route);
    let served = target
        .stores
        .iter()
        .filter_map(|name| policy.stores.get(name));
    let mut notes = Vec::new();
    if target.version.is_some() {
        notes.push("a pinned version is the store's own: it does not survive a move to another");
    }
    match reference.reference() {
        None => {
            notes.push("the place is named itself, past the routes: it does not survive a move")
        }
        Some(reference) if reference.is_staged() => {
            notes.push("a staged value of a rotation, not yet current");
        }
        Some(_) => {}
    }
    if reference.reference().is_some_and(|r| r.scope() == "@host") {
        notes.push("@host is the asking host's own scope");
    }
    Ok(Explanation {
        uuid: reference.reference().map(|r| r.uuid().to_string()),
        policy: policy.name.clone(),
        r#match: target.pattern.as_ref().map(ToString::to_string),
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
    fields.push_some("uuid", explanation.uuid.as_ref());
    fields.push("policy", &explanation.policy);
    for passed in &explanation.passed_over {
        fields.push(
            "no match",
            format_args!("`{}` at {}", passed.r#match, passed.route),
        );
    }
    match &explanation.r#match {
        Some(pattern) => {
            fields.push(
                "match",
                format_args!("`{pattern}` at {}", explanation.route),
            );
        }
        None => fields.push("allowed at", &explanation.route),
    }
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
