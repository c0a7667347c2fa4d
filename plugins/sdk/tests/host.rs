//! The SDK as a host sees it, which here is a host of a few lines: its tables, listings and log lines.

use std::ffi::c_void;
use std::ptr;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use keyhaul_core::registry::{Limits, OptionSpec};
use keyhaul_core::{
    Capabilities, Capability, DeleteOptions, Descriptor, Error, ErrorKind, GetOptions, ListOptions,
    Metadata, Page, PutOptions, Recipe, Result, Secret, SecretBytes, SecretPath, SecretStore,
    StoreConfig, StoreFactory,
};
use keyhaul_plugin_sdk::{About, abi, entry};

/// What the host's log was given.
static LINES: Mutex<Vec<(u32, String)>> = Mutex::new(Vec::new());

fn text(text: abi::Str) -> String {
    // SAFETY: the plugin's, which lives until the call returns.
    let bytes = unsafe { std::slice::from_raw_parts(text.ptr, text.len) };
    String::from_utf8(bytes.to_vec()).expect("text")
}

extern "C" fn log(level: u32, line: abi::Str) {
    LINES.lock().expect("no panic").push((level, text(line)));
}

fn host() -> abi::Host {
    abi::Host {
        head: abi::Head::of::<abi::Host>(),
        version: abi::Str::new("of the tests"),
        log: Some(log),
    }
}

fn ask<T>(host: *const T) -> *const abi::Plugin {
    let about = About {
        name: "lists",
        version: "1",
    };
    // SAFETY: a table, as long as it says, or null.
    unsafe { entry(host.cast(), about, || Box::new(Lists)) }
}

#[test]
fn hosts_of_this_major_version_are_served_however_much_they_know() {
    assert!(!ask(&host()).is_null());
    // One that knows less than the plugin: what lies behind its end is none of its table.
    let mut shorter = host();
    shorter.head.size = std::mem::offset_of!(abi::Host, log);
    shorter.log = Some(never);
    assert!(!ask(&shorter).is_null());
    #[repr(C)]
    struct Longer(abi::Host, [usize; 8]);
    let mut longer = Longer(host(), [usize::MAX; 8]);
    longer.0.head.size = size_of::<Longer>();
    longer.0.head.minor = 9;
    assert!(!ask(&longer).is_null());
}

extern "C" fn never(_: u32, _: abi::Str) {
    unreachable!("it lies behind the table's end");
}

#[test]
fn what_is_no_host_of_this_major_version_is_refused() {
    let refused = |change: fn(&mut abi::Head)| {
        let mut host = host();
        change(&mut host.head);
        assert!(ask(&host).is_null());
    };
    refused(|head| head.major = abi::MAJOR + 1);
    refused(|head| head.major = 0);
    refused(|head| head.magic = 7);
    refused(|head| head.size = size_of::<abi::Head>() - 1);
    assert!(ask(ptr::null::<abi::Host>()).is_null());
}

#[test]
fn a_listing_is_one_list_in_order_and_a_page_of_nothing_the_last() {
    let (entries, next) = list();
    let expected = [("a", 0), ("a", 1), ("b", 1), ("c", 0)];
    let expected = expected.map(|(path, folder)| (path.to_owned(), folder));
    assert_eq!(entries, expected);
    assert_eq!(next, None);
}

#[test]
fn what_a_plugin_says_by_tracing_is_a_line_of_the_hosts_log() {
    list();
    let lines = LINES.lock().expect("no panic");
    let line = (abi::LOG_WARN, "listed by \"page\" page=3".to_owned());
    assert!(lines.contains(&line), "{lines:?}");
    assert!(lines.iter().any(|(level, _)| *level == abi::LOG_DEBUG));
    assert!(!lines.iter().any(|(_, line)| line.contains("in detail")));
}

