//! The guide's listings, written, compiled and run in its order, as its reader would.
//!
//! A listing whose fence names a file is that file, or its next piece; one of `sh` without a name is
//! typed into a shell; and what a `text` after it shows is in what came, line by line.

use std::fs;
use std::path::Path;

use super::INTERNAL;
use super::site::{Done, Site, header};

/// Where the guide's reader works.
const THERE: &str = "/home/you/plugin";

/// A fenced block of the page.
struct Listing {
    language: String,
    file: Option<String>,
    text: String,
}

fn docs() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs")
}

/// Every fenced block of a page, with what it includes.
fn listings(page: &str) -> Vec<Listing> {
    let mut listings = Vec::new();
    let mut open: Option<Listing> = None;
    for line in page.lines() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(info)) => {
                let mut words = info.split_whitespace();
                open = Some(Listing {
                    language: words.next().unwrap_or_default().to_owned(),
                    file: words.next().map(str::to_owned),
                    text: String::new(),
                });
            }
            (Some(_), Some(_)) => listings.extend(open.take()),
            (Some(listing), None) => {
                let included = line.strip_prefix("{{#include ");
                match included.and_then(|rest| rest.strip_suffix("}}")) {
                    Some(path) => {
                        let text = fs::read_to_string(docs().join(path));
                        listing.text += text.expect(path).as_str();
                    }
                    None => listing.text += &format!("{line}\n"),
                }
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a listing has no end");
    listings
}

/// Does what the page says, and gives what each shell listing came to.
fn follow(site: &Site, page: &str) -> Vec<Done> {
    let here = site.text("");
    fs::copy(header(), site.path("keyhaul_plugin.h")).expect("copied");
    // The page makes them where they are not there.
    for name in ["drawer", "folder", "trial"] {
        site.memory(name);
    }
    let program = Path::new(env!("CARGO_BIN_EXE_keyhaul"));
    let folder = program.parent().expect("a folder").display();
    let mut done: Vec<Done> = Vec::new();
    let mut written: Vec<String> = Vec::new();
    for listing in listings(page) {
        let text = listing.text.replace(THERE, here.trim_end_matches('/'));
        match (listing.language.as_str(), listing.file) {
            (_, Some(name)) => {
                let path = site.path(&name);
                let before = match written.contains(&name) {
                    true => fs::read_to_string(&path).expect("there"),
                    false => String::new(),
                };
                fs::write(path, before + &text).expect("written");
                written.push(name);
            }
            ("sh", None) => {
                let mut shell = site.command("sh");
                shell.args(["-euc", &text]);
                shell.env("PATH", format!("{folder}:/usr/local/bin:/usr/bin:/bin"));
                done.push(Done::from(shell.output().expect("sh")));
            }
            ("text", None) => {
                let came = done.last().expect("something was typed");
                let all = format!("{}{}", came.out, came.words);
                for line in text.lines().filter(|line| !line.contains('…')) {
                    assert!(all.contains(line), "{line}\n---\n{all}");
                }
            }
            (language, None) => panic!("a listing in {language} that nobody tries"),
        }
    }
    done
}

fn guide() -> String {
    fs::read_to_string(docs().join("plugin-guide.md")).expect("the page")
}

#[test]
fn every_listing_of_the_guide_does_what_the_guide_says() {
    let site = Site::new();
    let done = follow(&site, &guide());
    assert!(done.len() >= 7, "{} shell listings", done.len());
    for came in done {
        came.ok();
    }
}

/// The control: with a mistake in a listing, `plugin test` fails, in C and in shell.
#[test]
fn a_mistake_in_a_listing_is_found() {
    let right = guide();
    for (from, to) in [
        (
            "if (unlinkat(drawer->folder, name, 0) != 0 && errno != ENOENT)",
            "if (0)",
        ),
        (
            "\\\"kind\\\":\\\"not-found\\\",\\\"message\\\":\\\"only",
            "\\\"kind\\\":\\\"missing\\\",\\\"message\\\":\\\"only",
        ),
    ] {
        let wrong = right.replace(from, to);
        assert_ne!(wrong, right, "{from}");
        // What the page shows would not come either; here it is about what fails.
        let silent: String = wrong.replace("```text\n", "```toml nothing.toml\n");
        let site = Site::new();
        let done = follow(&site, &silent);
        let failed: Vec<&Done> = done.iter().filter(|done| done.status != 0).collect();
        assert_eq!(failed.len(), 1, "{from}");
        assert_eq!(failed[0].status, INTERNAL, "{}", failed[0].words);
        assert!(
            failed[0].words.contains("the plugin fails"),
            "{}",
            failed[0].words
        );
    }
}

#[test]
fn the_guide_uses_the_whole_of_what_it_shows() {
    let listings = listings(&guide());
    let files: Vec<&str> = listings
        .iter()
        .filter_map(|one| one.file.as_deref())
        .collect();
    for name in [
        "one.c",
        "drawer.c",
        "one.sh",
        "given.sh",
        "folder.sh",
        "drawer.toml",
    ] {
        assert!(files.contains(&name), "{name}");
    }
}
