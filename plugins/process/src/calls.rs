//! Which system calls a program behind a fence may not make, held by the kernel (seccomp).
//!
//! Landlock knows files, and TCP. Past it lead sockets (a service that listens at a path does for its
//! caller what the caller could not), the keys that the kernel keeps for the whole user, and calls
//! that reach into other processes or make worlds of their own. A plugin has no use for any of them, so
//! they are refused by name; all others are allowed, since no list of what a shell, Python, Go and Java
//! need would leave anything out that matters.

use keyhaul_core::{Error, ErrorKind, Result};

use crate::fence::Fence;

#[cfg(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    target_arch = "riscv64"
))]
pub(crate) use known::Filter;

#[cfg(not(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    target_arch = "riscv64"
)))]
pub(crate) use unknown::Filter;

#[cfg(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    target_arch = "riscv64"
))]
mod known {
    use std::collections::BTreeMap;
    use std::io;

    use seccompiler::{
        BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
        SeccompFilter, SeccompRule, sock_filter,
    };

    use super::{Fence, Result, unsupported};

    /// Calls that are refused whatever they ask for.
    const REFUSED: &[libc::c_long] = &[
        // The kernel's keys are those of every process of the user: keyhaul's too.
        libc::SYS_add_key,
        libc::SYS_keyctl,
        libc::SYS_request_key,
        // The memory and the descriptors of others.
        libc::SYS_kcmp,
        libc::SYS_pidfd_getfd,
        libc::SYS_process_madvise,
        libc::SYS_process_vm_readv,
        libc::SYS_process_vm_writev,
        libc::SYS_ptrace,
        // Work that the kernel does without asking this filter, and ways to hold it up.
        libc::SYS_bpf,
        libc::SYS_io_uring_enter,
        libc::SYS_io_uring_register,
        libc::SYS_io_uring_setup,
        libc::SYS_perf_event_open,
        libc::SYS_userfaultfd,
        // Other views of the file system, and files by what is no path.
        libc::SYS_chroot,
        libc::SYS_fanotify_init,
        libc::SYS_fsconfig,
        libc::SYS_fsmount,
        libc::SYS_fsopen,
        libc::SYS_fspick,
        libc::SYS_mount,
        libc::SYS_mount_setattr,
        libc::SYS_move_mount,
        libc::SYS_open_by_handle_at,
        libc::SYS_open_tree,
        libc::SYS_pivot_root,
        libc::SYS_setns,
        libc::SYS_umount2,
        libc::SYS_unshare,
        // Another kernel, or more of this one.
        libc::SYS_delete_module,
        libc::SYS_finit_module,
        libc::SYS_init_module,
        libc::SYS_kexec_file_load,
        libc::SYS_kexec_load,
    ];

    /// What `clone` has for new namespaces.
    const NAMESPACES: &[libc::c_int] = &[
        libc::CLONE_NEWCGROUP,
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWNET,
        libc::CLONE_NEWNS,
        libc::CLONE_NEWPID,
        libc::CLONE_NEWUSER,
        libc::CLONE_NEWUTS,
    ];

    /// The kind in a socket's type, beside its flags.
    const SOCKET_KIND: u64 = 0xf;

    /// Packet sockets by their old name, which the kernel takes for any family of the network.
    const SOCK_PACKET: libc::c_int = 10;

    /// From here on numbers are those of x32, the other way into the same kernel.
    #[cfg(target_arch = "x86_64")]
    const X32: u32 = 0x4000_0000;

    /// A filter, ready to be taken on.
    pub(crate) struct Filter(BpfProgram);

    impl Filter {
        /// What `fence` leaves open.
        ///
        /// # Errors
        /// `Unsupported` where the kernel has no such filters.
        pub(crate) fn new(fence: &Fence) -> Result<Self> {
            if let Err(error) = is_known() {
                return Err(unsupported().with_source(error));
            }
            program(fence)
                .map(Self)
                .map_err(|error| unsupported().with_source(error))
        }

        /// Has the calling process refused these calls, and whatever it starts. To be called after it
        /// gave up new privileges, between fork and exec: it makes one system call.
        pub(crate) fn enter(&self) -> io::Result<()> {
            let program = libc::sock_fprog {
                // The crate makes no longer one.
                len: self.0.len() as libc::c_ushort,
                filter: self.0.as_ptr().cast_mut().cast(),
            };
            // SAFETY: the kernel copies the program, whose length this is, and writes nothing.
            let entered = unsafe {
                libc::syscall(
                    libc::SYS_seccomp,
                    libc::SECCOMP_SET_MODE_FILTER,
                    0,
                    &raw const program,
                )
            };
            if entered < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        }
    }

