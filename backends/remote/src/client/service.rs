//! All that a key service does besides being a store.

use std::fmt;
use std::sync::Arc;

use keyhaul_core::{Descriptor, Error, Request, Result, StoreConfig};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::RemoteStore;
use super::call::Call;
use super::config::Settings;
use super::pool::{Pool, Repeat};
use super::wire::Failure;
use crate::protocol::{
    AuditAnswer, BeginRequest, DeleteAnswer, DeleteRequest, EndRequest, Grant, GrantRequest,
    GrantsAnswer, Node, NodeRequest, NodesAnswer, Paging, QuarantineAnswer, RestoreRequest,
    RevokeAnswer, RevokeRequest, ServiceAnswer, Stat, Ticket, TicketState, TicketsAnswer, path,
};

/// A key service, as managers and operators use it. Cheap to clone: clones share connections.
///
/// Every method's errors are the service's own, or `Unavailable` and `Timeout` where no server can
/// be reached, `InvalidConfig` where certificates are not what they must be, `Unauthenticated` where
/// the service does not know ours. Each says what was asked, as the context's `task`.
#[derive(Clone)]
pub struct Service {
    descriptor: Descriptor,
    pool: Arc<Pool>,
}

impl Service {
    /// The service of a store of the policy. Does no I/O.
    ///
    /// # Errors
    /// `InvalidConfig` with the option and the rule.
    pub fn open(config: &StoreConfig) -> Result<Self> {
        let settings = Settings::new(config)?;
        let location = format!("{}://{}", super::config::SCHEME, settings.addresses[0]);
        Ok(Self {
            descriptor: Descriptor::new(&config.name, super::config::SCHEME, location),
            pool: Arc::new(Pool::new(&settings)),
        })
    }

    /// The store that the service is to those who read and write, over the same connections.
    pub fn store(&self) -> RemoteStore {
        RemoteStore::of(self.descriptor.clone(), Arc::clone(&self.pool))
    }

    /// What may be printed of it.
    pub fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// Who we are there, and what we may do.
    pub async fn service(&self, request: &Request) -> Result<ServiceAnswer> {
        let call = Call::get(path::SERVICE, request);
        self.ask(call, "say who asks").await
    }

    /// Grants a scope to a node. The same again changes nothing.
    pub async fn grant(&self, body: &GrantRequest, request: &Request) -> Result<Grant> {
        let shown_by = format!("keyhaul grants --scope {}", body.scope);
        let repeat = match body.if_epoch {
            // It undoes nothing that was done in between: the grant that it names is gone then.
            Some(1..) => Repeat::Safe,
            Some(0) | None => never(&shown_by),
        };
        let task = format!("grant {} to {}", body.scope, body.node);
        self.tell(path::GRANTS, body, request, repeat, &task).await
    }

    /// Takes a grant away, from the next request of the node on.
    pub async fn revoke(&self, body: &RevokeRequest, request: &Request) -> Result<RevokeAnswer> {
        let task = format!("revoke {} from {}", body.scope, body.node);
        self.tell(path::REVOKE, body, request, Repeat::Safe, &task)
            .await
    }

    /// Grants, of a scope, of a node, of both or all.
    pub async fn grants(
        &self,
        scope: Option<&str>,
        node: Option<&str>,
        page: &Paging,
        request: &Request,
    ) -> Result<GrantsAnswer> {
        let call = Call::get(path::GRANTS, request)
            .query("scope", scope)
            .query("node", node);
        self.ask(paged(call, page), "list grants").await
    }

    /// Which nodes can read `SCOPE/NAME`.
    pub async fn who_can(&self, secret: &str, request: &Request) -> Result<GrantsAnswer> {
        let call = Call::get(path::WHO_CAN, request).query("secret", Some(secret));
        self.ask(call, &format!("say who can read {secret}")).await
    }

    /// What a node can read.
    pub async fn what_can(&self, node: &str, request: &Request) -> Result<GrantsAnswer> {
        let call = Call::get(path::WHAT_CAN, request).query("node", Some(node));
        self.ask(call, &format!("say what {node} can read")).await
    }

    /// Begins a migration. Beginning the same again gives the same ticket.
    pub async fn begin(&self, body: &BeginRequest, request: &Request) -> Result<Ticket> {
        let shown_by = format!("keyhaul migrate list --scope {}", body.scope);
        let BeginRequest {
            scope, from, to, ..
        } = body;
        let task = format!("begin a migration of {scope} from {from} to {to}");
        self.tell(path::MIGRATIONS, body, request, never(&shown_by), &task)
            .await
    }

    /// Ends a migration at its target.
    pub async fn commit(&self, body: &EndRequest, request: &Request) -> Result<Ticket> {
        self.end(path::COMMIT, "commit", body, request).await
    }

    /// Ends a migration at its source.
    pub async fn abort(&self, body: &EndRequest, request: &Request) -> Result<Ticket> {
        self.end(path::ABORT, "abort", body, request).await
    }