/// Opens a store and lists all of it. What came, and where the next page begins.
fn list() -> (Vec<(String, u32)>, Option<String>) {
    let plugin = ask(&host());
    // SAFETY: it is there, and lives as long as the process.
    let plugin = unsafe { &*plugin };
    let call = abi::Call {
        head: abi::Head::of::<abi::Call>(),
        deadline_ms: 30_000,
        request: abi::Str::ABSENT,
        actor: abi::Str::ABSENT,
    };
    let opening = abi::Opening {
        head: abi::Head::of::<abi::Opening>(),
        name: abi::Str::new("lists"),
        options: ptr::null(),
        options_len: 0,
        context: ptr::null_mut(),
        credential: None,
    };
    let options = abi::ListOptions {
        head: abi::Head::of::<abi::ListOptions>(),
        after: abi::Str::ABSENT,
        limit: 0,
        shallow: 1,
        reserved: 0,
    };
    let mut heard = Heard::default();
    let sink = abi::Sink {
        to: &ANSWERS,
        context: (&raw mut heard).cast(),
    };
    let mut store = ptr::null_mut();
    // SAFETY: all that is lent lives until the calls return, and the store is the plugin's own.
    unsafe {
        let (open, close) = (plugin.open.expect("one"), plugin.close.expect("one"));
        assert_eq!(open(&call, &opening, sink, &mut store), abi::OK);
        let list = plugin.list.expect("one");
        let listed = list(store, &call, abi::Str::ABSENT, &options, sink);
        assert_eq!(listed, abi::OK);
        close(store);
    }
    (heard.entries, heard.next)
}

#[derive(Default)]
struct Heard {
    entries: Vec<(String, u32)>,
    next: Option<String>,
}

static ANSWERS: abi::Answers = abi::Answers {
    head: abi::Head::of::<abi::Answers>(),
    capabilities: None,
    value: None,
    metadata: None,
    item: None,
    entry: Some(hear_entry),
    next: Some(hear_next),
    error: None,
    cancelled: None,
};

extern "C" fn hear_entry(context: *mut c_void, path: abi::Str, folder: u32) -> u32 {
    // SAFETY: it is what `list` gave.
    let heard = unsafe { &mut *context.cast::<Heard>() };
    heard.entries.push((text(path), folder));
    abi::OK
}

extern "C" fn hear_next(context: *mut c_void, after: abi::Str) -> u32 {
    // SAFETY: as above.
    let heard = unsafe { &mut *context.cast::<Heard>() };
    heard.next = Some(text(after));
    abi::OK
}

/// Makes a store that only lists.
#[derive(Debug)]
struct Lists;

impl StoreFactory for Lists {
    fn schemes(&self) -> &[&'static str] {
        &["lists"]
    }

    fn summary(&self) -> &'static str {
        "lists"
    }

    fn options(&self) -> &[OptionSpec] {
        &[]
    }

    fn is_key_service(&self) -> bool {
        false
    }

    fn limits(&self) -> Option<Limits> {
        None
    }

    fn alias(&self) -> Option<&'static str> {
        None
    }

    fn open(&self, _: &StoreConfig) -> Result<Arc<dyn SecretStore>> {
        tracing::debug!("open");
        Ok(Arc::new(Store(Descriptor::new("lists", "lists", "lists:"))))
    }
}

#[derive(Debug)]
struct Store(Descriptor);

fn not_this<T>() -> Result<T> {
    Err(Error::new(ErrorKind::Unsupported, "it only lists"))
}

#[async_trait]
impl SecretStore for Store {
    fn descriptor(&self) -> &Descriptor {
        &self.0
    }

    async fn capabilities(&self) -> Result<Capabilities> {
        Ok(Capabilities::new(Capability::LIST, 0))
    }

    /// Two pages of nothing, and then one of all.
    async fn list(&self, _: &SecretPath, options: &ListOptions) -> Result<Page> {
        let next = match options.after.as_deref() {
            None => "2",
            Some("2") => "3",
            Some(page) => {
                tracing::trace!("in detail");
                tracing::warn!(page = page.parse::<u64>().ok(), "listed by {:?}", "page");
                let path = |path: &&str| SecretPath::new(*path).expect("valid");
                let paths = |paths: &[&str]| paths.iter().map(path).collect();
                return Ok(Page::new(paths(&["a", "c"]), paths(&["a", "b"]), None));
            }
        };
        Ok(Page::new(vec![], vec![], Some(next.to_owned())))
    }

    async fn get(&self, _: &SecretPath, _: &GetOptions) -> Result<Secret> {
        not_this()
    }

    async fn get_many(&self, _: &[SecretPath], _: &GetOptions) -> Vec<Result<Secret>> {
        Vec::new()
    }

    async fn stat(&self, _: &SecretPath, _: &GetOptions) -> Result<Metadata> {
        not_this()
    }

    async fn put(&self, _: &SecretPath, _: &SecretBytes, _: &PutOptions) -> Result<Metadata> {
        not_this()
    }

    async fn generate(&self, _: &SecretPath, _: &Recipe, _: &PutOptions) -> Result<Metadata> {
        not_this()
    }

    async fn delete(&self, _: &SecretPath, _: &DeleteOptions) -> Result<()> {
        not_this()
    }

    async fn probe(&self) -> Result<()> {
        not_this()
    }
}
