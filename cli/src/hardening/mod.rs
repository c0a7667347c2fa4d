//! What the process does to itself before the first secret: no core dump, not dumpable, memory
//! wiped when freed, panics that print no payload.

mod allocator;

use std::panic;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// What the process changed about itself that a program it starts must not inherit.
#[derive(Clone, Copy, Debug, Default)]
pub struct Inherited {
    core_soft: Option<u64>,
}

/// Hardens the process. Best effort: where the system refuses, the work goes on.
pub fn harden() -> Inherited {
    panic::set_hook(Box::new(|info| {
        // The payload may hold anything, a secret included: the place is enough to find it.
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        crate::output::words(format_args!(
            "keyhaul: internal error at {place}; please report it"
        ));
    }));
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    let mut inherited = Inherited::default();
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_CORE) {
        // The hard limit stays: it could not be given back to the program that is started.
        if soft > 0 && setrlimit(Resource::RLIMIT_CORE, 0, hard).is_ok() {
            inherited.core_soft = Some(soft);
        }
    }
    inherited
}

impl Inherited {
    /// Gives back what [`harden`] took, for the program about to be executed. Only system calls:
    /// may be called between fork and exec. Executing resets the dumpable flag by itself.
    pub fn restore(self) -> nix::Result<()> {
        match self.core_soft {
            Some(soft) => {
                let (_, hard) = getrlimit(Resource::RLIMIT_CORE)?;
                setrlimit(Resource::RLIMIT_CORE, soft, hard)
            }
            None => Ok(()),
        }
    }
}
