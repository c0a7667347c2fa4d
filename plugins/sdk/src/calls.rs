//! The functions of the table. Each is called by the host, as the interface has it: that is what is
//! vouched for wherever something below is unsafe.

use std::ffi::c_void;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use keyhaul_core::{
    Alphabet, DeleteOptions, Error, ErrorKind, Field, GetOptions, IdempotencyId, ListOptions,
    PutMode, PutOptions, Recipe, Request, Result, SecretBytes, SecretStore, Version,
};
use keyhaul_plugin_abi as abi;

use crate::exported::exported;
use crate::given::{self, no_table};
use crate::opening::Opened;
use crate::out::{self, Out, answer};
use crate::words;

/// How often a call asks whether somebody still waits for it.
const LOOK: Duration = Duration::from_millis(100);

pub(crate) unsafe extern "C" fn open(
    _call: *const abi::Call,
    opening: *const abi::Opening,
    sink: abi::Sink,
    store: *mut *mut c_void,
) -> u32 {
    let open = |_: &Out| {
        let exported = exported().ok_or_else(no_table)?;
        let runtime = exported.runtime().ok_or_else(no_runtime)?;
        // A factory may start what lives on.
        let _inside = runtime.enter();
        // SAFETY: the host's.
        let opening = unsafe { given::table(opening) }.ok_or_else(no_table)?;
        // SAFETY: as above.
        let opened = unsafe { Opened::new(exported.factory.as_ref(), &opening) }?;
        if store.is_null() {
            return Err(no_table());
        }
        // SAFETY: not null, and the host's to be written to.
        unsafe { store.write(Box::into_raw(Box::new(opened)).cast()) };
        Ok(())
    };
    // SAFETY: the sink of this call.
    unsafe { answer(sink, open) }
}

pub(crate) unsafe extern "C" fn close(store: *mut c_void) {
    if store.is_null() {
        return;
    }
    let close = || {
        let inside = exported().and_then(|exported| exported.runtime());
        let _inside = inside.map(|runtime| runtime.enter());
        // SAFETY: `open` made it of a box, and the host closes it once.
        drop(unsafe { Box::from_raw(store.cast::<Opened>()) });
    };
    if let Err(panic) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(close)) {
        out::forget(panic);
    }
}

pub(crate) unsafe extern "C" fn capabilities(
    store: *mut c_void,
    call: *const abi::Call,
    sink: abi::Sink,
) -> u32 {
    // SAFETY: the host's; so for each below.
    unsafe {
        ask(store, call, sink, async |store, _, out| {
            out.capabilities(store.capabilities().await?)
        })
    }
}

pub(crate) unsafe extern "C" fn get(
    store: *mut c_void,
    call: *const abi::Call,
    path: abi::Str,
    options: *const abi::GetOptions,
    sink: abi::Sink,
) -> u32 {
    // SAFETY: as above.
    unsafe {
        ask(store, call, sink, async |store, request, out| {
            let options = get_options(options, request)?;
            out.secret(&store.get(&given::path(path)?, &options).await?)
        })
    }
}

pub(crate) unsafe extern "C" fn get_many(
    store: *mut c_void,
    call: *const abi::Call,
    paths: *const abi::Str,
    paths_len: usize,
    options: *const abi::GetOptions,
    sink: abi::Sink,
) -> u32 {
    // SAFETY: as above.
    unsafe {
        ask(store, call, sink, async |store, request, out| {
            let options = get_options(options, request)?;
            let path = |index| given::path(*paths.add(index));
            let paths: Vec<_> = (0..paths_len).map(path).collect::<Result<_>>()?;
            let outcomes = store.get_many(&paths, &options).await;
            let mut outcomes = outcomes.iter().enumerate();
            outcomes.try_for_each(|(index, outcome)| out.item(index, outcome))
        })
    }
}

pub(crate) unsafe extern "C" fn stat(
    store: *mut c_void,
    call: *const abi::Call,
    path: abi::Str,
    options: *const abi::GetOptions,
    sink: abi::Sink,
) -> u32 {
    // SAFETY: as above.
    unsafe {
        ask(store, call, sink, async |store, request, out| {
            let options = get_options(options, request)?;
            out.metadata(&store.stat(&given::path(path)?, &options).await?)
        })
    }
}

