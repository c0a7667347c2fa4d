//! Bodies of requests and answers.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use keyhaul_core::{
    Alphabet, Error, ErrorKind, Field, Lease, Metadata, PutMode, Recipe, Result, Version,
};
use serde::{Deserialize, Serialize};

use super::Problem;

/// Declares bodies that are equal and printable. Requests are strict: a key that nobody knows is
/// refused, since it may ask for what is not done. Answers are not: a newer server may say more.
macro_rules! bodies {
    () => {};
    ($(#[$doc:meta])* request $name:ident $fields:tt $($rest:tt)*) => {
        bodies! { @body [$(#[$doc])* #[serde(deny_unknown_fields)]] $name $fields }
        bodies! { $($rest)* }
    };
    ($(#[$doc:meta])* answer $name:ident $fields:tt $($rest:tt)*) => {
        bodies! { @body [$(#[$doc])*] $name $fields }
        bodies! { $($rest)* }
    };
    (@body [$(#[$meta:meta])*] $name:ident {
        $($(#[$field_doc:meta])* $field:ident: $type:ty,)*
    }) => {
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        $(#[$meta])*
        pub struct $name { $($(#[$field_doc])* pub $field: $type,)* }
    };
}

bodies! {
    /// Asks for values.
    request ReadRequest {
        /// The asking process' public key, X25519, in base64.
        key: String,
        /// 16 fresh random bytes in base64: what answers this request answers no other.
        nonce: String,
        /// What is asked for.
        items: Vec<ReadItem>,
    }
    /// One secret that is asked for.
    request ReadItem {
        /// `SCOPE/NAME`.
        secret: String,
        /// A version other than the current one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        version: Option<String>,
        /// A field of a map; `*` for the whole map.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        field: Option<String>,
        /// Whether an expired secret will do.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        expired: bool,
    }
    /// Values, in the order they were asked for.
    answer ReadAnswer {
        /// The seal's encapsulated key, in base64.
        enc: String,
        /// What makes the key of this answer, 16 bytes in base64.
        salt: String,
        /// An outcome for each item.
        items: Vec<Outcome<SealedValue>>,
    }
    /// A value, sealed.
    answer SealedValue {
        /// The ciphertext with its tag, in base64.
        value: String,
        /// What is known of it.
        metadata: MetadataBody,
    }
    /// Asks for metadata. About many at once, like [`ReadRequest`].
    request StatRequest {
        /// What is asked about.
        items: Vec<ReadItem>,
    }
    /// Metadata, in order.
    answer StatAnswer {
        /// An outcome for each item.
        items: Vec<Outcome<Stat>>,
    }
    /// What is known of one secret.
    answer Stat {
        /// It.
        metadata: MetadataBody,
    }
    /// Metadata as it travels.
    answer MetadataBody {
        /// The version.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        version: Option<String>,
        /// When it was written.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        created: Option<Timestamp>,
        /// When the store stops giving it out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expires: Option<Timestamp>,
        /// Labels.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        labels: BTreeMap<String, String>,
        /// The lease of a value made for this reader.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        lease: Option<LeaseBody>,
    }
    /// A lease as it travels.
    answer LeaseBody {
        /// Its name at the store.
        id: String,
        /// How long it lasts, in seconds.
        seconds: u64,
        /// Whether it can be renewed.
        renewable: bool,
    }
    /// Writes a value.
    request WriteRequest {
        /// `SCOPE/NAME`.
        secret: String,
        /// The server's key that the value is sealed to, as [`ServiceAnswer::key`].
        key: String,
        /// The seal's encapsulated key, in base64.
        enc: String,
        /// What makes the key of this value, 16 bytes in base64.
        salt: String,
        /// The ciphertext with its tag, in base64.
        value: String,
        /// What may be there already.
        #[serde(default)]
        mode: Mode,
        /// The version that must be current, where the mode is `update`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expect: Option<String>,
        /// The field of a map that is written; `*` for the whole map.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        field: Option<String>,
        /// Labels.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        labels: BTreeMap<String, String>,
        /// When the store stops giving it out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expires: Option<Timestamp>,
    }
    /// Has a value made.
    request GenerateRequest {
        /// `SCOPE/NAME`.
        secret: String,
        /// What it is made of.
        alphabet: AlphabetBody,
        /// How long it is, in characters or bytes.
        length: usize,
        /// What may be there already.
        #[serde(default)]
        mode: Mode,
        /// The version that must be current, where the mode is `update`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expect: Option<String>,
        /// The field of a map that is written.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        field: Option<String>,
        /// Labels.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        labels: BTreeMap<String, String>,
        /// When the store stops giving it out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expires: Option<Timestamp>,
        /// Even where a node holds the scope, and the mode may replace what it uses.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        force: bool,
    }
    /// Deletes a secret.
    request DeleteRequest {
        /// `SCOPE/NAME`.
        secret: String,
        /// Only where this is the current version.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        version: Option<String>,
        /// Even where a node holds the scope.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        force: bool,
    }
    /// Brings a deleted secret back.
    request RestoreRequest {
        /// `SCOPE/NAME`.
        secret: String,
    }
    /// What was deleted.
    answer DeleteAnswer {
        /// Until when it can be brought back; none where it is gone, or was not there.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        restorable_until: Option<Timestamp>,
    }
    /// A page of names.
    answer ListAnswer {
        /// Secrets, in byte order.
        secrets: Vec<String>,
        /// Folders, in byte order, of a shallow listing.
        folders: Vec<String>,
        /// Where the next page begins.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next: Option<String>,
    }
    /// Grants a scope to a node. The same again changes nothing; other terms replace the old.
    request GrantRequest {
        /// The scope.
        scope: String,
        /// The node's name.
        node: String,
        /// Patterns of names in the scope, as in a route's `match` after the scope; all where empty.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        names: Vec<String>,
        /// When it ends by itself.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expires: Option<Timestamp>,
        /// Only where the grant that the node holds of the scope has this epoch; 0: only where it
        /// holds none. What is as it was asked for already is no conflict.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        if_epoch: Option<u64>,
    }
    /// A grant.
    answer Grant {
        /// The scope.
        scope: String,
        /// The node's name.
        node: String,
        /// Patterns of names in the scope; all where empty.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        names: Vec<String>,
        /// When it ends by itself.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expires: Option<Timestamp>,
        /// Grows with every change of any grant: a later grant has a greater one.
        epoch: u64,
        /// When it was given.
        created: Timestamp,
        /// Who gave it, by the URI in the certificate.
        by: String,
        /// The migration that it belongs to, while that is open.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        migration: Option<String>,
    }
    /// Takes a grant away.
    request RevokeRequest {
        /// The scope.
        scope: String,
        /// The node's name.
        node: String,
        /// Only where the grant has this epoch: another one was given since, and stays. Where there is
        /// none any more, that is no conflict.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        if_epoch: Option<u64>,
    }
    /// What was taken away.
    answer RevokeAnswer {
        /// Whether there was a grant.
        revoked: bool,
        /// The epoch from which on it is gone.
        epoch: u64,
    }
    /// A page of grants.
    answer GrantsAnswer {
        /// Grants, by scope and node.
        grants: Vec<Grant>,
        /// Where the next page begins.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next: Option<String>,
    }
    /// Begins a migration: the target can read until the ticket ends.
    request BeginRequest {
        /// The scope that moves.
        scope: String,
        /// The node it runs on, which holds a grant.
        from: String,
        /// The node it moves to, which holds none.
        to: String,
        /// How long the ticket lasts, in seconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        seconds: Option<u64>,
    }
    /// Ends a migration: names it by its id, or by its scope and both its nodes. What is named has
    /// to match.
    request EndRequest {
        /// The ticket's id.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<String>,
        /// The scope, for its latest ticket: takes `from` and `to`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        scope: Option<String>,
        /// The node it comes from.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<String>,
        /// The node it goes to.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<String>,
    }
    /// A migration.
    answer Ticket {
        /// Its id.
        id: String,
        /// The scope that moves.
        scope: String,
        /// The node it comes from.
        from: String,
        /// The node it goes to.
        to: String,
        /// How it stands.
        state: TicketState,
        /// Whether the target has fetched a secret under it: then the guest may run there.
        fetched: bool,
        /// When it began.
        created: Timestamp,
        /// When it ends by itself, or becomes undecided.
        expires: Timestamp,
        /// Who began it, by the URI in the certificate.
        by: String,
    }
    /// A page of tickets.
    answer TicketsAnswer {
        /// Tickets, the latest first.
        tickets: Vec<Ticket>,
        /// Where the next page begins.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next: Option<String>,
    }
    /// Names a node.
    request NodeRequest {
        /// The node's name.
        node: String,
    }
    /// What a quarantine took away, and what has to be rotated.
    answer QuarantineAnswer {
        /// The node's name.
        node: String,
        /// Whether the service knew it: it had held a grant, had fetched something, or was
        /// quarantined before. One that was unknown is quarantined too.
        known: bool,
        /// The grants that it held.
        revoked: Vec<Grant>,
        /// Every secret that it has ever fetched.
        fetched: Vec<Fetch>,
        /// Migrations that it is part of, and that somebody has to end.
        tickets: Vec<Ticket>,
    }
    /// What a node has fetched.
    answer Fetch {
        /// `SCOPE/NAME`.
        secret: String,
        /// The version it got last.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        version: Option<String>,
        /// When it did so first.
        first: Timestamp,
        /// When it did so last.
        last: Timestamp,
        /// How often.
        count: u64,
    }
    /// A node.
    answer Node {
        /// Its name.
        node: String,
        /// Since when it is quarantined.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        quarantined: Option<Timestamp>,
        /// How many grants it holds.
        grants: u64,
        /// When it fetched something last.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        last_fetch: Option<Timestamp>,
    }
    /// A page of nodes that ever held a grant, or fetched something.
    answer NodesAnswer {
        /// Nodes, by name.
        nodes: Vec<Node>,
        /// Where the next page begins.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next: Option<String>,
    }
    /// Who asks, and what the service can do for them.
    answer ServiceAnswer {
        /// The server's version.
        version: String,
        /// The name that the server knows the caller by.
        name: String,
        /// The URI in the caller's certificate.
        uri: String,
        /// The caller's role.
        role: Role,
        /// The scopes that the role covers, as patterns; empty for a node, whose grants say.
        scopes: Vec<String>,
        /// What the caller can do to secrets: capabilities, by their names.
        can: Vec<String>,
        /// The longest value, in bytes.
        max_value: usize,
        /// The most secrets in one read.
        max_batch: usize,
        /// The server's public key, X25519, in base64: what is written is sealed to it. Another one
        /// after each start.
        key: String,
    }
    /// Records of the audit.
    answer AuditAnswer {
        /// Records, the oldest first, as they stand in the file.
        records: Vec<serde_json::Value>,
        /// The sequence number to ask for next; none at the end.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next: Option<u64>,
        /// Where the chain ends: to be kept elsewhere, and given to `keyhaul audit verify`.
        head: AuditHead,
    }
    /// Where the audit's chain ends.
    answer AuditHead {
        /// The last record's number.
        sequence: u64,
        /// The last record's hash, SHA-256 in hexadecimal.
        hash: String,
    }
}

/// One item's outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Outcome<T> {
    /// It failed.
    Problem {
        /// How.
        problem: Problem,
    },
    /// It worked.
    Done(T),
}

/// What a certificate's holder may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Grants, revokes, has values made, lists and deletes; never reads a value.
    Manager,
    /// Reads the scopes it is granted.
    Node,
    /// Sets values and reads the audit.
    Operator,
}

/// How a migration stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TicketState {
    /// Both nodes can read.
    Open,
    /// Its time ended after the target had fetched: both can read, until somebody decides.
    Undecided,
    /// It ended at the target.
    Committed,
    /// It ended at the source.
    Aborted,
    /// Its time ended before the target had fetched anything: it ended at the source.
    Expired,
    /// A word of a newer server; no server of this version says it.
    #[serde(other)]
    Unknown,
}

/// What may be there already when a secret is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Nothing.
    #[default]
    Create,
    /// Anything or nothing.
    Overwrite,
    /// Exactly the version of `expect`.
    Update,
}

/// What a value is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AlphabetBody {
    /// `[A-Za-z0-9]`.
    Alphanumeric,
    /// Any byte.
    Bytes,
    /// `[0-9a-f]`.
    Hex,
}

impl Mode {
    /// A mode as the contract has it, with its `expect`; none where this version of the protocol
    /// has no word for it.
    pub fn of(mode: &PutMode) -> Option<(Self, Option<String>)> {
        match mode {
            PutMode::Create => Some((Self::Create, None)),
            PutMode::Overwrite => Some((Self::Overwrite, None)),
            PutMode::Update(version) => Some((Self::Update, Some(version.as_str().to_owned()))),
            _ => None,
        }
    }

    /// The contract's mode.
    ///
    /// # Errors
    /// `InvalidReference` where `expect` is missing, not called for, or no version.
    pub fn with(self, expect: Option<&str>) -> Result<PutMode> {
        match (self, expect) {
            (Self::Create, None) => Ok(PutMode::Create),
            (Self::Overwrite, None) => Ok(PutMode::Overwrite),
            (Self::Update, Some(version)) => Ok(PutMode::Update(Version::new(version)?)),
            (Self::Update, None) => Err(invalid("mode `update` takes `expect`, a version")),
            (_, Some(_)) => Err(invalid("`expect` belongs to mode `update`")),
        }
    }
}

impl GenerateRequest {
    /// The recipe.
    ///
    /// # Errors
    /// `InvalidReference` where the length is none that can be made.
    pub fn recipe(&self) -> Result<Recipe> {
        let alphabet = match self.alphabet {
            AlphabetBody::Alphanumeric => Alphabet::Alphanumeric,
            AlphabetBody::Bytes => Alphabet::Bytes,
            AlphabetBody::Hex => Alphabet::Hex,
        };
        Recipe::new(alphabet, self.length).map_err(|error| invalid(error.message().to_owned()))
    }
}

impl AlphabetBody {
    /// The alphabet of a recipe; none where this version of the protocol has no word for it.
    pub fn of(recipe: &Recipe) -> Option<Self> {
        match recipe.alphabet() {
            Alphabet::Alphanumeric => Some(Self::Alphanumeric),
            Alphabet::Bytes => Some(Self::Bytes),
            Alphabet::Hex => Some(Self::Hex),
            _ => None,
        }
    }
}

impl Role {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Manager => "manager",
            Self::Node => "node",
            Self::Operator => "operator",
        }
    }
}

impl TicketState {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Undecided => "undecided",
            Self::Committed => "committed",
            Self::Aborted => "aborted",
            Self::Expired => "expired",
            Self::Unknown => "unknown",
        }
    }
}

impl<T> From<Result<T>> for Outcome<T> {
    fn from(result: Result<T>) -> Self {
        match result {
            Ok(done) => Self::Done(done),
            Err(error) => Self::Problem {
                problem: Problem::of(&error, None),
            },
        }
    }
}

impl From<&Metadata> for MetadataBody {
    fn from(metadata: &Metadata) -> Self {
        let time = |time: Option<SystemTime>| time.and_then(|time| Timestamp::try_from(time).ok());
        Self {
            version: metadata.version.as_ref().map(|v| v.as_str().to_owned()),
            created: time(metadata.created),
            expires: time(metadata.expires),
            labels: metadata.labels.clone(),
            lease: metadata.lease.as_ref().map(|lease| LeaseBody {
                id: lease.id.clone(),
                seconds: lease.duration.as_secs(),
                renewable: lease.renewable,
            }),
        }
    }
}

impl MetadataBody {
    /// The contract's metadata.
    ///
    /// # Errors
    /// `Corrupt` where the version is none.
    pub fn metadata(self) -> Result<Metadata> {
        let version = self.version.map(Version::new).transpose();
        let version = version.map_err(|_| {
            Error::new(
                ErrorKind::Corrupt,
                "the answer holds a version that is none",
            )
        })?;
        let mut metadata = Metadata::new(version);
        metadata.created = self.created.map(SystemTime::from);
        metadata.expires = self.expires.map(SystemTime::from);
        metadata.labels = self.labels;
        metadata.lease = self.lease.map(|lease| {
            Lease::new(
                lease.id,
                Duration::from_secs(lease.seconds),
                lease.renewable,
            )
        });
        Ok(metadata)
    }
}

/// A field by its text; `*` is the whole map.
///
/// # Errors
/// `InvalidReference` with the rule.
pub fn field(text: &str) -> Result<Field> {
    match text {
        Field::ALL => Ok(Field::all()),
        text => Field::new(text),
    }
}

fn invalid(rule: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidReference, rule)
}
