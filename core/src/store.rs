//! The contract between keyhaul and everything that keeps secrets.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use bitflags::bitflags;

use crate::recipe::Recipe;
use crate::reference::{Field, Version};
use crate::{Result, SecretBytes, SecretPath};

/// A place where secrets live.
///
/// # Contract
///
/// **Paths** are opaque and case-sensitive: a store gives no meaning to their segments beyond
/// `list`, and two paths that differ in a byte are two secrets. A secret can have others below it.
/// The root is no secret: reading it is `NotFound` or `InvalidReference`, writing it fails. A path
/// that is too long for a store fails `InvalidReference` or `TooLarge`; none is cut short.
///
/// **Values** are bytes: any, none, up to [`Capabilities::max_value`]. What was put is what comes back, to the byte.
///
/// **Capabilities are a law.** What a store's [`capabilities`](Self::capabilities) leave out fails
/// `Unsupported` and has no effect, even when the rest of the request would fail for another
/// reason; what they name never fails `Unsupported`.
///
/// **Errors** carry the kind that tells the caller what to do and never a byte of a value. A store
/// need not name itself, the path or the operation in them: the context layer does.
///
/// **Cancellation**: a future dropped before it is done leaves the old value or the new one.
///
/// **Concurrency**: all methods may be called at the same time from many tasks, and where the
/// store can be shared between processes, from many processes.
///
/// # Why not a key-value map?
///
/// Because the questions that hurt in operation are not in a map's interface: what happens when
/// two hosts create the same secret, whether a lost answer may be asked for again, what a page is,
/// which failures are worth a retry.
///
/// # Wrappers
///
/// A layer forwards every method. No method has a default body, so that a forgotten one does not
/// compile; conveniences live in [`SecretStoreExt`](crate::SecretStoreExt).
#[async_trait]
pub trait SecretStore: fmt::Debug + Send + Sync + 'static {
    /// What logs, audit and errors may print of this store. Free of credentials; does no I/O.
    fn descriptor(&self) -> &Descriptor;

    /// What this stack can do, layers included. A store may have to ask its server.
    async fn capabilities(&self) -> Result<Capabilities>;

    /// Reads a secret.
    ///
    /// - `NotFound` where there is none, or where it has expired (the message says which).
    /// - A version that the store no longer has is `NotFound`; asking for one needs
    ///   [`Capability::VERSIONS`].
    /// - Asking for a field needs [`Capability::FIELDS`]; a secret without it is `NotFound`. What is
    ///   no text in the map comes as its JSON. [`Field::all`] asks for the whole map, as a JSON
    ///   object.
    async fn get(&self, path: &SecretPath, options: &GetOptions) -> Result<Secret>;

    /// Reads many secrets, in order, each with its own outcome; one round trip where the store can.
    ///
    /// The answer has exactly one entry for each path, in the order of the paths, repeated paths
    /// included.
    async fn get_many(&self, paths: &[SecretPath], options: &GetOptions) -> Vec<Result<Secret>>;

    /// Reads what is known of a secret, without its value.
    ///
    /// - An expired secret still has metadata where the store keeps it.
    /// - It is about the secret, and need not know whether a field that is named is there.
    async fn stat(&self, path: &SecretPath, options: &GetOptions) -> Result<Metadata>;

    /// Writes a secret.
    ///
    /// - Atomic and durable before it answers: no reader ever sees half a value, and a crash
    ///   leaves the old value or the new one.
    /// - [`PutMode`] says what may be there already.
    /// - The same [`IdempotencyId`] again, where the store has [`Capability::IDEMPOTENT`],
    ///   answers as the first time did and writes nothing, although others have written since. An
    ///   id belongs to one path; a write that was refused has not used it up.
    async fn put(
        &self,
        path: &SecretPath,
        value: &SecretBytes,
        options: &PutOptions,
    ) -> Result<Metadata>;

    /// Makes a value by `recipe` and writes it, as [`put`](Self::put) does. The value does not
    /// come back: who may create need not be able to read. Needs the capability of the mode too.
    async fn generate(
        &self,
        path: &SecretPath,
        recipe: &Recipe,
        options: &PutOptions,
    ) -> Result<Metadata>;

    /// Deletes a secret with all its versions.
    ///
    /// - Deleting what is not there succeeds, with a version too: it may be a repetition whose
    ///   first answer was lost.
    /// - A store that keeps it for a while all the same says until when, in [`DeleteOptions::remains`].
    async fn delete(&self, path: &SecretPath, options: &DeleteOptions) -> Result<()>;

    /// Lists the secrets below `prefix`, a page at a time, in byte order of their paths.
    ///
    /// - A prefix with nothing below it gives an empty page, not `NotFound`.
    /// - The secret at `prefix` itself is not listed.
    /// - Expired secrets are listed while the store keeps them; folders with nothing in them are not.
    /// - A limit of 0 and a cursor that is none of the store's are `InvalidReference`, the latter
    ///   where the store can tell.
    async fn list(&self, prefix: &SecretPath, options: &ListOptions) -> Result<Page>;

    /// Reaches the store and authenticates, changes nothing and reads no value.
    async fn probe(&self) -> Result<()>;
}

