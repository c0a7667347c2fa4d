//! Programs that take what there is: room in the log, descriptors, time.

use super::*;

/// Answers with values of many lengths, so that there is much to look for, and then with a message a
/// very long message.
const TALKS: &str = r#"#!/usr/bin/env python3
import json, sys
def say(**words): print(json.dumps(words), flush=True)
sys.stdin.readline()
say(keyhaul=1, name="talks", version="1", capabilities=["read"], **{"max-value": 1 << 20})
for n, line in enumerate(sys.stdin, 1):
    if n < 90: say(id=n, value="x" * (4 + n))
    else: say(id=n, error={"kind": "storage-full", "message": "y" * (2 << 20)})
"#;

/// How long this thread has worked: what else the machine does at the same time does not count.
fn worked() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).expect("a time")
}

/// All on one thread: what waits for the one must not keep the others waiting.
#[tokio::test]
async fn other_stores_go_on_beside_hostile_ones() {
    let place = Place::new();
    let program = place.program("good", &format!("{HELLO}{WELL}"));
    let good = place.store(&program, &[]);
    let (path, options) = (path("a"), GetOptions::default());
    good.get(&path, &options).await.expect("served");
    let hostile = [
        "exec sleep 60\n",
        "yes flood >&2 & read -r line; sleep 60\n",
        "read -r line; kill -ABRT $$\n",
    ]
    .map(Hostile::new)
    .into_iter()
    .chain([
        Hostile::with_stall("20s", "read -r line; exec cat /dev/zero\n"),
        Hostile::of_stall("20s", TALKS),
    ])
    .collect::<Vec<_>>();
    let attacks = hostile.iter().map(async |hostile| {
        loop {
            if let Err(error) = hostile.get().await {
                return error;
            }
        }
    });
    let (mut served, mut longest) = (0, Duration::ZERO);
    let serves = async {
        loop {
            let begun = worked();
            good.get(&path, &options).await.expect("served");
            longest = longest.max(worked() - begun);
            served += 1;
        }
    };
    let attacks = futures_util::future::join_all(attacks);
    let errors = tokio::select! {
        errors = attacks => errors,
        () = serves => unreachable!("it has no end"),
    };
    let kinds: Vec<_> = errors.iter().map(Error::kind).collect();
    assert_eq!(
        kinds,
        [
            ErrorKind::Timeout,
            ErrorKind::Timeout,
            ErrorKind::Unavailable,
            ErrorKind::Internal,
            ErrorKind::StorageFull,
        ]
    );
    // The attacks take half a second at least.
    assert!(served > 5, "{served} served");
    assert!(longest < Duration::from_secs(2), "one took {longest:?}");
    let started = std::fs::read_to_string(place.path().join("good.pids")).expect("written");
    assert_eq!(started.lines().count(), 1);
}

#[tokio::test]
async fn a_flood_of_stderr_does_not_hold_up_the_answers_for_ever() {
    // As much as fits in many windows of the log, beside right answers.
    let hostile = Hostile::new(&format!("yes flood >&2 &\n{WELL}"));
    for _ in 0..20 {
        assert_eq!(hostile.get().await.expect("served"), b"hunter2");
    }
    assert_eq!(hostile.processes().len(), 1);
}

#[tokio::test]
async fn a_program_has_no_environment_descriptors_privileges_or_core_dumps_of_ours() {
    // A descriptor that every program started from here would inherit.
    let open = std::fs::File::open("/etc/passwd").expect("open");
    rustix::io::fcntl_setfd(&open, rustix::io::FdFlags::empty()).expect("set");
    let report = "{ tr '\\0' '\\n' </proc/$$/environ; ls -l /proc/$$/fd; cat /proc/$$/status; ulimit -c; ulimit -n; umask; pwd; ps -o pgid= -p $$; } >\"$0.report\" 2>&1\n";
    let hostile = Hostile::new(&format!("{report}{WELL}"));
    hostile.get().await.expect("served");
    let text = std::fs::read_to_string(hostile.place.path().join("hostile.report"));
    let text = text.expect("written");
    assert!(text.starts_with("PATH=/usr/local/sbin:"), "{text}");
    assert!(!text.contains("HOME=") && !text.contains("CARGO"), "{text}");
    assert!(!text.contains("/etc/passwd"), "{text}");
    assert!(text.contains("NoNewPrivs:\t1"), "{text}");
    let pid = hostile.processes()[0].to_string();
    let last: Vec<_> = text.lines().rev().take(5).map(str::trim).collect();
    assert_eq!(last, [pid.as_str(), "/", "0077", "1024", "0"], "{text}");
    // The control: without keyhaul's care a program does inherit it.
    let output = std::process::Command::new("ls")
        .args(["-l", "/proc/self/fd"])
        .output();
    let output = String::from_utf8(output.expect("ls").stdout).expect("text");
    assert!(output.contains("/etc/passwd"), "{output}");
}

#[tokio::test]
async fn a_flood_of_descriptors_stays_the_programs_own() {
    let body = "exec python3 -c '\nimport sys\nheld=[]\ntry:\n  while True: held.append(open(\"/dev/null\"))\nexcept OSError: pass\nfor line in sys.stdin: print(\"{\\\"id\\\":1,\\\"value\\\":\\\"%d\\\"}\" % len(held), flush=True)\n'\n";
    let hostile = Hostile::with_stall("20s", body);
    let held = String::from_utf8(hostile.get().await.expect("served")).expect("a number");
    let held: u64 = held.parse().expect("a number");
    assert!((900..1024).contains(&held), "{held}");
}
