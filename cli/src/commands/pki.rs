use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use jiff::Timestamp;
use keyhaul_core::{Error, ErrorKind};
use keyhaul_remote::pki::{Authority, Issued, Record, Subject};
use serde::Serialize;

use super::Output;
use crate::failure::Outcome;
use crate::global;
use crate::output::{self, Fields, Format, Rows};
use crate::times::shown;

const FOLDER: &str = "/etc/keyhaul/pki";

const EXAMPLES: &str = "\
Examples:
  keyhaul pki init example.com
  keyhaul pki issue server keys1 --dns keys1.example.com --ip 192.0.2.7
  keyhaul pki issue node host-17                        spiffe://example.com/node/host-17
  keyhaul pki renew host-17
  keyhaul pki revoke host-17                            then: systemctl reload keyhaul";

/// Arguments of `pki`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Make an authority in a folder
    Init {
        /// The site's name, as in spiffe://SITE/node/NAME
        #[arg(value_name = "SITE")]
        site: String,
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        output: Output,
    },
    /// Make a certificate and its key
    Issue {
        /// Whose it is
        #[arg(value_enum, value_name = "KIND")]
        kind: Kind,

        /// Its name: that of the node, or of its files where it is a server
        #[arg(value_name = "NAME")]
        name: String,

        /// A name that the server is reached by; may be repeated
        #[arg(long, value_name = "NAME")]
        dns: Vec<String>,

        /// An address that the server is reached by; may be repeated
        #[arg(long, value_name = "ADDRESS")]
        ip: Vec<IpAddr>,

        #[command(flatten)]
        lasting: Lasting,
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        output: Output,
    },
    /// Print what was issued
    List {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        output: Output,
    },
    /// Make a certificate of the same names again, with a new key
    Renew {
        /// Its name
        #[arg(value_name = "NAME")]
        name: String,
        #[command(flatten)]
        lasting: Lasting,
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        output: Output,
    },
    /// Revoke certificates, and make the list of what is revoked anew
    Revoke {
        /// The name, for all its certificates, or one's serial number
        #[arg(value_name = "NAME|SERIAL")]
        which: String,
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Args, Debug)]
struct Place {
    /// The authority's folder
    #[arg(long, value_name = "DIR", default_value = FOLDER)]
    folder: PathBuf,
}

#[derive(Args, Debug)]
struct Lasting {
    /// How long it lasts
    #[arg(long, value_name = "TIME", default_value = "90d", value_parser = global::duration)]
    lifetime: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Grants and revokes, and never reads a value
    Manager,
    /// Reads what it is granted
    Node,
    /// Sets values and reads the audit
    Operator,
    /// The key service itself
    Server,
}

#[derive(Serialize)]
struct Made<'a> {
    site: &'a str,
    folder: String,
    certificate: String,
    crl: String,
    expires: Timestamp,
}

#[derive(Serialize)]
struct Revoked<'a> {
    revoked: &'a [Record],
    crl: String,
}

#[derive(Serialize)]
struct Certificate<'a> {
    certificate: &'a str,
    key: &'a str,
    #[serde(flatten)]
    record: &'a Record,
}

#[derive(Serialize)]
struct Certificates {
    site: String,
    certificates: Vec<Record>,
}

