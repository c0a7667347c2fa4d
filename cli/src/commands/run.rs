use std::ffi::OsString;
use std::os::fd::{AsFd, RawFd};
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use keyhaul_core::qemu::channel::{
    FileChannel, KeyringChannel, PipeChannel, ReadWatch, RuntimeDir,
};
use keyhaul_core::qemu::command_line::{
    CommandLine, Finding, Place, Severity, check, check_expiry,
};
use keyhaul_core::qemu::{KeySource, MasterKey, Owner, encrypt};
use keyhaul_core::{Error, ErrorKind, Result, Secret, Wanted, wiping_stack};
use nix::sys::signal::SigSet;

use crate::failure::{self, Failure, Outcome};
use crate::global::Global;
use crate::hardening::Inherited;
use crate::process::{self, Launch, User, Watcher};
use crate::session::Session;
use crate::{fetch, output};

const EXAMPLES: &str = "\
Examples:
  keyhaul run -- qemu-system-x86_64 -m 512 \\
    -object secret,id=root,ref=web01/root-disk \\
    -blockdev driver=luks,node-name=root,key-secret=root,file.driver=file,file.filename=disk.luks \\
    -device virtio-blk-pci,drive=root
  keyhaul run --user vm01 -- qemu-system-x86_64 …    QEMU as a user of its own
  keyhaul run --dry-run -- qemu-system-x86_64 …      what would be fetched, and from where

The exit status is the program's; 125 where keyhaul itself failed.";

/// Arguments of `run`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// How the master key reaches QEMU
    #[arg(long, value_enum, default_value_t)]
    channel: Channel,

    /// Run the program as this user, with that user's groups
    #[arg(long, value_name = "USER")]
    user: Option<String>,

    /// Become the program instead of waiting for it: no process of keyhaul's is left behind
    #[arg(long)]
    exec: bool,

    /// Print what would be run and fetched, and do neither
    #[arg(long)]
    dry_run: bool,

    /// Refuse what would weaken a secret, instead of warning of it
    #[arg(long)]
    strict: bool,

    /// With --channel file: keep the key file for as long as QEMU lives
    #[arg(long)]
    keep_key: bool,

    /// Where the key file goes [default: /run/keyhaul, or $XDG_RUNTIME_DIR/keyhaul]
    #[arg(long, value_name = "FOLDER")]
    runtime_dir: Option<PathBuf>,

    /// The program and its arguments, with `ref=` in `secret` objects
    #[arg(last = true, required = true, value_name = "PROGRAM")]
    words: Vec<OsString>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Channel {
    /// An inherited pipe: nothing on disk, read once
    #[default]
    Pipe,
    /// A private file, removed as soon as QEMU has read it
    File,
    /// A key in a session keyring of QEMU's own
    Keyring,
}

/// Starts a program with the secrets its command line names. Gives the program's own exit status.
pub fn run(global: &Global, arguments: Arguments, inherited: Inherited) -> Outcome<u8> {
    start(global, arguments, inherited).map_err(|failure| failure.with_status(failure::RUN))
}

fn start(global: &Global, arguments: Arguments, inherited: Inherited) -> Outcome<u8> {
    arguments.refuse_nonsense()?;
    let line = CommandLine::parse(&arguments.words)?;
    let references: Vec<Wanted> = line
        .references()
        .iter()
        .map(|object| object.reference.clone())
        .collect();
    if arguments.dry_run {
        return dry_run(global, &arguments.words, &references);
    }
    process::check_program(&arguments.words[0])?;
    let user = arguments.user.as_deref().map(User::find).transpose()?;
    let secrets = if references.is_empty() {
        tracing::info!("no `ref=` in a secret object: nothing to fetch");
        Vec::new()
    } else {
        // The session ends here: nothing of it is needed while the program runs.
        fetch::all(&Session::open(global)?, &references)?
    };
    judge(&line, &secrets, arguments.strict)?;
    launch(&arguments, &line, secrets, user, inherited)
}

