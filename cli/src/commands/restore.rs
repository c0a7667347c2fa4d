use clap::Args;
use keyhaul_core::Reference;
use keyhaul_remote::protocol::RestoreRequest;

use super::service::{ServiceName, ask};
use super::{Output, reference};
use crate::failure::Outcome;
use crate::global::Global;
use crate::output::{self, Format};
use crate::session::Session;

const EXAMPLES: &str = "\
Examples:
  keyhaul restore web01/root-disk";

/// Arguments of `restore`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The secret, as web01/root-disk
    #[arg(value_name = "REF", value_parser = reference)]
    reference: Reference,

    #[command(flatten)]
    service: ServiceName,

    #[command(flatten)]
    output: Output,
}

/// Brings back what was deleted from a key service, within its window.
pub fn run(global: &Global, arguments: Arguments) -> Outcome {
    let session = Session::open(global)?;
    let service = arguments.service.open(&session)?;
    let secret = arguments.reference.subject().to_owned();
    let body = RestoreRequest {
        secret: secret.clone(),
    };
    let restored = ask(
        &session,
        &service,
        service.restore(&body, &session.request()),
    )?;
    match arguments.output.format {
        Format::Json => output::json(&restored)?,
        Format::Text => {
            let version = restored.metadata.version.as_deref();
            let version = version.map_or(String::new(), |version| format!(", version {version}"));
            output::words(format_args!("restored {secret}{version}"));
        }
    }
    Ok(())
}
