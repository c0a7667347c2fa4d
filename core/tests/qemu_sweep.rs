//! What a killed keyhaul leaves is swept, and nothing else: with real processes, really killed.

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use keyhaul_core::qemu::MasterKey;
use keyhaul_core::qemu::channel::{FileChannel, RuntimeDir, sweep};
use support::names;

const NOTHING: [PathBuf; 0] = [];
const CHILD: &str = "KEYHAUL_TEST_RUNTIME_DIR";

/// A folder of one test, and that test's turn. A child that another test has forked holds, until it
/// executes its program, a copy of every lock of this process: to a sweep its holder is alive.
struct Keep {
    folder: tempfile::TempDir,
    _turn: MutexGuard<'static, ()>,
}

impl Keep {
    fn path(&self) -> &Path {
        self.folder.path()
    }
}

fn runtime() -> (Keep, RuntimeDir) {
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().expect("folder");
    let runtime = RuntimeDir::open(Some(&folder.path().join("run"))).expect("opened");
    (Keep { folder, _turn }, runtime)
}

fn create(runtime: &RuntimeDir) -> FileChannel {
    let key = MasterKey::generate().expect("randomness");
    FileChannel::create(runtime, &key, None).expect("created")
}

/// This test program again, holding a key file until it is killed.
struct Holder {
    child: Child,
    folder: PathBuf,
}

impl Holder {
    fn start(runtime: &RuntimeDir) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "the_child_that_is_killed", "--nocapture"])
            .env(CHILD, runtime.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("started");
        let stdout = BufReader::new(child.stdout.as_mut().expect("piped"));
        let line = stdout
            .lines()
            .map_while(Result::ok)
            .find_map(|line| line.split_once("holds ").map(|(_, path)| path.to_owned()))
            .expect("a folder");
        Self {
            child,
            folder: line.into(),
        }
    }

    fn kill(mut self) -> PathBuf {
        self.child.kill().expect("killed");
        self.child.wait().expect("ended");
        self.folder
    }
}

/// Not a test by itself: what [`Holder`] runs.
#[test]
fn the_child_that_is_killed() {
    let Some(path) = std::env::var_os(CHILD) else {
        return;
    };
    let runtime = RuntimeDir::open(Some(Path::new(&path))).expect("opened");
    let channel = create(&runtime);
    writeln!(std::io::stdout(), "holds {}", channel.folder().display()).expect("told");
    // Until the parent closes the pipe, or kills.
    let _ = std::io::read_to_string(std::io::stdin());
}

#[test]
fn a_killed_process_is_swept_after_and_a_living_one_is_not() {
    let (_keep, runtime) = runtime();
    let living = Holder::start(&runtime);
    let killed = Holder::start(&runtime);
    assert_eq!(sweep(&runtime).expect("swept"), NOTHING);
    let folder = killed.kill();
    assert!(folder.join("master-key.aes").exists(), "the kill left it");
    assert_eq!(
        sweep(&runtime).expect("swept"),
        std::slice::from_ref(&folder)
    );
    assert!(!folder.exists());
    assert!(living.folder.join("master-key.aes").exists());
    let folder = living.kill();
    assert_eq!(sweep(&runtime).expect("swept"), [folder]);
    assert_eq!(names(runtime.path()), [""; 0]);
}

#[test]
fn a_child_that_inherited_the_lock_keeps_the_key_for_its_life() {
    let (_keep, runtime) = runtime();
    let channel = Arc::new(create(&runtime));
    let inherited = Arc::clone(&channel);
    let mut command = Command::new("cat");
    command.stdin(Stdio::piped()).stdout(Stdio::null());
    // SAFETY: one system call between fork and exec.
    unsafe {
        command.pre_exec(move || inherited.make_lock_inheritable());
    }
    let mut child = command.spawn().expect("cat");
    drop(command);
    let channel = Arc::into_inner(channel).expect("the last one");
    let folder = channel
        .settle()
        .expect("asked")
        .expect("the child is alive");
    assert_eq!(sweep(&runtime).expect("swept"), NOTHING);
    assert!(folder.join("master-key.aes").exists());
    child.kill().expect("killed");
    child.wait().expect("ended");
    assert_eq!(sweep(&runtime).expect("swept"), [folder]);
}

