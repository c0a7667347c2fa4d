//! Turns a store written in Rust into a plugin.
//!
//! Write a [`StoreFactory`] as any backend has one, in a crate of type `cdylib`, and end it with
//!
//! ```text
//! keyhaul_plugin_sdk::export_plugin!(MyFactory);
//! ```
//!
//! # What becomes of
//!
//! - **Options**: the factory's own, and `url`, which is what a policy would have as the store's url where
//!   the backend were built in; by default it is the first scheme and the store's name. The keys of a table
//!   `auth` are called `auth.KEY`.
//! - **Credentials**: the host reads the source that the policy names. What the factory sees is `fd:N`,
//!   a descriptor of memory with the bytes, which it reads like any other source.
//! - **Futures** run on a runtime of the plugin's own, until the deadline or until nobody waits for them
//!   any more, whichever is first.
//! - **Panics** end the call with an internal error. They print nothing, since a message could hold a secret.
//!   A crate built with `panic = "abort"`, which would take the host with it, does not compile.
//! - **Memory**: values are [`SecretBytes`](keyhaul_core::SecretBytes), locked and wiped. What the libraries
//!   beneath keep of them is wiped as it is freed where the plugin says so, once:
//!   `#[global_allocator] static ALLOCATOR: keyhaul_core::WipeOnFree = keyhaul_core::WipeOnFree;`
//! - **Log lines**: what the crate says by `tracing`, down to `debug!`, goes to keyhaul's log.

mod calls;
mod exported;
mod given;
mod log;
mod opening;
mod out;
mod words;

pub use keyhaul_core::StoreFactory;
pub use keyhaul_plugin_abi as abi;

pub use exported::{About, entry};

/// Exports a [`StoreFactory`], which the expression makes, as this
/// library's plugin. Once in a library.
#[macro_export]
macro_rules! export_plugin {
    ($factory:expr) => {
        #[cfg(panic = "abort")]
        compile_error!(
            "a plugin of keyhaul that aborts when it panics would take keyhaul with it: \
             build it with panic = \"unwind\", the default"
        );

        /// The plugin's entry.
        ///
        /// # Safety
        /// For the host alone, as the interface has it.
        // SAFETY: the name is this interface's, and a library has it once.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn keyhaul_plugin_entry(
            host: *const $crate::abi::Host,
        ) -> *const $crate::abi::Plugin {
            let about = $crate::About {
                name: env!("CARGO_PKG_NAME"),
                version: env!("CARGO_PKG_VERSION"),
            };
            // Apart from here, where the compiler lets unsafe things pass.
            fn factory() -> ::std::boxed::Box<dyn $crate::StoreFactory> {
                ::std::boxed::Box::new($factory)
            }
            // SAFETY: it is the host's table.
            unsafe { $crate::entry(host, about, factory) }
        }
    };
}
