//! Disks without room.

use super::*;

/// A writer on `/dev/full`, where each write fails as on a disk without room.
#[test]
fn without_room_nothing_is_recorded_and_that_is_said() {
    let (_folder, path) = folder();
    let head = written(&path, 1);
    let full = fs::OpenOptions::new()
        .append(true)
        .open("/dev/full")
        .expect("Linux has it");
    let published = Published(Mutex::new((
        Arc::new(Locked::device(File::open("/dev/null").expect("there"))),
        0,
        head.clone(),
    )));
    let writer = Writer::new(
        &path,
        Arc::new(Locked::device(full)),
        0,
        head.clone(),
        Arc::new(published),
    );
    let (commands, received) = mpsc::channel();
    let thread = std::thread::spawn(move || writer.run(&received));
    for _ in 0..3 {
        let (answer, answered) = oneshot::channel();
        let mut bodies = Vec::new();
        entry("web01/a").body(&mut bodies).expect("in words");
        let pending = Pending {
            ends: vec![bodies.len()],
            bodies,
            reads: Vec::new(),
            answer,
            room: None,
        };
        commands.send(Command::Append(pending)).expect("it listens");
        let error = block_on(answered).expect("answered").expect_err("no room");
        // Truncating a device fails too, so that later ones fail on that.
        assert!(
            matches!(
                error.kind(),
                ErrorKind::StorageFull | ErrorKind::Unavailable
            ),
            "{error}"
        );
    }
    drop(commands);
    thread.join().expect("ended");
}

/// A disk of 64 KiB, which fills up and is emptied again.
#[test]
fn a_full_disk_fails_closed_and_goes_on_when_there_is_room() {
    let folder = tempfile::tempdir().expect("folder");
    // A mount of our own, seen by nobody else, gone with the process that made it.
    let script = r#"mount -t tmpfs -o size=64k,mode=0700 tmpfs "$0" && exec "$1" --exact --nocapture --test-threads=1 \
        server::audit::tests::disk::on_a_small_disk"#;
    let output = std::process::Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", script])
        .arg(folder.path())
        .arg(std::env::current_exe().expect("this program"))
        .env(SMALL_DISK, folder.path())
        .output()
        .expect("unshare, of the package util-linux");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    assert!(text.contains("the small disk was full"), "{text}");
}

const SMALL_DISK: &str = "KEYHAUL_TEST_SMALL_DISK";

/// Run again by the test above, on the disk that it made; by itself it has nothing to do.
#[test]
#[expect(clippy::print_stdout, reason = "the parent reads it")]
fn on_a_small_disk() {
    let Some(folder) = std::env::var_os(SMALL_DISK) else {
        return;
    };
    let path = Path::new(&folder).join("audit.jsonl");
    let ballast = Path::new(&folder).join("ballast");
    fs::write(&ballast, vec![0; 32 * 1024]).expect("room");
    let log = AuditLog::open(&path, None).expect("opened");
    let mut recorded = 0;
    let error = loop {
        match write(&log, "web01/a") {
            Ok(number) => recorded = number,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
    assert!(recorded > 10);
    write(&log, "web01/b").expect_err("still full");
    assert_eq!(log.head().sequence, recorded);
    assert_eq!(lines(&path).len() as u64, recorded, "nothing half done");
    fs::remove_file(ballast).expect("room again");
    assert_eq!(write(&log, "web01/c").expect("recorded"), recorded + 1);
    let verified = verify(&[path], Some(&log.head())).expect("sound");
    assert_eq!(verified.records, recorded + 1);
    println!("the small disk was full");
}
