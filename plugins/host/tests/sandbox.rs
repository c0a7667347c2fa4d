//! A sandbox that forbids the call by which the kernel reads for the host: plugins are served all the same.

mod support;

use std::path::Path;

use keyhaul_core::registry::Options;
use keyhaul_core::{ErrorKind, GetOptions, ListOptions, SecretBytes, SecretPath};
use support::{Folder, compile, hostile, open};

/// Has the kernel refuse `process_vm_writev` with EPERM, to this thread and those that it starts.
fn forbid() {
    let statement = |code, k| libc::sock_filter {
        code,
        jt: 0,
        jf: 0,
        k,
    };
    let number = u32::try_from(libc::SYS_process_vm_writev).expect("a number");
    let refused = libc::SECCOMP_RET_ERRNO | u32::try_from(libc::EPERM).expect("a number");
    let mut filter = [
        // The call's number: BPF_LD | BPF_W | BPF_ABS.
        statement(0x20, 0),
        // Is it that one? BPF_JMP | BPF_JEQ | BPF_K.
        libc::sock_filter {
            jf: 1,
            ..statement(0x15, number)
        },
        // BPF_RET | BPF_K.
        statement(0x06, refused),
        statement(0x06, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog {
        len: 4,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: the program has four statements, which live until the call returns.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let mode = libc::SECCOMP_MODE_FILTER;
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, mode, &program), 0);
    }
}

/// The control: what the kernel says to the call.
fn is_forbidden() -> bool {
    // SAFETY: nothing is copied, whether it is allowed or not.
    let done = unsafe {
        libc::process_vm_writev(libc::getpid(), std::ptr::null(), 0, std::ptr::null(), 0, 0)
    };
    done < 0 && std::io::Error::last_os_error().raw_os_error() == Some(libc::EPERM)
}

#[test]
fn a_plugin_is_served_where_the_kernel_may_not_read_for_the_host() {
    let folder = Folder::new();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/c/jar.c");
    let library = compile(&folder, "libjar.so", &source, &[]);
    let nowhere = hostile(&folder, "libhostile.so", &[]);
    let work = move || {
        assert!(!is_forbidden());
        forbid();
        assert!(is_forbidden());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let store = open("jar", &library, Options::default()).expect("a store");
            let path = |path| SecretPath::new(path).expect("valid");
            let value = SecretBytes::copy_from(b"hunter2");
            let put = store.put(&path("a/b"), &value, &Default::default()).await;
            let version = put.expect("put").version;
            assert!(version.is_some(), "a text of the plugin's");
            let got = store.get(&path("a/b"), &GetOptions::default()).await;
            let got = got.expect("there");
            assert!(got.value == value && got.metadata.version == version);
            let error = store.get(&path("none"), &GetOptions::default()).await;
            let error = error.expect_err("not there");
            assert!(
                error.message().contains("no such secret in the jar"),
                "{error}"
            );
            let listed = store.list(&path("a"), &ListOptions::default()).await;
            assert_eq!(listed.expect("listed").secrets, [path("a/b")]);
            // What is not there is no crash here either.
            let store = open("hostile", &nowhere, Options::default()).expect("a store");
            for (what, kind) in [
                ("nowhere/value", ErrorKind::Internal),
                ("nowhere/pairs", ErrorKind::Internal),
                ("nowhere/text", ErrorKind::Internal),
                ("nowhere/words", ErrorKind::Unavailable),
            ] {
                let got = store.get(&path(what), &GetOptions::default()).await;
                assert_eq!(got.expect_err(what).kind(), kind, "{what}");
            }
        });
    };
    // The filter stays with the thread.
    std::thread::spawn(work).join().expect("no panic");
}
