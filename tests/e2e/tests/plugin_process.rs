//! A VM's secrets from programs that are plugins: the examples, as they are in the book.

use std::fs;
use std::path::{Path, PathBuf};

use keyhaul_e2e::{Disk, PASSPHRASE, Site, Vm, WRONG_PASSPHRASE, argv, children, environ, finish};
use tempfile::TempDir;

/// Where programs are that keyhaul trusts: nobody else can write there, nor above it.
struct Programs(TempDir);

impl Programs {
    fn new() -> Self {
        let home = std::env::home_dir().expect("a home");
        let mut builder = tempfile::Builder::new();
        let made = builder.prefix(".keyhaul-test-").tempdir_in(home);
        Self(made.expect("a folder"))
    }

    fn example(&self, name: &str) -> PathBuf {
        let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/../../plugins/examples");
        self.program(&fs::read_to_string(Path::new(examples).join(name)).expect(name))
    }

    fn program(&self, text: &str) -> PathBuf {
        let path = self.0.path().join("plugin");
        keyhaul_servers::script(&path, text);
        path
    }
}

/// A site all of whose secrets are a plugin's.
fn site(program: &Path, argument: &str, lines: &str) -> Site {
    let site = Site::new();
    site.policy(&format!(
        "version = 1\n\n[stores.odd]\nurl = \"plugin+exec://{}\"\nargs = [\"{}\"]\n{lines}\n\n\
         [[routes]]\nmatch = \"**\"\nstore = \"odd\"\n",
        program.display(),
        site.path(argument).display(),
    ));
    site
}

const OBJECTS: [&str; 4] = [
    "-object",
    "secret,id=right,ref=web01/root",
    "-object",
    "secret,id=wrong,ref=web01/wrong",
];

fn starts_vms(site: &Site) {
    site.set("web01/root", PASSPHRASE.as_bytes());
    site.set("web01/wrong", WRONG_PASSPHRASE.as_bytes());
    assert_eq!(site.get("web01/root"), PASSPHRASE.as_bytes());
    let disk = site.disk(Disk::Luks);
    for options in [&[][..], &["--exec"]] {
        let mut vm = Vm::start(site, options, &OBJECTS);
        vm.tells_right_from_wrong(Disk::Luks, &disk);
        let qemu = vm.qemu().pid();
        for words in [argv(qemu), environ(qemu)] {
            let all = words.concat();
            assert!(
                !all.windows(PASSPHRASE.len())
                    .any(|part| part == PASSPHRASE.as_bytes())
            );
        }
        // The plugin is gone, and was waited for, also where keyhaul has become QEMU.
        assert!(children(qemu).is_empty(), "{:?}", children(qemu));
        let starter = vm.starter().pid();
        assert!(children(starter).iter().all(|child| *child == qemu));
        assert!(vm.quit().success());
    }
    // The control: the same VM, and as its disk's passphrase the other of the plugin's secrets.
    let device = format!("{},node-name=disk", Disk::Luks.options(&disk, "wrong"));
    let words = [&OBJECTS[..], &["-blockdev", &device]].concat();
    Vm::fail(site, &[], &words)
        .exits(1)
        .says(&["Invalid password"]);
    let device = device.replace("key-secret=wrong", "key-secret=right");
    let words = [&OBJECTS[..], &["-blockdev", &device]].concat();
    assert!(Vm::start(site, &[], &words).quit().success());
}

#[test]
fn a_vm_opens_its_disk_with_a_secret_from_the_shell_example() {
    let programs = Programs::new();
    let site = site(&programs.example("shell/folder.sh"), "state", "");
    starts_vms(&site);
    // It keeps base64, in files of names that tell nothing.
    let files = fs::read_dir(site.path("state")).expect("listed");
    assert_eq!(files.count(), 2);
}

#[test]
fn a_vm_opens_its_disk_with_a_secret_from_the_python_example_behind_a_fence() {
    let programs = Programs::new();
    let program = programs.example("python/database.py");
    let site = Site::new();
    let confine = format!(
        "confine = {{ write = [\"{}\"] }}",
        site.path("state").display()
    );
    site.policy(&format!(
        "version = 1\n\n[stores.odd]\nurl = \"plugin+exec://{}\"\nargs = [\"{}\"]\n{confine}\n\n\
         [[routes]]\nmatch = \"**\"\nstore = \"odd\"\n",
        program.display(),
        site.path("state/secrets.db").display(),
    ));
    starts_vms(&site);
}

#[test]
fn no_vm_starts_from_a_plugin_that_fails_and_the_reason_is_told() {
    let programs = Programs::new();
    let site = site(
        &programs.example("shell/folder.sh"),
        "state",
        "stall = \"1s\"\nretries = 0",
    );
    for (text, words) in [
        (
            "#!/bin/sh\nexit 3\n",
            &["exited with status 3", "store: odd"],
        ),
        (
            "#!/bin/sh\nkill -ABRT $$\n",
            &["killed by signal 6", "store: odd"],
        ),
        (
            "#!/bin/sh\nexec sleep 60\n",
            &["said nothing for 1000 ms", "store: odd"],
        ),
        ("#!/bin/sh\necho hello\n", &["no hello", "store: odd"]),
    ] {
        programs.program(text);
        Vm::fail(&site, &[], &OBJECTS).exits(125).says(words);
    }
    // What anybody could have changed is not run at all.
    let program = programs.example("shell/folder.sh");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o757);
    fs::set_permissions(&program, mode).expect("its mode");
    Vm::fail(&site, &[], &OBJECTS)
        .exits(125)
        .says(&["has mode 0757", "chmod go-w"]);
}

#[test]
fn what_a_plugin_writes_to_its_stderr_is_in_the_log_without_its_secrets() {
    let programs = Programs::new();
    let script = format!(
        "#!/bin/sh\nread -r line\n\
         echo '{{\"keyhaul\":1,\"name\":\"talks\",\"version\":\"1\",\"capabilities\":[\"read\"]}}'\n\
         while read -r line; do id=${{line#*:}}\n\
         echo 'the passphrase is {PASSPHRASE}, I think' >&2\n\
         printf '{{\"id\":%s,\"value\":\"{PASSPHRASE}\"}}\\n' \"${{id%%,*}}\"; done\n"
    );
    let site = site(&programs.program(&script), "state", "");
    let mut get = site.keyhaul(["-v", "get", "web01/root"]);
    let done = finish(&mut get).ok();
    assert_eq!(done.stdout, PASSPHRASE.as_bytes());
    let done = done.says(&["the passphrase is [redacted], I think", "talks"]);
    done.says_nothing_of(&[PASSPHRASE]);
}
