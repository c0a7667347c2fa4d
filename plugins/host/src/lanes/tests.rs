use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
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

/// Also who leaves before the deadline.
#[tokio::test]
async fn a_call_is_told_when_nobody_waits_for_it_any_more() {
    let lanes = Lanes::new();
    let (sender, receiver) = mpsc::channel();
    let call = lanes.run(None, move |waiting| {
        while !waiting.is_over() {
            thread::yield_now();
        }
        sender.send(()).expect("heard");
        Ok(())
    });
    let left = time::timeout(Duration::from_millis(20), call).await;
    left.expect_err("nobody waits");
    receiver
        .recv_timeout(Duration::from_secs(10))
        .expect("told");
}

#[tokio::test]
async fn who_waits_stops_at_the_deadline_and_the_call_is_told() {
    let lanes = Lanes::new();
    let (sender, receiver) = mpsc::channel();
    let (let_go, held) = mpsc::channel::<()>();
    let began = Instant::now();
    let error = lanes
        .run(soon(50), move |waiting| {
            while !waiting.is_over() {
                thread::yield_now();
            }
            sender.send(()).expect("heard");
            // Ends when the other end is gone.
            let _ = held.recv();
            Ok(())
        })
        .await
        .expect_err("late");
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(began.elapsed() < Duration::from_secs(5));
    receiver
        .recv_timeout(Duration::from_secs(10))
        .expect("told");
    drop(let_go);
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
async fn one_call_after_the_other_is_one_thread_and_of_many_calls_a_few() {
    let lanes = Lanes::new();
    let mut threads = HashSet::new();
    for number in 1..1000 {
        let thread = lanes.run(None, |_| Ok(thread::current().id())).await;
        threads.insert(thread.expect("done"));
        let most = if number <= OFTEN { 1 } else { IN_TURN };
        assert!(threads.len() <= most, "{} for {number}", threads.len());
    }
    assert!(threads.len() > 1, "they take turns");
}

/// Has the kernel refuse threads to this one, as a limit of processes does.
fn refuse_threads() {
    let statement = |code, k| libc::sock_filter {
        code,
        jt: 0,
        jf: 0,
        k,
    };
    let is = |call: libc::c_long, then| libc::sock_filter {
        jt: then,
        // BPF_JMP | BPF_JEQ | BPF_K.
        ..statement(0x15, u32::try_from(call).expect("a number"))
    };
    let again = u32::try_from(libc::EAGAIN).expect("a number");
    let mut filter = [
        // The call's number: BPF_LD | BPF_W | BPF_ABS.
        statement(0x20, 0),
        is(libc::SYS_clone, 2),
        is(libc::SYS_clone3, 1),
        // BPF_RET | BPF_K.
        statement(0x06, libc::SECCOMP_RET_ALLOW),
        statement(0x06, libc::SECCOMP_RET_ERRNO | again),
    ];
    let program = libc::sock_fprog {
        len: 5,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: the program has five statements, which live until the call returns.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let mode = libc::SECCOMP_MODE_FILTER;
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, mode, &program), 0);
    }
}

/// What says on which thread it was dropped: as a store's last owner does, which closes it there.
struct Closes(mpsc::Sender<thread::ThreadId>);

impl Drop for Closes {
    fn drop(&mut self) {
        self.0.send(thread::current().id()).expect("heard");
    }
}

#[tokio::test]
async fn where_no_thread_can_be_had_nothing_is_done_on_the_callers() {
    let lanes = Lanes::new();
    let (sender, closed) = mpsc::channel();
    let (closes, given) = (Closes(sender.clone()), Closes(sender));
    let refused = lanes.clone();
    let work = move || {
        // The control: there are threads.
        thread::spawn(|| ()).join().expect("no panic");
        refuse_threads();
        thread::Builder::new().spawn(|| ()).expect_err("no thread");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime");
        let call = refused.run(None, move |_| {
            drop(given);
            Ok(())
        });
        let error = runtime.block_on(call).expect_err("no thread");
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        refused.later(move || drop(closes));
        thread::current().id()
    };
    // The filter stays with the thread.
    let caller = thread::spawn(work).join().expect("no panic");
    // What it gave with the call came back to it.
    assert_eq!(closed.try_recv().expect("dropped"), caller);
    closed.try_recv().expect_err("not closed yet");
    // The next call has a thread, which closes first.
    let thread = lanes.run(None, |_| Ok(thread::current().id())).await;
    let closer = closed.try_recv().expect("closed");
    assert_eq!(closer, thread.expect("called"));
    assert_ne!(closer, caller);
}

#[tokio::test]
async fn closes_are_calls_have_no_more_threads_and_are_stuck_as_well() {
    let lanes = Lanes::with_grace(Duration::ZERO);
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (let_go, held) = mpsc::channel::<()>();
    let held = Arc::new(Mutex::new(held));
    for _ in 0..4 * LANES {
        let (now, most, held) = (now.clone(), most.clone(), held.clone());
        lanes.later(move || {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            // Ends when the other end is gone.
            let _ = held.lock().expect("no panic").recv();
            now.fetch_sub(1, Ordering::SeqCst);
        });
    }
    let began = Instant::now();
    while most.load(Ordering::SeqCst) < LANES {
        assert!(began.elapsed() < Duration::from_secs(10), "too few threads");
        tokio::task::yield_now().await;
    }
    let error = lanes.run(soon(1000), |_| Ok(())).await.expect_err("closed");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    drop(let_go);
    while now.load(Ordering::SeqCst) > 0 || lanes.run(soon(1000), |_| Ok(())).await.is_err() {
        assert!(began.elapsed() < Duration::from_secs(10), "still closed");
        tokio::task::yield_now().await;
    }
    assert_eq!(most.load(Ordering::SeqCst), LANES);
}
