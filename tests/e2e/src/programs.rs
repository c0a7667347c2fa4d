//! The programs that the tests run.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Debian's packages of the programs that are looked for.
const PACKAGES: &[(&str, &str)] = &[
    ("bash", "bash"),
    ("cc", "gcc"),
    ("groff", "groff-base"),
    ("keyctl", "keyutils"),
    ("openssl", "openssl"),
    ("python3", "python3"),
    ("qemu-img", "qemu-utils"),
    ("qemu-io", "qemu-utils"),
    ("qemu-nbd", "qemu-utils"),
    ("qemu-storage-daemon", "qemu-system-common"),
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("softhsm2-util", "softhsm2"),
    ("systemd-creds", "systemd"),
];

/// The keyhaul that `$KEYHAUL` names, or else of this working tree, built once for each test program,
/// with its profile.
pub fn keyhaul() -> &'static Path {
    // A failure is kept as well: one attempt is enough.
    static BUILT: OnceLock<Option<PathBuf>> = OnceLock::new();
    let given = || std::env::var_os("KEYHAUL").map(PathBuf::from);
    let built = || Some(build("keyhaul")?.join("keyhaul"));
    let built = BUILT.get_or_init(|| given().or_else(built)).as_deref();
    built.unwrap_or_else(|| panic!("keyhaul does not build: cargo build --package keyhaul"))
}

/// The library of one of this working tree's plugins: the one built together with the keyhaul that
/// `$KEYHAUL` names, or else built as that is.
pub fn plugin(package: &str) -> PathBuf {
    let library = format!("lib{}.so", package.replace('-', "_"));
    if let Some(keyhaul) = std::env::var_os("KEYHAUL").map(PathBuf::from) {
        return keyhaul.with_file_name("deps").join(library);
    }
    let built = build(package).map(|folder| folder.join(library));
    built.unwrap_or_else(|| panic!("{package} does not build: cargo build --package {package}"))
}

/// Builds a package, and gives the folder that it is in then. `TARGET/PROFILE/deps/TEST-HASH` is
/// where this very test lies.
fn build(package: &str) -> Option<PathBuf> {
    let test = std::env::current_exe().expect("the test's own path");
    let folder = |up: usize| test.ancestors().nth(up).expect("TARGET/PROFILE/deps/TEST");
    let profile = match folder(2).file_name().and_then(|name| name.to_str()) {
        Some("debug") => "dev",
        Some(profile) => profile,
        None => panic!("{} has no profile in it", test.display()),
    };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let built = Command::new(cargo)
        .args(["build", "--quiet", "--locked", "--package", package])
        .args(["--profile", profile, "--target-dir"])
        .arg(folder(3))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .expect("cargo");
    built.success().then(|| folder(2).to_owned())
}

/// A program of somebody else's. Where it is missing, the test fails and says how to install it.
pub fn program(name: &str) -> Command {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&folders).any(|folder| folder.join(name).is_file());
    if !found {
        match PACKAGES.iter().find(|(program, _)| *program == name) {
            Some((_, package)) => panic!("{name} is not installed: apt-get install {package}"),
            None => panic!("{name} is not installed"),
        }
    }
    Command::new(name)
}
