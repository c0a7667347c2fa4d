//! A store that a plugin has opened.

use std::ffi::c_void;
use std::ptr;
use std::sync::{Arc, Mutex, PoisonError};

use keyhaul_core::registry::Options;
use keyhaul_core::{Capabilities, Capability, Error, ErrorKind, Request, Result, law};
use keyhaul_plugin_abi as abi;

use crate::answers;
use crate::calls::{Call, pairs};
use crate::declared::Given;
use crate::library::{Handle, Library};
use crate::sink::{Answered, gave_no};
use crate::waiting::Waiting;

/// What a plugin calls a store, and what is known of it. Closes it when dropped.
#[derive(Debug)]
pub(crate) struct Instance {
    pub(crate) library: Arc<Library>,
    pub(crate) handle: Handle,
    /// What it could do when it was last asked.
    can: Mutex<Option<Capabilities>>,
}

impl Instance {
    /// Opens a store of this name.
    ///
    /// # Errors
    /// `InvalidConfig` with the option and the rule, and whatever the plugin says.
    pub(crate) fn open(
        library: Arc<Library>,
        name: &str,
        options: &Options,
        request: &Request,
        waiting: &Waiting,
    ) -> Result<Self> {
        let given = Given::new(&library.options, options)?;
        let texts = pairs(&given.pairs);
        let call = Call::new(request, waiting);
        // It is there: loading checks it.
        let open = library.table.open.ok_or_else(|| lacks("open"))?;
        let (mut store, mut status) = (ptr::null_mut(), abi::INTERNAL);
        let opened = Answered::new(waiting)
            .with_credentials(given.credentials)
            .collect(|sink| {
                let opening = abi::Opening {
                    head: abi::Head::of::<abi::Opening>(),
                    name: abi::Str::new(name),
                    options: texts.as_ptr(),
                    options_len: texts.len(),
                    context: sink.context,
                    credential: Some(answers::credential),
                };
                // SAFETY: all that is lent lives until this returns, as the interface has it.
                status = unsafe { open(&call.table, &opening, sink, &mut store) };
                status
            });
        match opened {
            Ok(_) => Ok(Self::of(library, store)),
            Err(error) => {
                if status == abi::OK && !store.is_null() {
                    // It is open all the same, whatever it answered on the way. This closes it.
                    drop(Self::of(library, store));
                }
                Err(error)
            }
        }
    }

    fn of(library: Arc<Library>, store: *mut c_void) -> Self {
        Self {
            library,
            handle: Handle(store),
            can: Mutex::default(),
        }
    }

    /// What the store can do, asked anew.
    pub(crate) fn capabilities(
        &self,
        request: &Request,
        waiting: &Waiting,
    ) -> Result<Capabilities> {
        let table = &self.library.table;
        // It is there: loading checks it.
        let ask = table.capabilities.ok_or_else(|| lacks("capabilities"))?;
        let call = Call::new(request, waiting);
        let answered = Answered::new(waiting).collect(|sink| {
            // SAFETY: the handle is the plugin's own, and what is lent lives until this returns.
            unsafe { ask(self.handle.0, &call.table, sink) }
        })?;
        let told = answered
            .capabilities
            .ok_or_else(|| gave_no("capabilities"))?;
        let can = Capabilities::new(served(table, told.can), told.max_value);
        *self.can.lock().unwrap_or_else(PoisonError::into_inner) = Some(can);
        Ok(can)
    }

    /// The law of capabilities: `Unsupported` unless all of `wanted` is there.
    ///
    /// It is held to here, so that no plugin has to.
    pub(crate) fn need(
        &self,
        wanted: Capability,
        request: &Request,
        waiting: &Waiting,
    ) -> Result<Capabilities> {
        let known = *self.can.lock().unwrap_or_else(PoisonError::into_inner);
        let can = match known {
            Some(can) => can,
            None => self.capabilities(request, waiting)?,
        };
        law::need(can.can, wanted)?;
        Ok(can)
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if let Some(close) = self.library.table.close {
            // SAFETY: the handle is the plugin's own; every call holds this instance, so none is
            // under way, and none follows.
            unsafe { close(self.handle.0) }
        }
    }
}

/// What is left of the plugin's word where functions are missing, and what the host adds.
fn served(table: &abi::Plugin, told: Capability) -> Capability {
    let mut can = told;
    let mut needs = |what: Capability, is_there: bool| {
        if !is_there {
            can -= what;
        }
    };
    let puts = Capability::WRITE | Capability::CREATE | Capability::UPDATE;
    needs(
        Capability::READ,
        table.get.is_some() && table.stat.is_some(),
    );
    needs(puts, table.put.is_some());
    needs(Capability::DELETE, table.remove.is_some());
    needs(Capability::LIST, table.list.is_some());
    if table.generate.is_none() {
        // The host makes the value, and puts it.
        can -= Capability::GENERATES_REMOTELY;
        can.set(Capability::GENERATE, can.intersects(puts));
    }
    can
}

pub(crate) fn lacks(function: &str) -> Error {
    let rule = format!("the plugin has no function `{function}`");
    Error::new(ErrorKind::Unsupported, rule)
}

#[cfg(test)]
mod tests {
    use super::*;

    unsafe extern "C" fn generate(
        _: *mut std::ffi::c_void,
        _: *const abi::Call,
        _: abi::Str,
        _: *const abi::Recipe,
        _: *const abi::PutOptions,
        _: abi::Sink,
    ) -> u32 {
        abi::OK
    }

    unsafe extern "C" fn put(
        _: *mut std::ffi::c_void,
        _: *const abi::Call,
        _: abi::Str,
        _: abi::Bytes,
        _: *const abi::PutOptions,
        _: abi::Sink,
    ) -> u32 {
        abi::OK
    }

    #[test]
    fn a_capability_without_its_function_is_none() {
        let mut table = crate::testing::empty_table();
        assert_eq!(
            served(&table, Capability::all()) & !modifiers(),
            Capability::empty()
        );
        table.put = Some(put);
        let can = served(&table, Capability::CREATE | Capability::READ);
        assert_eq!(can, Capability::CREATE | Capability::GENERATE);
        assert_eq!(served(&table, Capability::empty()), Capability::empty());
        table.generate = Some(generate);
        assert_eq!(served(&table, Capability::CREATE), Capability::CREATE);
        let remote = Capability::GENERATE | Capability::GENERATES_REMOTELY;
        assert_eq!(served(&table, remote), remote);
    }

    /// What says how something is done, and is no function.
    fn modifiers() -> Capability {
        Capability::VERSIONS
            | Capability::LABELS
            | Capability::EXPIRY
            | Capability::FIELDS
            | Capability::IDEMPOTENT
    }
}
