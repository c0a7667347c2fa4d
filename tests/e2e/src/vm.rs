//! Running VMs, started through keyhaul or without it.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use rustix::process::Signal;
use serde_json::json;

use crate::{
    Disk, Finished, LIMIT, Process, Qmp, Running, Site, finish, program, reads_pattern, until,
};

/// A running QEMU without a guest, and the process that started it.
#[derive(Debug)]
pub struct Vm {
    starter: Running,
    nbd: PathBuf,
    qemu: Process,
    exports: usize,
    /// Its monitor.
    pub qmp: Qmp,
}

impl Vm {
    /// The words of a QEMU without a guest, with these arguments added. Its files are in the site's
    /// `vm` folder, and its monitor comes to a socket there: one that listened itself would now and
    /// then wait for ever, where it is asked in the moment it begins (7.2, in `accept`).
    pub fn words(site: &Site, arguments: &[&str]) -> Vec<String> {
        drop(program("qemu-system-x86_64"));
        let socket = site.path("vm/qmp");
        let pid_file = site.path("vm/pid");
        let mut words: Vec<String> = [
            "qemu-system-x86_64",
            "-M",
            "none",
            "-S",
            "-display",
            "none",
            "-nodefaults",
            "-pidfile",
            pid_file.to_str().expect("text"),
            "-qmp",
            &format!("unix:{}", socket.display()),
        ]
        .map(str::to_owned)
        .into();
        words.extend(arguments.iter().map(|word| (*word).to_owned()));
        words
    }

    /// Starts one through `keyhaul run` with options of its own.
    #[track_caller]
    pub fn start(site: &Site, options: &[&str], arguments: &[&str]) -> Self {
        let command = site.run(options, Self::words(site, arguments));
        Self::of(site, command)
    }

    /// The VM that a command starts, once its monitor answers.
    #[track_caller]
    pub fn of(site: &Site, command: Command) -> Self {
        let monitor = listen(site);
        let mut starter = Running::start(command, &site.path("vm/log"));
        let stream = until("QEMU's monitor", || {
            // With -daemonize it ends well.
            if let Some(status) = starter.ended().filter(|status| !status.success()) {
                panic!("{status}: {}\n{}", starter.shown(), starter.log());
            }
            monitor.accept().ok()
        });
        let qmp = Qmp::of(stream.0);
        let pid = fs::read_to_string(site.path("vm/pid")).expect("QEMU's pid");
        let pid = pid.trim().parse().expect("a number");
        Self {
            starter,
            nbd: site.path("vm/nbd"),
            qemu: Process::of(pid).expect("QEMU runs"),
            exports: 0,
            qmp,
        }
    }

    /// Starts one that is to fail, through `keyhaul run`.
    #[track_caller]
    pub fn fail(site: &Site, options: &[&str], arguments: &[&str]) -> Finished {
        let _monitor = listen(site);
        finish(&mut site.run(options, Self::words(site, arguments)))
    }

    /// The process that is QEMU.
    pub fn qemu(&self) -> &Process {
        &self.qemu
    }

    /// The process that was started: keyhaul, unless it became QEMU.
    pub fn starter(&mut self) -> &mut Running {
        &mut self.starter
    }

    /// All that keyhaul and QEMU have said so far.
    pub fn log(&self) -> String {
        self.starter.log()
    }

    /// Opens a disk with a secret object and reads the pattern from it. `Err` is QEMU's own word
    /// for why it cannot be opened.
    #[track_caller]
    pub fn read_disk(&mut self, disk: Disk, path: &Path, secret_id: &str) -> Result<(), String> {
        let node = format!("node{}", self.exports);
        let device = disk.blockdev(path, secret_id, &node);
        self.qmp.call("blockdev-add", device)?;
        assert!(self.reads_node(&node), "opened, and not the pattern");
        Ok(())
    }

    /// Whether the pattern is read from a block device of this VM.
    #[track_caller]
    pub fn reads_node(&mut self, node: &str) -> bool {
        if self.exports == 0 {
            let address = json!({"addr": {"type": "unix", "data": {"path": self.nbd}}});
            self.qmp.call("nbd-server-start", address).expect("NBD");
        }
        self.exports += 1;
        let export = format!("export{}", self.exports);
        let arguments = json!({"type": "nbd", "id": export, "node-name": node, "name": export});
        self.qmp
            .call("block-export-add", arguments)
            .expect("exported");
        reads_pattern(&self.nbd, &export)
    }

    /// Asserts that the secret `right` opens a disk and the secret `wrong` does not.
    #[track_caller]
    pub fn tells_right_from_wrong(&mut self, disk: Disk, path: &Path) {
        self.read_disk(disk, path, "right")
            .expect("the right secret");
        let refused = self
            .read_disk(disk, path, "wrong")
            .expect_err("a wrong secret");
        assert!(refused.contains("Invalid password"), "{refused}");
    }

    /// Asks QEMU to end, and gives how the process that was started ended.
    #[track_caller]
    pub fn quit(&mut self) -> ExitStatus {
        self.qmp.call("quit", json!({})).expect("quits");
        assert!(self.qemu.ends_within(LIMIT), "QEMU did not quit");
        self.starter.end()
    }
}

/// Waits for a monitor to come, and clears what an earlier VM has left.
fn listen(site: &Site) -> UnixListener {
    for old in ["vm/qmp", "vm/pid", "vm/nbd"] {
        let _ = fs::remove_file(site.path(old));
    }
    let socket = site.path("vm/qmp");
    let listener = UnixListener::bind(&socket).expect("a socket");
    // QEMU may run as another user.
    fs::set_permissions(&socket, Permissions::from_mode(0o777)).expect("its mode");
    listener
        .set_nonblocking(true)
        .expect("asked, not waited for");
    listener
}

impl Drop for Vm {
    fn drop(&mut self) {
        // It may be a daemon, which its starter cannot end.
        self.qemu.signal(Signal::KILL);
        self.qemu.ends_within(LIMIT);
    }
}
