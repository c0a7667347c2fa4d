//! What the store needs of its host: the program, the key and the TPM2.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use keyhaul_core::{ErrorKind, GetOptions, PutOptions, Request};
use support::steps::{INSIDE, again, kind, read, version, write};
use support::{Place, creds, open, options, path, secret};

#[tokio::test]
async fn a_program_that_others_could_exchange_is_not_given_a_value() {
    let place = Place::new();
    let folder = place.path().join("bin");
    fs::create_dir(&folder).expect("made");
    let (ran, program) = (folder.join("ran"), folder.join("program"));
    let script = format!(
        "#!/bin/sh\n: >{}\nexec /usr/bin/systemd-creds \"$@\"\n",
        ran.display()
    );
    keyhaul_servers::script(&program, &script);
    let mode = |path: &Path, mode| {
        fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("a mode");
    };
    mode(&folder, 0o755);
    place.encrypt("a", &["--with-key=host"], "value");
    let store = place.store_with(&[("program", &program.to_string_lossy())]);
    for (open, other) in [(&program, 0o775), (&folder, 0o777), (&folder, 0o1777)] {
        mode(open, other);
        let options = PutOptions::default();
        let put = store.put(&path("b"), &secret("new"), &options).await;
        assert_eq!(put.expect_err("open").kind(), ErrorKind::PermissionDenied);
        assert_eq!(kind(&*store, "a").await, ErrorKind::PermissionDenied);
        let error = store.probe().await.expect_err("open");
        assert!(
            error.message().contains(&*open.to_string_lossy()),
            "{error}"
        );
        assert!(!ran.exists(), "{other:o}");
        mode(open, 0o755);
    }
    // The control.
    assert_eq!(read(&*store, "a").await.expect("read"), "value");
    assert!(ran.exists());
}

#[tokio::test]
async fn a_check_fails_for_what_is_no_systemd_creds_of_these_days() {
    let place = Place::new();
    let before = fs::read_dir(place.path()).expect("listed").count();
    place.store().probe().await.expect("the control");
    assert_eq!(fs::read_dir(place.path()).expect("listed").count(), before);
    for (version, word) in [
        ("systemd 249 (249.11)", "249"),
        ("systemctl of old", "version"),
        ("", "version"),
    ] {
        let program = place.program(&format!(
            "if [ \"$1\" = --version ]; then echo '{version}'; exit; fi"
        ));
        let store = place.store_with(&[("program", &program.to_string_lossy())]);
        let error = store.probe().await.expect_err(version);
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert!(error.message().contains(word), "{error}");
    }
    // It was the version.
    let program = place.program("[ \"$1\" != --version ] || { echo 'systemd 250~rc1'; exit; }");
    let store = place.store_with(&[("program", &program.to_string_lossy())]);
    store.probe().await.expect("as old as can be");
}

#[tokio::test]
async fn the_value_is_in_no_argument_no_environment_and_no_file() {
    let place = Place::new();
    let seen = place.path().join(".seen");
    let seen = seen.to_string_lossy();
    let does = format!("{{ echo \"$@\"; env; ls -l /proc/self/fd; }} >>{seen}");
    let program = place.program(&does);
    let store = place.store_with(&[("program", &program.to_string_lossy())]);
    write(&*store, "a-name", "very-secret-value").await;
    assert_eq!(
        read(&*store, "a-name").await.expect("read"),
        "very-secret-value"
    );
    for file in fs::read_dir(place.path()).expect("listed") {
        let bytes = fs::read(file.expect("an entry").path()).expect("read");
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.contains("very-secret"), "{text}");
    }
    let seen = fs::read_to_string(&*seen).expect("seen");
    // The controls: both runs were seen, and what was in them.
    for part in ["encrypt --name=a-name", "decrypt --name=a-name", "PWD=/"] {
        assert!(seen.contains(part), "{seen}");
    }
    assert!(!seen.contains("CARGO"), "{seen}");
}