/// What may be printed of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Descriptor {
    /// Its name in the policy.
    pub name: String,
    /// The backend's scheme, as `file` or `vault+https`.
    pub scheme: String,
    /// Where it is, free of credentials, as `file:///var/lib/keyhaul/secrets`.
    pub location: String,
}

impl Descriptor {
    /// A descriptor.
    pub fn new(
        name: impl Into<String>,
        scheme: impl Into<String>,
        location: impl Into<String>,
    ) -> Self {
        Self {
            name: name.into(),
            scheme: scheme.into(),
            location: location.into(),
        }
    }
}

impl fmt::Display for Descriptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.location)
    }
}

bitflags! {
    /// One thing that a store can do.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Capability: u32 {
        /// `get`, `get_many` and `stat`.
        const READ = 1;
        /// `put` with [`PutMode::Overwrite`].
        const WRITE = 1 << 1;
        /// `put` with [`PutMode::Create`].
        const CREATE = 1 << 2;
        /// `put` with [`PutMode::Update`]: compare and set.
        const UPDATE = 1 << 3;
        /// `delete`.
        const DELETE = 1 << 4;
        /// `list`.
        const LIST = 1 << 5;
        /// `generate`.
        const GENERATE = 1 << 6;
        /// Reading versions other than the current one. Where a secret's versions are numbers, a
        /// later one is greater.
        const VERSIONS = 1 << 7;
        /// Labels on a secret.
        const LABELS = 1 << 8;
        /// Secrets that expire.
        const EXPIRY = 1 << 9;
        /// Values that are maps of fields, of which a reader can name one, and which can be written
        /// as a whole. A store may know which field is meant where none is named. Writing one
        /// field needs [`UPDATE`](Self::UPDATE) too: to keep its siblings takes compare-and-set.
        const FIELDS = 1 << 10;
        /// Writes that can be repeated under the same idempotency id.
        const IDEMPOTENT = 1 << 11;
        /// `generate` makes the value at the store's end: the caller never holds it.
        const GENERATES_REMOTELY = 1 << 12;
    }
}

impl Capability {
    /// The name of each capability in the set, in lower case.
    pub fn names(self) -> Vec<String> {
        self.iter_names()
            .map(|(name, _)| name.to_ascii_lowercase())
            .collect()
    }
}

/// What a store can do, and how much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// What it can do.
    pub can: Capability,
    /// The longest value it takes, in bytes.
    pub max_value: usize,
}

impl Capabilities {
    /// Capabilities with a limit on the length of values.
    pub const fn new(can: Capability, max_value: usize) -> Self {
        Self { can, max_value }
    }

    /// Whether all of `wanted` is there.
    pub fn has(&self, wanted: Capability) -> bool {
        self.can.contains(wanted)
    }
}

/// A value with what is known of it.
#[derive(Debug)]
#[non_exhaustive]
pub struct Secret {
    /// The bytes, decoded.
    pub value: SecretBytes,
    /// What is known of them.
    pub metadata: Metadata,
}

impl Secret {
    /// A secret.
    pub fn new(value: SecretBytes, metadata: Metadata) -> Self {
        Self { value, metadata }
    }
}

