//! Where a plugin's answers go.
//!
//! What a plugin holds of a sink is a table that lives as long as the process, and a number. The
//! number is looked up on the thread that a call runs on, and is never given twice. So a plugin that
//! answers too late, or from another thread, reaches nothing: it is refused, and no memory of ours is
//! touched.

use std::cell::RefCell;
use std::ffi::c_void;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use keyhaul_core::credential::CredentialSource;
use keyhaul_core::{
    Capabilities, Capability, Error, ErrorKind, Page, Result, Secret, SecretBytes, SecretPath,
};
use keyhaul_plugin_abi as abi;

use crate::attributes::{self, Attributes};
use crate::lent;

/// The longest value that is taken, whatever a plugin says that it can hold.
pub(crate) const MAX_VALUE: usize = 64 * 1024 * 1024;
/// The most pairs of one secret.
const MAX_PAIRS: usize = 1000;
/// The most entries of a page.
pub(crate) const MAX_PAGE: usize = 1000;
/// The longest cursor, in bytes.
const MAX_CURSOR: usize = 16 * 1024;
/// The longest message or advice, in characters.
const MAX_WORDS: usize = 1000;

/// What a call has been answered so far.
#[derive(Debug, Default)]
pub(crate) struct Answered {
    pub(crate) capabilities: Option<Capabilities>,
    pub(crate) value: Option<SecretBytes>,
    pub(crate) attributes: Option<Attributes>,
    pub(crate) page: Page,
    /// An outcome for each path of a call about many.
    pub(crate) items: Vec<Option<Result<Secret>>>,
    words: Option<Words>,
    /// What the plugin did that no plugin may. The call cannot succeed any more.
    fault: Option<Error>,
    /// How many entries a page may have.
    most: usize,
    /// What an opening store can ask for, and what it was given.
    credentials: Vec<(String, CredentialSource)>,
    lent: Vec<SecretBytes>,
    cancelled: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Words {
    message: Option<String>,
    advice: Option<String>,
    retry_after: Option<Duration>,
}

thread_local! {
    /// The call that runs on this thread, and its number.
    static RUNNING: RefCell<Option<(usize, Answered)>> = const { RefCell::new(None) };
}

/// The number of the next call.
static NEXT: AtomicUsize = AtomicUsize::new(1);

impl Answered {
    /// What a call is answered that nobody waits for once `cancelled` is set.
    pub(crate) fn new(cancelled: Arc<AtomicBool>) -> Self {
        Self {
            cancelled,
            most: MAX_PAGE,
            ..Self::default()
        }
    }

    /// It is about this many paths.
    pub(crate) fn about(mut self, paths: usize) -> Self {
        self.items.resize_with(paths, || None);
        self
    }

    /// A page has at most so many entries.
    pub(crate) fn at_most(mut self, entries: usize) -> Self {
        self.most = entries.min(MAX_PAGE);
        self
    }

    /// These can be asked for.
    pub(crate) fn with_credentials(mut self, credentials: Vec<(String, CredentialSource)>) -> Self {
        self.credentials = credentials;
        self
    }

