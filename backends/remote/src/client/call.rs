//! One request.

use std::time::Instant;

use bytes::Bytes;
use keyhaul_core::{Error, ErrorKind, IdempotencyId, Request, Result, random};
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use serde::Serialize;

use crate::protocol::{header, limit};

/// How much of a caller's id of a request is handed on, and how many digits make it our own.
const ID: (usize, usize) = (47, 8);

/// One request.
#[derive(Debug)]
pub(super) struct Call<'a> {
    pub(super) method: Method,
    pub(super) path: &'static str,
    pub(super) query: Option<String>,
    pub(super) body: Option<Bytes>,
    idempotency: Option<IdempotencyId>,
    request: &'a Request,
}

impl<'a> Call<'a> {
    pub(super) fn get(path: &'static str, request: &'a Request) -> Self {
        Self {
            method: Method::GET,
            path,
            query: None,
            body: None,
            idempotency: None,
            request,
        }
    }

    /// A request with a JSON body. Whatever is secret in it is sealed.
    ///
    /// # Errors
    /// `Internal` where it cannot be written.
    pub(super) fn post(
        path: &'static str,
        body: &impl Serialize,
        request: &'a Request,
    ) -> Result<Self> {
        let body = serde_json::to_vec(body)
            .map_err(|_| Error::new(ErrorKind::Internal, "a request could not be written"))?;
        if body.len() > limit::BODY {
            let rule = format!(
                "a request to a key service has at most {} bytes",
                limit::BODY
            );
            return Err(Error::new(ErrorKind::TooLarge, rule));
        }
        Ok(Self {
            method: Method::POST,
            body: Some(body.into()),
            ..Self::get(path, request)
        })
    }

    /// With a parameter of the query, where it has a value.
    pub(super) fn query(mut self, name: &str, value: Option<&str>) -> Self {
        if let Some(value) = value {
            let mut query = url::form_urlencoded::Serializer::new(self.query.unwrap_or_default());
            query.append_pair(name, value);
            self.query = Some(query.finish());
        }
        self
    }

    /// Recognisable when it comes again.
    pub(super) fn idempotency(mut self, id: Option<IdempotencyId>) -> Self {
        self.idempotency = id;
        self
    }

    /// On whose behalf.
    pub(super) fn request(&self) -> &'a Request {
        self.request
    }

    /// Its headers; the server is told that we wait until `until`.
    pub(super) fn headers(&self, until: Instant) -> Result<HeaderMap> {
        let mut headers = HeaderMap::new();
        let name = HeaderName::from_static;
        let value = |text: &str| {
            HeaderValue::from_str(text)
                .map_err(|_| Error::new(ErrorKind::Internal, "a header could not be written"))
        };
        headers.insert(
            name(header::REQUEST_ID),
            value(&request_id(self.request.id.as_deref())?)?,
        );
        let left = until.saturating_duration_since(Instant::now()).as_millis();
        let left = u64::try_from(left).unwrap_or(u64::MAX).max(1);
        headers.insert(name(header::TIMEOUT), HeaderValue::from(left));
        if let Some(id) = self.idempotency {
            headers.insert(name(header::IDEMPOTENCY_KEY), value(&id.to_string())?);
        }
        if self.body.is_some() {
            let json = HeaderValue::from_static("application/json");
            headers.insert(CONTENT_TYPE, json);
        }
        Ok(headers)
    }
}

/// The caller's id, as far as a header takes it, and digits of our own: what is tried again, or is
/// part of the same work, is told apart by them.
fn request_id(id: Option<&str>) -> Result<String> {
    let own = random::hex(ID.1 / 2)?;
    match id.and_then(legal) {
        Some(theirs) => Ok(format!("{theirs}.{own}")),
        None => random::hex(16),
    }
}

/// What the ids of a caller's requests begin with, where the caller named them.
pub(super) fn known_by(request: &Request) -> Option<String> {
    request.id.as_deref().and_then(legal)
}

fn legal(id: &str) -> Option<String> {
    let legal = |c: &char| c.is_ascii_alphanumeric() || "._-".contains(*c);
    let text: String = id.chars().filter(legal).take(ID.0).collect();
    (!text.is_empty()).then_some(text)
}

/// Whether it is an id of a request.
pub(super) fn is_id(id: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=64).contains(&id.len()) && id.bytes().all(legal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_has_an_id_of_its_own_that_begins_with_the_callers() {
        let one = request_id(Some("boot-web01")).expect("an id");
        let other = request_id(Some("boot-web01")).expect("an id");
        assert!(one.starts_with("boot-web01."));
        assert_ne!(one, other);
        for id in [
            None,
            Some(""),
            Some("é\n"),
            Some("a b"),
            Some(&*"x".repeat(300)),
        ] {
            let made = request_id(id).expect("an id");
            assert!(is_id(&made), "{made}");
        }
    }
}