#[tokio::test]
async fn a_program_that_hangs_is_given_up_by_the_callers_deadline() {
    let place = Place::new();
    let program = place.program("exec sleep 1000");
    let store = place.store_with(&[("program", &program.to_string_lossy())]);
    place.encrypt("a", &["--with-key=host"], "value");
    let begun = Instant::now();
    let request = Request::default().deadline(Some(begun + Duration::from_millis(200)));
    let options = GetOptions::default().request(request.clone());
    let error = store.get(&path("a"), &options).await.expect_err("hangs");
    assert_eq!(error.kind(), ErrorKind::Timeout);
    let options = PutOptions::default().request(request);
    let error = store.put(&path("a"), &secret("new"), &options).await;
    assert_eq!(error.expect_err("hangs").kind(), ErrorKind::Timeout);
    assert!(begun.elapsed() < Duration::from_secs(10));
    // What was there is intact.
    assert_eq!(read(&*place.store(), "a").await.expect("read"), "value");
}

#[tokio::test]
async fn a_program_that_seals_another_value_overwrites_nothing() {
    let place = Place::new();
    write(&*place.store(), "a", "value").await;
    let program = place.program(
        "if [ \"$1\" = encrypt ]; then { echo more; cat; } | /usr/bin/systemd-creds \"$@\"; exit; fi",
    );
    let store = place.store_with(&[("program", &program.to_string_lossy())]);
    let options = PutOptions::default();
    let error = store.put(&path("a"), &secret("new"), &options).await;
    let error = error.expect_err("another value");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert_eq!(read(&*store, "a").await.expect("read"), "value");
}

#[tokio::test]
async fn a_credential_for_a_tpm2_that_is_not_there_is_no_damage() {
    // Where there is one, what it does not open is damaged.
    let expected = match creds(&["has-tpm2"], "").status.success() {
        true => ErrorKind::Corrupt,
        false => ErrorKind::Unavailable,
    };
    let place = Place::new();
    let store = place.store();
    // Begun as one that is sealed to a TPM2, alone and with the host's key, to signed PCRs, to a
    // user, and to what no systemd knows today.
    for start in [
        "DHzAexF2RZGcSwvqCLwg/g",
        "k6iUCUh0RJCQyvL8k8q1Uw",
        "+vfrk0HjQSyhpDb5Wik2Lw",
        "r0lQqEkTTrGnOEYwT/MMBQ",
        "70rBNnmpSA6n22iJf58WXQ",
        "rbxMo++2QgG6iBtvLkCV6g",
        "////////////////////Aw",
    ] {
        fs::write(
            place.path().join("a"),
            format!("{start}{}", "A".repeat(200)),
        )
        .expect("written");
        let error = read(&*store, "a").await.expect_err("no TPM2");
        // Where there is one, a signature is what these lack.
        let signed = ["+vfrk0", "r0lQqE", "rbxMo+"].contains(&&start[..6]);
        let other = if signed {
            ErrorKind::Unavailable
        } else {
            expected
        };
        assert!([expected, other].contains(&error.kind()), "{error:?}");
        let told = error
            .advice()
            .is_some_and(|advice| advice.contains("tpm2") || advice.contains("TPM2"));
        assert!(told, "{start}: {error:?}");
    }
    // The controls: to the host's key alone, the host's and a user's.
    for start in ["Whxqht+dQJax1aZeCGLxmi", "VbntHThZTUOoMZ0uuzMqxi"] {
        fs::write(
            place.path().join("a"),
            format!("{start}{}", "A".repeat(200)),
        )
        .expect("written");
        assert_eq!(kind(&*store, "a").await, ErrorKind::Corrupt, "{start}");
    }
}

