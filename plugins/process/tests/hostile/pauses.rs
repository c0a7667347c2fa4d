//! When a program that failed is started again.

use keyhaul_core::layers::{self, LayerSettings};

use super::*;

#[tokio::test]
async fn a_program_that_keeps_failing_is_left_alone_for_longer_and_longer() {
    let at_once = Hostile::of("#!/bin/sh\necho $$ >>\"$0.pids\"\nexit 1\n");
    let when_asked = Hostile::new("read -r line; exit 1\n");
    futures_util::future::join(left_alone(&at_once), left_alone(&when_asked)).await;
}

async fn left_alone(hostile: &Hostile) {
    let mut longest = Duration::ZERO;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(2) {
        let error = hostile.fails().await;
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        longest = longest.max(error.retry_after().unwrap_or_default());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // After 0, 0.1, 0.3, 0.7 and 1.5 s: not once a millisecond.
    let starts = hostile.processes().len();
    assert!((3..=6).contains(&starts), "{starts} starts");
    assert!(longest > Duration::from_millis(500), "{longest:?}");
}

/// What one crash costs: nothing, where somebody asks again.
#[tokio::test]
async fn a_program_that_dies_once_is_asked_again_by_the_retries() {
    let dies_once =
        format!("if [ ! -e \"$0.died\" ]; then read -r line; >\"$0.died\"; exit 3; fi\n{WELL}");
    for retries in [3, 0] {
        let hostile = Hostile::new(&dies_once);
        let mut settings = LayerSettings::default();
        settings.retries = retries;
        let store = layers::standard(hostile.store.clone(), &settings, None);
        let answer = store.get(&path("a"), &GetOptions::default()).await;
        match (retries, answer) {
            (0, answer) => {
                let error = answer.expect_err("nobody asks again");
                assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
            }
            (_, answer) => {
                assert_eq!(answer.expect("served").value.expose(), b"hunter2");
                assert_eq!(hostile.processes().len(), 2);
            }
        }
    }
}

#[tokio::test]
async fn a_program_that_died_a_while_ago_is_started_by_the_first_request() {
    let hostile = Hostile::new(WELL);
    hostile.get().await.expect("served");
    let pid = rustix::process::Pid::from_raw(hostile.processes()[0]).expect("a process");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("killed");
    hostile.nothing_is_left().await;
    // The pause after a first failure, and more than it.
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert_eq!(hostile.get().await.expect("served"), b"hunter2");
}

#[tokio::test]
async fn a_program_that_dies_after_each_answer_is_never_left_alone_for_long() {
    let hostile = Hostile::new("read -r line; answer ',\"value\":\"hunter2\"'; exit 3\n");
    let mut served = 0;
    while served < 6 {
        match hostile.get().await {
            Ok(_) => served += 1,
            Err(error) => {
                let wait = error.retry_after().unwrap_or_default();
                // As after one failure; after the sixth in a row it were 3.2 s.
                assert!(
                    wait <= Duration::from_millis(100),
                    "{wait:?} after {served}"
                );
                tokio::time::sleep(wait).await;
            }
        }
    }
    assert_eq!(hostile.processes().len(), 6);
}

#[tokio::test]
async fn a_credential_from_a_pipe_is_there_for_the_next_start_too() {
    let place = Place::new();
    let program = place.program(
        "options",
        "#!/bin/sh\nread -r line\n\
         echo '{\"keyhaul\":1,\"name\":\"x\",\"version\":\"1\",\"capabilities\":[\"read\"],\"options\":[{\"name\":\"pin\",\"kind\":\"credential\"}]}'\n\
         read -r line; echo \"$line\" >>\"$0.seen\"; echo '{\"id\":1}'\n\
         read -r line; echo '{\"id\":2,\"value\":\"hunter2\"}'; exit 3\n",
    );
    let (read, mut write) = std::io::pipe().expect("pipe");
    std::io::Write::write_all(&mut write, b"1234").expect("written");
    drop(write);
    let source = format!("fd:{}", std::os::fd::AsRawFd::as_raw_fd(&read));
    let options = Options::at("keyhaul.toml:3:1", [("pin", source)]);
    let store = place.store_with(&program, [("options", options.into())]);
    let mut served = 0;
    while served < 2 {
        match store.get(&path("a"), &GetOptions::default()).await {
            Ok(_) => served += 1,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
                tokio::time::sleep(error.retry_after().unwrap_or_default()).await;
            }
        }
    }
    let seen = std::fs::read_to_string(place.path().join("options.seen")).expect("written");
    let told = "{\"id\":1,\"do\":\"credential\",\"option\":\"pin\",\"base64\":\"MTIzNA==\"}\n";
    assert_eq!(seen, told.repeat(2));
}
