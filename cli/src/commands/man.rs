use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, Command};
use clap_mangen::Man;
use keyhaul_core::{Error, Result};

use crate::failure::Outcome;
use crate::output;

const EXAMPLES: &str = "\
Examples:
  keyhaul man --output /usr/local/share/man/man1";

/// Arguments of `man`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Write keyhaul.1 and one page for each command into this folder [default: print keyhaul.1]
    #[arg(long, value_name = "FOLDER")]
    output: Option<PathBuf>,
}

/// Prints or writes the manual pages.
pub fn run(arguments: Arguments, mut app: Command) -> Outcome {
    app.build();
    match arguments.output {
        None => output::bytes(&page(&app)?)?,
        Some(folder) => write_all(&folder, "keyhaul", &app)?,
    }
    Ok(())
}

fn page(command: &Command) -> Result<Vec<u8>> {
    let mut page = Vec::new();
    let rendered = Man::new(command.clone()).render(&mut page);
    rendered.map_err(|error| Error::io("the manual page", error))?;
    Ok(as_written(page, command.get_name()))
}

/// The page with its table or examples line by line: troff would fill them like prose.
fn as_written(page: Vec<u8>, command: &str) -> Vec<u8> {
    let heading = match command {
        "keyhaul" => "EXIT STATUS",
        _ => "EXAMPLES",
    };
    match String::from_utf8(page) {
        Ok(text) => text
            .replace(".SH EXTRA\n", &format!(".SH \"{heading}\"\n.nf\n"))
            .replace(".SH VERSION\n", ".fi\n.SH VERSION\n")
            .replace("\nExamples:\n", "\n")
            .replace("\nExit codes:\n", "\n")
            .into_bytes(),
        Err(other) => other.into_bytes(),
    }
}

/// A command's page and those of its own commands, as the page refers to them.
fn write_all(folder: &Path, name: &str, command: &Command) -> Result<()> {
    write(folder, name, command)?;
    // clap gives groups of commands a `help` of its own making.
    let ours = |c: &&Command| c.get_name() != "help" || name == "keyhaul";
    let mut below = command.get_subcommands().filter(ours);
    below.try_for_each(|c| write_all(folder, &format!("{name}-{}", c.get_name()), c))
}

fn write(folder: &Path, name: &str, command: &Command) -> Result<()> {
    let path = folder.join(format!("{name}.1"));
    fs::write(&path, page(command)?).map_err(|error| Error::io(path.display(), error))
}
