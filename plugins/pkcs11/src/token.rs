//! A token: found, logged in to, and worked with in sessions that are kept for the next one.
//!
//! No lock of the standard library is held while the token's library is called: who waits for one
//! waits without a limit. What one thread at a time does with the library, it does at the gate's
//! door.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use cryptoki::error::{Error as Pkcs11Error, RvError};
use cryptoki::session::{Session, SessionState, UserType};
use cryptoki::slot::{Slot, TokenInfo};
use cryptoki::types::RawAuthPin;
use keyhaul_core::{Error, ErrorKind, Result};

use crate::config::Settings;
use crate::error::Failure;
use crate::gate::{Gate, Gates};
use crate::module::Module;
use crate::pin::{Pin, Refusals, Refused};
use crate::raw::Values;

/// How long work waits for a session, where the token has fewer than the store would use.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is done at the door, as those are told who waited for it in vain.
const ENTERING: &str = "the opening of a session, or the login,";
const LEAVING: &str = "the closing of a session";
const LOOKING: &str = "the search for the token";

/// A token. All of it blocks.
pub(crate) struct Token {
    gates: Gates,
    refusals: Refusals,
    settings: Settings,
    module: OnceLock<Module>,
    state: Mutex<State>,
    /// Of whoever is at the door.
    pin: Mutex<Pin>,
    returned: Condvar,
}

/// What is known of the token between calls.
#[derive(Default)]
struct State {
    link: Option<Link>,
    /// Counts links, so that a session of one that is gone is not kept for another.
    epoch: u64,
}

/// A token that is there. Made at the door.
struct Link {
    found: Found,
    idle: Vec<Session>,
    /// How many sessions are at work.
    busy: usize,
}

/// What a link's sessions are opened by.
#[derive(Clone)]
struct Found {
    epoch: u64,
    slot: Slot,
    read_only: bool,
    refused: Arc<Refused>,
}

/// What work with the token needs. Its session is logged in.
pub(crate) struct Desk<'a> {
    pub(crate) session: &'a Session,
    pub(crate) values: Values,
    pub(crate) application: &'a str,
    /// Whether the token takes no writes.
    pub(crate) read_only: bool,
}

impl Token {
    pub(crate) fn new(gates: Gates, refusals: Refusals, settings: Settings) -> Self {
        let pin = Pin::new(settings.pin.clone());
        Self {
            gates,
            refusals,
            settings,
            module: OnceLock::new(),
            state: Mutex::default(),
            pin: Mutex::new(pin),
            returned: Condvar::new(),
        }
    }

