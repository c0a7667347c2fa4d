//! What a device cannot use is an error before QEMU starts; what weakens is a warning.

use std::fs;

use base64ct::{Base64, Encoding};
use keyhaul_e2e::{Disk, Finished, PATTERN, Site, finish, read_command};

/// A site with a QEMU of no consequence: it leaves a mark that it was started.
struct Trial {
    site: Site,
    emulator: String,
}

impl Trial {
    fn new() -> Self {
        let site = Site::new();
        let emulator = site.script("qemu-system-x86_64", "#!/bin/sh\ntouch marker\n");
        let emulator = emulator.to_str().expect("text").to_owned();
        Self { site, emulator }
    }

    /// Stores a value and starts the emulator with it in this option's place.
    fn run(&self, options: &[&str], value: &[u8], option: [&str; 2]) -> (Finished, bool) {
        let marker = self.site.path("marker");
        let _ = fs::remove_file(&marker);
        self.site.set("web01/x", value);
        let words = [
            &self.emulator,
            "-object",
            "secret,id=x,ref=web01/x",
            option[0],
            option[1],
        ];
        let done = finish(&mut self.site.run(options, words));
        (done, marker.exists())
    }

    /// The value is refused in these words, and nothing is started.
    #[track_caller]
    fn refuses(&self, value: &[u8], option: [&str; 2], words: &[&str]) {
        let (done, started) = self.run(&[], value, option);
        done.exits(125).says(words).says(&["web01/x", "next:"]);
        assert!(!started);
    }

    /// The value is warned of in these words, which `--strict` makes an error.
    #[track_caller]
    fn warns(&self, value: &[u8], option: [&str; 2], words: &[&str]) {
        let (done, started) = self.run(&[], value, option);
        done.ok().says(&["warning:"]).says(words);
        assert!(started);
        let (done, started) = self.run(&["--strict"], value, option);
        done.exits(125).says(words);
        assert!(!started);
    }

    /// The value is fine.
    #[track_caller]
    fn takes(&self, value: &[u8], option: [&str; 2]) {
        let (done, started) = self.run(&["--strict"], value, option);
        let done = done.ok();
        assert!(started);
        assert_eq!(done.stderr, "");
    }
}

const LUKS: [&str; 2] = [
    "-blockdev",
    "driver=luks,node-name=n,key-secret=x,file.driver=file,file.filename=d",
];
const QCOW2: [&str; 2] = [
    "-blockdev",
    r#"{"driver":"qcow2","node-name":"n","encrypt":{"format":"luks","key-secret":"x"},"file":{"driver":"file","filename":"d"}}"#,
];
const SPICE: [&str; 2] = ["-spice", "port=5900,password-secret=x"];
const RBD: [&str; 2] = [
    "-blockdev",
    "driver=rbd,node-name=n,pool=p,image=i,user=u,key-secret=x",
];
const COOKIE: [&str; 2] = [
    "-blockdev",
    "driver=https,node-name=n,url=https://127.0.0.1/d,cookie-secret=x",
];
const ISCSI: [&str; 2] = [
    "-drive",
    "if=none,format=raw,file.driver=iscsi,file.portal=127.0.0.1,file.target=t,file.transport=tcp,file.user=u,file.password-secret=x",
];
const TLS: [&str; 2] = [
    "-object",
    "tls-creds-x509,id=t,endpoint=server,dir=d,passwordid=x",
];

#[test]
fn disks_take_text() {
    let trial = Trial::new();
    for disk in [LUKS, QCOW2] {
        trial.takes("pass\u{f6}rd, with=signs".as_bytes(), disk);
        trial.refuses(b"pass\0word", disk, &["LUKS passphrase", "NUL"]);
        trial.refuses(b"pass\xffword", disk, &["LUKS passphrase", "not UTF-8"]);
        trial.warns(b"password\n", disk, &["LUKS passphrase", "newline"]);
    }
    trial.refuses(b"pass\0word", TLS, &["TLS key", "NUL"]);
    trial.takes(b"password", TLS);
}

#[test]
fn spice_takes_59_bytes() {
    let trial = Trial::new();
    trial.takes(&[b'x'; 59], SPICE);
    trial.refuses(&[b'x'; 60], SPICE, &["SPICE password", "59 bytes"]);
    trial.warns(b"", SPICE, &["SPICE password", "empty"]);
}

#[test]
fn ceph_takes_the_decoded_key() {
    let trial = Trial::new();
    // Type 1, a time, and 16 bytes of AES after their length: what `ceph auth get-key` prints is
    // this in base64.
    let key = [
        &[1, 0][..],
        &[0x21, 0x43, 0x65, 0x60, 0, 0, 0, 0],
        &[16, 0],
        &[0xa5; 16],
    ]
    .concat();
    assert_eq!(key.len(), 28);
    trial.takes(&key, RBD);
    let text = Base64::encode_string(&key);
    trial.refuses(text.as_bytes(), RBD, &["Ceph key", "base64", "encoding"]);
    trial.refuses(format!("{text}\n").as_bytes(), RBD, &["Ceph key", "base64"]);
    trial.refuses(b"something else", RBD, &["no Ceph key"]);
    // As the advice says: the route decodes it.
    let policy = fs::read_to_string(trial.site.path("keyhaul.toml")).expect("the policy");
    trial.site.file("text", &text);
    finish(&mut trial.site.keyhaul(["set", "web01/x", "--from", "text"])).ok();
    trial.site.policy(&policy.replace(
        "store = \"local\"\n",
        "store = \"local\"\nencoding = \"base64\"\n",
    ));
    let words = [
        &trial.emulator,
        "-object",
        "secret,id=x,ref=web01/x",
        RBD[0],
        RBD[1],
    ];
    assert_eq!(
        finish(&mut trial.site.run(&["--strict"], words))
            .ok()
            .stderr,
        ""
    );
    assert_eq!(trial.site.get("web01/x"), key);
}

