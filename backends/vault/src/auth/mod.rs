//! Who this client is to a server: logins, tokens, and what becomes of them.
//!
//! A [`Method`] says how to log in; an [`Identity`] does so once for all requests of a store,
//! renews what it got, and decides what a refusal meant. A login that a person made is kept in the
//! kernel's keyring ([`kept`]), for the next commands of the day.
//!
//! ```text
//!            obtain (one flight)            two thirds of the lease
//!   nothing ────────────────────▶ a token ──────────────────────────▶ renewed, or a new login
//!      ▲                             │ 403                              (the old one serves on)
//!      │        dead                 ▼
//!      └───────────────────── one lookup-self ──▶ alive: the refusal stands
//! ```

mod api;
mod finding;
mod identity;
mod kept;
mod login;
mod method;
mod options;
#[cfg(test)]
mod tests;
mod token;

pub(crate) use identity::{Identity, Probed, Verdict};
pub use login::{Login, Question, login, logout, next_request_spends, question};
pub(crate) use method::Method;
pub(crate) use options::AUTH;
