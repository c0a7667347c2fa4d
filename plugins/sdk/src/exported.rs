//! The plugin's table, made once, and what is behind it.

use std::sync::OnceLock;

use keyhaul_core::StoreFactory;
use keyhaul_core::registry::{OptionKind, OptionSpec};
use keyhaul_plugin_abi as abi;
use tokio::runtime::Runtime;

use crate::{calls, given, log, opening, out};

/// What a plugin is called.
#[derive(Clone, Copy, Debug)]
pub struct About {
    /// Its name.
    pub name: &'static str,
    /// Its version, in words.
    pub version: &'static str,
}

/// What a library exports. A library has one entry, and this is what it has to remember.
pub(crate) struct Exported {
    pub(crate) factory: Box<dyn StoreFactory>,
    table: abi::Plugin,
    /// The table points into it.
    _options: Vec<abi::PluginOption>,
    runtime: OnceLock<Option<Runtime>>,
}

static EXPORTED: OnceLock<Exported> = OnceLock::new();

/// What [`export_plugin`](crate::export_plugin) exports. Null where the host is of another
/// major version, or `factory` panics.
///
/// # Safety
/// `host` is the host's table, or null.
pub unsafe fn entry(
    host: *const abi::Host,
    about: About,
    factory: impl FnOnce() -> Box<dyn StoreFactory>,
) -> *const abi::Plugin {
    // A library of its own has a std of its own: this silences no panic but the plugin's.
    std::panic::set_hook(Box::new(|_| {}));
    let made = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        // SAFETY: as the caller vouches.
        let host = unsafe { given::table(host) }?;
        log::hand_on(&host);
        let exported = EXPORTED.get_or_init(|| Exported::new(factory(), about));
        Some(&raw const exported.table)
    }));
    made.unwrap_or_else(|panic| {
        out::forget(panic);
        None
    })
    .unwrap_or(std::ptr::null())
}

/// What is exported: there since the entry was called, and before anything else is.
pub(crate) fn exported() -> Option<&'static Exported> {
    EXPORTED.get()
}

impl Exported {
    fn new(factory: Box<dyn StoreFactory>, about: About) -> Self {
        let mut options = vec![option(opening::URL, abi::OPTION_TEXT, &URL)];
        declare(&mut options, "", factory.options());
        let table = abi::Plugin {
            head: abi::Head::of::<abi::Plugin>(),
            name: abi::Str::new(about.name),
            version: abi::Str::new(about.version),
            summary: abi::Str::new(factory.summary()),
            options: options.as_ptr(),
            options_len: options.len(),
            option_size: size_of::<abi::PluginOption>(),
            open: Some(calls::open),
            close: Some(calls::close),
            capabilities: Some(calls::capabilities),
            get: Some(calls::get),
            get_many: Some(calls::get_many),
            stat: Some(calls::stat),
            put: Some(calls::put),
            generate: Some(calls::generate),
            remove: Some(calls::remove),
            list: Some(calls::list),
            probe: Some(calls::probe),
        };
        Self {
            factory,
            table,
            _options: options,
            runtime: OnceLock::new(),
        }
    }

    /// Where the stores' futures run. Nothing where the system has no thread to give.
    pub(crate) fn runtime(&self) -> Option<&Runtime> {
        let made = self.runtime.get_or_init(|| {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            // The host's threads do the work; these are for what a store starts beside it.
            builder.worker_threads(1).enable_all().build().ok()
        });
        made.as_ref()
    }
}

/// The option that the SDK adds.
const URL: OptionSpec = OptionSpec {
    name: opening::URL,
    kind: OptionKind::Text,
    default: "the plugin's scheme and the store's name",
    help: "Where the store is, as a policy has it where the backend is built in.",
};

/// Declares each option, those of a table by `TABLE.KEY`.
fn declare(options: &mut Vec<abi::PluginOption>, above: &str, specs: &[OptionSpec]) {
    for spec in specs {
        let name = format!("{above}{}", spec.name);
        let kind = match spec.kind {
            OptionKind::Table(inner) => {
                declare(options, &format!("{name}."), inner);
                continue;
            }
            OptionKind::Boolean => abi::OPTION_BOOLEAN,
            OptionKind::Credential => abi::OPTION_CREDENTIAL,
            OptionKind::Duration => abi::OPTION_DURATION,
            OptionKind::Integer => abi::OPTION_INTEGER,
            OptionKind::Texts => abi::OPTION_TEXTS,
            OptionKind::Text => abi::OPTION_TEXT,
            // Keys that nobody knows beforehand, the interface has not.
            _ => continue,
        };
        // It lives as long as the process, as the library does.
        options.push(option(name.leak(), kind, spec));
    }
}

fn option(name: &'static str, kind: u32, spec: &OptionSpec) -> abi::PluginOption {
    abi::PluginOption {
        name: abi::Str::new(name),
        fallback: abi::Str::new(spec.default),
        help: abi::Str::new(spec.help),
        kind,
        reserved: 0,
    }
}
