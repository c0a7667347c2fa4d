//! Requests as whoever the store is logged in as.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use keyhaul_core::{Error, ErrorKind, Request, Result};

use crate::auth::{Identity, Probed, Verdict};
use crate::http::{Answer, Call, Http, Manner};
use crate::policy::stanza;

/// The wire of a store, and its login.
#[derive(Debug)]
pub(crate) struct Wire {
    http: Arc<Http>,
    identity: Identity,
    /// Whether a probe found a login that can be made once only, and nothing was asked since.
    unspent: AtomicBool,
}

impl Wire {
    pub(crate) fn new(http: Arc<Http>, identity: Identity) -> Self {
        Self {
            http,
            identity,
            unspent: AtomicBool::new(false),
        }
    }

    /// Sends `call`, which needs `capability` at its path. Any status but a final 403 is an answer.
    ///
    /// # Errors
    /// As [`Http::send`] and [`Identity`]; `PermissionDenied` with the line of policy that is missing.
    pub(crate) async fn send(
        &self,
        request: &Request,
        call: Call<'_>,
        capability: &str,
    ) -> Result<Answer> {
        let path = call.path.clone();
        let answer = self.ask(request, call).await?;
        answer.ok_or_else(|| self.denied(&path, capability))
    }

    /// Sends `call`. None where the server denies it: what the system denies on the way there, as a
    /// credential's file or a socket, is an error and nothing of the server's.
    ///
    /// # Errors
    /// As [`Http::send`] and [`Identity`].
    pub(crate) async fn ask(&self, request: &Request, call: Call<'_>) -> Result<Option<Answer>> {
        self.unspent.store(false, Ordering::Relaxed);
        let token = self.identity.token(request.deadline).await?;
        let first = call
            .clone()
            .manner(Manner::of(request, Some(token.value())));
        let answer = self.http.send(first).await?;
        if answer.status != 403 {
            return Ok(Some(answer));
        }
        // Denied, or a token that is dead? The login finds out, once for all who ask.
        let Verdict::Again(fresh) = self.identity.denied(&token, request.deadline).await? else {
            return Ok(None);
        };
        let again = call.manner(Manner::of(request, Some(fresh.value())));
        let answer = self.http.send(again).await?;
        Ok((answer.status != 403).then_some(answer))
    }

    /// Reaches the server, and sees that the login holds. Where it is still to be made and could be
    /// made once only, nothing more may be asked.
    ///
    /// # Errors
    /// As [`Identity::probe`].
    pub(crate) async fn probe(&self) -> Result<Probed> {
        let probed = self.identity.probe(None).await?;
        self.unspent
            .store(probed == Probed::Unspent, Ordering::Relaxed);
        Ok(probed)
    }

    /// Whether the next question would spend a login that was only to be probed.
    pub(crate) fn is_unspent(&self) -> bool {
        self.unspent.load(Ordering::Relaxed)
    }

    fn denied(&self, path: &str, capability: &str) -> Error {
        let line = stanza(path, &format!("\"{capability}\""));
        let place = match &self.http.settings().namespace {
            Some(namespace) => format!(" in namespace {namespace}"),
            None => String::new(),
        };
        Error::new(
            ErrorKind::PermissionDenied,
            format!("the token's policies lack {line}{place}"),
        )
        .with_advice("add the line to a policy of the role or token; `keyhaul check --vault-policy` prints all that the routes need")
    }
}
