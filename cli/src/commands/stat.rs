use std::collections::BTreeMap;
use std::time::SystemTime;

use clap::Args;
use keyhaul_core::{GetOptions, Wanted};
use serde::Serialize;

use super::{Output, wanted};
use crate::failure::Outcome;
use crate::global::Global;
use crate::output::{self, Fields, Format};
use crate::session::Session;
use crate::times::shown;

/// Arguments of `stat`.
#[derive(Args, Debug)]
pub struct Arguments {
    /// The secret, as web01/root-disk
    #[arg(value_name = "REF", value_parser = wanted)]
    reference: Wanted,

    #[command(flatten)]
    output: Output,
}

#[derive(Serialize)]
struct Known {
    reference: Wanted,
    uuid: Option<String>,
    store: String,
    path: String,
    version: Option<String>,
    created: Option<String>,
    expires: Option<String>,
    expired: bool,
    labels: BTreeMap<String, String>,
    lease: Option<Lent>,
}

/// What the store says of a value that it made for this reader.
#[derive(Serialize)]
struct Lent {
    id: String,
    seconds: u64,
    renewable: bool,
}

/// Says what is known of a secret besides its value.
pub fn run(global: &Global, arguments: Arguments) -> Outcome {
    let session = Session::open(global)?;
    let reference = arguments.reference;
    let options = GetOptions::default().request(session.request());
    let metadata = session.wait(session.resolver.stat(&reference, options))?;
    let target = session.resolver.target(&reference)?;
    let known = Known {
        uuid: reference.reference().map(|r| r.uuid().to_string()),
        store: target.stores.first().cloned().unwrap_or_default(),
        path: target.path.to_string(),
        version: metadata.version.as_ref().map(ToString::to_string),
        created: metadata.created.map(shown),
        expires: metadata.expires.map(shown),
        expired: metadata.is_expired(SystemTime::now()),
        labels: metadata.labels,
        lease: metadata.lease.map(|lease| Lent {
            id: lease.id,
            seconds: lease.duration.as_secs(),
            renewable: lease.renewable,
        }),
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
    fields.push_some("uuid", known.uuid.as_ref());
    fields.push("store", &known.store);
    fields.push("path", &known.path);
    // What follows anybody may have put into the store.
    let version = known.version.as_deref().map(output::tame);
    fields.push_some("version", version);
    fields.push_some("created", known.created.as_ref());
    let expiry = known.expires.as_ref();
    fields.push_some(
        "expires",
        expiry.map(|at| format!("{at}{}", if known.expired { " (expired)" } else { "" })),
    );
    if let Some(lease) = &known.lease {
        let renewable = if lease.renewable { ", renewable" } else { "" };
        let id = output::tame(&lease.id);
        fields.push(
            "lease",
            format_args!("{id} for {} s{renewable}", lease.seconds),
        );
    }
    for (key, value) in &known.labels {
        fields.push("label", output::tame(&format!("{key}={value}")));
    }
    fields
}

#[cfg(test)]
mod tests {
    use keyhaul_core::misleads;

    use super::*;

    #[test]
    fn what_a_store_says_forges_no_line_and_no_terminal() {
        let known = Known {
            reference: wanted("web01/root").expect("valid"),
            uuid: None,
            store: "site".into(),
            path: "web01/root".into(),
            version: Some("7\u{202e}".into()),
            created: None,
            expires: None,
            expired: false,
            labels: BTreeMap::from([("a\x1b[2J".into(), "b\nlabel: owner=root".into())]),
            lease: Some(Lent {
                id: "id\nlabel: owner=root".into(),
                seconds: 60,
                renewable: false,
            }),
        };
        let text = lines(&known).to_string();
        assert_eq!(text.lines().count(), 6, "{text}");
        let ours = |c: char| c == '\n' || !misleads(c);
        assert!(text.chars().all(ours), "{text:?}");
        assert!(text.ends_with(r"a\u{1b}[2J=b\nlabel: owner=root"), "{text}");
    }
}