    /// What names its migration so that no other is meant can be said again.
    async fn end(
        &self,
        path: &'static str,
        verb: &str,
        body: &EndRequest,
        request: &Request,
    ) -> Result<Ticket> {
        let repeat = if body.id.is_some() || body.from.is_some() && body.to.is_some() {
            Repeat::Safe
        } else {
            never("keyhaul migrate list")
        };
        let word = |word: &Option<String>| word.clone().unwrap_or_default();
        let task = match &body.id {
            Some(id) => format!("{verb} the migration {id}"),
            None => format!(
                "{verb} the migration of {} from {} to {}",
                word(&body.scope),
                word(&body.from),
                word(&body.to)
            ),
        };
        self.tell(path, body, request, repeat, &task).await
    }

    /// Migrations, of a scope, in a state, or all.
    pub async fn tickets(
        &self,
        scope: Option<&str>,
        state: Option<TicketState>,
        page: &Paging,
        request: &Request,
    ) -> Result<TicketsAnswer> {
        let call = Call::get(path::MIGRATIONS, request)
            .query("scope", scope)
            .query("state", state.map(TicketState::name));
        self.ask(paged(call, page), "list migrations").await
    }

    /// Takes everything from a node, and says what it has fetched.
    pub async fn quarantine(&self, node: &str, request: &Request) -> Result<QuarantineAnswer> {
        let (node, task) = (node.to_owned(), format!("quarantine {node}"));
        let body = NodeRequest { node };
        self.tell(path::QUARANTINE, &body, request, Repeat::Safe, &task)
            .await
    }

    /// Lets a node be granted again.
    pub async fn release(&self, node: &str, request: &Request) -> Result<Node> {
        let (node, task) = (node.to_owned(), format!("release {node}"));
        let body = NodeRequest { node };
        let repeat = never("keyhaul node list");
        self.tell(path::RELEASE, &body, request, repeat, &task)
            .await
    }

    /// Nodes that ever held a grant, or fetched something.
    pub async fn nodes(&self, page: &Paging, request: &Request) -> Result<NodesAnswer> {
        let call = Call::get(path::NODES, request);
        self.ask(paged(call, page), "list nodes").await
    }

    /// Deletes a secret, and says until when it can be brought back.
    pub async fn delete(&self, body: &DeleteRequest, request: &Request) -> Result<DeleteAnswer> {
        let shown_by = format!("keyhaul stat {}", body.secret);
        let task = format!("delete {}", body.secret);
        self.tell(path::DELETE, body, request, never(&shown_by), &task)
            .await
    }

    /// Brings a deleted secret back.
    pub async fn restore(&self, body: &RestoreRequest, request: &Request) -> Result<Stat> {
        let shown_by = format!("keyhaul stat {}", body.secret);
        let task = format!("restore {}", body.secret);
        self.tell(path::RESTORE, body, request, never(&shown_by), &task)
            .await
    }

    /// The audit's records after the one of that number, the oldest first.
    pub async fn audit(
        &self,
        after: Option<u64>,
        limit: Option<usize>,
        request: &Request,
    ) -> Result<AuditAnswer> {
        let text = |number: u64| number.to_string();
        let limit = limit.map(|limit| limit.to_string());
        let call = Call::get(path::AUDIT, request)
            .query("after", after.map(text).as_deref())
            .query("limit", limit.as_deref());
        self.ask(call, "show the audit").await
    }

    async fn tell<T: DeserializeOwned + Send>(
        &self,
        path: &'static str,
        body: &impl Serialize,
        request: &Request,
        repeat: Repeat<'_>,
        task: &str,
    ) -> Result<T> {
        let told = async {
            let call = Call::post(path, body, request)?;
            send(&self.pool, &call, request, repeat).await
        };
        told.await.map_err(|error| self.located(error, task))
    }

    async fn ask<T: DeserializeOwned + Send>(&self, call: Call<'_>, task: &str) -> Result<T> {
        let request = call.request();
        let answer = send(&self.pool, &call, request, Repeat::Safe).await;
        answer.map_err(|error| self.located(error, task))
    }

    /// An error that says what was asked of which service.
    fn located(&self, error: Error, task: &str) -> Error {
        error.with_store(&self.descriptor.name).with_task(task)
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Service({})", self.descriptor)
    }
}

/// The call, for this part of its answer.
fn paged<'a>(call: Call<'a>, page: &Paging) -> Call<'a> {
    let limit = page.limit.map(|limit| limit.to_string());
    call.query("limit", limit.as_deref())
        .query("after", page.after.as_deref())
}

/// A request that is not sent again, and what shows how things stand.
fn never(shown_by: &str) -> Repeat<'_> {
    Repeat::Never { shown_by }
}

/// Sends a request whose answer does not depend on which server is asked.
pub(super) async fn send<T: DeserializeOwned + Send>(
    pool: &Pool,
    call: &Call<'_>,
    request: &Request,
    repeat: Repeat<'_>,
) -> Result<T> {
    pool.run(request, repeat, |link, until| async move {
        let answer: Result<T, Failure> = link.send(call, until).await;
        answer
    })
    .await
}