/// What is known of a secret besides its value. Never the value's length.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metadata {
    /// The version these words are about.
    pub version: Option<Version>,
    /// When this version was written.
    pub created: Option<SystemTime>,
    /// When the store stops giving it out.
    pub expires: Option<SystemTime>,
    /// Labels, as [`PutOptions::labels`].
    pub labels: BTreeMap<String, String>,
    /// The lease of a value that the store made for this reader, as a database credential; `expires`
    /// says when it ends.
    pub lease: Option<Lease>,
}

/// What a store says of a value that it lends.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lease {
    /// Its name at the store, by which it can be revoked. No secret, but nobody else's business.
    pub id: String,
    /// How long it lasts from its beginning.
    pub duration: Duration,
    /// Whether it can be renewed.
    pub renewable: bool,
}

impl Lease {
    /// A lease.
    pub fn new(id: impl Into<String>, duration: Duration, renewable: bool) -> Self {
        Self {
            id: id.into(),
            duration,
            renewable,
        }
    }
}

impl Metadata {
    /// Whether the secret has expired at `now`.
    pub fn is_expired(&self, now: SystemTime) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }

    /// How many bytes of text it has that a store can make long: labels, and a lease's id.
    pub fn size(&self) -> usize {
        let labels = self.labels.iter();
        let labels = labels.map(|(name, text)| name.len() + text.len());
        labels.sum::<usize>() + self.lease.as_ref().map_or(0, |lease| lease.id.len())
    }
}

/// Who asks, for what, and until when: carried by every request, for audit and for stores that
/// pass it on.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Request {
    /// Ties log lines, audit records and server logs together.
    pub id: Option<Arc<str>>,
    /// Who asks, as the audit shows it.
    pub actor: Option<Arc<str>>,
    /// When the caller stops waiting.
    pub deadline: Option<Instant>,
}

/// How to read.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct GetOptions {
    /// This version, not the current one.
    pub version: Option<Version>,
    /// This field of a value that is a map.
    pub field: Option<Field>,
    /// Answer even where the secret has expired and the store still keeps it.
    pub expired: bool,
    /// Who asks.
    pub request: Request,
}

/// What may be there already when a secret is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum PutMode {
    /// Nothing: `AlreadyExists` otherwise. An expired secret that the store keeps counts as there.
    Create,
    /// Anything or nothing.
    #[default]
    Overwrite,
    /// Exactly this version: `Conflict` otherwise, `NotFound` where there is none.
    Update(Version),
}

/// Makes a repeated write recognisable: 128 random bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IdempotencyId(u128);

impl IdempotencyId {
    /// A fresh id.
    ///
    /// # Errors
    /// `Internal` where the system has no randomness to give.
    pub fn random() -> Result<Self> {
        let mut bytes = [0; 16];
        crate::random::fill(&mut bytes)?;
        Ok(Self(u128::from_be_bytes(bytes)))
    }

    /// The id that [`Display`](fmt::Display) printed.
    pub fn from_hex(text: &str) -> Option<Self> {
        (text.len() == 32)
            .then(|| u128::from_str_radix(text, 16).ok().map(Self))
            .flatten()
    }
}

impl fmt::Display for IdempotencyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// How to write.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct PutOptions {
    /// What may be there already.
    pub mode: PutMode,
    /// Labels: short texts that are no secret. They replace those of the version before. Needs
    /// [`Capability::LABELS`] where there are any.
    pub labels: BTreeMap<String, String>,
    /// When the store shall stop giving it out. Needs [`Capability::EXPIRY`].
    pub expires: Option<SystemTime>,
    /// Write this field of a map and keep its siblings, whatever others write to those meanwhile.
    /// Needs [`Capability::FIELDS`] and [`Capability::UPDATE`], whatever the mode.
    /// [`PutMode::Create`] is about the field then: `AlreadyExists` where the map has it.
    ///
    /// [`Field::all`] takes a JSON object and replaces the whole map; it needs
    /// [`Capability::FIELDS`] alone. What is no JSON object is `Corrupt`.
    ///
    /// Where no field is named, Create is about the secret, and a store with both capabilities
    /// keeps the siblings of the field that it takes to be meant.
    pub field: Option<Field>,
    /// Makes a repeated write recognisable. Ignored by stores without [`Capability::IDEMPOTENT`].
    pub idempotency: Option<IdempotencyId>,
    /// Who asks.
    pub request: Request,
}

