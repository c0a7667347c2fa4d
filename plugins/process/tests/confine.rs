//! Programs behind a fence: they reach what the policy names, and nothing else.

mod support;

use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::sync::Arc;

use keyhaul_conformance::Handles;
use keyhaul_core::registry::{Options, Value};
use keyhaul_core::{Error, ErrorKind, GetOptions, SecretPath, SecretStore};
use support::Place;

/// Answers each get with what came of its path's command.
const TRIES: &str = r#"#!/usr/bin/env python3
import ctypes, errno, json, os, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
def attempt(words):
    what, _, where = words.partition("/")
    where = "/" + where
    if what == "read": return open(where).read()
    if what == "list": return " ".join(sorted(os.listdir(where)))
    if what == "write": open(where, "a").write("x"); return "written"
    if what == "signal": os.kill(os.getppid(), 0); return "sent"
    if what == "unix": socket.socket(socket.AF_UNIX).connect(where); return "connected"
    if what == "socket": socket.socket(*map(int, where[1:].split(","))); return "made"
    if what == "pair": socket.socketpair(*map(int, where[1:].split(","))); return "made"
    if what == "call":
        words = map(ctypes.c_long, map(int, where[1:].split(",")))
        return "done" if libc.syscall(*words) >= 0 else errno.errorcode[ctypes.get_errno()]
    if what == "tcp": socket.create_connection(("127.0.0.1", int(where[1:]))); return "connected"
sys.stdin.readline()
print(json.dumps({"keyhaul": 1, "name": "tries", "version": "1", "capabilities": ["read"]}), flush=True)
for line in sys.stdin:
    request = json.loads(line)
    try: value = attempt(request["path"])
    except OSError as error: value = type(error).__name__
    print(json.dumps({"id": request["id"], "value": value}), flush=True)
"#;

async fn tries(store: &Arc<dyn SecretStore>, what: &str) -> Result<String, Error> {
    let path = SecretPath::new(what).expect("a path");
    let secret = store.get(&path, &GetOptions::default()).await?;
    Ok(String::from_utf8(secret.value.expose().to_vec()).expect("text"))
}

/// A fence, with what is `open` in it: `network`, `unix`.
fn fence(read: &[&str], write: &[&str], open: &[&str]) -> Value {
    let texts =
        |paths: &[&str]| Value::Texts(paths.iter().map(|path| (*path).to_owned()).collect());
    let options = [
        ("read", texts(read)),
        ("write", texts(write)),
        ("network", open.contains(&"network").into()),
        ("unix", open.contains(&"unix").into()),
    ];
    Options::at("keyhaul.toml:3:1", options).into()
}

#[tokio::test]
async fn a_confined_program_reaches_what_the_policy_names_and_nothing_else() {
    let place = Place::new();
    let program = place.program("tries", TRIES);
    let (shown, kept) = (place.folder("shown"), place.folder("kept"));
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    for folder in [&shown, &kept] {
        std::fs::write(format!("{folder}/file"), "hunter2").expect("written");
    }
    let reads = |folder: &str| format!("read{folder}/file");
    let writes = |folder: &str| format!("write{folder}/file");
    let connects = format!("tcp/{port}");
    let free = place.store(&program, &[]);
    let confined = |read: &[&str], write: &[&str], open: &[&str]| {
        place.store_with(&program, [("confine", fence(read, write, open))])
    };
    let nothing = confined(&[], &[], &[]);
    let shows = confined(&[&shown], &[], &["network"]);
    let keeps = confined(&[], &[&kept], &[]);
    let denied = "PermissionError";
    for (what, expected) in [
        // The control, without a fence, stands first.
        (reads(&shown), ["hunter2", denied, "hunter2", denied]),
        (reads(&kept), ["hunter2", denied, denied, "hunter2"]),
        (writes(&shown), ["written", denied, denied, denied]),
        (writes(&kept), ["written", denied, denied, "written"]),
        (connects, ["connected", denied, "connected", denied]),
        ("signal/x".to_owned(), ["sent", denied, denied, denied]),
        ("read/dev/null".to_owned(), [""; 4]),
    ] {
        for (store, expected) in [&free, &nothing, &shows, &keeps].into_iter().zip(expected) {
            let found = tries(store, &what).await.expect(&what);
            // What was written before is read along.
            assert_eq!(found.trim_end_matches('x'), expected, "{what}");
        }
    }
    let etc = tries(&nothing, "list/etc").await.expect("answered");
    assert_eq!(etc, denied, "keyhaul's own keys are there");
}

