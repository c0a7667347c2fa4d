use std::ffi::OsStr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use keyhaul_core::qemu::channel::{
    self, FileChannel, KeyringChannel, RuntimeDir, release, release_serial,
};
use keyhaul_core::qemu::object::{Dialect, MasterObject, SecretObject, check_id};
use keyhaul_core::qemu::{MasterKey, Owner, encrypt};
use keyhaul_core::{Error, ErrorKind, Reference, Result};

use crate::failure::Outcome;
use crate::global::{Global, duration};
use crate::process::User;
use crate::session::Session;
use crate::{fetch, output};

const EXAMPLES: &str = "\
Examples:
  keyhaul resolve root=web01/root-disk                  -object …, for a script
  keyhaul resolve --format qmp web01/data               for a QEMU that runs
  keyhaul resolve --release /run/keyhaul/keyhaul-…      once QEMU has started";

/// Arguments of `resolve`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The secrets: a reference, as web01/root-disk, or ID=REF to choose the object's id
    #[arg(value_name = "[ID=]REF", required_unless_present = "release", value_parser = wanted)]
    wanted: Vec<Wanted>,

    /// How to write the objects
    #[arg(long, value_enum, default_value_t)]
    format: Written,

    /// How the master key reaches QEMU
    #[arg(long, value_enum, default_value_t)]
    channel: Channel,

    /// The user that QEMU runs as, who gets to own the key file
    #[arg(long, value_name = "USER")]
    user: Option<String>,

    /// Where the key file goes [default: /run/keyhaul, or $XDG_RUNTIME_DIR/keyhaul]
    #[arg(long, value_name = "FOLDER")]
    runtime_dir: Option<PathBuf>,

    /// How long the kernel keeps a key of the keyring channel
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = duration)]
    key_timeout: Duration,

    /// Take a master key away again: the folder or the serial number that resolving named
    #[arg(long, value_name = "FOLDER|SERIAL", conflicts_with_all = ["wanted", "format", "channel", "user"])]
    release: Option<PathBuf>,
}

