use std::path::PathBuf;

use clap::Args;
use keyhaul_core::{PutMode, Reference, SecretBytes, Version};

use super::{Carried, reference, replace_advice, version, version_words};
use crate::failure::Outcome;
use crate::global::Global;
use crate::input::{self, Origin};
use crate::session::Session;
use crate::{output, prompt};

/// The longest value that is read; stores have limits of their own below it.
const MAX_VALUE: usize = 16 * 1024 * 1024;

const EXAMPLES: &str = "\
Examples:
  keyhaul set web01/vnc                                 asks, without echo
  keyhaul set web01/tls-key --from /root/key.pass       a file, exactly as it is
  pass show vm/data | keyhaul set web01/data --strip-newline";

/// Arguments of `set`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The secret, as web01/root-disk
    #[arg(value_name = "REF", value_parser = reference)]
    reference: Reference,

    /// The file that holds the value, exactly; `-` is standard input
    /// [default: a hidden prompt at a terminal, else standard input]
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,

    /// Drop one newline at the end, as `echo` and editors leave
    #[arg(long)]
    strip_newline: bool,

    /// Only where there is no such secret yet
    #[arg(long, conflicts_with = "if_version")]
    create: bool,

    /// Only where this is the current version
    #[arg(long, value_name = "VERSION", value_parser = version)]
    if_version: Option<Version>,

    #[command(flatten)]
    carried: Carried,
}

/// Stores a secret.
pub fn run(global: &Global, arguments: Arguments) -> Outcome {
    let session = Session::open(global)?;
    let reference = &arguments.reference;
    // Before anybody types a value: does it have somewhere to go?
    session.resolver.policy().target(reference)?;
    let value = read(global, &arguments)?;
    let mode = match (arguments.create, arguments.if_version) {
        (true, _) => PutMode::Create,
        (false, Some(version)) => PutMode::Update(version),
        (false, None) => PutMode::Overwrite,
    };
    let options = arguments.carried.options(mode, session.request());
    let metadata = session
        .wait(session.resolver.put(reference, &value, options))
        .map_err(|error| replace_advice(error, "leave --create out to replace it"))?;
    output::words(format_args!(
        "stored {}{}",
        reference.short(),
        version_words(&metadata)
    ));
    Ok(())
}

fn read(global: &Global, arguments: &Arguments) -> Outcome<SecretBytes> {
    let ask = || prompt::new_secret(arguments.reference.short());
    let (value, origin) = input::secret(global, arguments.from.as_deref(), MAX_VALUE, ask)?;
    if origin == Origin::Person {
        return Ok(value);
    }
    match value.expose() {
        [rest @ .., b'\n'] if arguments.strip_newline => {
            let rest = rest.strip_suffix(b"\r").unwrap_or(rest);
            warn_of_empty(rest);
            Ok(SecretBytes::copy_from(rest))
        }
        [_, .., b'\n'] => {
            output::warning(
                "the value ends in a newline, which is stored as part of it",
                Some("if `echo` or an editor left it, store again with --strip-newline"),
            );
            Ok(value)
        }
        bytes => {
            warn_of_empty(bytes);
            Ok(value)
        }
    }
}

/// What came from a pipe whose other end failed is empty, too.
fn warn_of_empty(value: &[u8]) {
    if value.is_empty() {
        output::warning(
            "the value is empty",
            Some("if it was to come from a pipe, look whether the command before it failed"),
        );
    }
}
