//! A token: found, logged in to, and worked with in sessions that are kept for the next one.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cryptoki::error::{Error as Pkcs11Error, RvError};
use cryptoki::session::{Session, SessionState, UserType};
use cryptoki::slot::{Slot, TokenInfo};
use cryptoki::types::RawAuthPin;
use keyhaul_core::{Error, ErrorKind, Result};

use crate::config::Settings;
use crate::error::Failure;
use crate::gate::Gate;
use crate::module::Module;
use crate::pin::{Pin, Refusals, Refused};
use crate::raw::Values;

/// How long work waits for a session, where the token has fewer than the store would use.
const PATIENCE: Duration = Duration::from_secs(5);

/// A token. All of it blocks.
pub(crate) struct Token {
    gate: Arc<Gate>,
    refusals: Refusals,
    settings: Settings,
    state: Mutex<State>,
    returned: Condvar,
}

struct State {
    module: Option<Module>,
    link: Option<Link>,
    /// Counts links, so that a session of one that is gone is not kept for another.
    epoch: u64,
    pin: Pin,
}

/// A token that is there.
struct Link {
    slot: Slot,
    read_only: bool,
    refused: Arc<Mutex<Refused>>,
    idle: Vec<Session>,
    /// How many sessions are at work.
    busy: usize,
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
    pub(crate) fn new(gate: Arc<Gate>, refusals: Refusals, settings: Settings) -> Self {
        let state = State {
            module: None,
            link: None,
            epoch: 0,
            pin: Pin::new(settings.pin.clone()),
        };
        Self {
            gate,
            refusals,
            settings,
            state: Mutex::new(state),
            returned: Condvar::new(),
        }
    }

