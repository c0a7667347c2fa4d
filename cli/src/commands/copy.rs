use std::io::{self, IsTerminal, Write as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use keyhaul_core::copy::{self, Copied, CopyOptions, Item};
use keyhaul_core::{Error, ErrorKind, Result, SecretPath, SecretStore};
use serde::Serialize;

use super::Output;
use crate::failure::Outcome;
use crate::global::Global;
use crate::output::{self, Format};
use crate::session::Session;

const EXAMPLES: &str = "\
Examples:
  keyhaul copy --from local --to site --dry-run         what would be copied
  keyhaul copy --from local --to site --verify vms      what is below vms, read back

A copy can be made again: what is there already is left alone, and nothing is ever deleted. Each
request has its store's own `deadline`; --deadline does not end a long copy.";

/// Arguments of `copy`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The store to read, by its name in the policy
    #[arg(long, value_name = "STORE")]
    from: String,

    /// The store to write
    #[arg(long, value_name = "STORE")]
    to: String,

    /// Only the secret at this path of the store, and those below it
    #[arg(value_name = "PREFIX")]
    prefix: Option<String>,

    /// Say what would be copied, and write nothing
    #[arg(long)]
    dry_run: bool,

    /// Read each secret back and compare
    #[arg(long, conflicts_with = "dry_run")]
    verify: bool,

    /// Replace what is there and differs
    #[arg(long)]
    overwrite: bool,

    /// Copy current values alone; else older versions go first, where both stores have versions
    #[arg(long)]
    current: bool,

    #[command(flatten)]
    output: Output,
}

#[derive(Serialize)]
struct Report<'a> {
    from: &'a str,
    to: &'a str,
    dry_run: bool,
    written: Vec<Written<'a>>,
    same: Vec<&'a SecretPath>,
    expired: Vec<&'a SecretPath>,
    gone: Vec<&'a SecretPath>,
    failed: Vec<Failed<'a>>,
}

#[derive(Serialize)]
struct Written<'a> {
    path: &'a SecretPath,
    versions: usize,
}

#[derive(Serialize)]
struct Failed<'a> {
    path: &'a SecretPath,
    kind: &'static str,
    message: &'a str,
}

/// Copies secrets from one store of the policy to another.
pub fn run(global: &Global, arguments: Arguments) -> Outcome {
    if arguments.from == arguments.to {
        let rule = format!("--from and --to are both `{}`", arguments.from);
        return Err(Error::new(ErrorKind::InvalidReference, rule).into());
    }
    let session = Session::open(global)?;
    let prefix = arguments.prefix.clone();
    let prefix = prefix.map_or(Ok(SecretPath::root()), SecretPath::new)?;
    // A site's secrets take as long as they take; each request has a limit of its own.
    let mut options = CopyOptions::new(prefix, session.request().deadline(None));
    options.dry_run = arguments.dry_run;
    options.verify = arguments.verify;
    options.overwrite = arguments.overwrite;
    options.versions = !arguments.current;
    let items = work(&session, &arguments, &options)?;

    let report = report(&arguments, &items);
    match arguments.output.format {
        Format::Json => output::json(&report)?,
        Format::Text => print(&report)?,
    }
    let errors: Vec<Error> = items.into_iter().filter_map(|i| i.outcome.err()).collect();
    if errors.is_empty() {
        Ok(())
    } else {
        Err(errors.into())
    }
}

fn work(session: &Session, arguments: &Arguments, options: &CopyOptions) -> Result<Vec<Item>> {
    let store = |name: &str| -> Result<Arc<dyn SecretStore>> { session.resolver.store(name) };
    let (from, to) = (store(&arguments.from)?, store(&arguments.to)?);
    let mut progress = Progress::new();
    let items = session.wait(copy::copy(from, to, options, |done, of| {
        progress.show(done, of);
    }));
    progress.clear();
    items
}

fn report<'a>(arguments: &'a Arguments, items: &'a [Item]) -> Report<'a> {
    let mut report = Report {
        from: &arguments.from,
        to: &arguments.to,
        dry_run: arguments.dry_run,
        written: Vec::new(),
        same: Vec::new(),
        expired: Vec::new(),
        gone: Vec::new(),
        failed: Vec::new(),
    };
    for Item { path, outcome, .. } in items {
        match outcome {
            Ok(Copied::Written(versions)) => report.written.push(Written {
                path,
                versions: *versions,
            }),
            Ok(Copied::Expired) => report.expired.push(path),
            Ok(Copied::Gone) => report.gone.push(path),
            Ok(_) => report.same.push(path),
            Err(error) => report.failed.push(Failed {
                path,
                kind: error.kind().name(),
                message: error.message(),
            }),
        }
    }
    report
}

fn print(report: &Report<'_>) -> Result<()> {
    if report.dry_run {
        for written in &report.written {
            output::line(written.path)?;
        }
    }
    let verb = if report.dry_run {
        "would be copied"
    } else {
        "copied"
    };
    output::words(format_args!(
        "{} {verb} from {} to {}, {} there already, {} expired and left, {} gone, {} failed",
        report.written.len(),
        report.from,
        report.to,
        report.same.len(),
        report.expired.len(),
        report.gone.len(),
        report.failed.len(),
    ));
    Ok(())
}

/// A bar for a person who waits at a terminal.
struct Progress {
    /// When it was drawn last; none where nobody looks.
    drawn: Option<Instant>,
}

impl Progress {
    const WIDTH: usize = 30;
    const PACE: Duration = Duration::from_millis(100);

    fn new() -> Self {
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let seen = io::stderr().is_terminal() && !dumb;
        Self {
            drawn: seen.then(Instant::now),
        }
    }

    fn show(&mut self, done: usize, of: usize) {
        match &mut self.drawn {
            Some(drawn) if drawn.elapsed() >= Self::PACE => *drawn = Instant::now(),
            _ => return,
        }
        let full = Self::WIDTH * done / of.max(1);
        let bar = format!("{}{}", "#".repeat(full), ".".repeat(Self::WIDTH - full));
        self.draw(&format!("[{bar}] {done} of {of}"));
    }

    fn clear(&self) {
        if self.drawn.is_some() {
            self.draw("");
        }
    }

    /// Over what was drawn before. Nothing is left to do where even that fails.
    fn draw(&self, text: &str) {
        let _ = write!(io::stderr().lock(), "\r\x1b[K{text}");
    }
}
