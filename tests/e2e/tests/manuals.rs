//! What keyhaul prints about itself is read by the programs it is meant for.

use std::fs;

use keyhaul_e2e::{Site, finish, finish_with, program};

const COMMANDS: [&str; 29] = [
    "audit",
    "check",
    "completions",
    "copy",
    "delete",
    "explain",
    "generate",
    "get",
    "grant",
    "grants",
    "help",
    "list",
    "login",
    "logout",
    "man",
    "migrate",
    "node",
    "pki",
    "plugin",
    "resolve",
    "restore",
    "revoke",
    "run",
    "serve",
    "set",
    "stat",
    "store",
    "what-can",
    "who-can",
];

#[test]
fn completions_are_programs_of_their_shells() {
    let site = Site::new();
    let script = |shell: &str| {
        finish(&mut site.keyhaul(["completions", shell]))
            .ok()
            .stdout
    };
    let bash = script("bash");
    finish_with(program("bash").arg("-n"), &bash).ok();
    // It completes, too.
    site.file("completions", &bash);
    let ask = "source completions; COMP_WORDS=(keyhaul reso); COMP_CWORD=1; COMP_LINE='keyhaul reso'; _keyhaul keyhaul reso keyhaul; echo \"${COMPREPLY[@]}\"";
    let mut command = program("bash");
    let done = finish(site.surround(&mut command).args(["-c", ask])).ok();
    assert_eq!(done.text().trim(), "resolve");
    for (shell, opening) in [
        ("zsh", "#compdef keyhaul"),
        ("fish", "complete -c keyhaul"),
        ("elvish", "keyhaul"),
        ("powershell", "Register-ArgumentCompleter"),
    ] {
        let text = String::from_utf8(script(shell)).expect("text");
        assert!(text.contains(opening), "{shell}");
        assert!(
            COMMANDS.iter().all(|command| text.contains(command)),
            "{shell}"
        );
    }
    finish(&mut site.keyhaul(["completions", "tcsh"])).exits(2);
}

#[test]
fn manual_pages_are_troff() {
    let site = Site::new();
    fs::create_dir(site.path("man")).expect("made");
    finish(&mut site.keyhaul(["man", "--output", "man"])).ok();
    let mut pages: Vec<String> = fs::read_dir(site.path("man"))
        .expect("pages")
        .map(|entry| {
            entry
                .expect("entry")
                .file_name()
                .into_string()
                .expect("text")
        })
        .collect();
    pages.sort();
    let mut expected: Vec<String> = COMMANDS
        .iter()
        .map(|command| format!("keyhaul-{command}.1"))
        .collect();
    expected.push("keyhaul.1".to_owned());
    for (group, tasks) in [
        ("audit", &["show", "verify"][..]),
        ("migrate", &["abort", "begin", "commit", "list"]),
        ("node", &["list", "quarantine", "release"]),
        ("pki", &["init", "issue", "list", "renew", "revoke"]),
        ("plugin", &["inspect", "list", "test"]),
        ("store", &["identity", "init", "recipients", "rewrap"]),
    ] {
        expected.extend(tasks.iter().map(|task| format!("keyhaul-{group}-{task}.1")));
    }
    expected.sort();
    assert_eq!(pages, expected);
    for page in pages {
        let mut groff = program("groff");
        groff
            .args(["-Kutf8", "-man", "-Tutf8", "-ww", "-z"])
            .arg(site.path("man").join(&page));
        let done = finish(&mut groff).ok();
        assert_eq!(done.stderr, "", "{page}");
    }
    let printed = finish(&mut site.keyhaul(["man"])).ok();
    assert_eq!(
        printed.stdout,
        fs::read(site.path("man/keyhaul.1")).expect("the page")
    );
}

#[test]
fn help_has_the_table_of_exit_codes() {
    let site = Site::new();
    let table = finish(&mut site.keyhaul(["help", "exit-codes"])).ok();
    let help = finish(&mut site.keyhaul(["--help"])).ok();
    for row in [
        "10  AlreadyExists",
        "16  NotFound",
        "24  Unsupported",
        "125  `run` itself failed",
    ] {
        assert!(
            table.text().contains(row) && help.text().contains(row),
            "{row}"
        );
    }
    for command in COMMANDS {
        let help = finish(&mut site.keyhaul(["help", command])).ok();
        assert!(help.text().contains("Usage: keyhaul"), "{command}");
        let option = finish(&mut site.keyhaul([command, "--help"])).ok();
        assert!(option.text().contains("Usage: keyhaul"), "{command}");
    }
    finish(&mut site.keyhaul(["help", "no-such-command"])).exits(14);
}

#[test]
fn every_command_is_in_the_books_list() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/commands.md");
    let page = fs::read_to_string(page).expect("the page");
    let mut listed: Vec<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `keyhaul "))
        .filter_map(|row| row.split([' ', '`']).next())
        .collect();
    listed.sort_unstable();
    listed.dedup();
    assert_eq!(listed, COMMANDS);
}