    /// Does `work`, which changes nothing, in a session. Where the session turns out to be worth
    /// nothing, as after the token was taken out and put in again, once more in a new one.
    pub(crate) fn with<T>(&self, work: impl Fn(&Desk<'_>) -> Result<T, Failure>) -> Result<T> {
        let _turn = self.gate.read()?;
        self.twice(work)
    }

    /// The same for `work` that writes: nobody else is at work then.
    pub(crate) fn with_alone<T>(
        &self,
        work: impl Fn(&Desk<'_>) -> Result<T, Failure>,
    ) -> Result<T> {
        let _turn = self.gate.write()?;
        self.twice(work)
    }

    /// Whether the token takes no writes, as it says now. Needs no login.
    pub(crate) fn is_read_only(&self) -> Result<bool> {
        let mut state = self.state();
        if state.has_changed(self)? {
            let epoch = state.epoch;
            state.forget(self, epoch);
        }
        let _door = self.gate.door()?;
        Ok(state.connect(self)?.1.read_only)
    }

    fn twice<T>(&self, work: impl Fn(&Desk<'_>) -> Result<T, Failure>) -> Result<T> {
        match self.attempt(&work) {
            Err(failure) if failure.is_stale() => Ok(self.attempt(&work)?),
            done => Ok(done?),
        }
    }

    fn attempt<T>(&self, work: impl Fn(&Desk<'_>) -> Result<T, Failure>) -> Result<T, Failure> {
        let mut visit = self.enter()?;
        let done = match &visit.session {
            Some(session) => work(&Desk {
                session,
                values: visit.values,
                application: &self.settings.application,
                read_only: visit.read_only,
            }),
            None => Err(Error::new(ErrorKind::Internal, "a session without a session").into()),
        };
        if let Err(failure) = &done
            && failure.is_stale()
        {
            close(&self.gate, visit.session.take());
            self.state().forget(self, visit.epoch);
        }
        done
    }

    /// A session that is logged in: one that is kept, or a new one.
    fn enter(&self) -> Result<Visit<'_>, Failure> {
        let until = Instant::now() + PATIENCE;
        let mut is_fresh = false;
        let mut state = self.state();
        loop {
            match state.session(self) {
                Ok((session, values, read_only)) => {
                    return Ok(Visit {
                        token: self,
                        session: Some(session),
                        values,
                        read_only,
                        epoch: state.epoch,
                    });
                }
                // The sessions of a token that was taken out since. A new one of a new link is no
                // such thing.
                Err(failure) if failure.is_stale() && !is_fresh => {
                    let epoch = state.epoch;
                    state.forget(self, epoch);
                    is_fresh = true;
                }
                Err(failure) if failure.is_out_of_sessions() && state.is_busy() => {
                    let left = until.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Err(failure);
                    }
                    let waited = self.returned.wait_timeout(state, left);
                    state = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn session(&mut self, token: &Token) -> Result<(Session, Values, bool), Failure> {
        // Let go of last: a session that cannot be used is closed before.
        let _door = token.gate.door()?;
        let (module, link) = self.connect(token)?;
        let (values, read_only) = (module.values, link.read_only);
        let session = match link.idle.pop() {
            Some(session) => session,
            None if read_only => module.pkcs11.open_ro_session(link.slot)?,
            None => module.pkcs11.open_rw_session(link.slot)?,
        };
        let (slot, refused) = (link.slot, Arc::clone(&link.refused));
        self.log_in(&session, slot, &refused)?;
        if let Some(link) = &mut self.link {
            link.busy += 1;
        }
        Ok((session, values, read_only))
    }

    fn connect(&mut self, token: &Token) -> Result<(&Module, &mut Link), Failure> {
        if self.module.is_none() {
            self.module = Some(Module::load(&token.settings.module)?);
        }
        let module = self.module.as_ref().ok_or_else(nothing)?;
        if self.link.is_none() {
            let (slot, info) = module.find(&token.settings)?;
            self.epoch += 1;
            self.link = Some(Link {
                slot,
                read_only: info.write_protected(),
                // Serial numbers are a maker's own.
                refused: token.refusals.of(&format!(
                    "{}/{}",
                    info.manufacturer_id(),
                    info.serial_number()
                )),
                idle: Vec::new(),
                busy: 0,
            });
        }
        let link = self.link.as_mut().ok_or_else(nothing)?;
        Ok((module, link))
    }

    /// Whether the link's token is no longer there, or no longer as it was.
    fn has_changed(&mut self, token: &Token) -> Result<bool, Failure> {
        let _door = token.gate.door()?;
        let (module, link) = self.connect(token)?;
        Ok(match module.pkcs11.get_token_info(link.slot) {
            Ok(info) => info.write_protected() != link.read_only,
            Err(_) => true,
        })
    }

    /// Sees to it that `session` is the user's. A search in one that is not would find nothing, and
    /// every secret would seem to be gone.
    fn log_in(
        &mut self,
        session: &Session,
        slot: Slot,
        refused: &Mutex<Refused>,
    ) -> Result<(), Failure> {
        if is_users(session)? {
            return Ok(());
        }
        // One login at a time: what one store learns of a PIN, the next knows before it tries.
        let mut refused = refused.lock().unwrap_or_else(PoisonError::into_inner);
        if is_users(session)? {
            return Ok(());
        }
        let module = self.module.as_ref().ok_or_else(nothing)?;
        may_log_in(&module.pkcs11.get_token_info(slot)?)?;
        let pin = self.pin.for_login(&refused)?;
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
                return Err(self.pin.refusal().into());
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn is_busy(&self) -> bool {
        self.link.as_ref().is_some_and(|link| link.busy > 0)
    }

    /// Gives up the link of this epoch, with the sessions that are kept.
    fn forget(&mut self, token: &Token, epoch: u64) {
        if self.epoch == epoch {
            close(&token.gate, self.link.take());
        }
    }
}

/// Closes sessions, or what has some: at the door. Where that is not free in time, they stay open.
fn close<T>(gate: &Gate, sessions: T) {
    match gate.door() {
        Ok(_door) => drop(sessions),
        Err(_) => std::mem::forget(sessions),
    }
}

/// A session at work, which comes back when it is done, however that ends.
struct Visit<'a> {
    token: &'a Token,
    session: Option<Session>,
    values: Values,
    read_only: bool,
    epoch: u64,
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        let session = self.session.take();
        let mut state = self.token.state();
        let epoch = state.epoch;
        match state.link.as_mut().filter(|_| epoch == self.epoch) {
            Some(link) => {
                link.busy = link.busy.saturating_sub(1);
                link.idle.extend(session);
            }
            None if session.is_some() => close(&self.token.gate, session),
            None => {}
        }
        self.token.returned.notify_one();
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        let state = self.state.get_mut();
        let link = state.unwrap_or_else(PoisonError::into_inner).link.take();
        if link.is_some() {
            close(&self.gate, link);
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

fn nothing() -> Error {
    Error::new(ErrorKind::Internal, "the token's library is not loaded")
}
