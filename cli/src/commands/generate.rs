use clap::{Args, ValueEnum};
use keyhaul_core::{Alphabet, PutMode, Recipe, Reference, Version};

use super::{Carried, reference, replace_advice, version, version_words};
use crate::failure::Outcome;
use crate::global::Global;
use crate::output;
use crate::session::Session;

const EXAMPLES: &str = "\
Examples:
  keyhaul generate web01/root-disk                      32 letters and digits
  keyhaul generate web01/vnc --length 8                 VNC compares 8 bytes
  keyhaul generate web01/key --alphabet bytes           32 bytes: an AES-256 key";

/// Arguments of `generate`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The secret, as web01/root-disk
    #[arg(value_name = "REF", value_parser = reference)]
    reference: Reference,

    /// How many characters, or bytes
    #[arg(long, value_name = "N", default_value_t = Recipe::default().length())]
    length: usize,

    /// What it is made of
    #[arg(long, value_enum, default_value_t)]
    alphabet: Letters,

    /// Replace the secret that is there [default: only where there is none yet]
    #[arg(long, conflicts_with = "if_version")]
    overwrite: bool,

    /// Only where this is the current version
    #[arg(long, value_name = "VERSION", value_parser = version)]
    if_version: Option<Version>,

    #[command(flatten)]
    carried: Carried,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Letters {
    /// [A-Za-z0-9]: safe to type and to quote
    #[default]
    Alphanumeric,
    /// Any byte: for consumers that take raw keys
    Bytes,
    /// [0-9a-f]
    Hex,
}

/// Makes a secret that nobody has seen.
pub fn run(global: &Global, arguments: Arguments) -> Outcome {
    let alphabet = match arguments.alphabet {
        Letters::Alphanumeric => Alphabet::Alphanumeric,
        Letters::Bytes => Alphabet::Bytes,
        Letters::Hex => Alphabet::Hex,
    };
    let recipe = Recipe::new(alphabet, arguments.length)?;
    let session = Session::open(global)?;
    let mode = match (arguments.overwrite, arguments.if_version) {
        (true, _) => PutMode::Overwrite,
        (false, Some(version)) => PutMode::Update(version),
        (false, None) => PutMode::Create,
    };
    let reference = &arguments.reference;
    let options = arguments.carried.options(mode, session.request());
    let metadata = session
        .wait(session.resolver.generate(reference, &recipe, options))
        .map_err(|error| {
            let advice = "read it with `keyhaul get`, or replace it with --overwrite: \
                          a disk that it opens then needs the new one added first";
            replace_advice(error, advice)
        })?;
    output::words(format_args!(
        "generated {}{}",
        reference.short(),
        version_words(&metadata)
    ));
    Ok(())
}