impl Arguments {
    fn refuse_nonsense(&self) -> Result<()> {
        let refuse = |rule: &'static str, advice: &'static str| {
            Err(Error::new(ErrorKind::InvalidConfig, rule).with_advice(advice))
        };
        if self.keep_key && self.channel != Channel::File {
            return refuse("--keep-key goes with --channel file", "add --channel file");
        }
        if self.exec && self.channel == Channel::File && !self.keep_key {
            return refuse(
                "with --exec nobody is left to remove the key file",
                "use --channel pipe or keyring, or add --keep-key",
            );
        }
        Ok(())
    }
}

/// Holds each value against the limits of the devices that use it.
fn judge(line: &CommandLine, secrets: &[Arc<Secret>], strict: bool) -> Outcome {
    let mut errors: Vec<Error> = Vec::new();
    let mut report = |finding: Finding, place: Option<&Place>, reference: Option<&Wanted>| {
        let consumer = finding
            .consumer
            .map_or(String::new(), |by| format!("{} ", by.name()));
        let place = place.map_or(String::new(), |place| format!("at {place}"));
        let text = format!("{consumer}{place}: {}", finding.rule);
        if !strict && finding.severity == Severity::Warning {
            let whose = reference.map_or(String::new(), |r| format!("{} for ", r.short()));
            output::warning(&format!("{whose}{text}"), Some(&finding.advice));
            return;
        }
        let error = Error::new(ErrorKind::InvalidReference, text).with_advice(finding.advice);
        errors.push(match reference {
            Some(reference) => error.with_reference(reference.short()),
            None => error,
        });
    };
    for finding in line.findings() {
        report(finding.clone(), finding.place.as_ref(), None);
    }
    for (object, secret) in line.references().iter().zip(secrets) {
        for user in line.consumers_of(&object.id) {
            let expires = secret.metadata.expires;
            let expiry = expires.and_then(|at| check_expiry(user.consumer, at));
            for finding in check(user.consumer, &secret.value)
                .into_iter()
                .chain(expiry)
            {
                report(finding, Some(&user.place), Some(&object.reference));
            }
        }
    }
    if errors.is_empty() {
        Ok(())
    } else {
        Err(errors.into())
    }
}

/// The master key on its way, by one of the channels.
enum OpenChannel {
    /// None: the command line names no secret.
    Unused,
    Pipe(PipeChannel),
    File(FileChannel, Option<ReadWatch>),
    Keyring(KeyringChannel),
}

fn launch(
    arguments: &Arguments,
    line: &CommandLine,
    secrets: Vec<Arc<Secret>>,
    user: Option<User>,
    inherited: Inherited,
) -> Outcome<u8> {
    let owner = user.as_ref().map(|u| Owner {
        uid: u.uid.as_raw(),
        gid: u.gid.as_raw(),
    });
    let (channel, words) = if secrets.is_empty() {
        (OpenChannel::Unused, arguments.words.clone())
    } else {
        // We may wait here for as long as a VM runs: nothing of a value or key stays with us.
        wiping_stack(|| encrypt_all(arguments, line, secrets, owner))?
    };
    let launch = Launch {
        words,
        user,
        descriptors: channel.descriptors(arguments.keep_key),
        inherited,
        mask: SigSet::thread_get_mask().unwrap_or_else(|_| SigSet::empty()),
        ignores_children: false,
    };
    if arguments.exec {
        return Err(process::exec(launch).into());
    }
    attend(launch, channel)
}

/// The master key on its way, and the program's words with ciphertext in place of the references.
fn encrypt_all(
    arguments: &Arguments,
    line: &CommandLine,
    secrets: Vec<Arc<Secret>>,
    owner: Option<Owner>,
) -> Result<(OpenChannel, Vec<OsString>)> {
    let master = MasterKey::generate()?;
    let mut encrypted = Vec::with_capacity(secrets.len());
    for (object, secret) in line.references().iter().zip(&secrets) {
        encrypted.push((object.id.clone(), encrypt(&master, secret.value.expose())?));
    }
    // Plaintext ends here.
    drop(secrets);
    let channel = OpenChannel::open(arguments, &master, owner)?;
    let words = line.rewrite(&channel.source(), &encrypted)?;
    Ok((channel, words))
}