#[test]
fn settling_with_nobody_left_takes_the_key_away() {
    let (_keep, runtime) = runtime();
    assert_eq!(create(&runtime).settle().expect("settled"), None);
    assert_eq!(names(runtime.path()), [""; 0]);
}

#[test]
fn nothing_else_is_swept() {
    let (keep, runtime) = runtime();
    let left = create(&runtime).leave().expect("left");
    let outside = keep.path().join("outside");
    fs::create_dir(&outside).expect("made");
    for name in ["lock", "master-key.aes"] {
        fs::write(outside.join(name), "mine").expect("written");
    }
    let inside = |name: &str| runtime.path().join(name);
    symlink(&outside, inside("keyhaul-0000000000000000")).expect("linked");
    // A folder whose name is not ours, one with more in it, one whose lock leads elsewhere.
    for (name, file) in [("other", "lock"), ("keyhaul-1111111111111111", "notes")] {
        fs::create_dir(inside(name)).expect("made");
        fs::write(inside(name).join("lock"), "").expect("written");
        fs::write(inside(name).join(file), "").expect("written");
    }
    fs::create_dir(inside("keyhaul-2222222222222222")).expect("made");
    symlink(
        outside.join("lock"),
        inside("keyhaul-2222222222222222/lock"),
    )
    .expect("linked");
    fs::write(inside("keyhaul-3333333333333333"), "a file").expect("written");
    let before = tree(keep.path());
    assert_eq!(sweep(&runtime).expect("swept"), NOTHING);
    assert_eq!(tree(keep.path()), before);
    // The control: what is made before the first file is in it, and nobody is making it now.
    fs::create_dir(inside("keyhaul-4444444444444444")).expect("made");
    assert_eq!(
        sweep(&runtime).expect("swept"),
        [inside("keyhaul-4444444444444444")]
    );
    assert!(left.join("master-key.aes").exists());
}

#[test]
fn sweepers_and_makers_do_not_meet() {
    let (_keep, runtime) = runtime();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let sweeping = scope.spawn(|| {
            let mut rounds = 0_u32;
            while !done.load(Ordering::Relaxed) {
                // It may finish what a maker is removing; what a maker has is asserted below.
                sweep(&runtime).expect("swept");
                rounds += 1;
            }
            rounds
        });
        let making: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let channel = create(&runtime);
                        assert!(channel.folder().join("master-key.aes").exists());
                        channel.remove().expect("removed");
                        let left = create(&runtime).leave().expect("left");
                        assert!(left.join("master-key.aes").exists());
                        keyhaul_core::qemu::channel::release(&left).expect("released");
                    }
                })
            })
            .collect();
        for maker in making {
            maker.join().expect("no panic");
        }
        done.store(true, Ordering::Relaxed);
        assert!(sweeping.join().expect("no panic") > 0);
    });
    assert_eq!(names(runtime.path()), [""; 0]);
}

#[test]
fn what_is_made_is_private() {
    let (_keep, runtime) = runtime();
    let channel = create(&runtime);
    let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o7777;
    assert_eq!(mode(channel.folder()), 0o700);
    assert_eq!(mode(&channel.folder().join("master-key.aes")), 0o600);
    assert_eq!(
        fs::read(channel.folder().join("master-key.aes"))
            .expect("read")
            .len(),
        32
    );
    drop(channel);
    assert_eq!(names(runtime.path()), [""; 0]);
}

/// Every path below a folder, and what is in the files.
fn tree(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("listed") {
        let entry = entry.expect("entry");
        let kind = entry.file_type().expect("type");
        if kind.is_dir() {
            found.extend(tree(&entry.path()));
        }
        let bytes = if kind.is_file() {
            fs::read(entry.path()).expect("read")
        } else {
            Vec::new()
        };
        found.push((entry.path(), bytes));
    }
    found.sort();
    found
}
