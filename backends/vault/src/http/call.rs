//! One request.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use keyhaul_core::{Error, ErrorKind, Request, Result, SecretBytes, wipe};
use reqwest::Method;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use rustify::endpoint::Endpoint;
use url::Url;

use super::Address;

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Call<'a> {
    pub(crate) method: Method,
    /// The path below `/v1/`, as it is: it is encoded here.
    pub(crate) path: String,
    /// The query, encoded.
    query: Option<String>,
    body: Option<Bytes>,
    content_type: &'static str,
    pub(crate) manner: Manner<'a>,
}

/// How to ask, whatever is asked.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Manner<'a> {
    /// Who asks. None for a login.
    pub(crate) token: Option<&'a SecretBytes>,
    /// For how long the answer is to be kept wrapped, for whoever unwraps it.
    pub(crate) wrap_ttl: Option<Duration>,
    /// Until when the caller waits.
    pub(crate) deadline: Option<Instant>,
    /// The caller's id of the request, for the server's audit.
    pub(crate) id: Option<&'a Arc<str>>,
    /// Ask outside the store's namespace, in the root one.
    pub(crate) global: bool,
}

impl<'a> Manner<'a> {
    /// As `request` says, as whom `token` names.
    pub(crate) fn of(request: &'a Request, token: Option<&'a SecretBytes>) -> Self {
        Self {
            token,
            deadline: request.deadline,
            id: request.id.as_ref(),
            ..Self::default()
        }
    }
}

impl<'a> Call<'a> {
    /// A request for a path below `/v1/`, as `secret/data/web01/root`; each segment is encoded here.
    pub(crate) fn new(method: Method, path: impl Into<String>) -> Self {
        Self {
            method,
            path: path.into(),
            query: None,
            body: None,
            content_type: "application/json",
            manner: Manner::default(),
        }
    }

    /// `LIST`, which Vault added to HTTP.
    pub(crate) fn list(path: impl Into<String>) -> Self {
        let mut path = path.into();
        if !path.ends_with('/') {
            path.push('/');
        }
        Self::new(Method::GET, path).query("list", "true")
    }

    /// The request that one of vaultrs' endpoint types describes. For those whose fields are no
    /// secrets: they are plain strings.
    ///
    /// # Errors
    /// `Internal` where the endpoint cannot be put into a request.
    pub(crate) fn endpoint<E: Endpoint>(endpoint: &E) -> Result<Self> {
        // The library's errors can hold what could not be written.
        let failed = || Error::new(ErrorKind::Internal, "a request could not be written");
        let path = endpoint.path();
        let mut call = Self::new(endpoint.method().into(), path.trim_start_matches('/'));
        call.query = endpoint.query().map_err(|_| failed())?;
        call.body = endpoint.body().map_err(|_| failed())?.map(|mut body| {
            let kept = SecretBytes::copy_from(&body);
            wipe(&mut body);
            owned(kept)
        });
        Ok(call)
    }

    /// With a parameter of the query.
    pub(crate) fn query(mut self, name: &str, value: &str) -> Self {
        let mut query = url::form_urlencoded::Serializer::new(self.query.unwrap_or_default());
        query.append_pair(name, value);
        self.query = Some(query.finish());
        self
    }

    /// With a JSON body, which stays in locked memory and is wiped when it has been sent.
    pub(crate) fn body(mut self, body: SecretBytes) -> Self {
        self.body = Some(owned(body));
        self
    }

    /// With a body for a `PATCH`, which Vault wants by the name of its format.
    pub(crate) fn merge_patch(mut self, body: SecretBytes) -> Self {
        self.content_type = "application/merge-patch+json";
        self.body(body)
    }

    /// Asked in this manner.
    pub(crate) fn manner(mut self, manner: Manner<'a>) -> Self {
        self.manner = manner;
        self
    }

    /// Asked outside the store's namespace.
    pub(crate) fn global(mut self) -> Self {
        self.manner.global = true;
        self
    }

    /// Whether asking twice is as good as asking once. A wrapped answer is made anew each time.
    pub(super) fn is_repeatable(&self) -> bool {
        self.method == Method::GET && self.manner.wrap_ttl.is_none()
    }

    /// Its url at `address`.
    ///
    /// # Errors
    /// `InvalidReference` for a path with a segment that is `.` or `..`, which would lead elsewhere.
    pub(super) fn url(&self, address: &Address) -> Result<Url> {
        if self
            .path
            .split('/')
            .any(|segment| matches!(segment, "." | ".."))
        {
            return Err(Error::new(
                ErrorKind::InvalidReference,
                "a path at a Vault has no segment `.` or `..`",
            ));
        }
        let mut url = address.join(&format!("/v1/{}", encode(&self.path)))?;
        url.set_query(self.query.as_deref());
        Ok(url)
    }