#[tokio::test]
async fn whoever_may_not_use_the_hosts_key_is_told_so() {
    if let Ok(folder) = std::env::var(INSIDE) {
        let store_of =
            |more: &[(&str, &str)]| open(options(&[&[("folder", folder.as_str())], more].concat()));
        let store = store_of(&[("key", "host")]);
        let came = read(&*store, "a").await.map_err(|error| error.kind());
        // From version 256 on, a service of systemd's does it for others, or refuses in its turn.
        let denied = Err(ErrorKind::PermissionDenied);
        assert!(came == denied || version() >= 256 && came == Ok("value".to_owned()));
        if version() >= 256 {
            return;
        }
        for key in ["host", "auto"] {
            let error = store_of(&[("key", key)]).probe().await.expect_err(key);
            assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{key}: {error}");
            assert!(error.message().contains("only root"), "{error}");
        }
        // A TPM2 that is not there is none to root either.
        let nowhere = [("key", "tpm2"), ("tpm2-device", "/dev/nowhere")];
        let error = store_of(&nowhere).probe().await.expect_err("no TPM2");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");

        // A stand-in for the later program, which asks the service, and is refused.
        let program = format!("{folder}/.program");
        let store = store_of(&[("key", "host"), ("program", &program)]);
        let error = read(&*store, "a").await.expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
        assert!(error.message().contains("service"), "{error}");
        let error = store.probe().await.expect_err("refused");
        assert!(!error.message().contains("only root"), "{error}");
        return;
    }
    let place = Place::new();
    place.encrypt("a", &["--with-key=host"], "value");
    fs::set_permissions(place.path(), PermissionsExt::from_mode(0o755)).expect("a mode");
    let readable = PermissionsExt::from_mode(0o644);
    fs::set_permissions(place.path().join("a"), readable).expect("a mode");
    place.program("[ \"$1\" != --version ] || exec echo 'systemd 257 (257.1)'\necho 'Access denied' >&2; exit 1");
    let nobody = [
        "setpriv",
        "--reuid=61234",
        "--regid=61234",
        "--clear-groups",
    ];
    again(
        &nobody,
        "whoever_may_not_use_the_hosts_key_is_told_so",
        place.path(),
    );
}

#[tokio::test]
async fn a_host_without_a_key_says_so_and_makes_one_with_the_first_write() {
    const HOST_KEY: &str = "/var/lib/systemd/credential.secret";
    if let Ok(folder) = std::env::var(INSIDE) {
        assert!(!Path::new(HOST_KEY).exists());
        let store = open(options(&[("folder", &folder), ("key", "host")]));
        let error = read(&*store, "theirs").await.expect_err("no key");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        assert!(error.message().contains(HOST_KEY), "{error}");
        let error = store.probe().await.expect_err("no key");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        assert!(!Path::new(HOST_KEY).exists(), "a check changes nothing");
        write(&*store, "ours", "value").await;
        store.probe().await.expect("a key");
        assert_eq!(read(&*store, "ours").await.expect("read"), "value");
        // Now there is a key, and it is another one.
        assert_eq!(kind(&*store, "theirs").await, ErrorKind::Corrupt);

        // systemd keeps from sealing to a key that is gone with the next boot, unless it is told to.
        fs::remove_file(HOST_KEY).expect("gone");
        let store = open(options(&[("folder", &folder)]));
        let value = secret("value");
        let options = PutOptions::default();
        let done = store.put(&path("auto"), &value, &options).await;
        let done = done.map_err(|error| error.kind()).map(|_| ());
        let has_tpm2 = creds(&["has-tpm2"], "").status.success();
        let expected = has_tpm2.then_some(()).ok_or(ErrorKind::Unavailable);
        assert_eq!(done, expected);
        return;
    }
    let place = Place::new();
    place.encrypt("theirs", &["--with-key=host"], "value");
    // A host that was never booted, as a container is: systemd's folder is empty, and in memory.
    let script = "mount -t tmpfs none /var/lib/systemd && exec \"$@\"";
    again(
        &["unshare", "--mount", "sh", "-c", script, "sh"],
        "a_host_without_a_key_says_so_and_makes_one_with_the_first_write",
        place.path(),
    );
    // The control: here it opens.
    assert_eq!(
        read(&*place.store(), "theirs").await.expect("ours"),
        "value"
    );
}
