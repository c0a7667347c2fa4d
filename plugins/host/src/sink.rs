//! Where a plugin's answers go.
//!
//! What a plugin holds of a sink is a table that lives as long as the process, and a number. The
//! number is looked up on the thread that a call runs on, and is never given twice. So a plugin that
//! answers too late, or from another thread, reaches nothing: it is refused, and no memory of ours is
//! touched.

use std::cell::RefCell;
use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use keyhaul_core::{Capabilities, Capability, Error, ErrorKind, Result, Secret, SecretBytes};
use keyhaul_plugin_abi as abi;

use crate::answers::ANSWERS;
use crate::attributes::{self, Attributes};
use crate::credential::Credential;
use crate::listing::{Listing, MAX_PAGE};
use crate::log;
use crate::waiting::Waiting;

/// The longest value that is taken, whatever a plugin says that it can hold.
pub(crate) const MAX_VALUE: usize = 64 * 1024 * 1024;

/// What a call has been answered so far.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) capabilities: Option<Capabilities>,
    pub(crate) value: Option<SecretBytes>,
    pub(crate) attributes: Option<Attributes>,
    pub(crate) listing: Listing,
    /// An outcome for each path of a call about many.
    pub(crate) items: Vec<Option<Result<Secret>>>,
    words: Option<Words>,
    /// What the plugin did that no plugin may. The call cannot succeed any more.
    fault: Option<Error>,
    /// What an opening store can ask for, and what it was given.
    credentials: Vec<Credential>,
    lent: Vec<SecretBytes>,
    waiting: Waiting,
}

/// What went wrong, as a plugin says it.
#[derive(Debug)]
pub(crate) struct Words {
    pub(crate) message: Option<String>,
    pub(crate) advice: Option<String>,
    pub(crate) retry_after: Option<Duration>,
}

thread_local! {
    /// The call that runs on this thread, and its number.
    static RUNNING: RefCell<Option<(usize, Answered)>> = const { RefCell::new(None) };
}

/// The number of the next call.
static NEXT: AtomicUsize = AtomicUsize::new(1);

impl Answered {
    /// What a call is answered that somebody waits for.
    pub(crate) fn new(waiting: &Waiting) -> Self {
        Self {
            capabilities: None,
            value: None,
            attributes: None,
            listing: Listing::new(MAX_PAGE, false, None),
            items: Vec::new(),
            words: None,
            fault: None,
            credentials: Vec::new(),
            lent: Vec::new(),
            waiting: waiting.clone(),
        }
    }

    /// It is about this many paths.
    pub(crate) fn about(mut self, paths: usize) -> Self {
        self.items.resize_with(paths, || None);
        self
    }

    /// It fills this page.
    pub(crate) fn on(mut self, listing: Listing) -> Self {
        self.listing = listing;
        self
    }

    /// These can be asked for.
    pub(crate) fn with_credentials(mut self, credentials: Vec<Credential>) -> Self {
        self.credentials = credentials;
        self
    }

    /// Calls a plugin, with a sink that ends here.
    ///
    /// # Errors
    /// What the plugin says went wrong, or what it did wrong. `Timeout` where nobody waits any more:
    /// then it is not called.
    pub(crate) fn collect(self, call: impl FnOnce(abi::Sink) -> u32) -> Result<Self> {
        self.waiting.check()?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        RUNNING.with(|running| running.replace(Some((number, self))));
        let status = call(abi::Sink {
            to: &ANSWERS,
            context: ptr::without_provenance_mut(number),
        });
        let answered = RUNNING.with(RefCell::take);
        // It was put there above, and only this function takes it.
        let (_, mut answered) =
            answered.ok_or_else(|| Error::new(ErrorKind::Internal, "no call"))?;
        answered.lent.clear();
        match answered.fault.take() {
            Some(fault) => Err(fault),
            None if status == abi::OK => Ok(answered),
            None => Err(answered.error(status)),
        }
    }

    /// The value and what is known of it.
    pub(crate) fn secret(&mut self) -> Result<Secret> {
        let value = self.value.take().ok_or_else(|| gave_no("value"))?;
        let attributes = self.attributes.take().unwrap_or_default();
        Ok(Secret::new(value, attributes.metadata))
    }