pub(crate) unsafe extern "C" fn put(
    store: *mut c_void,
    call: *const abi::Call,
    path: abi::Str,
    value: abi::Bytes,
    options: *const abi::PutOptions,
    sink: abi::Sink,
) -> u32 {
    // SAFETY: as above.
    unsafe {
        ask(store, call, sink, async |store, request, out| {
            let value = SecretBytes::copy_from(given::bytes(value.ptr, value.len));
            let options = put_options(options, request)?;
            out.metadata(&store.put(&given::path(path)?, &value, &options).await?)
        })
    }
}

pub(crate) unsafe extern "C" fn generate(
    store: *mut c_void,
    call: *const abi::Call,
    path: abi::Str,
    recipe: *const abi::Recipe,
    options: *const abi::PutOptions,
    sink: abi::Sink,
) -> u32 {
    // SAFETY: as above.
    unsafe {
        ask(store, call, sink, async |store, request, out| {
            let options = put_options(options, request)?;
            let recipe = given::table(recipe).ok_or_else(no_table)?;
            let alphabet = match recipe.alphabet {
                abi::ALPHABET_ALPHANUMERIC => Alphabet::Alphanumeric,
                abi::ALPHABET_BYTES => Alphabet::Bytes,
                abi::ALPHABET_HEX => Alphabet::Hex,
                _ => {
                    let rule = "the plugin does not know this alphabet";
                    return Err(Error::new(ErrorKind::InvalidConfig, rule));
                }
            };
            let recipe = Recipe::new(alphabet, recipe.length)?;
            out.metadata(
                &store
                    .generate(&given::path(path)?, &recipe, &options)
                    .await?,
            )
        })
    }
}

pub(crate) unsafe extern "C" fn remove(
    store: *mut c_void,
    call: *const abi::Call,
    path: abi::Str,
    options: *const abi::DeleteOptions,
    sink: abi::Sink,
) -> u32 {
    // SAFETY: as above.
    unsafe {
        ask(store, call, sink, async |store, request, out| {
            let given = given::table(options).ok_or_else(no_table)?;
            let options = DeleteOptions::default()
                .version(given::text(given.version)?.map(Version::new).transpose()?)
                .force(given.force != 0)
                .request(request);
            store.delete(&given::path(path)?, &options).await?;
            let Some(until) = options.remains.told() else {
                return Ok(());
            };
            let until = until.and_then(|until| jiff::Timestamp::try_from(until).ok());
            let until = until.map_or_else(String::new, |until| until.to_string());
            out.pairs(&[("recoverable-until".to_owned(), until)])
        })
    }
}

pub(crate) unsafe extern "C" fn list(
    store: *mut c_void,
    call: *const abi::Call,
    prefix: abi::Str,
    options: *const abi::ListOptions,
    sink: abi::Sink,
) -> u32 {
    // SAFETY: as above.
    unsafe {
        ask(store, call, sink, async |store, request, out| {
            let given = given::table(options).ok_or_else(no_table)?;
            let mut options = ListOptions::default()
                .shallow(given.shallow != 0)
                .limit((given.limit > 0).then_some(given.limit))
                .after(given::text(given.after)?.map(str::to_owned))
                .request(request);
            let prefix = given::path(prefix)?;
            loop {
                let page = store.list(&prefix, &options).await?;
                // A store may give a page of nothing, with more behind it. The interface has none.
                if page.next.is_none() || !page.secrets.is_empty() || !page.folders.is_empty() {
                    return out.page(&page);
                }
                options = options.after(page.next);
            }
        })
    }
}

pub(crate) unsafe extern "C" fn probe(
    store: *mut c_void,
    call: *const abi::Call,
    sink: abi::Sink,
) -> u32 {
    // SAFETY: as above.
    unsafe { ask(store, call, sink, async |store, _, _| store.probe().await) }
}

