use std::io::{self, IsTerminal};

use base64ct::{Base64, Encoding as _};
use clap::{Args, ValueEnum};
use keyhaul_core::{
    Error, ErrorKind, GetOptions, Result, Secret, SecretBytes, SecretWriter, Wanted,
};

use super::wanted;
use crate::failure::Outcome;
use crate::global::Global;
use crate::output;
use crate::session::Session;

const EXAMPLES: &str = "\
Examples:
  keyhaul get web01/root-disk | cryptsetup open --key-file - disk.luks root
  keyhaul get --expired web01/root-disk | keyhaul set web01/root-disk";

/// Arguments of `get`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The secret, as web01/root-disk
    #[arg(value_name = "REF", value_parser = wanted)]
    reference: Wanted,

    /// Write binary to a terminal all the same
    #[arg(long)]
    force: bool,

    /// Read it even where it has expired and the store still keeps it
    #[arg(long)]
    expired: bool,

    /// How to write it
    #[arg(long, value_enum, default_value_t)]
    format: Shape,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Shape {
    /// The exact bytes, and nothing after them
    #[default]
    Raw,
    /// A JSON document with the value in base64
    Json,
}

/// Writes a secret's exact bytes to standard output.
pub fn run(global: &Global, arguments: Arguments) -> Outcome {
    let session = Session::open(global)?;
    let options = GetOptions::default()
        .expired(arguments.expired)
        .request(session.request());
    let secret = session.wait(session.resolver.get(&arguments.reference, options))?;
    if arguments.format == Shape::Json {
        output::bytes(json(&arguments.reference, &secret)?.expose())?;
        return Ok(());
    }
    let terminal = io::stdout().is_terminal();
    if terminal && !arguments.force && !is_text(&secret.value) {
        let rule = "the value is not plain text, and standard output is a terminal";
        let error = Error::new(ErrorKind::Unsupported, rule)
            .with_reference(arguments.reference.short())
            .with_advice("write it to a file or a pipe, or add --force");
        return Err(error.into());
    }
    output::bytes(secret.value.expose())?;
    if terminal {
        output::words("");
    }
    Ok(())
}

fn is_text(value: &SecretBytes) -> bool {
    std::str::from_utf8(value.expose()).is_ok_and(|text| {
        text.chars()
            .all(|c| !c.is_control() || matches!(c, '\n' | '\t'))
    })
}

/// The document, written where it is wiped: it holds the value.
fn json(reference: &Wanted, secret: &Secret) -> Result<SecretBytes> {
    let value = secret.value.expose();
    let mut text = SecretWriter::with_limit(value.len() * 2 + 4096);
    let reference = serde_json::Value::from(reference.to_string());
    let version = serde_json::Value::from(secret.metadata.version.as_ref().map(|v| v.as_str()));
    text.push(
        format!(
            "{{\n  \"schema_version\": {},\n  \"reference\": {reference},\n  \"version\": {version},\n  \"encoding\": \"base64\",\n  \"value\": \"",
            output::SCHEMA_VERSION,
        )
        .as_bytes(),
    )?;
    let encoded = SecretBytes::try_init_with(Base64::encoded_len(value), |place| {
        Base64::encode(value, place)
            .map(|_| ())
            .map_err(|_| Error::new(ErrorKind::Internal, "the value is too long to encode"))
    })?;
    text.push(encoded.expose())?;
    text.push(b"\"\n}\n")?;
    Ok(text.finish())
}
