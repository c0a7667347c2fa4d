//! Disks opened with passphrases from plugins: out of a PKCS#11 token, out of credentials of systemd's,
//! and from a KMIP server.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use keyhaul_e2e::{
    Disk, PASSPHRASE, Site, Vm, WRONG_PASSPHRASE, finish, finish_with, plugin, program,
};
use keyhaul_servers::PyKmip;
use tempfile::TempDir;

/// A folder as plugins may lie in: nobody else can write it, nor any above it.
fn libraries() -> TempDir {
    let above = if rustix::process::geteuid().is_root() {
        "/run".into()
    } else {
        std::env::var_os("HOME").expect("a home")
    };
    tempfile::tempdir_in(above).expect("a folder")
}

/// A deployment with one store, of the plugin of this package.
struct Deployment {
    site: Site,
    /// Holds the library.
    _libraries: TempDir,
    /// In keyhaul's environment.
    variable: Option<(&'static str, PathBuf)>,
}

impl Deployment {
    fn new(site: Site, package: &str, options: &str) -> Self {
        let libraries = libraries();
        let library = libraries.path().join("plugin.so");
        fs::copy(plugin(package), &library).expect("copied");
        let url = format!("plugin://{}", library.display());
        site.policy(&format!(
            "version = 1\n[stores.of-plugin]\nurl = \"{url}\"\noptions = {{ {options} }}\n[[routes]]\nmatch = \"**\"\nstore = \"of-plugin\"\npath = \"{{scope}}.{{name}}\"\n"
        ));
        Self {
            site,
            _libraries: libraries,
            variable: None,
        }
    }

    fn with_variable(&self, mut command: Command) -> Command {
        command.envs(self.variable.clone());
        command
    }

    fn set(&self, reference: &str, value: &str) {
        let mut command = self.with_variable(self.site.keyhaul(["set", reference]));
        finish_with(&mut command, value.as_bytes()).ok();
    }

    /// A VM opens the disk with the one secret, and not with the other; no file has the passphrase.
    fn opens_a_disk(&self) {
        self.set("web01/root", PASSPHRASE);
        self.set("web01/wrong", WRONG_PASSPHRASE);
        let disk = self.site.disk(Disk::Luks);
        let arguments = [
            "-object",
            "secret,id=right,ref=web01/root",
            "-object",
            "secret,id=wrong,ref=web01/wrong",
        ];
        let words = Vm::words(&self.site, &arguments);
        let mut vm = Vm::of(&self.site, self.with_variable(self.site.run(&[], words)));
        vm.tells_right_from_wrong(Disk::Luks, &disk);
        assert!(vm.quit().success());

        let folder = self.site.path(".");
        assert!(!in_a_file(&folder, PASSPHRASE));
        self.site.file("control", format!("so: {PASSPHRASE}"));
        assert!(in_a_file(&folder, PASSPHRASE));
    }
}

/// Whether a file in this folder has this text in it.
fn in_a_file(folder: &Path, text: &str) -> bool {
    let has = |path: &Path| {
        let bytes = fs::read(path).expect("read");
        bytes
            .windows(text.len())
            .any(|part| part == text.as_bytes())
    };
    fs::read_dir(folder).expect("listed").any(|entry| {
        let entry = entry.expect("an entry");
        let kind = entry.file_type().expect("its type");
        (kind.is_dir() && in_a_file(&entry.path(), text)) || (kind.is_file() && has(&entry.path()))
    })
}

#[test]
fn a_vm_opens_its_disk_with_a_passphrase_from_a_token() {
    let site = Site::new();
    let tokens = site.path("tokens");
    fs::create_dir(&tokens).expect("made");
    let config = format!("directories.tokendir = {}\n", tokens.display());
    let config = site.file("softhsm2.conf", config);
    let mut make = program("softhsm2-util");
    make.args(["--init-token", "--free", "--label", "vms"])
        .args(["--so-pin", "5678-officer", "--pin", "1234-user"])
        .env("SOFTHSM2_CONF", &config);
    finish(&mut make).ok();
    let pin = site.file("pin", "1234-user\n");
    fs::set_permissions(&pin, PermissionsExt::from_mode(0o600)).expect("a mode");
    let options = format!(
        "module = \"/usr/lib/softhsm/libsofthsm2.so\", token = \"vms\", pin = \"file:{}\"",
        pin.display()
    );
    let mut deployment = Deployment::new(site, "keyhaul-pkcs11", &options);
    deployment.variable = Some(("SOFTHSM2_CONF", config));
    deployment.opens_a_disk();
}

#[test]
fn a_vm_opens_its_disk_with_a_passphrase_from_a_credential() {
    drop(program("systemd-creds"));
    let site = Site::new();
    let folder = site.path("credentials");
    let options = format!(
        "folder = \"{}\", key = \"host\", create = true",
        folder.display()
    );
    let deployment = Deployment::new(site, "keyhaul-systemd-creds", &options);
    deployment.opens_a_disk();

    // They are systemd's: its own program opens them too.
    let mut decrypt = program("systemd-creds");
    decrypt
        .arg("decrypt")
        .arg(folder.join("web01.root"))
        .arg("-");
    let done = finish(&mut decrypt).ok();
    assert_eq!(done.stdout, PASSPHRASE.as_bytes());
}

#[test]
fn a_vm_opens_its_disk_with_a_passphrase_from_a_kmip_server() {
    let server = PyKmip::start();
    let (certificate, key) = server.client("web");
    let options = format!(
        "url = \"{}\", ca-cert = \"{}\", client-cert = \"{}\", client-key = \"file:{}\"",
        server.url(),
        server.ca_path().display(),
        certificate.display(),
        key.display()
    );
    let deployment = Deployment::new(Site::new(), "keyhaul-kmip", &options);
    deployment.opens_a_disk();

    // It is the server's: its own client reads it too.
    let hex = |byte: &u8| format!("{byte:02x}");
    let hex: String = PASSPHRASE.as_bytes().iter().map(hex).collect();
    let read = server.ask(&(certificate, key), &["get", "web01.root"]);
    assert_eq!(read, format!("SecretData {hex}"));
}
