//! What is loaded, how often, and in which way. What a process holds of libraries is counted, so the tests
//! take turns.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use keyhaul_core::registry::Options;
use keyhaul_core::{ErrorKind, Result, SecretStore, StoreConfig, StoreFactory as _};
use keyhaul_plugin_host::{Loaded, PluginFactory, Rule};
use support::{Folder, compile, hostile};

/// The copies of libraries that this process holds: descriptors, and what is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    descriptors: usize,
    mapped: usize,
}

impl Held {
    fn now() -> Self {
        const MEMORY: &str = "/memfd:keyhaul-plugin";
        let entries = fs::read_dir("/proc/self/fd").expect("descriptors");
        let links = entries.filter_map(|entry| fs::read_link(entry.expect("entry").path()).ok());
        let descriptors = links.filter(|link| link.to_string_lossy().starts_with(MEMORY));
        let maps = fs::read_to_string("/proc/self/maps").expect("maps");
        let lines = maps.lines().filter(|line| line.contains(MEMORY));
        // ADDRESSES MODE OFFSET DEVICE INODE PATH, several for each.
        let inodes: BTreeSet<&str> = lines.filter_map(|line| line.split(' ').nth(4)).collect();
        Self {
            descriptors: descriptors.count(),
            mapped: inodes.len(),
        }
    }

    /// So many copies more.
    fn and(self, more: usize) -> Self {
        Self {
            descriptors: self.descriptors + more,
            mapped: self.mapped + more,
        }
    }
}

fn in_turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn config(path: &Path, pin: Option<&str>) -> StoreConfig {
    let given = Options::at("keyhaul.toml:2:1", pin.map(|pin| ("sha256", pin)));
    let url = format!("plugin://{}", path.display());
    StoreConfig::new("odd", &url, given, "keyhaul.toml:1:1").expect("valid")
}

/// As a request loads it.
fn load(factory: &PluginFactory, path: &Path, pin: Option<&str>) -> Result<Loaded> {
    factory.load(&config(path, pin))
}

fn store(factory: &PluginFactory, path: &Path) -> Arc<dyn SecretStore> {
    factory.open(&config(path, None)).expect("a store")
}

fn global(folder: &Folder, name: &str, word: &str, more: &[&str]) -> std::path::PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hostile/global.c");
    let word = format!("-DWORD=\"{word}\"");
    compile(folder, name, &source, &[&[word.as_str()], more].concat())
}

#[test]
fn a_refused_library_is_loaded_once_however_often_it_is_asked() {
    let _turn = in_turn();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    let folder = Folder::new();
    let empty = folder.path().join("empty.c");
    fs::write(&empty, "int nothing;\n").expect("written");
    let wrong = [
        (
            compile(&folder, "libempty.so", &empty, &[]),
            Rule::Entry,
            "lacks keyhaul_plugin_entry",
        ),
        (
            hostile(&folder, "librefuses.so", &["-DANSWER=NULL"]),
            Rule::Accepts,
            "refuses this host",
        ),
        (
            hostile(&folder, "libother.so", &["-DTWEAK=table.head.major=2"]),
            Rule::Interface,
            "version 2.0 of the interface",
        ),
        (
            hostile(&folder, "libunnamed.so", &["-DTWEAK=table.name.len=0"]),
            Rule::Table,
            "the plugin's name is empty",
        ),
    ];
    for (path, rule, words) in wrong {
        let factory = PluginFactory::default();
        let before = Held::now();
        let store = store(&factory, &path);
        for _ in 0..20 {
            let error = runtime.block_on(store.probe()).expect_err("refused");
            assert!(error.message().contains(words), "{error}");
            let place = error.context().place.as_deref();
            assert_eq!(place, Some(path.display().to_string().as_str()));
            // Nor by a newer policy.
            load(&factory.renewed(), &path, None).expect_err("refused");
            let examined = factory.examine(&path, None);
            let at = examined.passed.len();
            assert_eq!(Rule::ALL.get(at), Some(&rule), "{words}");
        }
        assert_eq!(Held::now(), before.and(1), "{words}");
        assert_eq!(factory.loaded().len(), 0);
        // The control: another factory knows nothing of it.
        load(&PluginFactory::default(), &path, None).expect_err("refused");
        assert_eq!(Held::now(), before.and(2), "{words}");
        // Mended, it is another.
        hostile(
            &folder,
            path.file_name().expect("a name").to_str().expect("text"),
            &[],
        );
        runtime.block_on(store.capabilities()).expect("served");
        assert_eq!(Held::now(), before.and(3), "{words}");
    }
}

#[test]
fn what_the_linker_refuses_leaves_nothing_behind_and_is_tried_anew() {
    let _turn = in_turn();
    let folder = Folder::new();
    let path = folder.path().join("text.so");
    fs::write(&path, "no library").expect("written");
    let before = Held::now();
    let factory = PluginFactory::default();
    for _ in 0..20 {
        let error = load(&factory, &path, None).expect_err("no library");
        assert!(error.message().contains("no library that can be loaded"));
    }
    assert_eq!(Held::now(), before);
}

