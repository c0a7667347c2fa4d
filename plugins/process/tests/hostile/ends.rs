//! Programs that end, hang or stay: the right error, and nothing left running.

use super::*;

#[tokio::test]
async fn a_program_that_does_not_go_when_its_stdin_ends_is_killed() {
    let stays = Hostile::new(&format!("{WELL}exec sleep 60\n"));
    stays.get().await.expect("served");
    let pid = stays.processes()[0];
    let Hostile {
        store,
        place: _place,
        ..
    } = stays;
    drop(store);
    let process = format!("/proc/{pid}");
    within("it to end", || !std::path::Path::new(&process).exists()).await;
}

/// As at the end of a command, which may become another program at once.
#[test]
fn a_runtime_and_a_store_that_go_away_leave_no_process_behind() {
    for runtime_first in [true, false] {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let good = Hostile::new(WELL);
        runtime.block_on(good.get()).expect("served");
        let process = format!("/proc/{}", good.processes()[0]);
        assert!(std::path::Path::new(&process).exists());
        let Hostile {
            store,
            place: _place,
            ..
        } = good;
        if runtime_first {
            runtime.shutdown_background();
            drop(store);
        } else {
            drop(store);
            runtime.shutdown_background();
        }
        assert!(!std::path::Path::new(&process).exists(), "{runtime_first}");
    }
}

#[tokio::test]
async fn a_program_that_ends_is_unavailable_and_says_how() {
    for (body, how) in [
        ("read -r line; exit 3\n", "exited with status 3"),
        ("read -r line; kill -ABRT $$\n", "signal 6"),
        // Half a line, and the end.
        (
            "read -r line; printf '{\"id\":1,\"val'; exit 0\n",
            "exited with status 0",
        ),
        (
            "read -r line; exec >&-; exec sleep 60\n",
            "closed its stdout",
        ),
    ] {
        let hostile = Hostile::new(body);
        let error = hostile.fails().await;
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{body}: {error:?}");
        assert!(error.message().contains(how), "{body}: {error:?}");
        hostile.nothing_is_left().await;
        hostile.recovers().await;
    }
}

#[tokio::test]
async fn a_program_that_hangs_is_killed_with_all_it_started() {
    for body in [
        // With a child that holds the pipes, in the same group.
        "sleep 60 & echo $! >>\"$0.pids\"; read -r line; sleep 60\n",
        // Never reads.
        "exec sleep 60\n",
        // Half a line, and nothing more.
        "read -r line; printf '{\"id\":1,'; exec sleep 60\n",
        // Ignores what it can ignore.
        "trap '' TERM INT HUP PIPE; read -r line; sleep 60\n",
        // Stops itself.
        "read -r line; kill -STOP $$\n",
    ] {
        let hostile = Hostile::new(body);
        let error = hostile.fails().await;
        assert_eq!(error.kind(), ErrorKind::Timeout, "{body}: {error:?}");
        assert!(
            error.message().contains("said nothing for 500 ms"),
            "{error:?}"
        );
        hostile.nothing_is_left().await;
        hostile.recovers().await;
    }
}

/// The caller has gone; what the program is, it is without anybody who waits.
#[tokio::test]
async fn a_program_that_hangs_is_killed_also_when_nobody_waits_any_more() {
    let hostile = Hostile::new("read -r line; exec sleep 60\n");
    hostile.store.capabilities().await.expect("started");
    let deadline = Instant::now() + Duration::from_millis(50);
    let options = GetOptions::default().request(Request::default().deadline(Some(deadline)));
    let answer = hostile.store.get(&path("a"), &options).await;
    let error = answer.expect_err("too late");
    assert!(error.message().contains("by the deadline"), "{error:?}");
    hostile.nothing_is_left().await;
    // The control: one of which nothing is asked may be silent for longer than that.
    let silent = Hostile::new(WELL);
    silent.get().await.expect("served");
    tokio::time::sleep(Duration::from_millis(700)).await;
    silent.get().await.expect("served");
    assert_eq!(silent.processes().len(), 1);
}

#[tokio::test]
async fn what_a_program_leaves_behind_is_killed_with_it() {
    let hostile = Hostile::new("sleep 60 & echo $! >>\"$0.pids\"; read -r line; exit 0\n");
    assert_eq!(hostile.fails().await.kind(), ErrorKind::Unavailable);
    assert_eq!(hostile.processes().len(), 2);
    hostile.nothing_is_left().await;
}

/// What leaves the group is out of reach, and holds nobody up.
#[tokio::test]
async fn a_process_that_leaves_the_group_and_holds_the_pipes_holds_nothing_up() {
    for (goes_on, ends) in [
        ("exec sleep 60", false),
        // Drips into the plugin's stdout, and into its stderr for as long as somebody reads that.
        ("while printf x; do sleep 0.05; done", true),
        ("while echo x >&2; do sleep 0.05; done", true),
    ] {
        let leaves = format!(
            "setsid sh -c 'echo $$ >\"$0.left\"; {goes_on}' \"$0\" & read -r line\n\
             while [ ! -s \"$0.left\" ]; do sleep 0.01; done; exit 0\n"
        );
        let hostile = Hostile::new(&leaves);
        let begun = Instant::now();
        let error = hostile.fails().await;
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        assert!(begun.elapsed() < Duration::from_secs(5));
        hostile.nothing_is_left().await;
        let left = hostile.place.path().join("hostile.left");
        let left = std::fs::read_to_string(left).expect("written");
        let left = rustix::process::Pid::from_raw(left.trim().parse().expect("a number"));
        let left = left.expect("a process");
        if ends {
            // Nobody reads it any more: the pipe breaks, and the process with it.
            within("the pipe to break", || {
                rustix::process::test_kill_process(left).is_err()
            })
            .await;
        } else {
            // The control: it has outlived the plugin.
            rustix::process::kill_process(left, rustix::process::Signal::KILL).expect("there");
        }
        hostile.recovers().await;
    }
}

#[tokio::test]
async fn a_deadline_ends_the_wait_and_the_program_goes_on() {
    // It answers when the test says so, and so not before the caller has gone.
    let hostile = Hostile::with_stall(
        "20s",
        "read -r line; while [ ! -e \"$0.go\" ]; do sleep 0.01; done; answer ',\"value\":\"late\"'\nread -r cancelled; echo \"$cancelled\" >\"$0.cancelled\"\n\
         while read -r line; do answer ',\"value\":\"hunter2\"'; done\n",
    );
    hostile.store.capabilities().await.expect("started");
    let deadline = Instant::now() + Duration::from_millis(100);
    let request = Request::default().deadline(Some(deadline));
    let options = GetOptions::default().request(request);
    let error = hostile
        .store
        .get(&path("a"), &options)
        .await
        .expect_err("too late");
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.message().contains("by the deadline"), "{error:?}");
    std::fs::write(hostile.place.path().join("hostile.go"), "").expect("written");
    // The late answer is nobody's, and no breach: the same process serves on.
    assert_eq!(hostile.get().await.expect("served"), b"hunter2");
    assert_eq!(hostile.processes().len(), 1);
    let cancelled = hostile.place.path().join("hostile.cancelled");
    let cancelled = std::fs::read_to_string(cancelled).expect("written");
    assert_eq!(cancelled, "{\"cancel\":1}\n");
}
