//! Programs that misbehave: the right error, nothing left running, and the next request is served.

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use keyhaul_core::registry::{Options, Value};
use keyhaul_core::{
    Capability, Error, ErrorKind, GetOptions, PutOptions, Request, SecretBytes, SecretPath,
    SecretStore,
};
use support::Place;

/// What every script begins with.
const HELLO: &str = r#"#!/bin/sh
echo $$ >>"$0.pids"
read -r hello
echo '{"keyhaul":1,"name":"hostile","version":"1","capabilities":["read","write"],"max-value":1000}'
answer() { id=${line#*\"id\":} id=${id%%,*}; printf '{"id":%s%s}\n' "$id" "$1"; }
"#;

/// Answers everything, with the same value.
const WELL: &str = r#"while read -r line; do answer ',"value":"hunter2"'; done
"#;

struct Hostile {
    place: Place,
    program: std::path::PathBuf,
    store: Arc<dyn SecretStore>,
}

impl Hostile {
    /// A script that says a right hello and then does `body`.
    fn new(body: &str) -> Self {
        Self::of(&format!("{HELLO}{body}"))
    }

    fn of(text: &str) -> Self {
        let place = Place::new();
        let program = place.program("hostile", text);
        let stall = Value::Text("500ms".to_owned());
        let store = place.store_with(&program, [("stall", stall)]);
        Self {
            place,
            program,
            store,
        }
    }

    async fn get(&self) -> Result<Vec<u8>, Error> {
        let answer = self.store.get(&path("a"), &GetOptions::default()).await;
        answer.map(|secret| secret.value.expose().to_vec())
    }

    async fn fails(&self) -> Error {
        self.get().await.expect_err("the program is hostile")
    }

    /// The processes that the script has written down, one for each start at least.
    fn processes(&self) -> Vec<i32> {
        let text = std::fs::read_to_string(self.place.path().join("hostile.pids"));
        let text = text.unwrap_or_default();
        text.split_whitespace()
            .map(|pid| pid.parse().expect("a number"))
            .collect()
    }

    /// Holds that none of them is left, zombies counted.
    async fn nothing_is_left(&self) {
        let processes = self.processes();
        assert!(!processes.is_empty(), "the script has run");
        within("all its processes to be gone", || {
            let there = |pid: &i32| std::path::Path::new(&format!("/proc/{pid}")).exists();
            !processes.iter().any(there)
        })
        .await;
    }

    /// Puts a good program in its place, and holds that the same store serves again.
    async fn recovers(&self) {
        std::fs::remove_file(&self.program).expect("removed");
        self.place.program("hostile", &format!("{HELLO}{WELL}"));
        let begun = Instant::now();
        loop {
            match self.get().await {
                Ok(value) => return assert_eq!(value, b"hunter2"),
                Err(error) => {
                    assert!(begun.elapsed() < Duration::from_secs(20), "{error:?}");
                    tokio::time::sleep(error.retry_after().unwrap_or_default()).await;
                }
            }
        }
    }
}

fn path(text: &str) -> SecretPath {
    SecretPath::new(text).expect("a path")
}

async fn within(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(
            begun.elapsed() < Duration::from_secs(10),
            "waited for {what}"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The control: the same script, well-behaved, is served by one process.
#[tokio::test]
async fn a_good_program_is_started_once_and_ends_with_its_store() {
    let good = Hostile::new(WELL);
    assert!(good.processes().is_empty(), "opening starts nothing");
    for _ in 0..3 {
        assert_eq!(good.get().await.expect("served"), b"hunter2");
    }
    assert_eq!(good.processes().len(), 1);
    let Hostile { place, store, .. } = good;
    drop(store);
    let pid = std::fs::read_to_string(place.path().join("hostile.pids")).expect("written");
    let process = format!("/proc/{}", pid.trim());
    within("it to end", || !std::path::Path::new(&process).exists()).await;
}

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
async fn a_program_that_breaks_the_protocol_is_killed() {
    for (body, rule) in [
        // Never a newline.
        ("read -r line; exec cat /dev/zero\n", "a line of more than"),
        // Lines without end, none of them asked for.
        (
            "read -r line; exec yes '{\"id\":9}'\n",
            "what was not asked, or twice",
        ),
        ("read -r line; answer; answer; exec sleep 60\n", ""),
        (
            "read -r line; printf '{\"id\":1,\"value\":\"\\377\"}\\n'; exec sleep 60\n",
            "no answer",
        ),
        ("read -r line; echo hunter2; exec sleep 60\n", "no answer"),
        ("read -r line; echo; exec sleep 60\n", "no answer"),
        (
            "read -r line; echo '{\"id\":18446744073709551616,\"value\":\"x\"}'; exec sleep 60\n",
            "no answer",
        ),
        (
            "read -r line; echo '{\"id\":1e999,\"value\":\"x\"}'; exec sleep 60\n",
            "no answer",
        ),
        (
            "read -r line; answer ',\"index\":99999999999999999999'; exec sleep 60\n",
            "no answer",
        ),
        // Lists in lists, never ended.
        (
            "read -r line; head -c 500000 /dev/zero | tr '\\0' '['; echo; exec sleep 60\n",
            "no answer",
        ),
        ("echo '{\"id\":7}'; exec sleep 60\n", "what was not asked"),
        (
            "read -r line; answer ',\"index\":0'; exec sleep 60\n",
            "one of many",
        ),
    ] {
        let hostile = Hostile::new(body);
        let error = match rule {
            // Its first answer is right: it is the second that kills it.
            "" => {
                assert_eq!(hostile.fails().await.kind(), ErrorKind::Corrupt);
                hostile.nothing_is_left().await;
                hostile.recovers().await;
                continue;
            }
            _ => hostile.fails().await,
        };
        assert_eq!(error.kind(), ErrorKind::Internal, "{body}: {error:?}");
        assert!(error.message().contains(rule), "{body}: {error:?}");
        assert!(!format!("{error:?}").contains("hunter2"));
        hostile.nothing_is_left().await;
        hostile.recovers().await;
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
    for goes_on in [
        "exec sleep 60",
        // Drips into the plugin's stdout and stderr.
        "while echo x >&2 && printf x; do sleep 0.05; done",
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
        // The control: it did outlive the plugin, or had nothing left to drip into.
        let outlived =
            rustix::process::kill_process(left.expect("a process"), rustix::process::Signal::KILL);
        assert!(outlived.is_ok() || goes_on.starts_with("while"));
        hostile.recovers().await;
    }
}

#[tokio::test]
async fn a_value_over_the_plugins_own_limit_is_refused_and_the_plugin_goes_on() {
    let hostile = Hostile::new(
        "while read -r line; do case $line in *long*) long=$(head -c 1001 /dev/zero | tr '\\0' x);; *) long=hunter2;; esac
        answer \",\\\"value\\\":\\\"$long\\\"\"; done\n",
    );
    let (long, options) = (path("long"), GetOptions::default());
    let answer = hostile.store.get(&long, &options).await;
    let error = answer.expect_err("too long");
    assert_eq!(error.kind(), ErrorKind::TooLarge, "{error:?}");
    assert!(error.message().contains("1000 bytes"), "{error:?}");
    assert_eq!(hostile.get().await.expect("served"), b"hunter2");
    assert_eq!(hostile.processes().len(), 1);
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
        "read -r line; exec cat /dev/zero\n",
        "yes flood >&2 & read -r line; sleep 60\n",
        "read -r line; kill -ABRT $$\n",
    ]
    .map(Hostile::new);
    let attacks = futures_util::future::join_all(hostile.iter().map(Hostile::fails));
    let serves = async {
        let begun = Instant::now();
        let mut served = 0;
        // Longer than the hostile ones have.
        while begun.elapsed() < Duration::from_secs(1) {
            good.get(&path, &options).await.expect("served");
            served += 1;
        }
        served
    };
    let (errors, served) = futures_util::future::join(attacks, serves).await;
    let kinds: Vec<_> = errors.iter().map(Error::kind).collect();
    assert_eq!(
        kinds,
        [
            ErrorKind::Timeout,
            ErrorKind::Internal,
            ErrorKind::Timeout,
            ErrorKind::Unavailable
        ]
    );
    assert!(served > 20, "{served} in a second");
    let started = std::fs::read_to_string(place.path().join("good.pids")).expect("written");
    assert_eq!(started.lines().count(), 1);
}

#[tokio::test]
async fn a_program_that_is_no_plugin_is_refused_by_the_rule() {
    let hello =
        |text: &str| format!("#!/bin/sh\necho $$ >>\"$0.pids\"\necho '{text}'\nexec sleep 60\n");
    for (text, rule) in [
        (hello("hello hunter2"), "first line is no hello"),
        (
            hello(r#"{"keyhaul":2,"name":"x"}"#),
            "version 2 of the protocol",
        ),
        (hello(r#"{"keyhaul":1}"#), "hello is not of the right form"),
        (
            "#!/bin/sh\necho $$ >>\"$0.pids\"\nexec cat /dev/zero\n".to_owned(),
            "more than 65536 bytes",
        ),
        (hello(r#"{"keyhaul":99999999999999999999}"#), "no hello"),
        (hello(r#"{"keyhaul":-1}"#), "no hello"),
        (
            hello(r#"{"keyhaul":1,"name":"x","version":"1","capabilities":[],"max-value":1e999}"#),
            "hello is not of the right form",
        ),
        (
            hello(r#"{"keyhaul":1,"name":"x","version":"1","capabilities":[],"batch":-1}"#),
            "hello is not of the right form",
        ),
        (
            hello(r#"{"keyhaul":1,"name":"x","version":"1","capabilities":"read"}"#),
            "right form",
        ),
        ("#!/no/such/interpreter\n".to_owned(), "cannot be started"),
    ] {
        let hostile = Hostile::of(&text);
        let error = hostile.fails().await;
        let kinds = [ErrorKind::InvalidConfig, ErrorKind::Internal];
        assert!(kinds.contains(&error.kind()), "{error:?}");
        assert!(error.message().contains(rule), "{error:?}");
        assert!(!format!("{error:?}").contains("hunter2"));
        if text.contains("pids") {
            hostile.nothing_is_left().await;
        }
        hostile.recovers().await;
    }
    let silent = Hostile::of("#!/bin/sh\necho $$ >>\"$0.pids\"\nexec sleep 60\n");
    let error = silent.fails().await;
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error:?}");
    silent.nothing_is_left().await;
    silent.recovers().await;
}

#[tokio::test]
async fn a_program_that_keeps_failing_is_left_alone_for_longer_and_longer() {
    let hostile = Hostile::of("#!/bin/sh\necho $$ >>\"$0.pids\"\nexit 1\n");
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

#[tokio::test]
async fn a_deadline_ends_the_wait_and_the_program_goes_on() {
    let hostile = Hostile::new(
        "read -r line; sleep 0.3; answer ',\"value\":\"late\"'\nread -r cancelled; echo \"$cancelled\" >\"$0.cancelled\"\n\
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
    assert!(deadline.elapsed() < Duration::from_millis(150));
    // The late answer is nobody's, and no breach: the same process serves on.
    assert_eq!(hostile.get().await.expect("served"), b"hunter2");
    assert_eq!(hostile.processes().len(), 1);
    let cancelled = hostile.place.path().join("hostile.cancelled");
    let cancelled = std::fs::read_to_string(cancelled).expect("written");
    assert_eq!(cancelled, "{\"cancel\":1}\n");
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
    let hostile = Hostile::new(body);
    let held = String::from_utf8(hostile.get().await.expect("served")).expect("a number");
    let held: u64 = held.parse().expect("a number");
    assert!((900..1024).contains(&held), "{held}");
}

#[tokio::test]
async fn a_value_in_a_refusal_is_taken_out() {
    let hostile = Hostile::new(
        "while read -r line; do answer ',\"error\":{\"kind\":\"storage-full\",\"message\":\"no room for hunter2\",\"advice\":\"shorten hunter2\"}'; done\n",
    );
    let value = SecretBytes::copy_from(b"hunter2");
    let (path, options) = (path("a"), PutOptions::default());
    let put = hostile.store.put(&path, &value, &options).await;
    let error = put.expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    assert_eq!(error.message(), "no room for [redacted]");
    assert_eq!(error.advice(), Some("shorten [redacted]"));
}

#[tokio::test]
async fn what_the_plugin_declares_decides() {
    let good = Hostile::new(WELL);
    let told = good.store.capabilities().await.expect("told");
    // The host makes values for a plugin that can write them.
    assert_eq!(
        told.can,
        Capability::READ | Capability::WRITE | Capability::GENERATE
    );
    assert_eq!(told.max_value, 1000);
}

#[tokio::test]
async fn a_credential_arrives_in_a_call_of_its_own() {
    let place = Place::new();
    let program = place.program(
        "options",
        "#!/bin/sh\nread -r line; echo \"$line\" >\"$0.seen\"\n\
         echo '{\"keyhaul\":1,\"name\":\"x\",\"version\":\"1\",\"capabilities\":[\"read\"],\"options\":[{\"name\":\"pin\",\"kind\":\"credential\",\"required\":true}]}'\n\
         while read -r line; do echo \"$line\" >>\"$0.seen\"; id=${line#*:}; printf '{\"id\":%s}\\n' \"${id%%,*}\"; done\n",
    );
    let pin = place.program("pin", "hunter2");
    std::fs::set_permissions(&pin, std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .expect("mode");
    let source = format!("file:{}", pin.display());
    let options = place.options([("pin", Value::Text(source.clone()))]);
    let store = place.store_with(&program, [("options", Value::Table(options))]);
    store.probe().await.expect("reached");
    let seen = std::fs::read_to_string(place.path().join("options.seen")).expect("written");
    let expected = format!(
        "{{\"keyhaul\":1,\"store\":\"odd\",\"options\":{{\"pin\":\"{source}\"}}}}\n\
         {{\"id\":1,\"do\":\"credential\",\"option\":\"pin\",\"base64\":\"aHVudGVyMg==\"}}\n\
         {{\"id\":2,\"do\":\"probe\"}}\n"
    );
    assert_eq!(seen, expected);
    let unknown = place.options([("pni", Value::Text(source))]);
    for options in [Options::default(), unknown] {
        let store = place.store_with(&program, [("options", Value::Table(options))]);
        let error = store.probe().await.expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert!(error.message().contains("pin"), "{error:?}");
    }
}
