//! What a plugin is shown of this host, and its lines in the log.

use keyhaul_plugin_abi as abi;

use crate::lent;

/// The longest line that is logged, in characters.
const MAX_LINE: usize = 1000;

/// This host's table.
pub(crate) fn host() -> &'static abi::Host {
    &HOST
}

static HOST: abi::Host = abi::Host {
    head: abi::Head::of::<abi::Host>(),
    version: abi::Str::new(env!("CARGO_PKG_VERSION")),
    log: Some(log),
};

/// A line of a plugin's. Which one's it is nobody can tell from here: the plugin names itself.
extern "C" fn log(level: u32, text: abi::Str) {
    let Some(line) = lent::words(text, MAX_LINE) else {
        return;
    };
    match level {
        abi::LOG_ERROR => tracing::error!(target: "keyhaul_plugin", "{line}"),
        abi::LOG_WARN => tracing::warn!(target: "keyhaul_plugin", "{line}"),
        abi::LOG_INFO => tracing::info!(target: "keyhaul_plugin", "{line}"),
        _ => tracing::debug!(target: "keyhaul_plugin", "{line}"),
    }
}
