//! keyhaul's store in a PKCS#11 token: an HSM, a smart card, SoftHSM.
//!
//! A secret is a **data object** of the token (`CKO_DATA`): private, so that only who knows the PIN
//! reads or writes it; its label is the path, its application `keyhaul`, or what the policy says. A
//! data object that another program put there so is one of keyhaul's, and the reverse.
//!
//! # What it does not claim
//!
//! PKCS#11 has no call that creates an object only where there is none, and none that compares and
//! sets. So the store has neither `create` nor `update`, no versions, labels or expiry: a promise
//! that holds only while nobody else writes is none.
//!
//! # How a value is replaced
//!
//! The new object is made first, the old ones are destroyed after: a crash between leaves both.
//! Which one counts stands in each, as its object identifier (see `turn.rs`): the later one. Before
//! an old one goes, the new one is held against what was given: a token that shortens labels or drops
//! identifiers would lose the value. To change `CKA_VALUE` in place would be shorter, and leaves it to
//! each token whether a reader, or a crash, can meet half a value.
//!
//! A request that was given up changes nothing any more: right before an object is made or destroyed,
//! its thread looks whether anybody waits for it still.
//!
//! # Sessions, logins, the PIN
//!
//! - A login counts for all sessions of a process with a token. The store logs in once, looks
//!   before each operation whether that still holds, and logs in anew where it does not.
//! - **A PIN that the token refused is never tried again**, by no retry, no later request and no
//!   other store of the process, until its source says another one or the token took one. And no PIN
//!   is tried where the token says that one more wrong one would lock it: so no policy with a mistake,
//!   and no unit that is restarted over and over, locks a token that says so.
//! - Libraries of tokens block. Calls run on threads, as many as the store has sessions. A read that
//!   never returns costs its thread and its session; after 3 s writes go in beside it, and should it
//!   return after that, its answer is thrown away. A write, a login or a session's opening that never
//!   returns stops all stores of the library: each request is `Unavailable` after some seconds, and
//!   says what hangs. Reads that are under way go on. No wait is without a limit.
//! - Within a process, a write is alone with the library: SoftHSM 2.6 shows an object that is being
//!   made to other threads, in part, and fails to make one while they search. Stores of one factory
//!   keep each other's turns, by whatever names they know the library. Between processes it does neither; but a search beside a writer can
//!   find nothing where there always was something, so that a read that finds nothing looks again,
//!   for 75 ms in all. A listing does not: it can miss a secret in the moment it is replaced.
//! - The library is loaded once, told to lock for threads (`CKF_OS_LOCKING_OK`), and neither
//!   finalised nor unloaded: others in the process may use it. A forked child that goes on without
//!   `exec` may not use the store, as PKCS#11 says of the library.
//! - A token that is taken out ends its sessions. The next operation looks for it anew.
//!
//! # Why not `C_WrapKey`, and files beside?
//!
//! For tokens with little room, values wrapped by a key of the token are the other way. It needs
//! a second store for the files, and one whose loss the token cannot notice. Data objects come first.

mod caller;
mod config;
mod error;
mod gate;
mod module;
mod objects;
mod pin;
mod raw;
mod store;
mod token;
mod turn;
mod uri;

use std::sync::Arc;

use keyhaul_core::registry::{Limits, OptionSpec};
use keyhaul_core::{Result, SecretStore, StoreConfig, StoreFactory};

use crate::store::Pkcs11Store;

/// The longest value the store takes, in bytes. Many tokens take less, and say so when they are full.
pub const MAX_VALUE: usize = 64 * 1024;

/// Makes stores in PKCS#11 tokens: `pkcs11`. Clones are one factory.
#[derive(Clone, Debug, Default)]
pub struct Pkcs11Factory {
    gates: gate::Gates,
    refusals: pin::Refusals,
}

impl StoreFactory for Pkcs11Factory {
    fn schemes(&self) -> &[&'static str] {
        &[config::SCHEME]
    }

    fn summary(&self) -> &'static str {
        "data objects in a PKCS#11 token: an HSM, a smart card, SoftHSM"
    }

    fn options(&self) -> &[OptionSpec] {
        config::OPTIONS
    }

    fn is_key_service(&self) -> bool {
        false
    }

    fn limits(&self) -> Option<Limits> {
        Some(Limits::new(config::DEFAULT_SESSIONS, None))
    }

    fn alias(&self) -> Option<&'static str> {
        None
    }

    fn open(&self, config: &StoreConfig) -> Result<Arc<dyn SecretStore>> {
        Ok(Arc::new(Pkcs11Store::open(
            config,
            &self.gates,
            &self.refusals,
        )?))
    }
}

keyhaul_plugin_sdk::export_plugin!(Pkcs11Factory::default());
