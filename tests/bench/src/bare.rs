//! The floor of every cold start: a Rust process that does nothing.

fn main() {}
