//! What files a program may reach, and what network, held by the kernel (Landlock).

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use keyhaul_core::{Error, ErrorKind, Result};
use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, PathBeneath,
    PathFd, PathFdError, Ruleset, RulesetAttr as _, RulesetCreated, RulesetCreatedAttr as _,
    RulesetError, Scope,
};

/// Where the system keeps programs, and what they need to run, to find hosts and to know
/// certificates. Not all of `/etc`: keyhaul's own keys are there.
const SYSTEM: &[&str] = &[
    "/bin",
    "/etc/alternatives",
    "/etc/ca-certificates",
    "/etc/crypto-policies",
    "/etc/gai.conf",
    "/etc/group",
    "/etc/host.conf",
    "/etc/hosts",
    "/etc/ld.so.cache",
    "/etc/ld.so.preload",
    "/etc/localtime",
    "/etc/nsswitch.conf",
    "/etc/passwd",
    "/etc/pki/ca-trust",
    "/etc/pki/tls/certs",
    "/etc/pki/tls/openssl.cnf",
    "/etc/protocols",
    "/etc/resolv.conf",
    "/etc/services",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
    "/lib",
    "/lib32",
    "/lib64",
    "/sbin",
    "/usr",
];

/// Devices that hold nothing.
const DEVICES: &[&str] = &[
    "/dev/full",
    "/dev/null",
    "/dev/random",
    "/dev/urandom",
    "/dev/zero",
];

/// The rules that we know of. A kernel that has fewer keeps those that it has, but for the first:
/// without them there is no fence.
const FIRST: ABI = ABI::V1;
const KNOWN: ABI = ABI::V6;

/// What the policy lets a program reach besides the system.
#[derive(Debug)]
pub(crate) struct Fence {
    pub(crate) read: Vec<PathBuf>,
    pub(crate) write: Vec<PathBuf>,
    /// TCP and UDP.
    pub(crate) network: bool,
    /// Sockets that have a path. Those that have a name only stay out of reach.
    pub(crate) unix: bool,
    /// Where the policy says so.
    pub(crate) place: String,
}

impl Fence {
    /// The rules, as the kernel keeps them, for `program`.
    ///
    /// # Errors
    /// `Unsupported` where the kernel has none such, `InvalidConfig` where a path is not there.
    pub(crate) fn rules(&self, program: &Path) -> Result<OwnedFd> {
        let mut rules = self.handled().map_err(no_fence)?;
        let readable = AccessFs::from_read(KNOWN);
        for path in SYSTEM.iter().map(Path::new) {
            // What a system does not have, nobody can reach.
            if let Ok(file) = PathFd::new(path) {
                rules = allow(rules, path, file, readable)?;
            }
        }
        for path in DEVICES.iter().map(Path::new) {
            if let Ok(file) = PathFd::new(path) {
                rules = allow(rules, path, file, AccessFs::ReadFile | AccessFs::WriteFile)?;
            }
        }
        let read = self.read.iter().map(|path| (path.as_path(), readable));
        let all = AccessFs::from_all(KNOWN);
        let write = self.write.iter().map(|path| (path.as_path(), all));
        for (path, access) in read.chain(write).chain([(program, readable)]) {
            let file = PathFd::new(path).map_err(|error| self.missing(path, error))?;
            rules = allow(rules, path, file, access)?;
        }
        let rules: Option<OwnedFd> = rules.into();
        rules.ok_or_else(|| unsupported("the kernel took no rules"))
    }

    /// Rules by which nothing is allowed.
    fn handled(&self) -> std::result::Result<RulesetCreated, RulesetError> {
        let mut rules = Ruleset::default()
            .set_compatibility(CompatLevel::HardRequirement)
            .handle_access(AccessFs::from_all(FIRST))?
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(KNOWN))?;
        if !self.network {
            // The filter of calls lets it make no such socket: this is for one that it comes by.
            rules = rules.handle_access(AccessNet::from_all(KNOWN))?;
        }
        rules.scope(Scope::from_all(KNOWN))?.create()
    }

    fn missing(&self, path: &Path, error: PathFdError) -> Error {
        let what = format!("{} is not there to be reached", path.display());
        Error::new(ErrorKind::InvalidConfig, what)
            .with_place(&self.place)
            .with_source(error)
    }
}

/// Lets `path`, and what is below it, be reached so.
fn allow(
    rules: RulesetCreated,
    path: &Path,
    file: PathFd,
    access: impl Into<BitFlags<AccessFs>>,
) -> Result<RulesetCreated> {
    let mut access = access.into();
    if !path.is_dir() {
        access &= AccessFs::from_file(KNOWN);
    }
    rules
        .add_rule(PathBeneath::new(file, access))
        .map_err(no_fence)
}

/// Puts the calling process behind the fence, and whatever it starts. To be called after it gave up
/// new privileges, between fork and exec: it makes one system call.
pub(crate) fn enter(rules: &OwnedFd) -> io::Result<()> {
    // SAFETY: the call takes a descriptor, which is open, and a number.
    let entered = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, rules.as_raw_fd(), 0) };
    if entered < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn no_fence(error: RulesetError) -> Error {
    unsupported("the kernel cannot confine a program as the policy says").with_source(error)
}

fn unsupported(what: &'static str) -> Error {
    Error::new(ErrorKind::Unsupported, what).with_advice(
        "`confine` takes Landlock: Linux 5.13, with `landlock` in its list of security modules (`lsm=`)",
    )
}
