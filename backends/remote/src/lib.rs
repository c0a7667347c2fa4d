//! The key service: hypervisor hosts that read only the secrets of what they run.
//!
//! Three roles, each with certificates of its own: a *manager* decides which node may read which
//! scope and never sees a value, a *node* reads what it is granted, an *operator* sets values. What
//! both ends say to each other is [`protocol`]; [`client`] is the backend of `keyhaul+https` stores
//! and the manager's hand; [`server`] serves any [`SecretStore`](keyhaul_core::SecretStore);
//! [`pki`] makes certificates where a site has no authority of its own.

pub mod client;
pub mod pki;
pub mod protocol;
pub mod server;
