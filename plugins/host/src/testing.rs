//! What the tests in here share.

use keyhaul_plugin_abi as abi;
use tempfile::TempDir;

/// A folder that nobody else can write, nor any above it: what `/tmp` has not.
pub(crate) fn folder() -> TempDir {
    let above = if rustix::process::geteuid().is_root() {
        "/run".into()
    } else {
        std::env::var_os("HOME").expect("a home")
    };
    tempfile::tempdir_in(above).expect("folder")
}

/// A table without functions.
pub(crate) fn empty_table() -> abi::Plugin {
    let nothing = abi::Str::ABSENT;
    abi::Plugin {
        head: abi::Head::of::<abi::Plugin>(),
        name: nothing,
        version: nothing,
        summary: nothing,
        options: std::ptr::null(),
        options_len: 0,
        option_size: 0,
        open: None,
        close: None,
        capabilities: None,
        get: None,
        get_many: None,
        stat: None,
        put: None,
        generate: None,
        remove: None,
        list: None,
        probe: None,
    }
}
