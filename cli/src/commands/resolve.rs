use std::ffi::OsStr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use keyhaul_core::qemu::channel::{
    self, FileChannel, KeyringChannel, RuntimeDir, release, release_serial,
};
use keyhaul_core::qemu::object::{Dialect, MasterObject, SecretObject, check_id};
use keyhaul_core::qemu::{MasterKey, Owner, encrypt};
use keyhaul_core::{Error, ErrorKind, Result, Secret};

use crate::failure::{Failure, Outcome};
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

    /// Print the objects of those that could be fetched, although others could not; the status
    /// tells of those, and is not 0
    #[arg(long)]
    keep_going: bool,

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
    #[arg(long, value_name = "FOLDER|SERIAL", conflicts_with_all = ["wanted", "format", "channel", "user", "keep_going"])]
    release: Option<PathBuf>,
}

#[derive(Clone, Debug)]
struct Wanted {
    id: String,
    reference: keyhaul_core::Wanted,
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
    let (fetched, errors) = fetched(&session, &arguments.wanted);
    if !errors.is_empty() && (fetched.is_empty() || !arguments.keep_going) {
        return Err(errors.into());
    }
    print(&arguments, owner, &fetched)?;
    match errors.first().map(|error| error.kind().exit_code()) {
        Some(status) => Err(Failure::from(errors).with_status(status)),
        None => Ok(()),
    }
}

/// What could be fetched, and why the rest could not.
fn fetched<'w>(
    session: &Session,
    wanted: &'w [Wanted],
) -> (Vec<(&'w Wanted, Arc<Secret>)>, Vec<Error>) {
    let references: Vec<_> = wanted.iter().map(|one| one.reference.clone()).collect();
    let (mut fetched, mut errors) = (Vec::new(), Vec::new());
    for (wanted, answer) in wanted.iter().zip(fetch::each(session, &references)) {
        match answer {
            Ok(secret) => fetched.push((wanted, secret)),
            Err(error) => errors.push(error),
        }
    }
    (fetched, errors)
}

fn print(
    arguments: &Arguments,
    owner: Option<Owner>,
    fetched: &[(&Wanted, Arc<Secret>)],
) -> Result<()> {
    let master = MasterKey::generate()?;
    let master_id = format!("keyhaul-{}", keyhaul_core::random::hex(4)?);
    let mut objects = Vec::with_capacity(fetched.len());
    for (wanted, secret) in fetched {
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
        Some((id, reference)) if !id.contains(['/', '?', ':']) => (Some(id), reference),
        _ => (None, text),
    };
    let reference = super::wanted(reference)?;
    let id = id.map_or_else(|| id_of(&reference), str::to_owned);
    check_id(&id).map_err(|error| error.message().to_owned())?;
    Ok(Wanted { id, reference })
}

/// An id made of the reference's name: a letter, then letters, digits, `-`, `.` and `_`.
fn id_of(wanted: &keyhaul_core::Wanted) -> String {
    let name = match wanted {
        keyhaul_core::Wanted::Reference(reference) => reference.name(),
        // The path begins with what all secrets of the store have in common.
        keyhaul_core::Wanted::Direct(direct) => {
            direct.path().segments().next_back().unwrap_or_default()
        }
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    let id = name.replace(|c: char| !plain(c), "-");
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
            (
                "vault:secret/web01/root?version=3#pass",
                "root",
                "vault:secret/web01/root?version=3#pass",
            ),
            (
                "disk=ref+vault://secret/web01#/root",
                "disk",
                "ref+vault://secret/web01#/root",
            ),
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