/// How to delete.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct DeleteOptions {
    /// Only where this is the current version: `Conflict` otherwise. Needs [`Capability::UPDATE`].
    pub version: Option<Version>,
    /// Even where somebody is known to use it, as a node that holds a grant. Stores that do not
    /// know ignore it.
    pub force: bool,
    /// Where the store says until when the secret can be brought back. Stores that say nothing of
    /// it leave it as it is.
    pub remains: Remains,
    /// Who asks.
    pub request: Request,
}

/// What is left of a deleted secret, as far as its store says so. Clones share it: whoever deletes
/// keeps one, and looks when it is done.
#[derive(Clone, Debug, Default)]
pub struct Remains(Arc<Mutex<Option<Option<SystemTime>>>>);

impl Remains {
    /// Says until when the secret can be brought back; `None`: it cannot.
    pub fn tell(&self, until: Option<SystemTime>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
    }

    /// What was said last; nothing where the store said nothing.
    pub fn told(&self) -> Option<Option<SystemTime>> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How to list.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ListOptions {
    /// Only what lies directly below, with folders, instead of everything.
    pub shallow: bool,
    /// At most this many entries, secrets and folders together; the store may give fewer. At least 1.
    pub limit: Option<usize>,
    /// Where the page before ended: its [`Page::next`].
    pub after: Option<String>,
    /// Who asks.
    pub request: Request,
}

/// A page of a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Page {
    /// Secrets, in byte order.
    pub secrets: Vec<SecretPath>,
    /// Folders, in byte order; only for a shallow listing. A path can be both.
    pub folders: Vec<SecretPath>,
    /// Where the next page begins; none at the end. Opaque.
    pub next: Option<String>,
}

/// Declares one chained setter for each option, so that options read as a sentence.
macro_rules! setters {
    ($($type:ty { $($(#[$doc:meta])* $name:ident: $arg:ty => $field:ident = $value:expr;)* })*) => {
        $(impl $type {
            $($(#[$doc])* #[must_use] pub fn $name(mut self, $name: $arg) -> Self {
                self.$field = $value;
                self
            })*
        })*
    };
}

setters! {
    GetOptions {
        /// Reads this version.
        version: Option<Version> => version = version;
        /// Reads this field.
        field: Option<Field> => field = field;
        /// Reads even what has expired.
        expired: bool => expired = expired;
        /// Says who asks.
        request: Request => request = request;
    }
    PutOptions {
        /// Says what may be there already.
        mode: PutMode => mode = mode;
        /// Sets labels.
        labels: BTreeMap<String, String> => labels = labels;
        /// Sets when it expires.
        expires: Option<SystemTime> => expires = expires;
        /// Writes this field.
        field: Option<Field> => field = field;
        /// Makes the write recognisable.
        idempotency: Option<IdempotencyId> => idempotency = idempotency;
        /// Says who asks.
        request: Request => request = request;
    }
    DeleteOptions {
        /// Deletes only this version.
        version: Option<Version> => version = version;
        /// Deletes what somebody uses.
        force: bool => force = force;
        /// Hears what is left.
        remains: Remains => remains = remains;
        /// Says who asks.
        request: Request => request = request;
    }
    ListOptions {
        /// Lists one level.
        shallow: bool => shallow = shallow;
        /// Limits the page.
        limit: Option<usize> => limit = limit;
        /// Goes on where a page ended.
        after: Option<String> => after = after;
        /// Says who asks.
        request: Request => request = request;
    }
    Request {
        /// Names the request.
        id: Option<Arc<str>> => id = id;
        /// Names who asks.
        actor: Option<Arc<str>> => actor = actor;
        /// Says when the caller stops waiting.
        deadline: Option<Instant> => deadline = deadline;
    }
}

impl Page {
    /// A page.
    pub fn new(secrets: Vec<SecretPath>, folders: Vec<SecretPath>, next: Option<String>) -> Self {
        Self {
            secrets,
            folders,
            next,
        }
    }
}

impl Metadata {
    /// Metadata of one version.
    pub fn new(version: Option<Version>) -> Self {
        Self {
            version,
            ..Self::default()
        }
    }
}
