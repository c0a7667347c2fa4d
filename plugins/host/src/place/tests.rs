use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::atomic::{AtomicBool, Ordering};

use tempfile::TempDir;

use super::*;
use crate::testing;

/// A folder that nobody else can write, nor any above it, with a file in it.
fn a_file() -> (TempDir, PathBuf) {
    let folder = testing::folder();
    let path = folder.path().join("libx.so");
    std::fs::write(&path, "abc").expect("written");
    (folder, path)
}

fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("mode");
}

/// The refusal's message, which must be by this rule and of this kind.
#[track_caller]
fn refused(path: &Path, rule: Rule, kind: ErrorKind) -> String {
    let broken = read(path, None).expect_err("refused");
    let error = broken.error;
    assert_eq!((broken.rule, error.kind()), (rule, kind), "{error}");
    error.message().to_owned()
}

/// SHA-256 of "abc", from FIPS 180-2.
const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

#[test]
fn a_file_of_ours_is_read_and_its_digest_is_that_of_the_standard() {
    let (_folder, path) = a_file();
    let sealed = read(&path, None).expect("read");
    assert_eq!(sealed.digest.to_string(), ABC);
    let pin: Digest = ABC.parse().expect("a digest");
    read(&path, Some(&pin)).expect("as pinned");
}

#[test]
fn what_was_read_cannot_be_written_any_more() {
    use std::os::unix::fs::FileExt;
    let (_folder, path) = a_file();
    let memory = read(&path, None).expect("read").memory;
    memory.write_at(b"x", 0).expect_err("sealed");
    memory.set_len(0).expect_err("sealed");
    memory.set_len(100).expect_err("sealed");
}

#[test]
fn another_digest_than_the_pinned_one_is_refused_and_both_are_named() {
    let (_folder, path) = a_file();
    let pin: Digest = "00".repeat(32).parse().expect("a digest");
    let Broken { rule, error } = read(&path, Some(&pin)).expect_err("another");
    assert_eq!(
        (rule, error.kind()),
        (Rule::Pin, ErrorKind::PermissionDenied)
    );
    assert!(error.message().contains(ABC) && error.message().contains(&"00".repeat(32)));
}

#[test]
fn a_relative_path_is_refused() {
    let message = refused(
        Path::new("libx.so"),
        Rule::Absolute,
        ErrorKind::InvalidConfig,
    );
    assert!(message.contains("absolute"), "{message}");
}

#[test]
fn what_is_not_there_or_no_file_is_refused() {
    let (folder, path) = a_file();
    let no = |path: &Path, rule| refused(path, rule, ErrorKind::InvalidConfig);
    no(&folder.path().join("none.so"), Rule::File);
    no(&folder.path().join("none/libx.so"), Rule::Folders);
    no(&path.join("below-a-file"), Rule::Folders);
    let inner = folder.path().join("folder.so");
    std::fs::create_dir(&inner).expect("folder");
    assert!(no(&inner, Rule::File).contains("no regular file"));
    let pipe = folder.path().join("pipe.so");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, Mode::from_raw_mode(0o600)).expect("pipe");
    assert!(no(&pipe, Rule::File).contains("no regular file"));
    assert!(no(Path::new("/"), Rule::File).contains("no regular file"));
}

#[test]
fn a_file_that_is_too_long_is_refused() {
    let (_folder, path) = a_file();
    let file = File::options().write(true).open(&path).expect("open");
    // Holes, which take no room on the disk.
    file.set_len(MAX_FILE + 1).expect("grown");
    let message = refused(&path, Rule::Copied, ErrorKind::TooLarge);
    assert!(message.contains("more than 268435456 bytes"), "{message}");
}

#[test]
fn a_file_that_others_can_write_is_refused() {
    let (_folder, path) = a_file();
    for loose in [0o664, 0o646] {
        mode(&path, loose);
        let message = refused(&path, Rule::File, ErrorKind::PermissionDenied);
        assert!(
            message.contains(&format!("has mode {loose:04o}")),
            "{message}"
        );
    }
    mode(&path, 0o755);
    read(&path, None).expect("tight again");
}

