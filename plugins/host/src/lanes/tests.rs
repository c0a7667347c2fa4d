use std::collections::HashSet;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc;

use super::*;

fn soon(ms: u64) -> Option<Instant> {
    Some(Instant::now() + Duration::from_millis(ms))
}

#[tokio::test]
async fn a_thousand_calls_share_a_few_threads() {
    let lanes = Lanes::new();
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let threads = Arc::new(Mutex::new(HashSet::new()));
    let calls = (0..1000_usize).map(|number| {
        let (now, most, threads) = (now.clone(), most.clone(), threads.clone());
        lanes.run(None, move |_| {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            threads
                .lock()
                .expect("no panic")
                .insert(thread::current().id());
            thread::sleep(Duration::from_micros(100));
            now.fetch_sub(1, Ordering::SeqCst);
            Ok(number)
        })
    });
    let done = futures_util::future::join_all(calls).await;
    let done: Vec<usize> = done.into_iter().map(|one| one.expect("done")).collect();
    assert_eq!(done, (0..1000).collect::<Vec<_>>());
    let most = most.load(Ordering::SeqCst);
    assert!(most <= LANES, "{most} at once");
    let threads = threads.lock().expect("no panic").len();
    assert!((2..=LANES).contains(&threads), "{threads} threads");
}

#[tokio::test]
async fn a_plugins_threads_take_no_signal() {
    let blocked = || {
        let status = std::fs::read_to_string("/proc/thread-self/status").expect("status");
        let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:"));
        u64::from_str_radix(mask.expect("a mask").trim(), 16).expect("hexadecimal")
    };
    // The control: it is not so of any thread.
    let term = 1 << (libc::SIGTERM - 1);
    assert_eq!(blocked() & term, 0);
    let mask = Lanes::new().run(None, move |_| Ok(blocked())).await;
    // All but those that nobody can block.
    let all = term | 1 << (libc::SIGINT - 1) | 1 << (libc::SIGHUP - 1) | 1 << (libc::SIGCHLD - 1);
    assert_eq!(mask.expect("done") & all, all);
}

#[tokio::test]
async fn who_waits_stops_at_the_deadline_and_the_call_is_told() {
    let lanes = Lanes::new();
    let (sender, receiver) = mpsc::channel();
    let began = Instant::now();
    let error = lanes
        .run(soon(50), move |waiting| {
            while !waiting.cancelled.load(Ordering::Relaxed) {
                thread::yield_now();
            }
            sender.send(()).expect("heard");
            Ok(())
        })
        .await
        .expect_err("late");
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(began.elapsed() < Duration::from_secs(5));
    receiver
        .recv_timeout(Duration::from_secs(10))
        .expect("told");
}

#[tokio::test]
async fn calls_that_do_not_come_back_close_the_door_and_open_it_when_they_do() {
    let lanes = Lanes::with_grace(Duration::ZERO);
    let (let_go, held) = mpsc::channel::<()>();
    let held = Arc::new(Mutex::new(held));
    for _ in 0..MAX_STUCK {
        let held = held.clone();
        let stuck = lanes.run(soon(20), move |_| {
            // Ends when the other end is gone.
            let _ = held.lock().expect("no panic").recv();
            Ok(())
        });
        assert_eq!(stuck.await.expect_err("stuck").kind(), ErrorKind::Timeout);
    }
    let error = lanes.run(soon(1000), |_| Ok(())).await.expect_err("closed");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().starts_with("8 calls"), "{error}");
    drop(let_go);
    let began = Instant::now();
    while lanes.run(soon(1000), |_| Ok(())).await.is_err() {
        assert!(began.elapsed() < Duration::from_secs(10), "still closed");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_panic_of_ours_fails_the_call_and_not_the_thread() {
    let lanes = Lanes::new();
    let broken = lanes.run::<()>(None, |_| panic!("on purpose")).await;
    assert_eq!(broken.expect_err("broken").kind(), ErrorKind::Internal);
    assert_eq!(lanes.run(None, |_| Ok(7)).await.expect("works"), 7);
}

#[tokio::test]
async fn one_call_after_the_other_is_one_thread() {
    let lanes = Lanes::new();
    let first = lanes.run(None, |_| Ok(thread::current().id())).await;
    let first = first.expect("done");
    for _ in 0..1000 {
        let next = lanes.run(None, |_| Ok(thread::current().id())).await;
        assert_eq!(next.expect("done"), first);
    }
}
