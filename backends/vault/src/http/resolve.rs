//! From names to addresses.

use std::net::SocketAddr;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// The system's resolver, which looks for the real host where the url holds the name that TLS is to
/// ask for. The library takes both from the url and knows no other way to part them.
pub(super) struct Resolver {
    asked_for: Option<String>,
    host: Option<String>,
}

impl Resolver {
    pub(super) fn new(asked_for: Option<String>, host: Option<String>) -> Self {
        Self { asked_for, host }
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let stands_in = self
            .asked_for
            .as_deref()
            .is_some_and(|asked_for| asked_for.eq_ignore_ascii_case(name.as_str()));
        let host = match &self.host {
            Some(host) if stands_in => host.trim_matches(['[', ']']).to_owned(),
            _ => name.as_str().to_owned(),
        };
        Box::pin(async move {
            // The port is the url's.
            let found: Vec<SocketAddr> = tokio::net::lookup_host((host, 0)).await?.collect();
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}
