//! The key service: any store, for nodes that read only what they are granted.

pub mod audit;
mod private;
pub mod state;
