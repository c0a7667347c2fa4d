//! Each operation as a call of a plugin's function. These block, and run on a plugin's own threads.

use keyhaul_core::{
    Alphabet, Capabilities, Capability, DeleteOptions, Error, ErrorKind, GetOptions, ListOptions,
    Metadata, Page, PutMode, PutOptions, Recipe, Request, Result, Secret, SecretBytes, SecretPath,
    law,
};
use keyhaul_plugin_abi as abi;

use crate::attributes;
use crate::instance::{Instance, lacks};
use crate::listing::{Cursor, Listing, MAX_PAGE};
use crate::sink::{Answered, gave_no};
use crate::waiting::Waiting;

/// What every call carries, and the texts in it.
pub(crate) struct Call<'a> {
    pub(crate) table: abi::Call,
    /// The table points into it.
    _request: &'a Request,
}

impl<'a> Call<'a> {
    pub(crate) fn new(request: &'a Request, waiting: &Waiting) -> Self {
        // 0 would be no deadline at all.
        let deadline_ms = waiting.left().as_millis().max(1);
        Self {
            table: abi::Call {
                head: abi::Head::of::<abi::Call>(),
                deadline_ms: u64::try_from(deadline_ms).unwrap_or(u64::MAX),
                request: abi::Str::maybe(request.id.as_deref()),
                actor: abi::Str::maybe(request.actor.as_deref()),
            },
            _request: request,
        }
    }
}

/// Pairs of texts as the interface has them, which live as long as the texts.
pub(crate) fn pairs(texts: &[(String, String)]) -> Vec<abi::Pair> {
    let pair = |(name, value): &(String, String)| abi::Pair {
        name: abi::Str::new(name),
        value: abi::Str::new(value),
    };
    texts.iter().map(pair).collect()
}

/// An open store, for one request.
pub(crate) struct Caller<'a> {
    pub(crate) instance: &'a Instance,
    pub(crate) request: &'a Request,
    pub(crate) waiting: &'a Waiting,
}

