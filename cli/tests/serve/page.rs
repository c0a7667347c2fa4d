//! The page of the key service: what it shows to be typed works.

use std::fs;
use std::process::Command;

use crate::service::{Service, keyhaul};

fn page() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/key-service.md");
    fs::read_to_string(path).expect("the page")
}

/// The blocks of `language` below a heading.
fn blocks<'a>(page: &'a str, heading: &str, language: &str) -> Vec<&'a str> {
    let (_, rest) = page.split_once(&format!("\n{heading}\n")).expect(heading);
    let section = rest.split("\n## ").next().unwrap_or(rest);
    let opening = format!("```{language}\n");
    let found = section.split(&opening).skip(1);
    found
        .filter_map(|block| block.split("```").next())
        .collect()
}

/// What a line of a page has a reader type, without the remark behind it.
fn typed(line: &str) -> &str {
    line.split(" #").next().unwrap_or(line).trim()
}

#[test]
fn the_pages_first_minute_is_what_the_program_prints() {
    let service = Service::start();
    let printed = service.printed();
    let page = page();
    let minute = blocks(&page, "## The first minute", "sh");
    let lines: Vec<&str> = minute[1].lines().map(typed).collect();
    assert_eq!(lines.len(), 5);
    for line in lines {
        let found = printed.lines().any(|printed| printed.trim() == line);
        assert!(found, "{line}\n{printed}");
    }
}

/// On another address, and with the certificates where `--dev` has them.
#[test]
fn the_pages_curl_examples_answer() {
    let service = Service::start();
    let said = service.said();
    let address = said
        .lines()
        .find_map(|line| line.strip_prefix("listening on "));
    let address = address.expect("it listens");
    let page = page();
    let block = blocks(&page, "## Without keyhaul", "sh").concat();
    let commands = block.replace("\\\n", " ");
    let commands = commands.replace("keys1.example.com:8443", address);
    let ran: Vec<serde_json::Value> = commands
        .lines()
        .map(|line| {
            let mut shell = Command::new("sh");
            shell.args(["-c", line]).current_dir(service.path("pki"));
            let output = shell.output().expect("sh");
            assert!(output.status.success(), "{line}: {output:?}");
            serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{line}: {error}"))
        })
        .collect();
    assert_eq!(ran.len(), 4);
    assert_eq!(ran[0]["role"], "manager");
    assert_eq!(ran[1]["grants"], serde_json::json!([]));
    assert_eq!(ran[2]["grants"], serde_json::json!([]));
    assert_eq!(
        (&ran[3]["scope"], &ran[3]["node"]),
        (&"web01".into(), &"host-17".into())
    );
}

#[test]
fn the_pages_configurations_are_sound() {
    let folder = tempfile::tempdir().expect("a folder");
    let page = page();
    let run = |text: &str, arguments: &[&str]| {
        fs::write(folder.path().join("page.toml"), text).expect("written");
        let mut command = keyhaul(folder.path());
        command.args(arguments).args(["--config", "page.toml"]);
        let output = command.output().expect("started");
        let said = [output.stdout, output.stderr].concat();
        (
            output.status.success(),
            String::from_utf8(said).expect("text"),
        )
    };
    let node = blocks(&page, "## A node's policy", "toml")[0];
    let node = format!("version = 1\n{node}");
    let (sound, said) = run(&node, &["explain", "web01/root-disk"]);
    assert!(sound, "{said}");
    // It gets as far as the policy that it names.
    let server = blocks(&page, "## A service of your own", "toml")[0];
    let (_, said) = run(server, &["serve"]);
    assert!(said.contains("served.toml cannot be read"), "{said}");
    // The control: a word that is none.
    let (_, said) = run(&server.replace("delete-window", "window"), &["serve"]);
    assert!(said.contains("page.toml:6"), "{said}");
}