/// Makes and renews certificates for a small site.
pub fn run(arguments: Arguments) -> Outcome {
    match arguments.task {
        Task::Init {
            site,
            place,
            output,
        } => {
            let authority = Authority::create(&place.folder, &site)?;
            let folder = place.folder.display();
            match output.format {
                Format::Json => output::json(&Made {
                    site: authority.name(),
                    folder: folder.to_string(),
                    certificate: authority.certificate().display().to_string(),
                    crl: authority.crl().display().to_string(),
                    expires: authority.expires(),
                })?,
                Format::Text => {
                    let until = shown(authority.expires().into());
                    output::words(format_args!(
                        "made the authority of {site} in {folder}, until {until}"
                    ));
                    output::words(
                        "whoever has its ca.key can be any node: keep a copy offline, and nobody's hands on this one",
                    );
                }
            }
        }
        Task::Issue {
            kind,
            name,
            dns,
            ip,
            lasting,
            place,
            output,
        } => {
            let authority = Authority::open(&place.folder)?;
            let subject = subject(kind, &name, dns, ip, authority.name())?;
            print(&authority.issue(&subject, lasting.lifetime)?, output)?;
        }
        Task::List { place, output } => {
            let authority = Authority::open(&place.folder)?;
            let certificates = authority.list()?;
            match output.format {
                Format::Json => output::json(&Certificates {
                    site: authority.name().to_owned(),
                    certificates,
                })?,
                Format::Text => output::bytes(rows(&certificates).to_string().as_bytes())?,
            }
        }
        Task::Renew {
            name,
            lasting,
            place,
            output,
        } => {
            let authority = Authority::open(&place.folder)?;
            print(&authority.renew(&name, lasting.lifetime)?, output)?;
        }
        Task::Revoke {
            which,
            place,
            output,
        } => {
            let authority = Authority::open(&place.folder)?;
            let revoked = authority.revoke(&which)?;
            let crl = authority.crl().display().to_string();
            match output.format {
                Format::Json => output::json(&Revoked {
                    revoked: &revoked,
                    crl,
                })?,
                Format::Text => {
                    for Record { stem, serial, .. } in &revoked {
                        output::words(format_args!("revoked {stem}, serial number {serial}"));
                    }
                    output::words(format_args!(
                        "give {crl} to every server, and have it read: systemctl reload keyhaul"
                    ));
                }
            }
        }
    }
    Ok(())
}

fn subject(
    kind: Kind,
    name: &str,
    dns: Vec<String>,
    ip: Vec<IpAddr>,
    site: &str,
) -> Result<Subject, Error> {
    let role = match kind {
        Kind::Server => return Ok(Subject::server(name, dns, ip)),
        Kind::Manager => "manager",
        Kind::Node => "node",
        Kind::Operator => "operator",
    };
    if !dns.is_empty() || !ip.is_empty() {
        let rule = format!("a {role} is known by its URI, and has no --dns or --ip");
        return Err(Error::new(ErrorKind::InvalidConfig, rule));
    }
    Ok(Subject::client(
        name,
        format!("spiffe://{site}/{role}/{name}"),
    ))
}

fn print(issued: &Issued, output: Output) -> Outcome {
    let (certificate, key) = (issued.certificate.display(), issued.key.display());
    let record = &issued.record;
    match output.format {
        Format::Json => output::json(&Certificate {
            certificate: &certificate.to_string(),
            key: &key.to_string(),
            record,
        })?,
        Format::Text => {
            let mut fields = Fields::default();
            fields.push("certificate", certificate);
            fields.push("key", key);
            fields.push("for", names(record));
            fields.push("serial", &record.serial);
            fields.push("until", shown(record.expires.into()));
            output::line(fields)?;
        }
    }
    Ok(())
}

fn names(record: &Record) -> String {
    let uri = record.uri.iter().cloned();
    let addresses = record.ips.iter().map(ToString::to_string);
    let names: Vec<String> = uri
        .chain(record.dns.iter().cloned())
        .chain(addresses)
        .collect();
    names.join(", ")
}

fn rows(records: &[Record]) -> Rows {
    let mut rows = Rows::default();
    for record in records {
        let state = match record.revoked {
            Some(at) => format!("revoked {}", shown(at.into())),
            None if record.is_live() => "valid".to_owned(),
            None => "expired".to_owned(),
        };
        rows.push([
            record.stem.clone(),
            format!("until {}", shown(record.expires.into())),
            state,
            record.serial.clone(),
            names(record),
        ]);
    }
    rows
}
