//! Folders of credentials, and `systemd-creds` itself beside the store.

#![allow(dead_code, reason = "each test program uses its part")]

pub mod steps;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use keyhaul_core::layers::{LayerSettings, standard};
use keyhaul_core::registry::{Options, Value};
use keyhaul_core::{SecretBytes, SecretPath, SecretStore, StoreConfig, StoreFactory};
use keyhaul_systemd_creds::SystemdCredsFactory;

const INSTALL: &str = "apt-get install systemd";

/// A folder for credentials, gone with its handle.
pub struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    /// An empty folder. The host's key is used by the tests' own user, root.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        Self { folder }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A store in it, with the host's key: the same on every machine.
    pub fn store(&self) -> Arc<dyn SecretStore> {
        self.store_with(&[])
    }

    /// The same with these options too.
    pub fn store_with(&self, more: &[(&str, &str)]) -> Arc<dyn SecretStore> {
        open(self.options(more))
    }

    /// What a policy says of it, and these options too.
    pub fn options(&self, more: &[(&str, &str)]) -> Options {
        let folder = self.path().to_string_lossy().into_owned();
        options(&[&[("folder", folder.as_str()), ("key", "host")], more].concat())
    }

    /// Writes a credential by `systemd-creds` itself.
    pub fn encrypt(&self, file: &str, arguments: &[&str], value: &str) {
        let target = self.path().join(file);
        let target = target.to_string_lossy().into_owned();
        let done = creds(&[&["encrypt"], arguments, &["-", &target]].concat(), value);
        assert!(done.status.success(), "{done:?}");
    }

    /// Writes a program that does this and then, if it comes so far, what `systemd-creds` does.
    pub fn program(&self, does: &str) -> PathBuf {
        let path = self.path().join(".program");
        let script = format!("#!/bin/sh\n{does}\nexec /usr/bin/systemd-creds \"$@\"\n");
        keyhaul_servers::script(&path, &script);
        path
    }
}

/// Runs `systemd-creds` to its end, with this on its input.
pub fn creds(arguments: &[&str], input: &str) -> Output {
    use std::io::Write as _;
    let mut child = Command::new("systemd-creds")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("systemd-creds: {error}; {INSTALL}"));
    // Closed with the end of the statement.
    let written = child
        .stdin
        .take()
        .map(|mut pipe| pipe.write_all(input.as_bytes()));
    written.expect("a pipe").expect("written");
    child.wait_with_output().expect("its end")
}

/// A store with these options, as the policy would open it.
pub fn open(options: Options) -> Arc<dyn SecretStore> {
    let config = StoreConfig::new("creds", "systemd-creds:", options, "keyhaul.toml:2:1");
    SystemdCredsFactory
        .open(&config.expect("a config"))
        .expect("no I/O, no failure")
}

/// Options as a policy has them.
pub fn options(options: &[(&str, &str)]) -> Options {
    let options = options.iter().map(|(name, text)| match *text {
        "true" => (*name, Value::Boolean(true)),
        text => (*name, text.into()),
    });
    Options::at("keyhaul.toml:3:1", options)
}

/// A store with every layer.
pub fn layered(store: Arc<dyn SecretStore>) -> Arc<dyn SecretStore> {
    standard(store, &LayerSettings::default(), None)
}

pub fn path(text: &str) -> SecretPath {
    SecretPath::new(text).expect("a path")
}

pub fn secret(text: &str) -> SecretBytes {
    SecretBytes::copy_from(text.as_bytes())
}