    /// Whether the kernel has filters. Said here, where it can be told from all else that can fail
    /// between fork and exec.
    fn is_known() -> io::Result<()> {
        let answer = libc::SECCOMP_RET_ERRNO;
        // SAFETY: the kernel reads the one number.
        let known = unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_GET_ACTION_AVAIL,
                0,
                &raw const answer,
            )
        };
        if known < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    fn program(fence: &Fence) -> std::result::Result<BpfProgram, BackendError> {
        let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
            REFUSED.iter().map(|call| (*call, Vec::new())).collect();
        rules.insert(libc::SYS_clone, new_namespaces()?);
        // The limits of others, keyhaul's too, are no file.
        let other = vec![SeccompRule::new(vec![is_not(0, 0)?])?];
        rules.insert(libc::SYS_prlimit64, other);
        rules.insert(libc::SYS_socket, sockets(fence)?);
        rules.insert(libc::SYS_socketpair, pairs(fence)?);
        let filter = SeccompFilter::new(
            rules,
            SeccompAction::Allow,
            SeccompAction::Errno(libc::EPERM as u32),
            std::env::consts::ARCH.try_into()?,
        )?;
        // A call by another machine's numbers, 32 bits, ends the process: the crate's first words.
        let rest: BpfProgram = filter.try_into()?;
        Ok(first().into_iter().chain(rest).collect())
    }

    /// What comes before: the crate knows no ranges of numbers, and one answer for all.
    fn first() -> Vec<sock_filter> {
        let instruction = |code: u32, jt, jf, k| sock_filter {
            code: code as u16,
            jt,
            jf,
            k,
        };
        let answers = |number: i32| {
            let answer = libc::SECCOMP_RET_ERRNO | number as u32;
            instruction(libc::BPF_RET | libc::BPF_K, 0, 0, answer)
        };
        let jumps = |how: u32, number, jt, jf| {
            instruction(libc::BPF_JMP | how | libc::BPF_K, jt, jf, number)
        };
        let call_number = instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0);
        vec![
            call_number,
            #[cfg(target_arch = "x86_64")]
            jumps(libc::BPF_JGE, X32, 0, 1),
            #[cfg(target_arch = "x86_64")]
            answers(libc::EPERM),
            // Its flags are in memory, where no filter looks. Who hears that there is no such call
            // takes `clone`.
            jumps(libc::BPF_JEQ, libc::SYS_clone3 as u32, 0, 1),
            answers(libc::ENOSYS),
        ]
    }

    fn new_namespaces() -> std::result::Result<Vec<SeccompRule>, BackendError> {
        let each = NAMESPACES.iter().map(|flag| {
            let flag = word(*flag);
            SeccompRule::new(vec![condition(0, SeccompCmpOp::MaskedEq(flag), flag)?])
        });
        each.collect()
    }

    /// Sockets of all families but those that the policy opens, and of those the raw ones.
    fn sockets(fence: &Fence) -> std::result::Result<Vec<SeccompRule>, BackendError> {
        let mut families = Vec::new();
        if fence.network {
            families.extend([libc::AF_INET, libc::AF_INET6]);
        }
        if fence.unix {
            families.push(libc::AF_UNIX);
        }
        if families.is_empty() {
            return Ok(Vec::new());
        }
        let others = families.iter().map(|family| is_not(0, *family));
        let others = others.collect::<std::result::Result<_, _>>()?;
        Ok(vec![
            SeccompRule::new(others)?,
            of_kind(libc::SOCK_RAW)?,
            of_kind(SOCK_PACKET)?,
        ])
    }

    /// Pairs are how a program talks with its own. One of datagrams can also send to any path.
    fn pairs(fence: &Fence) -> std::result::Result<Vec<SeccompRule>, BackendError> {
        let mut rules = vec![SeccompRule::new(vec![is_not(0, libc::AF_UNIX)?])?];
        if !fence.unix {
            rules.extend([of_kind(libc::SOCK_DGRAM)?, of_kind(libc::SOCK_RAW)?]);
        }
        Ok(rules)
    }

    const fn word(number: libc::c_int) -> u64 {
        number as u32 as u64
    }

    fn of_kind(kind: libc::c_int) -> std::result::Result<SeccompRule, BackendError> {
        let masked = SeccompCmpOp::MaskedEq(SOCKET_KIND);
        SeccompRule::new(vec![condition(1, masked, word(kind))?])
    }

    fn is_not(
        argument: u8,
        number: libc::c_int,
    ) -> std::result::Result<SeccompCondition, BackendError> {
        condition(argument, SeccompCmpOp::Ne, word(number))
    }

    fn condition(
        argument: u8,
        how: SeccompCmpOp,
        number: u64,
    ) -> std::result::Result<SeccompCondition, BackendError> {
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, how, number)
    }
}

/// Machines whose calls nobody has looked at: no program runs confined there.
#[cfg(not(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    target_arch = "riscv64"
)))]
mod unknown {
    use std::convert::Infallible;
    use std::io;

    use super::{Fence, Result, unsupported};

    /// There is none.
    pub(crate) struct Filter(Infallible);

    impl Filter {
        pub(crate) fn new(_: &Fence) -> Result<Self> {
            Err(unsupported())
        }

        pub(crate) fn enter(&self) -> io::Result<()> {
            match self.0 {}
        }
    }
}

fn unsupported() -> Error {
    Error::new(
        ErrorKind::Unsupported,
        "this machine's kernel cannot refuse a program calls, as `confine` asks",
    )
    .with_advice("it takes seccomp filters, on x86_64, aarch64 or riscv64")
}
