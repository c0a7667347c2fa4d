use clap::Args;
use keyhaul_core::Reference;
use keyhaul_remote::protocol::RestoreRequest;

use super::reference;
use super::service::Common;
use crate::failure::Outcome;
use crate::global::Global;
use crate::output;

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
    common: Common,
}

/// Brings back what was deleted from a key service, within its window.
pub fn run(global: &Global, arguments: Arguments) -> Outcome {
    let keys = arguments.common.open(global)?;
    let body = RestoreRequest {
        secret: arguments.reference.subject().to_owned(),
    };
    let restored = keys.ask(keys.service.restore(&body, &keys.request))?;
    keys.print(&restored, |restored| {
        let version = restored.metadata.version.as_deref();
        let version = version.map_or(String::new(), |version| format!(", version {version}"));
        output::words(format_args!("restored {}{version}", body.secret));
        Ok(())
    })
}
