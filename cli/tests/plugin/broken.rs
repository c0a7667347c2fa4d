//! Plugins that break the contract in one way, crash, hang, or are none.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::site::Site;
use super::trials::sha256sum;
use super::{INTERNAL, INVALID_CONFIG, TIMEOUT, UNAVAILABLE};

/// The jar with one mistake.
pub fn broken(site: &Site, mistake: &str) -> String {
    broken_as(site, "libbroken.so", mistake)
}

/// The same in a file of this name.
pub fn broken_as(site: &Site, name: &str, mistake: &str) -> String {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plugin/broken.c");
    site.compile(name, &source, &[&format!("-D{mistake}")])
}

fn tested(site: &Site, path: &str, more: &[&str], status: i32) -> (Value, String) {
    let arguments = [&["plugin", "test", path, "--format=json"], more].concat();
    let done = site.keyhaul(&arguments).ends(status);
    (done.json(), done.words)
}

fn failed(report: &Value) -> Vec<&str> {
    let trials = report["trials"].as_array().expect("trials").iter();
    trials
        .filter(|trial| trial["passed"] == false)
        .map(|trial| trial["name"].as_str().expect("a sentence"))
        .collect()
}

#[test]
fn the_control_without_a_mistake_passes_and_its_words_are_not_ours() {
    let site = Site::new();
    let path = broken(&site, "NO_MISTAKE");
    let (report, words) = tested(&site, &path, &[], 0);
    assert_eq!(failed(&report), Vec::<&str>::new());
    assert!(words.contains("a library's own words"), "{words}");
}

#[test]
fn a_delete_that_does_nothing_is_named() {
    let site = Site::new();
    let path = broken(&site, "FORGETS_TO_DELETE");
    let (report, words) = tested(&site, &path, &[], INTERNAL);
    let failed = failed(&report);
    for trial in [
        "Create makes again what was deleted",
        "what is deleted is gone",
        "what is deleted is no longer listed, nor its empty folders",
    ] {
        assert!(failed.contains(&trial), "{trial}: {failed:?}");
    }
    // What has nothing to do with it passes.
    assert!(!failed.contains(&"a value comes back to the byte, whatever its bytes are"));
    assert_eq!(report["failed"].as_u64(), Some(failed.len() as u64));
    assert!(
        words.contains(&format!("the plugin fails {} trials", failed.len())),
        "{words}"
    );
    let text = site.keyhaul(&["plugin", "test", &path]).ends(INTERNAL);
    text.prints("FAILED  Create makes again what was deleted\n          expected: ");
}

#[test]
fn a_value_in_an_error_is_found() {
    let site = Site::new();
    let (report, _) = tested(&site, &broken(&site, "LEAKS"), &[], INTERNAL);
    let trials = report["trials"].as_array().expect("trials");
    let leak =
        |trial: &&Value| trial["expected"] == "no value in an error, in Debug or in metadata";
    assert!(trials.iter().any(|trial| leak(&trial)), "{report}");
}

#[test]
fn a_library_that_crashes_is_said_to_and_where() {
    let site = Site::new();
    let path = broken(&site, "CRASHES_IN_LIST");
    let (report, words) = tested(&site, &path, &[], INTERNAL);
    let first = "a listing has all that is below its prefix, in byte order, and nothing else";
    assert_eq!(failed(&report), [first]);
    assert_eq!(report["crashed"], "signal 11 (SIGSEGV)");
    assert_eq!(report["broken_off"], first);
    assert!(report["not_run"].as_u64() > Some(0));
    assert!(report["passed"].as_u64() > Some(10));
    assert!(
        words.contains("the plugin crashed keyhaul: signal 11"),
        "{words}"
    );
    assert!(words.contains(first), "{words}");
}

#[test]
fn a_library_that_ends_the_process_is_said_to() {
    let site = Site::new();
    let path = broken(&site, "EXITS_IN_LIST");
    let (report, _) = tested(&site, &path, &[], INTERNAL);
    assert_eq!(report["crashed"], "it ended the process");
    assert_eq!(failed(&report).len(), 1);
}