    /// Its body, to send. Sharing it copies nothing.
    pub(super) fn content(&self) -> Option<Bytes> {
        self.body.clone()
    }

    /// Its headers.
    ///
    /// # Errors
    /// `InvalidConfig` where token or namespace cannot be one.
    pub(super) fn headers(&self, namespace: Option<&str>) -> Result<HeaderMap> {
        let mut headers = HeaderMap::new();
        // Without it an agent or proxy in between may refuse, against forged requests.
        headers.insert(REQUEST, HeaderValue::from_static("true"));
        if let Some(token) = self.manner.token {
            let mut value = HeaderValue::from_maybe_shared(owned(copy(token))).map_err(|_| {
                Error::new(
                    ErrorKind::InvalidConfig,
                    "the token holds a byte that no token has, as a newline",
                )
                .with_advice("see that its source holds the token alone")
            })?;
            value.set_sensitive(true);
            headers.insert(TOKEN, value);
        }
        if let Some(namespace) = namespace.filter(|_| !self.manner.global) {
            let value = HeaderValue::from_str(namespace).map_err(|_| {
                Error::new(
                    ErrorKind::InvalidConfig,
                    "`namespace` (VAULT_NAMESPACE) holds a byte that no header can",
                )
            })?;
            headers.insert(NAMESPACE, value);
        }
        if let Some(ttl) = self.manner.wrap_ttl {
            headers.insert(WRAP_TTL, HeaderValue::from(ttl.as_secs().max(1)));
        }
        // An id that no header can hold is not worth a failed request.
        if let Some(id) = self.manner.id.and_then(|id| HeaderValue::from_str(id).ok()) {
            headers.insert(CORRELATION, id);
        }
        if self.body.is_some() {
            let value = HeaderValue::from_static(self.content_type);
            headers.insert(reqwest::header::CONTENT_TYPE, value);
        }
        Ok(headers)
    }
}

const CORRELATION: HeaderName = HeaderName::from_static("x-correlation-id");
const NAMESPACE: HeaderName = HeaderName::from_static("x-vault-namespace");
const REQUEST: HeaderName = HeaderName::from_static("x-vault-request");
const TOKEN: HeaderName = HeaderName::from_static("x-vault-token");
const WRAP_TTL: HeaderName = HeaderName::from_static("x-vault-wrap-ttl");

/// Encodes all but what RFC 3986 reserves for nothing, and slashes.
fn encode(path: &str) -> String {
    let mut encoded = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// Bytes in locked memory that are wiped when their last user is done.
struct Owned(SecretBytes);

impl AsRef<[u8]> for Owned {
    fn as_ref(&self) -> &[u8] {
        self.0.expose()
    }
}

fn owned(bytes: SecretBytes) -> Bytes {
    Bytes::from_owner(Owned(bytes))
}

fn copy(bytes: &SecretBytes) -> SecretBytes {
    SecretBytes::copy_from(bytes.expose())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_encoded_byte_by_byte_and_leads_nowhere_else() {
        let address = Address::parse("https://vault:8200", "it").expect("address");
        let url = |path: &str| Call::new(Method::GET, path).url(&address);
        let text = url("secret/data/a b/ü?#%2e").expect("url");
        assert_eq!(
            text.as_str(),
            "https://vault:8200/v1/secret/data/a%20b/%C3%BC%3F%23%252e"
        );
        for path in ["secret/../sys/seal", "secret/./x", ".."] {
            let error = url(path).expect_err(path);
            assert_eq!(error.kind(), ErrorKind::InvalidReference);
        }
    }

    #[test]
    fn a_token_is_sensitive_and_one_with_a_newline_is_an_error_that_does_not_show_it() {
        let good = SecretBytes::copy_from(b"hvs.hunter2");
        let manner = Manner {
            token: Some(&good),
            ..Manner::default()
        };
        let call = Call::new(Method::GET, "x").manner(manner);
        let headers = call.headers(Some("team")).expect("headers");
        assert_eq!(headers[TOKEN].as_bytes(), b"hvs.hunter2");
        assert!(!format!("{headers:?}{call:?}").contains("hunter2"));
        assert_eq!(headers[NAMESPACE], "team");
        assert!(
            call.global()
                .headers(Some("team"))
                .expect("headers")
                .get(NAMESPACE)
                .is_none()
        );

        for bad in [&b"hvs.hunter2\n"[..], b"hunter2\0", b"hunter2\r\nX: y"] {
            let bad = SecretBytes::copy_from(bad);
            let manner = Manner {
                token: Some(&bad),
                ..Manner::default()
            };
            let error = Call::new(Method::GET, "x")
                .manner(manner)
                .headers(None)
                .expect_err("no header");
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
            assert!(!format!("{error:?}").contains("hunter2"));
        }
    }
}
