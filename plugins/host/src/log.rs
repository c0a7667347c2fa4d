//! What a plugin is shown of this host, and its lines in the log.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use keyhaul_plugin_abi as abi;

use crate::contained::contained;
use crate::lent;

/// The longest line that is logged, in characters.
const MAX_LINE: usize = 1000;
/// How many lines go to the log in a window, of the plugin of each store.
const LINES: usize = 100;
const WINDOW: Duration = Duration::from_secs(5);

/// This host's table.
pub(crate) fn host() -> &'static abi::Host {
    &HOST
}

static HOST: abi::Host = abi::Host {
    head: abi::Head::of::<abi::Host>(),
    version: abi::Str::new(env!("CARGO_PKG_VERSION")),
    log: Some(log),
};

thread_local! {
    /// The store that this thread calls a plugin for.
    static STORE: RefCell<Option<Arc<str>>> = const { RefCell::new(None) };
}

/// Does `work`, in which a plugin is called for this store: its lines show that.
pub(crate) fn on_behalf_of<T>(store: &Arc<str>, work: impl FnOnce() -> T) -> T {
    let before = STORE.replace(Some(store.clone()));
    let done = work();
    STORE.set(before);
    done
}

/// A line of a plugin's. Which store's it is can be told on the thread of a call; elsewhere the
/// plugin must name itself.
extern "C" fn log(level: u32, text: abi::Str) {
    // Nothing is read that nobody will see.
    macro_rules! say {
        ($level:ident) => {
            if tracing::enabled!(target: "keyhaul_plugin", tracing::Level::$level) {
                let store = store();
                if let Some(line) = lent::words(text, MAX_LINE)
                    && may_say(store.as_ref())
                {
                    tracing::event!(
                        target: "keyhaul_plugin",
                        tracing::Level::$level,
                        store = store.as_deref(),
                        "plugin: {line}"
                    );
                }
            }
        };
    }
    contained((), || match level {
        abi::LOG_ERROR => say!(ERROR),
        abi::LOG_WARN => say!(WARN),
        abi::LOG_INFO => say!(INFO),
        _ => say!(DEBUG),
    });
}

/// Warns of what a plugin does, which it may do without end.
pub(crate) fn warn(what: &str) {
    let store = store();
    if may_say(store.as_ref()) {
        tracing::warn!(store = store.as_deref(), "{what}");
    }
}

fn store() -> Option<Arc<str>> {
    let store = STORE.try_with(|store| store.borrow().clone());
    // A thread that ends has none any more.
    store.ok().flatten()
}

/// The lines of a store's plugin in this window.
struct Window {
    began: Instant,
    lines: usize,
}

/// Of each store, and of threads that are no call's. There are as many as the policies name.
static WINDOWS: Mutex<BTreeMap<Option<Arc<str>>, Window>> = Mutex::new(BTreeMap::new());

/// Whether there is room for one more line. The first time that there is not, the log says so.
fn may_say(store: Option<&Arc<str>>) -> bool {
    let mut windows = WINDOWS.lock().unwrap_or_else(PoisonError::into_inner);
    let fresh = || Window {
        began: Instant::now(),
        lines: 0,
    };
    let window = windows.entry(store.cloned()).or_insert_with(fresh);
    if window.began.elapsed() > WINDOW {
        *window = fresh();
    }
    window.lines += 1;
    let lines = window.lines;
    drop(windows);
    if lines == LINES + 1 {
        tracing::warn!(
            store = store.map(|store| &**store),
            "the plugin writes more lines than the log takes: what it says in the next seconds is left out"
        );
    }
    lines <= LINES
}