impl Caller<'_> {
    pub(crate) fn capabilities(&self) -> Result<Capabilities> {
        self.instance.capabilities(self.request, self.waiting)
    }

    pub(crate) fn get(&self, path: &SecretPath, options: &GetOptions) -> Result<Secret> {
        self.need(law::to_get(options))?;
        law::not_root(path)?;
        let get = self.table().get.ok_or_else(|| lacks("get"))?;
        let (call, options) = (self.call(), get_options(options));
        let mut answered = self.answered().collect(|sink| {
            // SAFETY: the handle is the plugin's own, and what is lent lives until this returns; so
            // for each call below.
            unsafe { get(self.store(), &call.table, text(path), &options, sink) }
        })?;
        answered.secret()
    }

    pub(crate) fn get_many(
        &self,
        paths: &[SecretPath],
        options: &GetOptions,
    ) -> Result<Vec<Result<Secret>>> {
        self.need(law::to_get(options))?;
        let get_many = self.table().get_many.ok_or_else(|| lacks("get_many"))?;
        let (call, options) = (self.call(), get_options(options));
        let texts: Vec<abi::Str> = paths.iter().map(text).collect();
        let answered = self.answered().about(paths.len()).collect(|sink| {
            let (texts, len) = (texts.as_ptr(), texts.len());
            // SAFETY: as above.
            unsafe { get_many(self.store(), &call.table, texts, len, &options, sink) }
        })?;
        let items = answered.items.into_iter();
        Ok(items
            .map(|item| item.unwrap_or_else(|| Err(gave_no("answer for this path"))))
            .collect())
    }

    /// Whether the plugin answers for many paths in one call.
    pub(crate) fn takes_many(&self) -> bool {
        self.table().get_many.is_some()
    }

    pub(crate) fn stat(&self, path: &SecretPath, options: &GetOptions) -> Result<Metadata> {
        self.need(law::to_get(options))?;
        law::not_root(path)?;
        let stat = self.table().stat.ok_or_else(|| lacks("stat"))?;
        let (call, options) = (self.call(), get_options(options));
        let answered = self.answered().collect(|sink| {
            // SAFETY: as above.
            unsafe { stat(self.store(), &call.table, text(path), &options, sink) }
        })?;
        metadata(answered)
    }

    pub(crate) fn put(
        &self,
        path: &SecretPath,
        value: &SecretBytes,
        options: &PutOptions,
    ) -> Result<Metadata> {
        let can = self.need(law::to_put(options))?;
        law::not_root(path)?;
        self.put_fitting(path, value, options, can)
    }

    fn put_fitting(
        &self,
        path: &SecretPath,
        value: &SecretBytes,
        options: &PutOptions,
        can: Capabilities,
    ) -> Result<Metadata> {
        law::fits(value.len(), can.max_value)?;
        let put = self.table().put.ok_or_else(|| lacks("put"))?;
        let call = self.call();
        let value = abi::Bytes {
            ptr: value.expose().as_ptr(),
            len: value.len(),
        };
        let answered = self.answered();
        let answered = with_put_options(options, |options| {
            answered.collect(|sink| {
                // SAFETY: as above.
                unsafe { put(self.store(), &call.table, text(path), value, options, sink) }
            })
        })?;
        metadata(answered)
    }

    pub(crate) fn generate(
        &self,
        path: &SecretPath,
        recipe: &Recipe,
        options: &PutOptions,
    ) -> Result<Metadata> {
        let can = self.need(Capability::GENERATE | law::to_put(options))?;
        law::not_root(path)?;
        law::fits(recipe.length(), can.max_value)?;
        let Some(generate) = self.table().generate else {
            return self.put_fitting(path, &recipe.make()?, options, can);
        };
        let alphabet = match recipe.alphabet() {
            Alphabet::Alphanumeric => abi::ALPHABET_ALPHANUMERIC,
            Alphabet::Bytes => abi::ALPHABET_BYTES,
            Alphabet::Hex => abi::ALPHABET_HEX,
            _ => {
                let rule = "this version of the plugin interface has no such alphabet";
                return Err(Error::new(ErrorKind::InvalidConfig, rule));
            }
        };
        let recipe = abi::Recipe {
            head: abi::Head::of::<abi::Recipe>(),
            length: recipe.length(),
            alphabet,
            reserved: 0,
        };
        let (call, answered) = (self.call(), self.answered());
        let answered = with_put_options(options, |options| {
            answered.collect(|sink| {
                // SAFETY: as above.
                unsafe {
                    generate(
                        self.store(),
                        &call.table,
                        text(path),
                        &recipe,
                        options,
                        sink,
                    )
                }
            })
        })?;
        metadata(answered)
    }

    pub(crate) fn delete(&self, path: &SecretPath, options: &DeleteOptions) -> Result<()> {
        self.need(law::to_delete(options))?;
        law::not_root(path)?;
        let remove = self.table().remove.ok_or_else(|| lacks("remove"))?;
        let call = self.call();
        let given = abi::DeleteOptions {
            head: abi::Head::of::<abi::DeleteOptions>(),
            version: abi::Str::maybe(options.version.as_ref().map(|version| version.as_str())),
            force: u32::from(options.force),
            reserved: 0,
        };
        let answered = self.answered().collect(|sink| {
            // SAFETY: as above.
            unsafe { remove(self.store(), &call.table, text(path), &given, sink) }
        })?;
        if let Some(until) = answered
            .attributes
            .and_then(|attributes| attributes.recoverable)
        {
            options.remains.tell(until);
        }
        Ok(())
    }

    pub(crate) fn list(&self, prefix: &SecretPath, options: &ListOptions) -> Result<Page> {
        self.need(Capability::LIST)?;
        if options.limit == Some(0) {
            let rule = "a page has at least 1 entry";
            return Err(Error::new(ErrorKind::InvalidReference, rule));
        }
        let list = self.table().list.ok_or_else(|| lacks("list"))?;
        let most = options.limit.unwrap_or(MAX_PAGE).min(MAX_PAGE);
        let after = options.after.as_deref().map(Cursor::parse).transpose()?;
        let call = self.call();
        let given = abi::ListOptions {
            head: abi::Head::of::<abi::ListOptions>(),
            after: abi::Str::maybe(after.as_ref().map(|after| after.place.as_str())),
            limit: most,
            shallow: u32::from(options.shallow),
            reserved: 0,
        };
        let listing = Listing::new(most, options.shallow, after.as_ref());
        let answered = self.answered().on(listing).collect(|sink| {
            // SAFETY: as above.
            unsafe { list(self.store(), &call.table, text(prefix), &given, sink) }
        })?;
        let page = answered.listing.page()?;
        let mut listed = page.secrets.iter().chain(&page.folders);
        if listed.any(|path| !path.is_below(prefix)) {
            let rule = "the plugin listed what does not lie below the folder";
            return Err(Error::new(ErrorKind::Internal, rule));
        }
        Ok(page)
    }

    pub(crate) fn probe(&self) -> Result<()> {
        let Some(probe) = self.table().probe else {
            // To ask what it can do is as much as can be done.
            return self.capabilities().map(drop);
        };
        let call = self.call();
        self.answered()
            // SAFETY: as above.
            .collect(|sink| unsafe { probe(self.store(), &call.table, sink) })
            .map(drop)
    }

    fn need(&self, wanted: Capability) -> Result<Capabilities> {
        self.instance.need(wanted, self.request, self.waiting)
    }

    fn table(&self) -> &abi::Plugin {
        &self.instance.library.table
    }

    fn store(&self) -> *mut std::ffi::c_void {
        self.instance.handle.0
    }

    fn call(&self) -> Call<'_> {
        Call::new(self.request, self.waiting)
    }

    fn answered(&self) -> Answered {
        Answered::new(self.waiting)
    }
}

