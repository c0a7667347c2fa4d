//! A disk's passphrase comes from a plugin that is a library: a real QEMU opens the disk with it.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use keyhaul_e2e::{
    Disk, PASSPHRASE, Site, Vm, WRONG_PASSPHRASE, argv, environ, finish, plugin, program,
};
use tempfile::TempDir;

const RUN: i32 = 125;
const PERMISSION_DENIED: i32 = 17;

/// A folder that nobody else can write, nor any above it: where plugins are loaded from. `/tmp` is
/// none.
fn trusted_folder() -> TempDir {
    let above = match rustix::process::geteuid().is_root() {
        true => PathBuf::from("/run"),
        false => std::env::home_dir().expect("a home"),
    };
    tempfile::tempdir_in(above).expect("a folder")
}

/// The plugin in C, compiled as its first lines say.
fn in_c(folder: &TempDir) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let library = folder.path().join("libjar.so");
    let mut cc = program("cc");
    cc.args(["-std=c99", "-fPIC", "-shared", "-I"])
        .arg(root.join("plugins/abi/include"))
        .arg("-o")
        .arg(&library)
        .arg(root.join("plugins/examples/c/jar.c"))
        .arg("-lpthread");
    finish(&mut cc).ok();
    library
}

/// The plugin in Rust.
fn in_rust(folder: &TempDir) -> PathBuf {
    let library = folder.path().join("libkeyhaul_plugin_example.so");
    fs::copy(plugin("keyhaul-plugin-example"), &library).expect("copied");
    library
}

/// A site whose only store is a jar by this plugin, with a right and a wrong passphrase in it.
fn site(library: &Path, more: &str) -> Site {
    let site = Site::new();
    let contents = format!("web01/root {PASSPHRASE}\nweb01/wrong {WRONG_PASSPHRASE}\n");
    let contents = site.file("contents", contents);
    fs::set_permissions(&contents, Permissions::from_mode(0o600)).expect("its mode");
    site.policy(&format!(
        "version = 1\n\n[stores.jar]\nurl = \"plugin://{}\"\n{more}\
         options = {{ contents = \"file:{}\" }}\n\n[[routes]]\nmatch = \"**\"\nstore = \"jar\"\n",
        library.display(),
        contents.display(),
    ));
    site
}

/// The main job, with the plugin at this path.
fn opens_its_disk(library: &Path) {
    let site = site(library, "");
    finish(&mut site.keyhaul(["check"])).ok();
    let disk = site.disk(Disk::Luks);
    let objects = [
        "-object",
        "secret,id=right,ref=web01/root",
        "-object",
        "secret,id=wrong,ref=web01/wrong",
    ];
    let mut vm = Vm::start(&site, &[], &objects);
    vm.tells_right_from_wrong(Disk::Luks, &disk);
    for words in [argv(vm.qemu().pid()), environ(vm.qemu().pid())] {
        let shown = words
            .iter()
            .map(|word| String::from_utf8_lossy(word).into_owned());
        let shown = shown.collect::<Vec<_>>().join(" ");
        assert!(!shown.contains(PASSPHRASE), "{shown}");
    }
    assert!(vm.quit().success());
    // As it starts, too, and not with the wrong one.
    let device = |id| {
        format!(
            "{},node-name=disk,read-only=on",
            Disk::Luks.options(&disk, id)
        )
    };
    let object = |id, reference| format!("secret,id={id},ref={reference}");
    let (right, wrong) = (object("s", "web01/root"), object("s", "web01/wrong"));
    let device = device("s");
    let mut vm = Vm::start(&site, &[], &["-object", &right, "-blockdev", &device]);
    assert!(vm.reads_node("disk"));
    assert!(vm.quit().success());
    Vm::fail(&site, &[], &["-object", &wrong, "-blockdev", &device])
        .exits(1)
        .says(&["Invalid password"]);
    let absent = object("s", "web01/absent");
    Vm::fail(&site, &[], &["-object", &absent, "-blockdev", &device])
        .exits(RUN)
        .says(&["not found", "no such secret in the jar"]);
}

#[test]
fn a_vm_opens_its_disk_with_a_passphrase_from_the_plugin_in_c() {
    let folder = trusted_folder();
    opens_its_disk(&in_c(&folder));
}

#[test]
fn a_vm_opens_its_disk_with_a_passphrase_from_the_plugin_in_rust() {
    let folder = trusted_folder();
    opens_its_disk(&in_rust(&folder));
}

/// Who changed the library decides nothing: a VM does not start from one that is not pinned.
#[test]
fn a_vm_does_not_start_from_a_library_that_is_not_the_pinned_one() {
    let folder = trusted_folder();
    let library = in_c(&folder);
    let done = finish(program("sha256sum").arg(&library)).ok();
    let digest = &done.text()[..64];
    let pin = format!("sha256 = \"{digest}\"\n");
    let site = site(&library, &pin);
    let get = || finish(&mut site.keyhaul(["get", "web01/root"]));
    assert_eq!(get().ok().stdout, PASSPHRASE.as_bytes());
    // Not one byte of code is another: a longer file is enough.
    let mut bytes = fs::read(&library).expect("read");
    bytes.push(0);
    fs::write(&library, bytes).expect("written");
    get()
        .exits(PERMISSION_DENIED)
        .says(&["is not the one that the policy pins", digest]);
    Vm::fail(&site, &[], &["-object", "secret,id=s,ref=web01/root"])
        .exits(RUN)
        .says(&["is not the one that the policy pins"]);
}

/// `/tmp` is no place for plugins, whoever owns the file.
#[test]
fn a_plugin_where_others_could_put_one_is_refused_by_name() {
    let folder = trusted_folder();
    let library = in_c(&folder);
    let loose = folder.path().join("loose");
    fs::create_dir(&loose).expect("made");
    let moved = loose.join("libjar.so");
    fs::rename(&library, &moved).expect("moved");
    let site = site(&moved, "");
    assert_eq!(site.get("web01/root"), PASSPHRASE.as_bytes());
    fs::set_permissions(&loose, Permissions::from_mode(0o1777)).expect("its mode");
    finish(&mut site.keyhaul(["get", "web01/root"]))
        .exits(PERMISSION_DENIED)
        .says(&["is sticky", loose.to_str().expect("text")]);
}
