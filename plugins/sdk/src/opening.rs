//! From what the host gives to what a factory takes.

use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::AsRawFd;
use std::sync::Arc;

use keyhaul_core::registry::{OptionKind, OptionSpec, OptionValue, Options, Value};
use keyhaul_core::{Error, ErrorKind, Result, SecretStore, StoreConfig, StoreFactory};
use keyhaul_plugin_abi as abi;

use crate::given;

/// The option that says where the store is.
pub(crate) const URL: &str = "url";

/// An open store.
pub(crate) struct Opened {
    pub(crate) store: Arc<dyn SecretStore>,
    /// What its credentials are read from, however often.
    _credentials: Vec<Credential>,
}

impl Opened {
    /// Opens a store of `factory`.
    ///
    /// # Errors
    /// The factory's.
    ///
    /// # Safety
    /// `opening` is that of the call on this thread.
    pub(crate) unsafe fn new(factory: &dyn StoreFactory, opening: &abi::Opening) -> Result<Self> {
        // SAFETY: as the caller vouches; so for both.
        let name = unsafe { given::text(opening.name) }?.unwrap_or_default();
        // SAFETY: as above.
        let pairs = unsafe { given::pairs(opening.options, opening.options_len) }?;
        let mut credentials = Vec::new();
        // SAFETY: as the caller vouches.
        let mut ask = |name: &str| unsafe { Credential::ask(opening, name) };
        let options = options("", factory.options(), &pairs, &mut ask, &mut credentials)?;
        let url = pairs.iter().find(|(name, _)| *name == URL);
        let url = match url {
            Some((_, url)) => (*url).to_owned(),
            None => format!("{}:{name}", factory.schemes().first().unwrap_or(&"plugin")),
        };
        let config = StoreConfig::new(name, &url, options, place(URL))?;
        Ok(Self {
            store: factory.open(&config)?,
            _credentials: credentials,
        })
    }
}

/// The options of `specs`, whose names begin with `above`.
fn options(
    above: &str,
    specs: &[OptionSpec],
    pairs: &[(&str, &str)],
    ask: &mut dyn FnMut(&str) -> Result<Option<Credential>>,
    credentials: &mut Vec<Credential>,
) -> Result<Options> {
    let mut options = Options::default();
    for spec in specs {
        let name = format!("{above}{}", spec.name);
        let mut texts = pairs
            .iter()
            .filter(|(given, _)| *given == name)
            .map(|(_, text)| *text);
        let value = match spec.kind {
            OptionKind::Table(inner) => {
                let table = self::options(&format!("{name}."), inner, pairs, ask, credentials)?;
                (!table.0.is_empty()).then_some(Value::Table(table))
            }
            OptionKind::Credential => ask(&name)?.map(|credential| {
                let source = format!("fd:{}", credential.0.as_raw_fd());
                credentials.push(credential);
                Value::Text(source)
            }),
            OptionKind::Boolean => texts.next().map(|text| Value::Boolean(text == "true")),
            OptionKind::Duration => texts.next().map(|text| Value::Text(format!("{text}ms"))),
            OptionKind::Integer => {
                let number = |text: &str| text.parse().map_err(|_| no_number(&name));
                texts.next().map(number).transpose()?.map(Value::Integer)
            }
            OptionKind::Texts => {
                let texts: Vec<String> = texts.map(str::to_owned).collect();
                (!texts.is_empty()).then_some(Value::Texts(texts))
            }
            _ => texts.next().map(|text| Value::Text(text.to_owned())),
        };
        if let Some(value) = value {
            let place = place(&name);
            options
                .0
                .insert(spec.name.to_owned(), OptionValue { value, place });
        }
    }
    Ok(options)
}

/// What errors call an option by: the host knows where the policy has it.
fn place(name: &str) -> String {
    format!("option `{name}`")
}

fn no_number(name: &str) -> Error {
    let rule = format!("the host gave `{name}` as a number that is none");
    Error::new(ErrorKind::Internal, rule)
}

/// A credential's bytes, in memory that a descriptor stands for. Wiped when dropped.
pub(crate) struct Credential(File);

impl Credential {
    /// Asks the host for the credential of an option.
    ///
    /// # Safety
    /// `opening` is that of the call on this thread.
    unsafe fn ask(opening: &abi::Opening, name: &str) -> Result<Option<Self>> {
        let Some(ask) = opening.credential else {
            return Ok(None);
        };
        let mut lent = abi::Bytes {
            ptr: std::ptr::null(),
            len: 0,
        };
        // SAFETY: the name lives until it returns, and `lent` is ours.
        match unsafe { ask(opening.context, abi::Str::new(name), &mut lent) } {
            abi::OK => {}
            abi::NOT_FOUND => return Ok(None),
            _ => {
                let rule = format!("the host has no credential `{name}` to give");
                return Err(Error::new(ErrorKind::InvalidConfig, rule));
            }
        }
        // SAFETY: lent until the store is open.
        let bytes = unsafe { given::bytes(lent.ptr, lent.len) };
        let failed = |error| Error::io("no memory for a credential", error);
        let flags = rustix::fs::MemfdFlags::CLOEXEC;
        let memory = rustix::fs::memfd_create(c"keyhaul-credential", flags);
        let mut memory = Self(File::from(memory.map_err(|errno| failed(errno.into()))?));
        memory.0.write_all(bytes).map_err(failed)?;
        memory.0.rewind().map_err(failed)?;
        Ok(Some(memory))
    }
}

impl Drop for Credential {
    fn drop(&mut self) {
        let len = self.0.metadata().map_or(0, |metadata| metadata.len());
        let zeros = vec![0; usize::try_from(len).unwrap_or_default()];
        // Nothing can be done where it fails; the memory goes either way.
        let _ = self.0.rewind().and_then(|()| self.0.write_all(&zeros));
    }
}
