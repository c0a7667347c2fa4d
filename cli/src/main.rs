//! The keyhaul command line.

fn main() {}
