//! Stores in Vault and OpenBao.
//!
//! # The wire
//!
//! One `http::Http` per configured store carries all its requests: `send` gives the answer of any
//! status, `ask` takes only success and maps the rest (`error::refusal`), `endpoint` runs one of
//! vaultrs' endpoint types. Time limits, redirects and TLS are the wire's; tokens are given to it.

mod auth;
mod environment;
mod error;
mod http;