    /// Calls a plugin, with a sink that ends here.
    ///
    /// # Errors
    /// What the plugin says went wrong, or what it did wrong.
    pub(crate) fn collect(self, call: impl FnOnce(abi::Sink) -> u32) -> Result<Self> {
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

    fn take_capabilities(&mut self, can: u64, max_value: u64) -> Result<()> {
        once(self.capabilities.is_some(), "capabilities")?;
        // What we do not know, nobody here can ask for.
        let can = Capability::from_bits_truncate(can as u32);
        let max_value = usize::try_from(max_value).unwrap_or(MAX_VALUE);
        self.capabilities = Some(Capabilities::new(can, max_value.min(MAX_VALUE)));
        Ok(())
    }

    fn take_metadata(&mut self, pairs: &[(String, String)]) -> Result<()> {
        once(self.attributes.is_some(), "metadata")?;
        self.attributes = Some(attributes::read(pairs)?);
        Ok(())
    }

    fn take_item(&mut self, index: usize, status: u32) -> Result<()> {
        let outcome = if status == abi::OK {
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

    fn take_entry(&mut self, path: &str, folder: u32) -> Result<()> {
        let page = &mut self.page;
        if page.secrets.len() + page.folders.len() == self.most {
            let rule = format!(
                "the plugin listed more than {} entries on one page",
                self.most
            );
            return Err(Error::new(ErrorKind::Internal, rule));
        }
        let path = SecretPath::new(path).map_err(|error| {
            Error::new(ErrorKind::Internal, "the plugin listed what is no path").with_source(error)
        })?;
        let list = if folder == 0 {
            &mut page.secrets
        } else {
            &mut page.folders
        };
        list.push(path);
        Ok(())
    }

    fn take_next(&mut self, after: Option<String>) -> Result<()> {
        once(self.page.next.is_some(), "a next page")?;
        self.page.next = Some(after.ok_or_else(|| gave_no("cursor"))?);
        Ok(())
    }

    /// Reads a credential, which stays until the call is over.
    fn credential(&mut self, name: &str) -> Result<Option<abi::Bytes>> {
        let Some((_, source)) = self.credentials.iter().find(|(known, _)| known == name) else {
            return Ok(None);
        };
        let bytes = source.read()?;
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
/// A failure stays with the call, whose outcome it is. Nothing here panics: that could not pass
/// through the plugin.
fn answer(context: *mut c_void, take: impl FnOnce(&mut Answered) -> Result<()>) -> u32 {
    let given = RUNNING.try_with(|running| {
        let mut running = running.try_borrow_mut().ok()?;
        let (number, answered) = running.as_mut()?;
        if *number != context.addr() {
            return None;
        }
        if let Some(fault) = &answered.fault {
            return Some(fault.kind().abi_status());
        }
        Some(match take(answered) {
            Ok(()) => abi::OK,
            Err(fault) => {
                let status = fault.kind().abi_status();
                answered.fault = Some(fault);
                status
            }
        })
    });
    given.ok().flatten().unwrap_or_else(|| {
        tracing::warn!("a plugin answered after its call, or from another thread: refused");
        abi::INTERNAL
    })
}

/// The functions that every sink has.
static ANSWERS: abi::Answers = abi::Answers {
    head: abi::Head::of::<abi::Answers>(),
    capabilities: Some(capabilities),
    value: Some(value),
    metadata: Some(metadata),
    item: Some(item),
    entry: Some(entry),
    next: Some(next),
    error: Some(error),
    cancelled: Some(cancelled),
};

extern "C" fn capabilities(context: *mut c_void, can: u64, max_value: u64) -> u32 {
    answer(context, |answered| {
        answered.take_capabilities(can, max_value)
    })
}

extern "C" fn value(context: *mut c_void, value: abi::Bytes) -> u32 {
    answer(context, |answered| {
        once(answered.value.is_some(), "a value")?;
        answered.value = Some(lent::value(value, MAX_VALUE)?);
        Ok(())
    })
}

extern "C" fn metadata(context: *mut c_void, pairs: *const abi::Pair, len: usize) -> u32 {
    answer(context, |answered| {
        answered.take_metadata(&lent::pairs(pairs, len, MAX_PAIRS)?)
    })
}

extern "C" fn item(context: *mut c_void, index: usize, status: u32) -> u32 {
    answer(context, |answered| answered.take_item(index, status))
}

extern "C" fn entry(context: *mut c_void, path: abi::Str, folder: u32) -> u32 {
    answer(context, |answered| {
        let path = lent::text("a path", path, SecretPath::MAX)?;
        answered.take_entry(&path.unwrap_or_default(), folder)
    })
}

extern "C" fn next(context: *mut c_void, after: abi::Str) -> u32 {
    answer(context, |answered| {
        answered.take_next(lent::text("a cursor", after, MAX_CURSOR)?)
    })
}

extern "C" fn error(
    context: *mut c_void,
    message: abi::Str,
    advice: abi::Str,
    retry_after_ms: u64,
) -> u32 {
    answer(context, |answered| {
        answered.words = Some(Words {
            message: lent::words(message, MAX_WORDS),
            advice: lent::words(advice, MAX_WORDS),
            retry_after: (retry_after_ms > 0).then(|| Duration::from_millis(retry_after_ms)),
        });
        Ok(())
    })
}

extern "C" fn cancelled(context: *mut c_void) -> u32 {
    let running = RUNNING.try_with(|running| {
        let running = running.try_borrow().ok()?;
        let (number, answered) = running.as_ref()?;
        (*number == context.addr()).then(|| answered.cancelled.load(Ordering::Relaxed))
    });
    // Who asks after the end, or from elsewhere, is not waited for.
    u32::from(running.ok().flatten().unwrap_or(true))
}

/// Gives an opening store a credential.
///
/// # Safety
/// `bytes` is null, or the plugin's to be written to.
pub(crate) unsafe extern "C" fn credential(
    context: *mut c_void,
    name: abi::Str,
    bytes: *mut abi::Bytes,
) -> u32 {
    let mut shown = None;
    let status = answer(context, |answered| {
        let name = lent::text("an option's name", name, MAX_WORDS)?;
        shown = answered.credential(&name.unwrap_or_default())?;
        Ok(())
    });
    match shown {
        _ if status != abi::OK => status,
        None => abi::NOT_FOUND,
        Some(_) if bytes.is_null() => abi::INTERNAL,
        Some(shown) => {
            // SAFETY: not null, and the plugin's own, as it vouches.
            unsafe { bytes.write_unaligned(shown) };
            abi::OK
        }
    }
}

#[cfg(test)]
mod tests;