#[tokio::test]
async fn a_confined_program_has_the_sockets_that_the_policy_opens() {
    let place = Place::new();
    let program = place.program("tries", TRIES);
    let service = place.path().join("service");
    let _listens = UnixListener::bind(&service).expect("bound");
    let service = service.display();
    let free = place.store(&program, &[]);
    let confined = |open: &[&str]| place.store_with(&program, [("confine", fence(&[], &[], open))]);
    let stores = [
        free,
        confined(&[]),
        confined(&["network"]),
        confined(&["unix"]),
    ];
    let denied = "PermissionError";
    let (stream, datagram, raw) = (libc::SOCK_STREAM, libc::SOCK_DGRAM, libc::SOCK_RAW);
    let socket = |family, kind: i32| format!("socket/{family},{kind}");
    let pair = |kind: i32| format!("pair/{},{kind}", libc::AF_UNIX);
    let cloexec = datagram | libc::SOCK_CLOEXEC;
    for (what, expected) in [
        // The control, without a fence, stands first.
        (
            format!("unix{service}"),
            ["connected", denied, denied, "connected"],
        ),
        (
            socket(libc::AF_UNIX, datagram),
            ["made", denied, denied, "made"],
        ),
        (
            socket(libc::AF_INET, stream),
            ["made", denied, "made", denied],
        ),
        (
            socket(libc::AF_INET, datagram),
            ["made", denied, "made", denied],
        ),
        (
            socket(libc::AF_NETLINK, raw),
            ["made", denied, denied, denied],
        ),
        (
            socket(libc::AF_NETLINK, datagram),
            ["made", denied, denied, denied],
        ),
        // A program talks with what it starts, and with nobody else.
        (pair(stream), ["made"; 4]),
        (pair(datagram), ["made", denied, denied, "made"]),
        (pair(cloexec), ["made", denied, denied, "made"]),
    ] {
        for (store, expected) in stores.iter().zip(expected) {
            let found = tries(store, &what).await.expect(&what);
            assert_eq!(found, expected, "{what}");
        }
    }
}

/// A call, its arguments, and whether it takes root to be asked at all. They do nothing where they
/// are allowed.
const CALLS: &[(libc::c_long, &[i64], bool)] = &[
    (libc::SYS_add_key, &[0, 0, 0, 0, -2], false),
    // The number of the session's keyring.
    (libc::SYS_keyctl, &[0, -3, 0], false),
    (libc::SYS_request_key, &[0, 0, 0, 0], false),
    (libc::SYS_kcmp, &[0, 0, 0, 0, 0], false),
    (libc::SYS_pidfd_getfd, &[-1, 0, 0], false),
    (libc::SYS_process_madvise, &[-1, 0, 0, 0, -1], false),
    (libc::SYS_process_vm_readv, &[0, 0, 0, 0, 0, 0], false),
    (libc::SYS_process_vm_writev, &[0, 0, 0, 0, 0, 0], false),
    (libc::SYS_ptrace, &[libc::PTRACE_ATTACH as i64, 0, 0], false),
    (libc::SYS_bpf, &[-1, 0, 0], true),
    (libc::SYS_io_uring_enter, &[-1, 0, 0, 0, 0, 0], false),
    (libc::SYS_io_uring_register, &[-1, 0, 0, 0], false),
    (libc::SYS_io_uring_setup, &[0, 0], true),
    (libc::SYS_perf_event_open, &[0, 0, -1, -1, 0], true),
    (libc::SYS_userfaultfd, &[-1], true),
    (libc::SYS_chroot, &[0], false),
    (libc::SYS_fanotify_init, &[-1, -1], true),
    (libc::SYS_fsconfig, &[-1, 0, 0, 0, 0], false),
    (libc::SYS_fsmount, &[-1, 0, 0], true),
    (libc::SYS_fsopen, &[0, -1], true),
    (libc::SYS_fspick, &[-1, 0, -1], true),
    (libc::SYS_mount, &[0, 0, 0, 0, 0], false),
    (libc::SYS_mount_setattr, &[-1, 0, -1, 0, 0], true),
    (libc::SYS_move_mount, &[-1, 0, -1, 0, -1], true),
    (libc::SYS_open_by_handle_at, &[-1, 0, 0], true),
    (libc::SYS_open_tree, &[-1, 0, 0], false),
    (libc::SYS_pivot_root, &[0, 0], true),
    (libc::SYS_setns, &[-1, 0], false),
    (libc::SYS_umount2, &[0, -1], false),
    (libc::SYS_unshare, &[0], false),
    (
        libc::SYS_clone,
        &[(libc::CLONE_NEWNS | libc::CLONE_FS) as i64, 0, 0, 0, 0],
        false,
    ),
    (
        libc::SYS_clone,
        &[(libc::CLONE_NEWUSER | libc::CLONE_FS) as i64, 0, 0, 0, 0],
        false,
    ),
    (libc::SYS_delete_module, &[0, 0], true),
    (libc::SYS_finit_module, &[-1, 0, 0], true),
    (libc::SYS_init_module, &[0, 0, 0], true),
    (libc::SYS_kexec_file_load, &[-1, -1, 0, 0, -1], true),
    (libc::SYS_kexec_load, &[0, 99, 0, 0], true),
];

