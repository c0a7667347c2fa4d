//! From what the host gives to what a factory takes.

use std::ffi::c_void;
use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::AsRawFd;
use std::sync::Arc;

use keyhaul_core::registry::{OptionKind, OptionSpec, Options, Value};
use keyhaul_core::{Error, ErrorKind, Result, SecretStore, StoreConfig, StoreFactory};
use keyhaul_plugin_abi as abi;
use rustix::mm::{self, Advice, MapFlags, ProtFlags};

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
                let source = format!("fd:{}", credential.memory.as_raw_fd());
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
            let option = Options::at(&place(&name), [(spec.name, value)]);
            options.0.extend(option.0);
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

/// A credential's bytes, in memory that a descriptor stands for: locked against swap where the
/// limits allow it, left out of dumps, wiped when dropped.
pub(crate) struct Credential {
    memory: File,
    /// Nobody reads through it: pages are locked where they are mapped.
    _lock: Lock,
}

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
        Self::of(bytes).map(Some).map_err(failed)
    }

    fn of(bytes: &[u8]) -> std::io::Result<Self> {
        let flags = rustix::fs::MemfdFlags::CLOEXEC;
        let memory = File::from(rustix::fs::memfd_create(c"keyhaul-credential", flags)?);
        memory.set_len(bytes.len() as u64)?;
        // Before the bytes are in it.
        let lock = Lock::of(&memory, bytes.len())?;
        let mut credential = Self {
            memory,
            _lock: lock,
        };
        credential.memory.write_all(bytes)?;
        credential.memory.rewind()?;
        Ok(credential)
    }
}

impl Drop for Credential {
    fn drop(&mut self) {
        let len = self.memory.metadata().map_or(0, |metadata| metadata.len());
        let zeros = vec![0; usize::try_from(len).unwrap_or_default()];
        // Nothing can be done where it fails; the memory goes either way.
        let written = self.memory.rewind();
        let _ = written.and_then(|()| self.memory.write_all(&zeros));
    }
}

/// A mapping of a file's pages that keeps them in memory.
struct Lock {
    start: *mut c_void,
    len: usize,
}

// SAFETY: nothing is read or written through it, and it is unmapped once.
unsafe impl Send for Lock {}
// SAFETY: as above.
unsafe impl Sync for Lock {}

impl Lock {
    fn of(memory: &File, len: usize) -> std::io::Result<Self> {
        if len == 0 {
            let start = std::ptr::null_mut();
            return Ok(Self { start, len });
        }
        let (read, shared) = (ProtFlags::READ, MapFlags::SHARED);
        // SAFETY: a new mapping at an address of the kernel's choice.
        let start = unsafe { mm::mmap(std::ptr::null_mut(), len, read, shared, memory, 0) }?;
        let lock = Self { start, len };
        // SAFETY: the mapping just made, through which nobody reads. That the lock fails, as it does
        // where there are many credentials and few such pages allowed, leaves it as good as it was.
        unsafe {
            let _ = mm::mlock(start, len);
            // A dump has what is mapped, and so would a child.
            mm::madvise(start, len, Advice::LinuxDontDump)?;
            mm::madvise(start, len, Advice::LinuxDontFork)?;
        }
        Ok(lock)
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if self.len > 0 {
            // SAFETY: the mapping that was made, and nobody has a pointer into it. It unlocks, too.
            let _ = unsafe { mm::munmap(self.start, self.len) };
        }
    }
}

#[cfg(test)]
mod tests {
    use keyhaul_core::credential::CredentialSource;

    use super::*;

    /// The flags of this process's mappings of credentials, as the kernel shows them.
    fn mappings() -> Vec<String> {
        let maps = std::fs::read_to_string("/proc/self/smaps").expect("there");
        let after = maps.split("/memfd:keyhaul-credential").skip(1);
        let flags = after.filter_map(|text| text.lines().find(|line| line.starts_with("VmFlags:")));
        flags.map(str::to_owned).collect()
    }

    #[test]
    fn a_credential_is_locked_while_it_lives_and_read_as_often_as_is_wanted() {
        let mut long = vec![7; 3 * rustix::param::page_size() + 1];
        long[0] = 1;
        for bytes in [&b"hunter2"[..], &long] {
            let credential = Credential::of(bytes).expect("memory");
            let source = CredentialSource::Fd(credential.memory.as_raw_fd());
            for _ in 0..2 {
                assert_eq!(source.read().expect("read").expose(), bytes);
            }
            let flags = mappings();
            let [flags] = flags.as_slice() else {
                panic!("{flags:?}");
            };
            // Locked, not dumped, not copied by fork, and not to be written through.
            for flag in [" lo", " dd", " dc"] {
                assert!(flags.contains(flag), "{flag}: {flags}");
            }
            assert!(!flags.contains(" wr"), "{flags}");
            drop(credential);
            assert_eq!(mappings(), [""; 0]);
        }
        // Nothing to lock, and nothing to read.
        let credential = Credential::of(b"").expect("no memory");
        let source = CredentialSource::Fd(credential.memory.as_raw_fd());
        assert!(source.read().expect("read").is_empty());
        assert_eq!(mappings(), [""; 0]);
    }
}
