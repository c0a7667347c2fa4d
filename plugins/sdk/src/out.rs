//! Answering the host.

use std::any::Any;
use std::error::Error as _;
use std::panic::{AssertUnwindSafe, catch_unwind};

use keyhaul_core::{Capabilities, Error, ErrorKind, Metadata, Page, Result, Secret, SecretBytes};
use keyhaul_plugin_abi as abi;

use crate::given;
use crate::words;

/// A call's sink, with its functions at hand.
pub(crate) struct Out {
    to: abi::Answers,
    context: *mut std::ffi::c_void,
}

/// Does `work`, and gives the host its outcome. Nothing unwinds out of here.
///
/// # Safety
/// `sink` is that of the call on this thread, which lasts until this returns.
pub(crate) unsafe fn answer(sink: abi::Sink, work: impl FnOnce(&Out) -> Result<()>) -> u32 {
    let done = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: the host's table.
        let Some(to) = (unsafe { given::table(sink.to) }) else {
            return abi::INTERNAL;
        };
        let out = Out {
            to,
            context: sink.context,
        };
        let error = match catch_unwind(AssertUnwindSafe(|| work(&out))) {
            Ok(Ok(())) => return abi::OK,
            Ok(Err(error)) => error,
            Err(panic) => {
                forget(panic);
                Error::new(
                    ErrorKind::Internal,
                    "the plugin panicked; that is a defect of it",
                )
            }
        };
        out.error(&error);
        error.kind().abi_status()
    }));
    done.unwrap_or_else(|panic| {
        forget(panic);
        abi::INTERNAL
    })
}

/// Drops what a panic brought, which can panic as well.
pub(crate) fn forget(panic: Box<dyn Any + Send>) {
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        std::mem::forget(again);
    }
}

impl Out {
    pub(crate) fn capabilities(&self, capabilities: Capabilities) -> Result<()> {
        let tell = self.to.capabilities.ok_or_else(missing)?;
        let can = u64::from(capabilities.can.bits());
        // SAFETY: numbers; so far as pointers are lent below, they live until the function returns.
        heard(unsafe { tell(self.context, can, capabilities.max_value as u64) })
    }

    pub(crate) fn secret(&self, secret: &Secret) -> Result<()> {
        self.value(&secret.value)?;
        self.metadata(&secret.metadata)
    }

    fn value(&self, value: &SecretBytes) -> Result<()> {
        let give = self.to.value.ok_or_else(missing)?;
        let value = abi::Bytes {
            ptr: value.expose().as_ptr(),
            len: value.len(),
        };
        // SAFETY: as above.
        heard(unsafe { give(self.context, value) })
    }

    pub(crate) fn metadata(&self, metadata: &Metadata) -> Result<()> {
        self.pairs(&words::of_metadata(metadata))
    }

    pub(crate) fn pairs(&self, texts: &[(String, String)]) -> Result<()> {
        let tell = self.to.metadata.ok_or_else(missing)?;
        let pair = |(name, value): &(String, String)| abi::Pair {
            name: abi::Str::new(name),
            value: abi::Str::new(value),
        };
        let pairs: Vec<abi::Pair> = texts.iter().map(pair).collect();
        // SAFETY: as above.
        heard(unsafe { tell(self.context, pairs.as_ptr(), pairs.len()) })
    }

    pub(crate) fn item(&self, index: usize, outcome: &Result<Secret>) -> Result<()> {
        let end = self.to.item.ok_or_else(missing)?;
        let status = match outcome {
            Ok(secret) => {
                self.secret(secret)?;
                abi::OK
            }
            Err(error) => {
                self.error(error);
                error.kind().abi_status()
            }
        };
        // SAFETY: numbers.
        heard(unsafe { end(self.context, index, status) })
    }

    pub(crate) fn page(&self, page: &Page) -> Result<()> {
        let entry = self.to.entry.ok_or_else(missing)?;
        let secrets = page.secrets.iter().map(|path| (path, 0));
        let folders = page.folders.iter().map(|path| (path, 1));
        // The interface has one list, in which a secret comes before the folder of the same path.
        let mut entries: Vec<_> = secrets.chain(folders).collect();
        entries.sort_unstable();
        for (path, folder) in entries {
            // SAFETY: as above.
            heard(unsafe { entry(self.context, abi::Str::new(path.as_str()), folder) })?;
        }
        if let Some(next) = &page.next {
            let tell = self.to.next.ok_or_else(missing)?;
            // SAFETY: as above.
            heard(unsafe { tell(self.context, abi::Str::new(next)) })?;
        }
        Ok(())
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        // SAFETY: a number, given by the host.
        self.to
            .cancelled
            .is_some_and(|ask| unsafe { ask(self.context) } != 0)
    }

    fn error(&self, error: &Error) {
        let Some(tell) = self.to.error else { return };
        // The host's report begins with the kind, and knows store, path and operation.
        let mut message = error.message().to_owned();
        if let Some(place) = &error.context().place {
            message = format!("{message} ({place})");
        }
        let mut next = error.source();
        while let Some(source) = next {
            message = format!("{message}: {source}");
            next = source.source();
        }
        let wait = error.retry_after().map_or(0, |wait| wait.as_millis());
        let wait = u64::try_from(wait).unwrap_or(u64::MAX);
        let (message, advice) = (abi::Str::new(&message), abi::Str::maybe(error.advice()));
        // SAFETY: as above. A refusal changes nothing: the call fails anyway.
        let _ = unsafe { tell(self.context, message, advice, wait) };
    }
}

/// What a refusal of the host's comes to. It knows why.
fn heard(status: u32) -> Result<()> {
    match status {
        abi::OK => Ok(()),
        _ => Err(Error::new(
            ErrorKind::Internal,
            "the host refused the answer",
        )),
    }
}

fn missing() -> Error {
    Error::new(
        ErrorKind::Unsupported,
        "the host is too old for this plugin",
    )
}