/// Starts the program, waits for its end, and takes the key away as soon as it has been read.
fn attend(launch: Launch, channel: OpenChannel) -> Outcome<u8> {
    let (mut signals, ignores_children) = process::block_signals()?;
    let program = launch.words[0].clone();
    let child = process::spawn(Launch {
        ignores_children,
        ..launch
    })?;
    let ended = match channel {
        OpenChannel::File(channel, Some(mut watch)) => {
            let descriptor = watch.as_fd().try_clone_to_owned();
            let descriptor =
                descriptor.map_err(|error| Error::io("watching the key file", error))?;
            let mut held = Some(channel);
            let watcher = Watcher {
                descriptor: descriptor.as_fd(),
                ready: Box::new(|| {
                    let read = watch.was_read();
                    if read {
                        tracing::debug!("QEMU has read the key file; it is removed");
                        held = None;
                    }
                    read
                }),
            };
            process::wait_for(&child, &mut signals, Some(watcher))?
        }
        OpenChannel::File(channel, None) => {
            let ended = process::wait_for(&child, &mut signals, None)?;
            if let Some(folder) = channel.settle()? {
                tracing::info!(folder = %folder.display(), "the key stays while QEMU runs");
            }
            ended
        }
        OpenChannel::Pipe(channel) => {
            let ended = process::wait_for(&child, &mut signals, None)?;
            if !ended.is_success() && channel.is_unread() {
                output::warning(
                    &format!(
                        "{} ended without having read the master key from its descriptor",
                        program.display()
                    ),
                    Some(
                        "if it failed over the key: a wrapper such as sudo closes descriptors, so use \
                         --channel file; one that changes the user cannot read it, so use --user",
                    ),
                );
            }
            ended
        }
        OpenChannel::Keyring(_held) => process::wait_for(&child, &mut signals, None)?,
        OpenChannel::Unused => process::wait_for(&child, &mut signals, None)?,
    };
    Ok(ended.as_status())
}

impl OpenChannel {
    fn open(arguments: &Arguments, master: &MasterKey, owner: Option<Owner>) -> Result<Self> {
        Ok(match arguments.channel {
            Channel::Pipe => Self::Pipe(PipeChannel::open(master, owner)?),
            Channel::Keyring => Self::Keyring(KeyringChannel::create(master)?),
            Channel::File => {
                let runtime = RuntimeDir::open(arguments.runtime_dir.as_deref())?;
                super::resolve::sweep(&runtime);
                let channel = FileChannel::create(&runtime, master, owner)?;
                let watch = if arguments.keep_key {
                    None
                } else {
                    Some(channel.watch()?)
                };
                Self::File(channel, watch)
            }
        })
    }

    fn source(&self) -> KeySource {
        match self {
            Self::Unused => KeySource::File(String::new()),
            Self::Pipe(channel) => channel.property(),
            Self::File(channel, _) => channel.property(),
            Self::Keyring(channel) => channel.property(),
        }
    }

    /// What the program inherits.
    fn descriptors(&self, keep_key: bool) -> Vec<RawFd> {
        match self {
            Self::Pipe(channel) => vec![channel.fd()],
            Self::File(channel, _) if keep_key => channel.lock_fd().into_iter().collect(),
            _ => Vec::new(),
        }
    }
}

fn dry_run(global: &Global, words: &[OsString], references: &[Wanted]) -> Outcome<u8> {
    let line: Vec<String> = words
        .iter()
        .map(|word| output::shell_quoted(word).display().to_string())
        .collect();
    output::line(line.join(" "))?;
    if references.is_empty() {
        output::words("nothing would be fetched");
        return Ok(0);
    }
    let session = Session::open(global)?;
    let mut errors = Vec::new();
    for reference in references {
        match session.resolver.target(reference) {
            Ok(target) => output::words(format_args!(
                "would fetch {} from store {}, path {}",
                reference.short(),
                target.stores.join(", else "),
                target.path
            )),
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() {
        Ok(0)
    } else {
        Err(Failure::from(errors))
    }
}