/// Asks a store, until it answers or nobody waits any more.
unsafe fn ask(
    store: *mut c_void,
    call: *const abi::Call,
    sink: abi::Sink,
    work: impl AsyncFnOnce(Arc<dyn SecretStore>, Request, &Out) -> Result<()>,
) -> u32 {
    let ask = |out: &Out| {
        let runtime = exported().and_then(|exported| exported.runtime());
        let runtime = runtime.ok_or_else(no_runtime)?;
        if store.is_null() {
            return Err(no_table());
        }
        // SAFETY: `open` made it, and the host has not closed it while it calls.
        let store = unsafe { &*store.cast::<Opened>() }.store.clone();
        // SAFETY: the host's.
        let request = unsafe { request(call) }?;
        let deadline = request.deadline;
        // The future stays on this thread, which is the one that the sink is for.
        runtime.block_on(until(deadline, out, work(store, request, out)))
    };
    // SAFETY: the sink of this call.
    unsafe { answer(sink, ask) }
}

/// Waits for `work` until `deadline`, and while the host does.
async fn until(
    deadline: Option<Instant>,
    out: &Out,
    work: impl Future<Output = Result<()>>,
) -> Result<()> {
    let mut work = pin!(work);
    loop {
        if let Ok(done) = tokio::time::timeout(LOOK, work.as_mut()).await {
            return done;
        }
        if out.is_cancelled() || deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            let rule = "the store has not answered by the deadline";
            return Err(Error::new(ErrorKind::Timeout, rule));
        }
    }
}

unsafe fn request(call: *const abi::Call) -> Result<Request> {
    // SAFETY: the host's; so for each below.
    let call = unsafe { given::table(call) }.ok_or_else(no_table)?;
    // SAFETY: as above.
    let (id, actor) = unsafe { (given::text(call.request)?, given::text(call.actor)?) };
    let left = (call.deadline_ms > 0).then(|| Duration::from_millis(call.deadline_ms));
    Ok(Request::default()
        .id(id.map(Into::into))
        .actor(actor.map(Into::into))
        .deadline(left.and_then(|left| Instant::now().checked_add(left))))
}

unsafe fn get_options(options: *const abi::GetOptions, request: Request) -> Result<GetOptions> {
    // SAFETY: the host's; so for each below.
    let given = unsafe { given::table(options) }.ok_or_else(no_table)?;
    // SAFETY: as above.
    let (version, field) = unsafe { (given::text(given.version)?, given::text(given.field)?) };
    Ok(GetOptions::default()
        .version(version.map(Version::new).transpose()?)
        .field(field.map(field_of).transpose()?)
        .expired(given.expired != 0)
        .request(request))
}

unsafe fn put_options(options: *const abi::PutOptions, request: Request) -> Result<PutOptions> {
    // SAFETY: the host's; so for each below.
    let given = unsafe { given::table(options) }.ok_or_else(no_table)?;
    // SAFETY: as above.
    let (version, field) = unsafe { (given::text(given.version)?, given::text(given.field)?) };
    // SAFETY: as above.
    let id = unsafe { given::text(given.idempotency) }?;
    // SAFETY: as above.
    let attributes = unsafe { given::pairs(given.attributes, given.attributes_len) }?;
    let mode = match given.mode {
        abi::PUT_OVERWRITE => PutMode::Overwrite,
        abi::PUT_CREATE => PutMode::Create,
        abi::PUT_UPDATE => PutMode::Update(Version::new(version.unwrap_or_default())?),
        _ => {
            let rule = "the plugin does not know this way to write";
            return Err(Error::new(ErrorKind::Unsupported, rule));
        }
    };
    let options = PutOptions::default()
        .mode(mode)
        .field(field.map(field_of).transpose()?)
        .idempotency(id.and_then(IdempotencyId::from_hex))
        .request(request);
    words::into_put(options, &attributes)
}

fn field_of(text: &str) -> Result<Field> {
    if text == Field::ALL {
        return Ok(Field::all());
    }
    Field::new(text)
}

fn no_runtime() -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "the plugin has no threads to run on",
    )
}
