//! A disk is served over TLS with a private key that is encrypted, and whose passphrase came from
//! a store.

use std::fs;
use std::path::Path;

use keyhaul_e2e::{Certificates, Finished, PATTERN, Running, Site, finish, program, read_command};

const SIZE: usize = 1 << 20;

struct Ground {
    site: Site,
    certificates: Certificates,
    disk: String,
}

fn ground() -> Ground {
    let site = Site::new();
    let passphrase = "tls, pass=phrase";
    site.set("web01/tls", passphrase.as_bytes());
    site.set("web01/wrong", b"tls, pass=phrasf");
    let certificates = Certificates::make(&site.path("."), passphrase);
    let disk = site.file("disk.raw", vec![PATTERN; SIZE]);
    let disk = disk.to_str().expect("text").to_owned();
    Ground {
        site,
        certificates,
        disk,
    }
}

/// qemu-io as a TLS client.
fn read(socket: &Path, trust: &Path, pattern: u8) -> Finished {
    let credentials = format!(
        "tls-creds-x509,id=t,endpoint=client,dir={}",
        trust.display()
    );
    let image = format!(
        "driver=nbd,export=disk,server.type=unix,server.path={},tls-creds=t,tls-hostname={}",
        socket.display(),
        Certificates::HOST
    );
    let mut command = program("qemu-io");
    let read = read_command(pattern);
    finish(command.args([
        "-r",
        "--object",
        &credentials,
        "--image-opts",
        &image,
        "-c",
        &read,
    ]))
}

fn check_client(ground: &Ground, socket: &Path) {
    read(socket, &ground.certificates.client, PATTERN).ok();
    read(socket, &ground.certificates.client, !PATTERN).exits(1);
    // Who trusts another authority does not get so far, and who wants no TLS is turned away.
    let other = ground.site.path("other");
    fs::create_dir_all(&other).expect("made");
    if !other.join("client-tls").exists() {
        let stranger = Certificates::make(&other, "another");
        read(socket, &stranger.client, PATTERN)
            .exits(1)
            .says(&["certificate"]);
    }
    let mut plain = program("qemu-io");
    let url = format!("nbd+unix:///disk?socket={}", socket.display());
    finish(plain.args(["-r", "-f", "raw", "-c", "read 0 512", &url]))
        .exits(1)
        .says(&["TLS"]);
}

#[test]
fn qemu_nbd_serves_with_an_encrypted_key() {
    let ground = ground();
    let site = &ground.site;
    let socket = site.path("nbd");
    let words = |reference: &str| {
        let words = [
            "qemu-nbd",
            "-t",
            "-r",
            "-f",
            "raw",
            "-x",
            "disk",
            "-k",
            socket.to_str().expect("text"),
            "--object",
            &format!("secret,id=p,ref={reference}"),
            "--object",
            &format!(
                "tls-creds-x509,id=t,endpoint=server,verify-peer=no,passwordid=p,dir={}",
                ground.certificates.server.display()
            ),
            "--tls-creds",
            "t",
            &ground.disk,
        ];
        words.map(str::to_owned)
    };
    for channel in ["pipe", "file", "keyring"] {
        let command = site.run(&["--strict", "--channel", channel], words("web01/tls"));
        let served = Running::serve(command, &site.path("log"), || socket.exists());
        check_client(&ground, &socket);
        drop(served);
        let _ = fs::remove_file(&socket);
    }
    finish(&mut site.run(&[], words("web01/wrong")))
        .exits(1)
        .says(&["server-key.pem"]);
    // Without the passphrase nobody could: the key is really encrypted.
    let mut without = words("web01/tls");
    without[12] = without[12].replace("passwordid=p,", "");
    finish(&mut site.run(&[], without))
        .exits(1)
        .says(&["server-key.pem"]);
}

#[test]
fn the_storage_daemon_serves_with_an_encrypted_key() {
    let ground = ground();
    let site = &ground.site;
    let socket = site.path("qsd");
    let pid_file = site.path("pid");
    let words = |reference: &str| {
        let words = [
            "qemu-storage-daemon",
            "--object",
            &format!(r#"{{"qom-type":"secret","id":"p","ref":"{reference}"}}"#),
            "--object",
            &format!(
                "tls-creds-x509,id=t,endpoint=server,verify-peer=no,passwordid=p,dir={}",
                ground.certificates.server.display()
            ),
            "--blockdev",
            &format!(
                "driver=raw,node-name=disk,read-only=on,file.driver=file,file.filename={}",
                ground.disk
            ),
            "--nbd-server",
            &format!("addr.type=unix,addr.path={},tls-creds=t", socket.display()),
            "--export",
            "type=nbd,id=e,node-name=disk,name=disk",
            "--pidfile",
            pid_file.to_str().expect("text"),
        ];
        words.map(str::to_owned)
    };
    // The pid file is written when all the rest is done.
    let command = site.run(&[], words("web01/tls"));
    let served = Running::serve(command, &site.path("log"), || pid_file.exists());
    check_client(&ground, &socket);
    drop(served);
    finish(&mut site.run(&[], words("web01/wrong")))
        .exits(1)
        .says(&["server-key.pem"]);
}