#[test]
fn one_library_is_loaded_once_by_all_stores_and_newer_policies() {
    let _turn = in_turn();
    let folder = Folder::new();
    let path = global(&folder, "libglobal.so", "first", &[]);
    let factory = PluginFactory::default();
    let before = Held::now();
    let first = load(&factory, &path, None).expect("loaded");
    let digest = first.digest.to_string();
    for factory in [&factory, &factory.renewed(), &factory.renewed().renewed()] {
        load(factory, &path, Some(&digest)).expect("as pinned");
        load(factory, &path, None).expect("without");
        let error = load(factory, &path, Some(&"0".repeat(64))).expect_err("another");
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    }
    assert_eq!(Held::now(), before.and(1));
    assert_eq!(factory.renewed().loaded().len(), 1);
    // The control: a factory of its own.
    load(&PluginFactory::default(), &path, None).expect("loaded");
    assert_eq!(Held::now(), before.and(2));
}

#[test]
fn a_changed_file_is_loaded_by_a_newer_policy_and_by_its_pin() {
    let _turn = in_turn();
    let folder = Folder::new();
    let path = global(&folder, "libglobal.so", "first", &[]);
    let factory = PluginFactory::default();
    let before = Held::now();
    let old = load(&factory, &path, None)
        .expect("loaded")
        .digest
        .to_string();
    global(&folder, "libglobal.so", "second", &[]);
    // The stores of one policy have one version.
    let summary = |factory: &PluginFactory, pin| load(factory, &path, pin).expect("loaded").summary;
    assert_eq!(summary(&factory, None), "first");
    assert_eq!(summary(&factory, Some(&old)), "first");
    assert_eq!(Held::now(), before.and(1));
    let newer = factory.renewed();
    let new = load(&newer, &path, None).expect("loaded");
    assert_eq!(new.summary, "second");
    assert_eq!(Held::now(), before.and(2));
    load(&newer, &path, Some(&old)).expect_err("no longer there");
    let new = new.digest.to_string();
    assert_eq!(summary(&factory, Some(&new)), "second");
    assert_eq!(summary(&factory, None), "first");
    assert_eq!(Held::now(), before.and(2));
    // As it was: it is still in the process.
    global(&folder, "libglobal.so", "first", &[]);
    assert_eq!(summary(&factory.renewed(), Some(&old)), "first");
    assert_eq!(Held::now(), before.and(2));
}

/// A function that nobody has is found out before the plugin is asked for anything.
#[test]
fn what_a_library_needs_is_resolved_when_it_is_loaded() {
    let _turn = in_turn();
    let folder = Folder::new();
    // What the linker is told here, the one that loads may not heed.
    let more = ["-DUNRESOLVED", "-Wl,-z,lazy"];
    let path = global(&folder, "libneedy.so", "needy", &more);
    let before = Held::now();
    let error = load(&PluginFactory::default(), &path, None).expect_err("unresolved");
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    let words = format!("{error:?}");
    assert!(words.contains("nobody_has_this"), "{words}");
    assert_eq!(Held::now(), before);
}

#[test]
fn two_libraries_that_export_one_name_have_each_their_own() {
    let _turn = in_turn();
    let folder = Folder::new();
    let factory = PluginFactory::default();
    for word in ["one", "other"] {
        let path = global(&folder, &format!("lib{word}.so"), word, &[]);
        assert_eq!(load(&factory, &path, None).expect("loaded").summary, word);
    }
}

/// What is mapped and is not there ends the process that touches it.
#[test]
fn a_library_that_was_copied_by_half_is_refused() {
    let _turn = in_turn();
    let folder = Folder::new();
    let whole = hostile(&folder, "libwhole.so", &[]);
    load(&PluginFactory::default(), &whole, None).expect("the control");
    let bytes = fs::read(&whole).expect("read");
    let path = folder.path().join("libhalf.so");
    for eighths in 1..8 {
        fs::write(&path, &bytes[..bytes.len() * eighths / 8]).expect("written");
        // Behind what is loaded there are tables for debuggers: those may be missing.
        let Err(error) = load(&PluginFactory::default(), &path, None) else {
            assert!(eighths > 4, "{eighths} eighths are not all");
            continue;
        };
        assert_eq!(error.kind(), keyhaul_core::ErrorKind::InvalidConfig);
        let message = error.message();
        assert!(message.contains("no library that can be loaded"), "{error}");
    }
    fs::write(&path, &bytes[..bytes.len() / 3]).expect("written");
    let error = load(&PluginFactory::default(), &path, None).expect_err("a third of it");
    assert!(error.message().contains("its end is missing"), "{error}");
}