#[test]
fn a_folder_that_others_can_write_is_refused_however_far_up_and_a_sticky_one_too() {
    let (folder, _) = a_file();
    let inner = folder.path().join("a/b");
    std::fs::create_dir_all(&inner).expect("folders");
    let path = inner.join("libx.so");
    std::fs::write(&path, "abc").expect("written");
    read(&path, None).expect("tight");
    mode(&folder.path().join("a"), 0o775);
    let message = refused(&path, Rule::Folders, ErrorKind::PermissionDenied);
    assert!(
        message.contains("others could write it") && message.contains("/a "),
        "{message}"
    );
    mode(&folder.path().join("a"), 0o1777);
    let message = refused(&path, Rule::Folders, ErrorKind::PermissionDenied);
    assert!(message.contains("is sticky and has mode 1777"), "{message}");
}

/// Whoever runs this: nobody has to give a file away for it.
#[test]
fn what_is_neither_roots_nor_ours_is_refused() {
    let (_folder, path) = a_file();
    let whose = |uid: u32, us: u32| {
        let mut stat = rustix::fs::stat(&path).expect("there");
        stat.st_uid = uid;
        trusted("the plugin", &path, &stat, us)
    };
    for (uid, us) in [(0, 0), (0, 1000), (1000, 1000)] {
        whose(uid, us).unwrap_or_else(|error| panic!("{uid} to {us}: {error}"));
    }
    for (uid, us) in [(1000, 0), (1001, 1000), (u32::MAX, 0)] {
        let error = whose(uid, us).expect_err("another's");
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        let words = format!("belongs to uid {uid}, who is neither root nor us");
        assert!(error.message().ends_with(&words), "{error}");
        let advice = format!("check it, then: chown {us} {}", path.display());
        assert_eq!(error.advice(), Some(advice.as_str()));
    }
}

#[test]
fn a_symbolic_link_is_refused_wherever_it_stands_and_the_file_itself_is_named() {
    let (folder, path) = a_file();
    let inner = folder.path().join("inner");
    std::fs::create_dir(&inner).expect("folder");
    let file = inner.join("libx.so");
    std::fs::rename(&path, &file).expect("moved");
    symlink(&file, &path).expect("link");
    symlink(&inner, folder.path().join("elsewhere")).expect("link");
    let through_a_folder = folder.path().join("elsewhere/libx.so");
    for (linked, by) in [(path, Rule::File), (through_a_folder, Rule::Folders)] {
        let Broken { rule, error } = read(&linked, None).expect_err("a link");
        assert_eq!((rule, error.kind()), (by, ErrorKind::PermissionDenied));
        assert!(error.message().contains("symbolic link"), "{error}");
        let advice = error.advice().expect("advice");
        assert!(advice.ends_with(&file.display().to_string()), "{advice}");
    }
    read(&file, None).expect("the file itself");
}

/// The file changes all the time, between the good and the bad one: each time either what is
/// pinned has been read, or it is refused.
#[test]
fn however_the_file_is_swapped_only_pinned_bytes_are_ever_sealed() {
    let (folder, path) = a_file();
    let good = vec![b'g'; 300_000];
    let bad = vec![b'b'; 300_000];
    std::fs::write(&path, &good).expect("written");
    let pin = read(&path, None).expect("read").digest;
    let stop = AtomicBool::new(false);
    let (mut accepted, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        let swapper = scope.spawn(|| {
            let mut turn = 0;
            while !stop.load(Ordering::Relaxed) {
                turn += 1;
                let bytes = if turn % 2 == 0 { &good } else { &bad };
                if turn % 3 == 0 {
                    // In place, so that half of each may be read.
                    std::fs::write(&path, bytes).expect("written");
                } else {
                    let other = folder.path().join("other");
                    std::fs::write(&other, bytes).expect("written");
                    std::fs::rename(&other, &path).expect("swapped");
                }
            }
        });
        let enough = |accepted, refused| accepted >= 20 && refused >= 20;
        let began = std::time::Instant::now();
        while !enough(accepted, refused) && began.elapsed().as_secs() < 60 {
            match read(&path, Some(&pin)) {
                Ok(sealed) => {
                    let mut bytes = Vec::new();
                    let mut memory = sealed.memory;
                    memory.rewind().expect("rewound");
                    memory.read_to_end(&mut bytes).expect("read");
                    assert!(bytes == good, "other bytes than the pinned ones");
                    accepted += 1;
                }
                Err(Broken { rule, error }) => {
                    assert_eq!(rule, Rule::Pin, "{error:?}");
                    refused += 1;
                }
            }
        }
        stop.store(true, Ordering::Relaxed);
        swapper.join().expect("no panic");
    });
    assert!(
        accepted >= 20 && refused >= 20,
        "{accepted} accepted, {refused} refused"
    );
}