#[test]
fn a_library_that_crashes_or_hangs_when_it_is_loaded() {
    let site = Site::new();
    let path = broken(&site, "CRASHES_AT_LOAD");
    let (report, _) = tested(&site, &path, &[], INTERNAL);
    assert_eq!(report["crashed"], "signal 6 (SIGABRT)");
    let inspect = |more: &[&str]| site.keyhaul(&[&["plugin", "inspect", &path], more].concat());
    inspect(&[])
        .ends(INTERNAL)
        .says("signal 6 (SIGABRT), when it was loaded");
    site.policy(&format!("url = \"plugin://{path}\""));
    let list = site.by_policy(&["plugin", "list"]).ends(INTERNAL);
    list.prints("loads:   no").prints("signal 6 (SIGABRT)");

    // Status 0, and nothing is well; and 3, which is none of keyhaul's.
    for mistake in ["EXITS_AT_LOAD", "FAILS_AT_LOAD"] {
        broken(&site, mistake);
        inspect(&[]).ends(INTERNAL).says("the plugin ended keyhaul");
        let list = site.by_policy(&["plugin", "list"]).ends(INTERNAL);
        list.prints("the plugin ended keyhaul");
        let (report, _) = tested(&site, &path, &[], INTERNAL);
        assert_eq!(report["crashed"], "it ended the process");
    }

    broken(&site, "HANGS_AT_LOAD");
    let begun = Instant::now();
    let hung = inspect(&["--deadline=500ms", "--format=json"]).ends(TIMEOUT);
    let document = hung.says("has not answered in time").json();
    assert_eq!(document["broke"]["kind"], "Timeout");
    assert_eq!(document["sha256"], sha256sum(&site, &path));
    let (report, _) = tested(&site, &path, &["--deadline=500ms"], TIMEOUT);
    assert_eq!(report["time_is_up"], true);
    assert!(begun.elapsed() < Duration::from_secs(50));
}

/// A limit of a millisecond is one, and what comes out of it is no word about the command line.
#[test]
fn the_shortest_limit_is_a_limit() {
    let site = Site::new();
    let path = site.jar();
    for task in ["inspect", "test"] {
        let done = site.keyhaul(&["plugin", task, &path, "--deadline=1ms"]);
        assert_ne!(done.status, 2, "{}", done.words);
    }
}

/// Looking at what lies there has a limit, too.
#[test]
fn a_file_that_takes_hours_to_read_costs_the_time_that_is_given() {
    let site = Site::new();
    let path = site.write("libendless.so", "", 0o755);
    let file = std::fs::File::options().write(true).open(&path);
    let sparse = file.expect("open").set_len(1 << 40);
    sparse.expect("a hole of a TiB takes no room");
    let begun = Instant::now();
    let arguments = ["plugin", "inspect", "--kind=library", &path];
    let done = site.keyhaul(&[&arguments[..], &["--deadline=500ms"]].concat());
    done.ends(TIMEOUT).says("has not answered in time");
    site.policy(&format!("url = \"plugin://{path}\""));
    let list = site.by_policy(&["plugin", "list", "--deadline=500ms"]);
    list.ends(TIMEOUT).prints("loads:   no");
    assert!(begun.elapsed() < Duration::from_secs(50));
}

#[test]
fn a_call_that_hangs_costs_its_trial_and_the_time() {
    let site = Site::new();
    let path = broken(&site, "HANGS_IN_LIST");
    let (report, words) = tested(&site, &path, &["--deadline=6s"], TIMEOUT);
    assert_eq!(report["time_is_up"], true);
    assert_eq!(failed(&report).len(), 1);
    assert!(report["not_run"].as_u64() > Some(0));
    assert!(words.contains("not all was done within 6000 ms"), "{words}");
}

#[test]
fn a_program_that_hangs_is_ended_with_the_test() {
    let site = Site::new();
    let pid = site.text("pid");
    let program = site.write(
        "hangs.sh",
        &format!(
            "#!/bin/sh\nread -r line\necho $$ >{pid}\n\
             echo '{{\"keyhaul\":1,\"name\":\"hangs\",\"version\":\"1\",\"capabilities\":[\"read\"]}}'\n\
             while :; do sleep 1; done\n"
        ),
        0o755,
    );
    let (report, _) = tested(&site, &program, &["--deadline=2s"], TIMEOUT);
    assert_eq!(report["plugin"]["name"], "hangs");
    assert_eq!(report["time_is_up"], true);
    is_gone(&pid);
}