#[test]
fn cookies_and_iscsi_have_limits_too() {
    let trial = Trial::new();
    trial.takes(b"session=0123456789", COOKIE);
    trial.refuses(b"session=0123456789\n", COOKIE, &["HTTP cookie", "newline"]);
    trial.takes(&[b'x'; 255], ISCSI);
    trial.refuses(&[b'x'; 256], ISCSI, &["iSCSI CHAP password", "255 bytes"]);
}

#[test]
fn every_device_of_a_command_is_judged() {
    let trial = Trial::new();
    let site = &trial.site;
    site.set("web01/disk", b"a\0b");
    site.set("web01/spice", &[b'x'; 60]);
    site.set("web01/fine", b"x");
    let words = [
        &trial.emulator,
        "-object",
        "secret,id=x,ref=web01/disk",
        LUKS[0],
        LUKS[1],
        "-object",
        "secret,id=y,ref=web01/spice",
        "-spice",
        "port=5900,password-secret=y",
        "-object",
        "secret,id=z,ref=web01/fine",
    ];
    finish(&mut site.run(&[], words))
        .exits(125)
        .says(&["web01/disk", "NUL", "web01/spice", "59 bytes"])
        .says_nothing_of(&["web01/fine"]);
    assert!(!site.path("marker").exists());
    // A binary value that nobody uses here is nobody's business.
    let words = [&trial.emulator, "-object", "secret,id=x,ref=web01/disk"];
    finish(&mut site.run(&["--strict"], words)).ok();
}

#[test]
fn secrets_in_the_clear_are_warned_of() {
    let trial = Trial::new();
    let plain = [&trial.emulator, "-object", "secret,id=x,data=hunter2"];
    finish(&mut trial.site.run(&[], plain))
        .ok()
        .says(&["warning:", "data="])
        .says_nothing_of(&["hunter2"]);
    finish(&mut trial.site.run(&["--strict"], plain))
        .exits(125)
        .says_nothing_of(&["hunter2"]);
}

#[test]
fn an_expiry_is_warned_of_before_a_disk_is_left_unbootable() {
    let site = Site::new();
    let disk = Disk::Luks.options(&site.disk(Disk::Luks), "root");
    let read = read_command(PATTERN);
    let words = [
        "qemu-io",
        "-r",
        "--object",
        "secret,id=root,ref=web01/root",
        "--image-opts",
        &disk,
        "-c",
        &read,
    ];
    let passphrase = keyhaul_e2e::PASSPHRASE.as_bytes();
    site.set_with(
        "web01/root",
        passphrase,
        &["--expires", "2099-01-31T12:00:00Z"],
    );
    finish(&mut site.run(&[], words)).ok().says(&[
        "warning:",
        "web01/root",
        "LUKS passphrase",
        "2099-01-31T12:00:00Z",
    ]);
    finish(&mut site.run(&["--strict"], words))
        .exits(125)
        .says(&["2099-01-31T12:00:00Z"]);
    // A password that expires is as it should be.
    let trial = Trial::new();
    trial
        .site
        .set_with("web01/x", b"password", &["--expires", "90d"]);
    let spice = [
        &trial.emulator,
        "-object",
        "secret,id=x,ref=web01/x",
        SPICE[0],
        SPICE[1],
    ];
    assert_eq!(
        finish(&mut trial.site.run(&["--strict"], spice))
            .ok()
            .stderr,
        ""
    );
    // Without an expiry nobody is warned.
    site.set("web01/root", passphrase);
    finish(&mut site.run(&["--strict"], words))
        .ok()
        .says_nothing_of(&["expires"]);
}

#[test]
fn an_expired_secret_starts_nothing_and_can_be_read_all_the_same() {
    let site = Site::new();
    site.set_with(
        "web01/root",
        b"passphrase",
        &["--expires", "2020-01-31T12:00:00Z"],
    );
    finish(&mut site.run(
        &[],
        ["touch", "marker", "-object", "secret,id=s,ref=web01/root"],
    ))
    .exits(125)
    .says(&[
        "not found",
        "web01/root",
        "2020-01-31T12:00:00Z",
        "--expired",
    ]);
    assert!(!site.path("marker").exists());
    finish(&mut site.keyhaul(["get", "web01/root"]))
        .exits(16)
        .says(&["2020-01-31T12:00:00Z"]);
    let kept = finish(&mut site.keyhaul(["get", "--expired", "web01/root"])).ok();
    assert_eq!(kept.stdout, b"passphrase");
    let known = finish(&mut site.keyhaul(["stat", "web01/root"])).ok();
    assert!(known.text().contains("(expired)"), "{}", known.text());
}
