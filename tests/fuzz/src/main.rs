//! Builds every fuzz target with coverage and runs each for some seconds:
//! `cargo run -p keyhaul-fuzz -- SECONDS [TARGET]`.
//!
//! The coverage comes from compiler flags that the stable toolchain has, so no other one is needed.
//! What a run finds lies in `target/fuzz/TARGET/`, and so does the corpus it grows.
#![expect(clippy::print_stdout, reason = "a program for developers")]

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const TARGETS: &[&str] = &[
    "fuzz-reference",
    "fuzz-policy",
    "fuzz-qemu-option",
    "fuzz-command-line",
];

/// SanitizerCoverage as libFuzzer wants it.
const FLAGS: &str = "-Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares \
    -Ccodegen-units=1 -Cdebug-assertions=on -Coverflow-checks=on";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let seconds = arguments
        .next()
        .and_then(|text| text.parse::<u32>().ok())
        .unwrap_or(10);
    let only = arguments.next();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let folder = root.join("target/fuzz");
    let Some(programs) = build(&root, &folder) else {
        println!("the fuzz targets do not build");
        return ExitCode::FAILURE;
    };
    let wanted = TARGETS
        .iter()
        .filter(|name| only.as_deref().is_none_or(|only| only == **name));
    let mut found = Vec::new();
    for name in wanted {
        println!("{name}: {seconds} s");
        if !run(&root, &folder, &programs, name, seconds) {
            found.push(*name);
        }
    }
    if found.is_empty() {
        println!("the fuzzers found nothing");
        return ExitCode::SUCCESS;
    }
    println!(
        "found by {}; the input that does it lies in target/fuzz",
        found.join(", ")
    );
    ExitCode::FAILURE
}

/// The folder with the programs.
fn build(root: &Path, folder: &Path) -> Option<PathBuf> {
    let host = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let built = Command::new(env!("CARGO"))
        .current_dir(root)
        // With a target named, build scripts and macros are not instrumented.
        .args([
            "build",
            "--locked",
            "--release",
            "-p",
            "keyhaul-fuzz",
            "--bins",
            "--target",
            &host,
        ])
        .args([
            "--config",
            "profile.release.lto=false",
            "--config",
            "profile.release.strip=false",
        ])
        .arg("--target-dir")
        .arg(folder)
        .env("RUSTFLAGS", FLAGS)
        .status();
    built
        .is_ok_and(|status| status.success())
        .then(|| folder.join(host).join("release"))
}

fn run(root: &Path, folder: &Path, programs: &Path, name: &str, seconds: u32) -> bool {
    let corpus = folder.join(name);
    let seeds = root.join("tests/fuzz/seeds").join(name);
    if std::fs::create_dir_all(&corpus).is_err() {
        return false;
    }
    let mut command = Command::new(programs.join(name));
    command
        .arg(&corpus)
        .arg(&seeds)
        .arg(format!("-max_total_time={seconds}"))
        .arg("-timeout=10")
        .arg("-max_len=4096")
        .arg("-verbosity=0")
        .arg(format!("-artifact_prefix={}/found-", corpus.display()));
    command.status().is_ok_and(|status| status.success())
}