#[derive(Clone, Debug)]
struct Wanted {
    id: String,
    reference: Reference,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Written {
    /// `-object` options on one line, quoted for a shell
    #[default]
    Args,
    /// One JSON object a line, each the value of an `-object` option
    Json,
    /// QMP `object-add` commands, one a line
    Qmp,
    /// Sections of a `-readconfig` file
    Readconfig,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Channel {
    /// A private file, which QEMU reads when it starts
    #[default]
    File,
    /// A key in the caller's session keyring
    Keyring,
}

/// Prints a master key's object and one object for each reference.
pub fn run(global: &Global, arguments: Arguments) -> Outcome {
    if let Some(what) = &arguments.release {
        return Ok(take_away(what)?);
    }
    distinct(&arguments.wanted)?;
    let owner = arguments.user.as_deref().map(User::find).transpose()?;
    let owner = owner.map(|user| Owner {
        uid: user.uid.as_raw(),
        gid: user.gid.as_raw(),
    });
    let session = Session::open(global)?;
    let references: Vec<Reference> = arguments
        .wanted
        .iter()
        .map(|wanted| wanted.reference.clone())
        .collect();
    let secrets = fetch::all(&session, &references)?;

    let master = MasterKey::generate()?;
    let master_id = format!("keyhaul-{}", keyhaul_core::random::hex(4)?);
    let mut objects = Vec::with_capacity(secrets.len());
    for (wanted, secret) in arguments.wanted.iter().zip(&secrets) {
        let ciphertext = encrypt(&master, secret.value.expose())?;
        objects.push(SecretObject::new(&wanted.id, &master_id, ciphertext)?);
    }
    let render = |source| -> Result<Vec<u8>> {
        let master = MasterObject::new(&master_id, source)?;
        Ok(written(arguments.format, &master, &objects)?.into_bytes())
    };
    match arguments.channel {
        Channel::File => {
            let runtime = RuntimeDir::open(arguments.runtime_dir.as_deref())?;
            sweep(&runtime);
            let channel = FileChannel::create(&runtime, &master, owner)?;
            // Whatever fails from here on, a reader that has gone included, drops the channel, and
            // the key with it.
            output::deliver(&render(channel.property())?)?;
            released_by(channel.leave()?.display());
        }
        Channel::Keyring => {
            let channel = KeyringChannel::in_session(&master, arguments.key_timeout)?;
            output::deliver(&render(channel.property())?)?;
            released_by(channel.leave());
        }
    }
    Ok(())
}

/// Removes what killed runs left behind, which is no reason for this one to fail.
pub fn sweep(runtime: &RuntimeDir) {
    match channel::sweep(runtime) {
        Ok(swept) => {
            for folder in swept {
                tracing::info!(folder = %folder.display(), "removed the key of a run that was killed");
            }
        }
        Err(error) => tracing::warn!("{error}"),
    }
}

fn released_by(what: impl std::fmt::Display) {
    output::words(format_args!(
        "once QEMU has started, take the master key away: keyhaul resolve --release {what}"
    ));
}

fn take_away(what: &std::path::Path) -> Result<()> {
    let done = match what.to_str().and_then(|text| text.parse::<i32>().ok()) {
        Some(serial) => release_serial(serial),
        None => release(what),
    };
    done.map_err(|error| match error.kind() {
        ErrorKind::NotFound => error.with_advice(
            "it was taken away already, its time was over, or it is another name: \
             `keyhaul resolve` printed the right one",
        ),
        _ => error,
    })
}

fn distinct(wanted: &[Wanted]) -> Result<()> {
    for (index, one) in wanted.iter().enumerate() {
        if wanted[..index].iter().any(|other| other.id == one.id) {
            let rule = format!("two objects would have the id {}", one.id);
            return Err(Error::new(ErrorKind::InvalidReference, rule)
                .with_reference(one.reference.short())
                .with_advice("give one of them another id: ID=REF"));
        }
    }
    Ok(())
}

fn written(format: Written, master: &MasterObject, objects: &[SecretObject]) -> Result<String> {
    let dialect = match format {
        Written::Args => Dialect::Args,
        Written::Json => Dialect::Json,
        Written::Qmp => Dialect::Qmp,
        Written::Readconfig => Dialect::Readconfig,
    };
    let mut all = vec![master.render(dialect)?];
    for object in objects {
        all.push(object.render(dialect)?);
    }
    Ok(match format {
        Written::Args => {
            let words: Vec<String> = all
                .iter()
                .map(|word| {
                    format!(
                        "-object {}",
                        output::shell_quoted(OsStr::new(word)).display()
                    )
                })
                .collect();
            format!("{}\n", words.join(" "))
        }
        Written::Json | Written::Qmp => all.iter().map(|line| format!("{line}\n")).collect(),
        Written::Readconfig => all
            .iter()
            .map(|section| format!("{}\n", section.trim_end()))
            .collect(),
    })
}

fn wanted(text: &str) -> Result<Wanted, String> {
    let (id, reference) = match text.split_once('=') {
        // `web01/root?version=1`: the first `=` is the reference's own.
        Some((id, reference)) if !id.contains(['/', '?']) => (Some(id), reference),
        _ => (None, text),
    };
    let reference = super::reference(reference)?;
    let id = id.map_or_else(|| id_of(&reference), str::to_owned);
    check_id(&id).map_err(|error| error.message().to_owned())?;
    Ok(Wanted { id, reference })
}

/// An id made of the reference's name: a letter, then letters, digits, `-`, `.` and `_`.
fn id_of(reference: &Reference) -> String {
    let id = reference.name().replace(['/', '~'], "-");
    if id.starts_with(|c: char| c.is_ascii_alphabetic()) {
        id
    } else {
        format!("secret-{id}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_chosen_or_made_from_the_name() {
        for (text, id, reference) in [
            ("web01/root-disk", "root-disk", "web01/root-disk"),
            ("root=web01/root-disk", "root", "web01/root-disk"),
            (
                "web01/luks/0~next?version=3",
                "luks-0-next",
                "web01/luks/0~next?version=3",
            ),
            ("web01/0", "secret-0", "web01/0"),
        ] {
            let wanted = wanted(text).expect(text);
            assert_eq!(
                (wanted.id.as_str(), wanted.reference.short()),
                (id, reference)
            );
        }
        assert!(wanted("0bad=web01/root").is_err());
        assert!(wanted("root=web01").is_err());
    }
}
