//! Guests with memory and a disk, which move from one QEMU to another, or lie in a file meanwhile.

use std::path::Path;

use serde_json::{Value, json};

use crate::{Disk, Vm, read_command, until};

/// The words of a guest, small and real: a machine with memory and firmware that runs, and a disk
/// that the secret object `root` opens. `object` is how that object is described.
pub fn guest_words(object: &str, disk: Disk, path: &Path) -> Vec<String> {
    let disk = format!("{},node-name=disk", disk.options(path, "root"));
    [
        "-M",
        "pc",
        "-accel",
        "tcg",
        "-m",
        "32",
        "-object",
        object,
        "-blockdev",
        &disk,
        "-device",
        "virtio-blk-pci,drive=disk",
    ]
    .map(str::to_owned)
    .into()
}

impl Vm {
    /// Lets the guest run.
    #[track_caller]
    pub fn resume(&mut self) {
        self.qmp.call("cont", json!({})).expect("the guest runs");
        assert_eq!(self.state(), "running");
    }

    /// How the guest is: QEMU's word.
    #[track_caller]
    pub fn state(&mut self) -> String {
        let status = self.qmp.call("query-status", json!({})).expect("a status");
        status["status"].as_str().expect("a word").to_owned()
    }

    /// Sends the guest away, and waits until all of it has gone. `to` is QEMU's way to say where:
    /// `unix:SOCKET`, `exec:COMMAND`.
    #[track_caller]
    pub fn migrate(&mut self, to: &str) {
        self.tell_of_migration();
        self.qmp.call("migrate", json!({"uri": to})).expect("begun");
        self.migrated();
        // QEMU tells that all is sent before it has put the guest to rest.
        until("the guest is at rest", || {
            (self.state() != "finish-migrate").then_some(())
        });
    }

    /// Has the guest come in, from where [`migrate`](Self::migrate) sends it; it was started with
    /// `-incoming defer`. Waits for nothing.
    #[track_caller]
    pub fn receive(&mut self, from: &str) {
        self.tell_of_migration();
        self.qmp
            .call("migrate-incoming", json!({"uri": from}))
            .expect("listens");
    }

    /// Waits until all of the guest has gone, or come.
    #[track_caller]
    pub fn migrated(&mut self) {
        let ended = |data: &Value| data["status"] == "completed" || data["status"] == "failed";
        let data = self.qmp.event("MIGRATION", ended);
        assert_eq!(data["status"], "completed", "{}", self.log());
    }

    fn tell_of_migration(&mut self) {
        let events = json!({"capabilities": [{"capability": "events", "state": true}]});
        self.qmp
            .call("migrate-set-capabilities", events)
            .expect("told of migrations");
    }

    /// Whether the guest's own disk gives the pattern, and no other would do.
    #[track_caller]
    pub fn reads_own_disk(&mut self) -> bool {
        let mut read = |pattern: u8| {
            let before = self.log().len();
            let line = format!("qemu-io disk \"{}\"", read_command(pattern));
            let line = json!({"command-line": line});
            self.qmp
                .call("human-monitor-command", line)
                .expect("a monitor for people");
            self.log().split_off(before)
        };
        let right = read(crate::PATTERN);
        let wrong = read(!crate::PATTERN);
        let whole = "read 65536/65536 bytes at offset 0";
        let differs = "Pattern verification failed";
        right.contains(whole) && !right.contains(differs) && wrong.contains(differs)
    }
}
