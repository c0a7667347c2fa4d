//! The key service's server, over real TLS: who gets what, and what nobody gets.

mod changes;
mod deletion;
mod limits;
mod matrix;
mod reading;
mod robustness;
mod site;
mod standing;