#[tokio::test]
async fn a_confined_program_is_refused_the_calls_that_lead_past_the_fence() {
    let place = Place::new();
    let program = place.program("tries", TRIES);
    let free = place.store(&program, &[]);
    // Whatever the policy opens.
    let open = fence(&["/"], &["/"], &["network", "unix"]);
    let confined = place.store_with(&program, [("confine", open)]);
    let words = |call: i64, arguments: &[i64]| {
        let all = std::iter::once(call).chain(arguments.iter().copied());
        let all: Vec<_> = all.map(|number| number.to_string()).collect();
        format!("call/{}", all.join(","))
    };
    let root = rustix::process::geteuid().is_root();
    for (call, arguments, privileged) in CALLS {
        let what = words(*call, arguments);
        let found = tries(&confined, &what).await.expect(&what);
        assert_eq!(found, "EPERM", "{what}");
        if root || !privileged {
            // The control: it is the fence that says so.
            let found = tries(&free, &what).await.expect(&what);
            assert_ne!(found, "EPERM", "{what}");
        }
    }
    let us = i64::from(std::process::id());
    let core = i64::from(libc::RLIMIT_CORE);
    let limits = |pid| words(libc::SYS_prlimit64, &[pid, core, 0, 0]);
    let thread = words(libc::SYS_clone3, &[0, 0]);
    for (what, expected) in [
        (limits(us), ["done", "EPERM"]),
        (limits(0), ["done", "done"]),
        // So that the C library takes the older call, whose flags can be seen.
        (thread, ["EINVAL", "ENOSYS"]),
    ] {
        for (store, expected) in [&free, &confined].into_iter().zip(expected) {
            assert_eq!(tries(store, &what).await.expect(&what), expected, "{what}");
        }
    }
    #[cfg(target_arch = "x86_64")]
    {
        // The same call by x32's numbers, which Linux takes on some systems.
        let what = words(libc::SYS_keyctl | 0x4000_0000, &[0, -3, 0]);
        assert_eq!(tries(&confined, &what).await.expect(&what), "EPERM");
        assert_ne!(tries(&free, &what).await.expect(&what), "EPERM");
    }
}

#[tokio::test]
async fn what_is_to_be_reached_and_is_not_there_is_told() {
    let place = Place::new();
    let program = place.program("tries", TRIES);
    let absent = place.path().join("absent");
    let absent = absent.to_str().expect("text");
    let confine = fence(&[], &[absent], &[]);
    let store = place.store_with(&program, [("confine", confine)]);
    let error = tries(&store, "read/dev/null").await.expect_err("not there");
    assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error:?}");
    assert!(error.message().contains(absent), "{error:?}");
    assert_eq!(error.context().place.as_deref(), Some("keyhaul.toml:2:1"));
}

#[tokio::test]
async fn the_shell_example_keeps_the_contract_behind_a_fence() {
    let place = Place::new();
    let program = place.install("shell/folder.sh");
    let folder = place.folder("secrets");
    let arguments = Value::Texts(vec![folder.clone()]);
    let confine = fence(&[], &[&folder], &[]);
    let store = place.store_with(&program, [("args", arguments), ("confine", confine)]);
    let trials = keyhaul_conformance::run(async || Handles::same(store.clone())).await;
    assert!(trials > 20, "{trials} trials");
}

#[tokio::test]
async fn the_python_example_keeps_the_contract_behind_a_fence() {
    let place = Place::new();
    let program = place.install("python/database.py");
    let folder = place.folder("data");
    let arguments = Value::Texts(vec![format!("{folder}/secrets.db")]);
    let confine = fence(&[], &[&folder], &[]);
    let store = place.store_with(&program, [("args", arguments), ("confine", confine)]);
    let trials = keyhaul_conformance::run(async || Handles::same(store.clone())).await;
    assert!(trials > 35, "{trials} trials");
}
