//! A person logs in to a VM's screen with a password that came from a store.

use keyhaul_e2e::{Site, Vm, finish, vnc_login};

/// The port that QEMU found free.
fn port(vm: &mut Vm) -> u16 {
    let vnc = vm
        .qmp
        .call("query-vnc", serde_json::json!({}))
        .expect("VNC");
    let service = vnc["service"].as_str().expect("a port");
    service.parse().expect("a number")
}

fn arguments() -> [&'static str; 4] {
    [
        "-object",
        "secret,id=screen,ref=web01/vnc",
        "-vnc",
        "127.0.0.1:0,to=500,password-secret=screen",
    ]
}

#[test]
fn the_right_password_gets_in_and_a_wrong_one_does_not() {
    let site = Site::new();
    site.set("web01/vnc", b"s3cr, =t");
    for channel in ["pipe", "file", "keyring"] {
        let mut vm = Vm::start(&site, &["--strict", "--channel", channel], &arguments());
        let port = port(&mut vm);
        assert!(vnc_login(port, b"s3cr, =t"), "{channel}");
        for wrong in [&b"s3cr, =u"[..], b"s3cr, =", b"", b"S3cr, =t"] {
            assert!(!vnc_login(port, wrong), "{channel}");
        }
        assert!(!vm.log().contains("warning"), "{}", vm.log());
    }
}

#[test]
fn a_password_that_is_cut_is_warned_of() {
    let site = Site::new();
    site.set("web01/vnc", b"12345678rest");
    let mut vm = Vm::start(&site, &[], &arguments());
    let log = vm.log();
    for word in ["warning:", "web01/vnc", "VNC password", "8 bytes"] {
        assert!(log.contains(word), "{log}");
    }
    let port = port(&mut vm);
    // What the warning says is true.
    assert!(vnc_login(port, b"12345678"));
    assert!(vnc_login(port, b"12345678 anything"));
    assert!(!vnc_login(port, b"1234567"));
    assert!(vm.quit().success());

    let marker = site.path("marker");
    let emulator = site.script("qemu-system-x86_64", "#!/bin/sh\ntouch marker\n");
    let words = [&[emulator.to_str().expect("text")][..], &arguments()].concat();
    finish(&mut site.run(&["--strict"], &words))
        .exits(125)
        .says(&["web01/vnc", "8 bytes"]);
    assert!(!marker.exists());
    finish(&mut site.run(&[], &words)).ok();
    assert!(marker.exists());
}

#[test]
fn an_empty_password_is_warned_of() {
    let site = Site::new();
    site.set("web01/vnc", b"");
    let mut vm = Vm::start(&site, &[], &arguments());
    assert!(vm.log().contains("empty"), "{}", vm.log());
    // QEMU really lets everybody in.
    let port = port(&mut vm);
    assert!(vnc_login(port, b""));
    assert!(!vnc_login(port, b"x"));
}
