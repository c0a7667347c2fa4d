//! One write to KV version 2, and the requests it can be made of.

use std::collections::BTreeMap;

use keyhaul_core::{Error, ErrorKind, Request, Result, SecretPath};
use reqwest::Method;
use serde::Deserialize;

use super::Kv;
use super::content::{Body, Content};
use super::current::{Current, OneVersion, There, Written};
use super::paths::Mount;
use crate::http::{Answer, Call};

/// What is to be written where.
pub(super) struct Change<'a> {
    pub(super) kv: &'a Kv,
    pub(super) mount: &'a Mount,
    pub(super) path: &'a SecretPath,
    pub(super) content: &'a Content<'a>,
    pub(super) request: &'a Request,
}

impl Change<'_> {
    /// Writes the content alone, where `compare` is the current version, 0 for none. None where it is
    /// not.
    pub(super) async fn replace(&self, compare: Option<u64>) -> Result<Option<OneVersion>> {
        let body = self.body(compare, |body| self.content.alone(body))?;
        self.post(
            body,
            if compare == Some(0) {
                "create"
            } else {
                "update"
            },
        )
        .await
    }

    /// Writes the content among the fields that are there. None where others wrote since.
    pub(super) async fn merge(&self, there: &There) -> Result<Option<OneVersion>> {
        let siblings = there.fields()?;
        let body = self.body(Some(there.version), |body| {
            self.content.among(body, &siblings)
        })?;
        self.post(body, "update").await
    }

    /// Has the server change one field. None where that cannot be asked; none within where there is no such
    /// secret, or not this version of it.
    pub(super) async fn patch(&self, compare: Option<u64>) -> Result<Option<Option<OneVersion>>> {
        if matches!(self.content, Content::Whole(_)) || !self.kv.may_patch() {
            return Ok(None);
        }
        let body = self.body(compare, |body| self.content.patch(body))?;
        let call = Call::new(Method::PATCH, self.mount.data(self.path)).merge_patch(body.finish());
        let answer = match self.kv.send_for(self.request, call, "patch").await {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                tracing::debug!(path = %self.path, "patching is denied; reading and comparing instead");
                self.kv.patching_denied();
                return Ok(None);
            }
            answer => answer?,
        };
        match answer.status {
            404 if answer.errors().is_empty() => Ok(Some(None)),
            // A server that is older than patches.
            405 | 415 => {
                self.kv.patching_denied();
                Ok(None)
            }
            _ => Ok(Some(written(&answer)?)),
        }
    }

    /// Whether the token may create here, and not change: then a refusal to create says that something
    /// is there.
    pub(super) async fn only_creates(&self) -> bool {
        #[derive(Deserialize)]
        struct Told {
            data: Capabilities,
        }

        #[derive(Deserialize)]
        struct Capabilities {
            capabilities: Vec<String>,
        }

        let asked = async {
            let mut body = Body::new();
            body.text("{\"paths\":[")?;
            body.string(&self.mount.data(self.path))?;
            body.text("]}")?;
            let call = Call::new(Method::POST, "sys/capabilities-self").body(body.finish());
            let answer = self.kv.send_for(self.request, call, "update").await?;
            answer.json::<Told>()
        };
        // Where that may not be asked either, the refusal stands as it is.
        let may = asked
            .await
            .map(|told| told.data.capabilities)
            .unwrap_or_default();
        let has = |wanted: &str| may.iter().any(|capability| capability == wanted);
        has("create") && !has("update") && !has("root")
    }

    /// What is there now.
    pub(super) async fn current(&self) -> Result<Current> {
        self.kv.current(self.mount, self.path, self.request).await
    }

    async fn post(&self, body: Body, capability: &str) -> Result<Option<OneVersion>> {
        let call = Call::new(Method::POST, self.mount.data(self.path)).body(body.finish());
        let answer = self.kv.send_for(self.request, call, capability).await?;
        written(&answer)
    }

    fn body(
        &self,
        compare: Option<u64>,
        content: impl FnOnce(&mut Body) -> Result<()>,
    ) -> Result<Body> {
        let mut body = Body::new();
        body.text("{\"data\":")?;
        content(&mut body)?;
        if let Some(version) = compare {
            body.text(&format!(",\"options\":{{\"cas\":{version}}}"))?;
        }
        body.text("}")?;
        Ok(body)
    }
}

/// What was written; none where the server did not, since the version compared with is not current.
/// It says so by a 400, as for any request that it does not understand; it understands ours.
pub(super) fn written(answer: &Answer) -> Result<Option<OneVersion>> {
    match answer.status {
        400 if answer.listed().is_some() => Ok(None),
        _ if answer.is_success() => Ok(Some(answer.json::<Written>()?.data)),
        _ => Err(answer.refusal()),
    }
}

/// Holds labels against what the server takes for custom metadata, before anything is written.
///
/// # Errors
/// `TooLarge` or `InvalidReference` with the rule.
pub(super) fn check_labels(labels: &BTreeMap<String, String>) -> Result<()> {
    let too_large = |rule: &'static str| Err(Error::new(ErrorKind::TooLarge, rule));
    if labels.len() > 64 {
        return too_large("a secret has at most 64 labels here");
    }
    for (name, value) in labels {
        if name.len() > 128 || value.len() > 512 {
            return too_large(
                "a label's name has at most 128 bytes here, and its text at most 512",
            );
        }
        let blank = name.is_empty() || value.is_empty();
        if blank || name.chars().chain(value.chars()).any(char::is_control) {
            return Err(Error::new(
                ErrorKind::InvalidReference,
                "a label's name and text are not empty here, and have no control characters",
            ));
        }
    }
    Ok(())
}
