//! The protocol for strangers: an OpenAPI document, from which alone a client can be written.

/// The document, JSON: OpenAPI 3.1.
pub const OPENAPI: &str = include_str!("openapi.json");

#[cfg(test)]
mod tests;
