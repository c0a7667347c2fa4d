//! Guests move between two QEMUs, each of which has resolved its secrets for itself: what a
//! migration carries holds none of them.

use std::fs;
use std::path::Path;

use keyhaul_e2e::{Disk, PASSPHRASE, Site, Vm, guest_words};

const ROOT: &str = "secret,id=root,ref=web01/root";

/// A VM in `site` with the guest's words and some more.
fn start(site: &Site, object: &str, disk: &Path, more: &[&str]) -> Vm {
    let words = guest_words(object, Disk::Luks, disk);
    let mut words: Vec<&str> = words.iter().map(String::as_str).collect();
    words.extend(more);
    Vm::start(site, &[], &words)
}

#[test]
fn a_guest_moves_to_a_second_qemu_that_resolves_for_itself() {
    let (source_site, target_site) = (Site::with_passphrases(), Site::with_passphrases());
    let disk = source_site.disk(Disk::Luks);
    let mut source = start(&source_site, ROOT, &disk, &[]);
    source.resume();
    assert!(source.reads_own_disk(), "{}", source.log());

    let way = format!("unix:{}", target_site.path("vm/migration").display());
    let mut target = start(&target_site, ROOT, &disk, &["-incoming", "defer"]);
    assert_eq!(target.state(), "inmigrate");
    target.receive(&way);
    source.migrate(&way);
    assert_eq!(source.state(), "postmigrate");
    assert!(source.quit().success());

    target.migrated();
    target.resume();
    assert!(target.reads_own_disk(), "{}", target.log());
    assert!(target.quit().success());
}

#[test]
fn a_saved_guest_goes_on_and_its_image_holds_no_passphrase() {
    let site = Site::with_passphrases();
    let disk = site.disk(Disk::Luks);
    let image = site.path("vm/memory");
    let mut vm = start(&site, ROOT, &disk, &[]);
    vm.resume();
    assert!(vm.reads_own_disk(), "{}", vm.log());
    vm.migrate(&format!("exec:cat > {}", image.display()));
    assert!(vm.quit().success());

    let saved = fs::read(&image).expect("the image");
    assert!(saved.starts_with(b"QEVM"), "no memory image");
    let holds = |bytes: &[u8]| saved.windows(bytes.len()).any(|window| window == bytes);
    // The control: what the guest's own memory holds is in it.
    assert!(holds(b"SeaBIOS"));
    assert!(!holds(PASSPHRASE.as_bytes()));

    let from = format!("exec:cat {}", image.display());
    let mut vm = start(&site, ROOT, &disk, &["-incoming", "defer"]);
    vm.receive(&from);
    vm.migrated();
    vm.resume();
    assert!(vm.reads_own_disk(), "{}", vm.log());
    assert!(vm.quit().success());

    // With a wrong passphrase there is no QEMU to restore it into.
    let wrong = guest_words("secret,id=root,ref=web01/wrong", Disk::Luks, &disk);
    let mut wrong: Vec<&str> = wrong.iter().map(String::as_str).collect();
    wrong.extend(["-incoming", &from]);
    Vm::fail(&site, &[], &wrong)
        .exits(1)
        .says(&["Invalid password"]);
}
