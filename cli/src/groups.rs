//! The commands by what they are for, as `keyhaul help` lists them: thirty in one row help nobody.

use std::fmt::Write as _;

use clap::Command;

/// Every command, once.
const GROUPS: &[(&str, &[&str])] = &[
    ("Start a VM", &["run", "resolve"]),
    (
        "Secrets",
        &[
            "get", "set", "generate", "stat", "list", "delete", "restore", "copy",
        ],
    ),
    (
        "The policy and its stores",
        &["check", "explain", "store", "plugin", "login", "logout"],
    ),
    (
        "A key service: who may read what",
        &[
            "grant", "revoke", "grants", "who-can", "what-can", "migrate", "node", "audit",
        ],
    ),
    ("A key service of your own", &["serve", "pki"]),
    ("About keyhaul", &["help", "completions", "man"]),
];

/// The same command, whose help lists its commands in groups.
pub fn grouped(command: Command) -> Command {
    let template = format!(
        "{{before-help}}{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\n{}Options:\n{{options}}{{after-help}}",
        listed(&command)
    );
    command.help_template(template)
}

fn listed(command: &Command) -> String {
    let longest = command.get_subcommands().map(|c| c.get_name().len()).max();
    let width = longest.unwrap_or(0);
    let mut text = String::new();
    for (title, names) in GROUPS {
        // Writing to a `String` does not fail.
        let _ = writeln!(text, "{title}:");
        for name in *names {
            let about = command.find_subcommand(name).and_then(Command::get_about);
            let about = about.map(ToString::to_string).unwrap_or_default();
            let _ = writeln!(text, "  {name:width$}  {about}");
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::app::App;

    #[test]
    fn every_command_is_in_one_group() {
        let app = App::command();
        let mut known: Vec<&str> = app.get_subcommands().map(Command::get_name).collect();
        known.sort_unstable();
        let mut grouped: Vec<&str> = GROUPS
            .iter()
            .flat_map(|(_, names)| names.iter().copied())
            .collect();
        grouped.sort_unstable();
        assert_eq!(grouped, known);
    }

    #[test]
    fn the_help_has_each_commands_words() {
        let help = grouped(App::command()).render_long_help().to_string();
        for command in App::command().get_subcommands() {
            let about = command.get_about().map(ToString::to_string);
            let about = about.expect("every command says what it does");
            let line = |line: &str| {
                let mut words = line.trim().splitn(2, ' ').map(str::trim);
                words.next() == Some(command.get_name()) && words.next() == Some(&about)
            };
            assert_eq!(help.lines().filter(|l| line(l)).count(), 1, "{about}");
        }
        assert!(help.contains("--deadline <TIME>") && help.contains("Exit codes:"));
    }
}