    fn error(&mut self, status: u32) -> Error {
        let known = ErrorKind::ALL
            .iter()
            .find(|kind| kind.abi_status() == status);
        let kind = known.copied().unwrap_or(ErrorKind::Internal);
        let words = self.words.take();
        let silent = || match known {
            Some(_) => "the plugin says no more of it".to_owned(),
            None => format!("the plugin ended with the status {status}, which nobody knows"),
        };
        let Some(words) = words else {
            return Error::new(kind, silent());
        };
        let mut error = Error::new(kind, words.message.unwrap_or_else(silent));
        if let Some(advice) = words.advice {
            error = error.with_advice(advice);
        }
        match words.retry_after {
            Some(wait) => error.with_retry_after(wait),
            None => error,
        }
    }

    pub(crate) fn take_capabilities(&mut self, can: u64, max_value: u64) -> Result<()> {
        once(self.capabilities.is_some(), "capabilities")?;
        // What we do not know, nobody here can ask for.
        let can = Capability::from_bits_truncate(can as u32);
        let max_value = usize::try_from(max_value).unwrap_or(MAX_VALUE);
        self.capabilities = Some(Capabilities::new(can, max_value.min(MAX_VALUE)));
        Ok(())
    }

    pub(crate) fn take_value(&mut self, read: impl FnOnce() -> Result<SecretBytes>) -> Result<()> {
        once(self.value.is_some(), "a value")?;
        self.value = Some(read()?);
        Ok(())
    }

    pub(crate) fn take_metadata(&mut self, pairs: &[(String, String)]) -> Result<()> {
        once(self.attributes.is_some(), "metadata")?;
        self.attributes = Some(attributes::read(pairs)?);
        Ok(())
    }

    pub(crate) fn take_item(&mut self, index: usize, status: u32) -> Result<()> {
        let outcome = if status == abi::OK {
            // Words that came with it are none of the next one's.
            self.words = None;
            self.secret()
        } else {
            // A value that came with a failure is none.
            (self.value, self.attributes) = (None, None);
            Err(self.error(status))
        };
        let item = self.items.get_mut(index).ok_or_else(|| {
            let rule = format!("the plugin answered for path {index}, which nobody asked for");
            Error::new(ErrorKind::Internal, rule)
        })?;
        once(item.is_some(), "an answer for one path")?;
        *item = Some(outcome);
        Ok(())
    }

    pub(crate) fn take_words(&mut self, words: Words) {
        self.words = Some(words);
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.waiting.is_over()
    }

    /// Reads a credential, which stays until the call is over.
    pub(crate) fn credential(&mut self, name: &str) -> Result<Option<abi::Bytes>> {
        let Some(option) = self.credentials.iter().find(|known| known.name == name) else {
            return Ok(None);
        };
        let bytes = option.read()?;
        let shown = abi::Bytes {
            ptr: bytes.expose().as_ptr(),
            len: bytes.len(),
        };
        self.lent.push(bytes);
        Ok(Some(shown))
    }
}

fn once(is_there: bool, what: &str) -> Result<()> {
    if is_there {
        let rule = format!("the plugin gave {what} twice");
        return Err(Error::new(ErrorKind::Internal, rule));
    }
    Ok(())
}

pub(crate) fn gave_no(what: &str) -> Error {
    let rule = format!("the plugin says that all went well, and gave no {what}");
    Error::new(ErrorKind::Internal, rule)
}

/// Lets `take` have the call of this number, where it runs on this very thread.
///
/// A failure stays with the call, whose outcome it is.
pub(crate) fn answer(context: *mut c_void, take: impl FnOnce(&mut Answered) -> Result<()>) -> u32 {
    let given = running(context, |answered| {
        if let Some(fault) = &answered.fault {
            return fault.kind().abi_status();
        }
        match take(answered) {
            Ok(()) => abi::OK,
            Err(fault) => {
                let status = fault.kind().abi_status();
                answered.fault = Some(fault);
                status
            }
        }
    });
    given.unwrap_or_else(|| {
        log::warn("a plugin answered after its call, or from another thread: refused");
        abi::INTERNAL
    })
}

/// What `look` makes of the call of this number. Nothing where that runs elsewhere, or no more.
pub(crate) fn running<T>(context: *mut c_void, look: impl FnOnce(&mut Answered) -> T) -> Option<T> {
    let looked = RUNNING.try_with(|running| {
        let mut running = running.try_borrow_mut().ok()?;
        let (number, answered) = running.as_mut()?;
        (*number == context.addr()).then(|| look(answered))
    });
    looked.ok().flatten()
}

#[cfg(test)]
mod tests;