#[test]
fn a_program_that_says_nothing_is_inspected_for_as_long_as_is_given_and_ended() {
    let site = Site::new();
    let pid = site.text("pid");
    let text = format!("#!/bin/sh\necho $$ >{pid}\nexec sleep 600\n");
    let program = site.write("silent.sh", &text, 0o755);
    let begun = Instant::now();
    let done = site.keyhaul(&["plugin", "inspect", &program, "--deadline=1s"]);
    // Without the limit it would be asked for 8 s, and its keyhaul killed after 6.
    assert!(begun.elapsed() < Duration::from_secs(5));
    done.ends(TIMEOUT).prints("REFUSED").says("the plugin");
    is_gone(&pid);
}

#[test]
fn whoever_ends_keyhauls_process_it_is_no_crash_of_a_program() {
    let site = Site::new();
    let program = site.write(
        "kills.sh",
        "#!/bin/sh\nread -r line\n\
         echo '{\"keyhaul\":1,\"name\":\"kills\",\"version\":\"1\",\"capabilities\":[\"read\"]}'\n\
         read -r line\nkill -9 $PPID\nexec sleep 600\n",
        0o755,
    );
    let (report, words) = tested(&site, &program, &[], INTERNAL);
    assert_eq!(report["crashed"], "signal 9 (SIGKILL)");
    assert_eq!(failed(&report).len(), 1, "{report}");
    let said = "keyhaul's process that tries the plugin has ended: signal 9";
    assert!(words.contains(said), "{words}");
    assert!(!words.contains("crashed"), "{words}");
    assert!(!words.contains("gdb"), "{words}");
}

/// Holds that the process ends whose number is written there.
#[track_caller]
fn is_gone(pid: &str) {
    let number = std::fs::read_to_string(pid).expect("it ran");
    let process = format!("/proc/{}", number.trim());
    let begun = Instant::now();
    while std::fs::read_to_string(format!("{process}/cmdline")).is_ok_and(|line| !line.is_empty()) {
        assert!(
            begun.elapsed() < Duration::from_secs(10),
            "{process} runs on"
        );
        std::thread::yield_now();
    }
}

#[test]
fn a_program_that_answers_wrongly_is_named() {
    let site = Site::new();
    let folder = site.memory("kept");
    let text = std::fs::read_to_string(super::site::examples().join("shell/folder.sh"));
    let text = text.expect("the example");
    // As the C one: what it says is deleted is not.
    let mistake = text.replace("if rm -f \"$file\" && sync .; then", "if :; then");
    assert_ne!(mistake, text);
    let program = site.write("forgets.sh", &mistake, 0o755);
    let (report, _) = tested(&site, &program, &[&format!("--arg={folder}")], INTERNAL);
    let failed = failed(&report);
    assert!(
        failed.contains(&"Create makes again what was deleted"),
        "{failed:?}"
    );
}

#[test]
fn what_is_no_plugin_is_refused() {
    let site = Site::new();
    let refused = |path: &str, status: i32, words: &str| {
        for task in ["inspect", "test"] {
            site.keyhaul(&["plugin", task, path])
                .ends(status)
                .says(words);
        }
    };
    let no_plugin = |path: &str, words: &str| refused(path, INVALID_CONFIG, words);
    let text = site.write("text", "hello\n", 0o644);
    no_plugin(&text, "neither a shared library nor executable");
    no_plugin(&site.text("nothing"), "cannot be read");
    no_plugin(&site.folder("folder"), "is no file");
    refused("/bin/true", UNAVAILABLE, "the plugin exited with status 0");
    no_plugin("/bin/cat", "hello");
    let empty = site.write("empty.c", "int nothing;\n", 0o644);
    let library = site.compile("libnothing.so", Path::new(&empty), &[]);
    no_plugin(&library, "it lacks keyhaul_plugin_entry");
    // Taken for what it is not.
    let forced = site.keyhaul(&["plugin", "test", &text, "--kind", "library"]);
    forced
        .ends(INVALID_CONFIG)
        .says("no library that can be loaded");
    let forced = site.keyhaul(&["plugin", "test", &library, "--kind", "program"]);
    forced
        .ends(INVALID_CONFIG)
        .says("libnothing.so is a shared library, and no program")
        .says("begins with plugin://");
    // Its hello is the rule that it breaks: none before does it break.
    let forced = site.keyhaul(&["plugin", "inspect", &library, "--kind", "program"]);
    forced
        .ends(INVALID_CONFIG)
        .prints("passed       it can be executed\n")
        .prints("REFUSED      it says hello");
}