    /// Does `work`, which changes nothing, in a session. Where the session turns out to be worth
    /// nothing, as after the token was taken out and put in again, once more in a new one.
    pub(crate) fn with<T>(&self, work: impl Fn(&Desk<'_>) -> Result<T, Failure>) -> Result<T> {
        let module = self.module()?;
        let turn = module.gate.read()?;
        let done = self.twice(module, work);
        // Even that nothing is there can be wrong where somebody wrote meanwhile.
        turn.held()?;
        done
    }

    /// The same for `work` that writes: nobody else is at work then.
    pub(crate) fn with_alone<T>(
        &self,
        work: impl Fn(&Desk<'_>) -> Result<T, Failure>,
    ) -> Result<T> {
        let module = self.module()?;
        let _turn = module.gate.write()?;
        self.twice(module, work)
    }

    /// Whether the token takes no writes, as it says now. Needs no login.
    pub(crate) fn is_read_only(&self) -> Result<bool> {
        let module = self.module()?;
        let _door = module.gate.door(LOOKING)?;
        let found = self.find(module)?;
        match module.pkcs11.get_token_info(found.slot) {
            Ok(info) if info.write_protected() == found.read_only => Ok(found.read_only),
            _ => {
                drop(self.unlink(found.epoch));
                Ok(self.find(module)?.read_only)
            }
        }
    }

    /// The library. Where threads meet as it is loaded, the first one's is that of all.
    fn module(&self) -> Result<&Module> {
        if let Some(module) = self.module.get() {
            return Ok(module);
        }
        let module = Module::load(&self.settings.module, &self.gates)?;
        Ok(self.module.get_or_init(|| module))
    }

    fn twice<T>(
        &self,
        module: &Module,
        work: impl Fn(&Desk<'_>) -> Result<T, Failure>,
    ) -> Result<T> {
        match self.attempt(module, &work) {
            Err(failure) if failure.is_stale() => Ok(self.attempt(module, &work)?),
            done => Ok(done?),
        }
    }

    fn attempt<T>(
        &self,
        module: &Module,
        work: impl Fn(&Desk<'_>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut visit = self.enter(module)?;
        let done = match &visit.session {
            Some(session) => work(&Desk {
                session,
                values: module.values,
                application: &self.settings.application,
                read_only: visit.found.read_only,
            }),
            None => Err(Error::new(ErrorKind::Internal, "a session without a session").into()),
        };
        if let Err(failure) = &done
            && failure.is_stale()
        {
            close(&module.gate, visit.session.take());
            close(&module.gate, self.unlink(visit.found.epoch));
        }
        done
    }

    /// A session that is logged in: one that is kept, or a new one.
    fn enter<'a>(&'a self, module: &'a Module) -> Result<Visit<'a>, Failure> {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.at_door(module) {
                Err(failure) if failure.is_out_of_sessions() && self.is_returned(until) => {}
                done => return done,
            }
        }
    }

    fn at_door<'a>(&'a self, module: &'a Module) -> Result<Visit<'a>, Failure> {
        // Let go of last: a session that cannot be used is closed before.
        let _door = module.gate.door(ENTERING)?;
        let found = self.find(module)?;
        match self.session(module, &found) {
            // The sessions of a token that was taken out since. A new one of a new link is no such
            // thing.
            Err(failure) if failure.is_stale() => {
                drop(self.unlink(found.epoch));
                let found = self.find(module)?;
                self.session(module, &found)
            }
            done => done,
        }
    }

    /// Waits until a session is back, or none can come back.
    fn is_returned(&self, until: Instant) -> bool {
        let mut state = self.state();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match &state.link {
                _ if left.is_zero() => return false,
                Some(link) if link.idle.is_empty() && link.busy == 0 => return false,
                Some(link) if link.idle.is_empty() => {}
                Some(_) | None => return true,
            }
            let waited = self.returned.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The token that is known, or looked for. At the door.
    fn find(&self, module: &Module) -> Result<Found, Failure> {
        if let Some(link) = &self.state().link {
            return Ok(link.found.clone());
        }
        let (slot, info) = module.find(&self.settings)?;
        // Serial numbers are a maker's own.
        let name = format!("{}/{}", info.manufacturer_id(), info.serial_number());
        let mut state = self.state();
        state.epoch += 1;
        let found = Found {
            epoch: state.epoch,
            slot,
            read_only: info.write_protected(),
            refused: self.refusals.of(&name),
        };
        state.link = Some(Link {
            found: found.clone(),
            idle: Vec::new(),
            busy: 0,
        });
        Ok(found)
    }

    /// A session of the token that was found. At the door.
    fn session<'a>(&'a self, module: &'a Module, found: &Found) -> Result<Visit<'a>, Failure> {
        let kept = self.link_of(found.epoch, |link| link.idle.pop()).flatten();
        let session = match kept {
            Some(session) => session,
            None if found.read_only => module.pkcs11.open_ro_session(found.slot)?,
            None => module.pkcs11.open_rw_session(found.slot)?,
        };
        self.log_in(module, &session, found)?;
        self.link_of(found.epoch, |link| link.busy += 1);
        Ok(Visit {
            token: self,
            gate: &module.gate,
            session: Some(session),
            found: found.clone(),
        })
    }

    /// Sees to it that `session` is the user's. A search in one that is not would find nothing, and
    /// every secret would seem to be gone.
    fn log_in(&self, module: &Module, session: &Session, found: &Found) -> Result<(), Failure> {
        if is_users(session)? {
            return Ok(());
        }
        let refused = &found.refused;
        let _alone = refused.alone()?;
        if is_users(session)? {
            return Ok(());
        }
        may_log_in(&module.pkcs11.get_token_info(found.slot)?)?;
        let pin = self.pin().for_login(refused)?;
        // Wiped by its type.
        let copy = RawAuthPin::new(Box::new(pin.expose().to_vec()));
        match session.login_with_raw(UserType::User, &copy) {
            Ok(()) => refused.clear(),
            // By somebody else in this process, a moment ago.
            Err(Pkcs11Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => {}
            Err(Pkcs11Error::Pkcs11(
                RvError::PinIncorrect | RvError::PinInvalid | RvError::PinLenRange,
                _,
            )) => {
                refused.add(pin);
                return Err(self.pin().refusal().into());
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Does `work` with the link of this epoch, where it is still the one.
    fn link_of<T>(&self, epoch: u64, work: impl FnOnce(&mut Link) -> T) -> Option<T> {
        let mut state = self.state();
        let link = state.link.as_mut();
        link.filter(|link| link.found.epoch == epoch).map(work)
    }

    /// Gives up the link of this epoch, with the sessions that are kept: they are to be closed at the
    /// door.
    fn unlink(&self, epoch: u64) -> Option<Link> {
        self.state().link.take_if(|link| link.found.epoch == epoch)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pin(&self) -> MutexGuard<'_, Pin> {
        self.pin.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Closes sessions, or what has some: at the door. Where that is not free in time, they stay open.
fn close<T>(gate: &Gate, sessions: Option<T>) {
    let Some(sessions) = sessions else {
        return;
    };
    match gate.door(LEAVING) {
        Ok(_door) => drop(sessions),
        Err(_) => std::mem::forget(sessions),
    }
}

/// A session at work, which comes back when it is done, however that ends.
struct Visit<'a> {
    token: &'a Token,
    gate: &'a Gate,
    session: Option<Session>,
    found: Found,
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        let mut session = self.session.take();
        self.token.link_of(self.found.epoch, |link| {
            link.busy = link.busy.saturating_sub(1);
            link.idle.extend(session.take());
        });
        // That of a link that is gone.
        close(self.gate, session);
        self.token.returned.notify_one();
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        if let Some(module) = self.module.get() {
            let state = self.state.get_mut();
            let link = state.unwrap_or_else(PoisonError::into_inner).link.take();
            close(&module.gate, link);
        }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

fn is_users(session: &Session) -> Result<bool, Failure> {
    let state = session.get_session_info()?.session_state();
    match state {
        SessionState::RoUser | SessionState::RwUser => Ok(true),
        SessionState::RwSecurityOfficer => Err(Error::new(
            ErrorKind::Unavailable,
            "the token's security officer is logged in, in this very process",
        )
        .into()),
        _ => Ok(false),
    }
}

/// Refuses to try a PIN where that could lock the token, or could not work.
fn may_log_in(info: &TokenInfo) -> Result<()> {
    let refuse = |kind, what: &'static str, advice: &'static str| {
        Err(Error::new(kind, what).with_advice(advice))
    };
    if info.user_pin_locked() {
        return refuse(
            ErrorKind::Unauthenticated,
            "the token's user PIN is locked",
            "its security officer can set a new one, with the token's own tools",
        );
    }
    if info.user_pin_final_try() {
        return refuse(
            ErrorKind::Unauthenticated,
            "one more wrong PIN would lock the token, so keyhaul tries none",
            "log in once with the token's own tools and the right PIN: that gives all tries back",
        );
    }
    if !info.user_pin_initialized() {
        return refuse(
            ErrorKind::InvalidConfig,
            "the token has no user PIN yet",
            "its security officer sets one, with the token's own tools",
        );
    }
    if info.protected_authentication_path() {
        return refuse(
            ErrorKind::InvalidConfig,
            "the token takes its PIN from a pad of its own, where nobody stands",
            "use a token that takes it from the program",
        );
    }
    Ok(())
}