fn text(path: &SecretPath) -> abi::Str {
    abi::Str::new(path.as_str())
}

fn metadata(answered: Answered) -> Result<Metadata> {
    let attributes = answered.attributes.ok_or_else(|| gave_no("metadata"))?;
    Ok(attributes.metadata)
}

fn get_options(options: &GetOptions) -> abi::GetOptions {
    abi::GetOptions {
        head: abi::Head::of::<abi::GetOptions>(),
        version: abi::Str::maybe(options.version.as_ref().map(|version| version.as_str())),
        field: abi::Str::maybe(options.field.as_ref().map(|field| field.as_str())),
        expired: u32::from(options.expired),
        reserved: 0,
    }
}

/// Lends `call` the options of a write.
fn with_put_options<T>(
    options: &PutOptions,
    call: impl FnOnce(&abi::PutOptions) -> Result<T>,
) -> Result<T> {
    let texts = attributes::written(options)?;
    let attributes = pairs(&texts);
    let idempotency = options.idempotency.map(|id| id.to_string());
    let (mode, version) = match &options.mode {
        PutMode::Overwrite => (abi::PUT_OVERWRITE, None),
        PutMode::Create => (abi::PUT_CREATE, None),
        PutMode::Update(version) => (abi::PUT_UPDATE, Some(version.as_str())),
        _ => {
            let rule = "this version of the plugin interface has no such way to write";
            return Err(Error::new(ErrorKind::Unsupported, rule));
        }
    };
    call(&abi::PutOptions {
        head: abi::Head::of::<abi::PutOptions>(),
        mode,
        reserved: 0,
        version: abi::Str::maybe(version),
        field: abi::Str::maybe(options.field.as_ref().map(|field| field.as_str())),
        idempotency: abi::Str::maybe(idempotency.as_deref()),
        attributes: attributes.as_ptr(),
        attributes_len: attributes.len(),
    })
}
