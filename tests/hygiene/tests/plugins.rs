//! The hunt through plugins that are libraries: what they and their host give back to the system, and
//! what is left in keyhaul's memory when their stores are closed.
//!
//! A plugin brings an allocator of its own, which no allocator of a test sees, nor the one of the
//! program that wipes. So what is given back is looked at in a process whose `free` is one that looks
//! first.
#![expect(clippy::print_stdout, reason = "how such a process tells what it saw")]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use keyhaul_core::registry::{Options, Value};
use keyhaul_core::{
    DeleteOptions, GetOptions, PutOptions, Registry, SecretBytes, SecretPath, StoreConfig,
};
use keyhaul_hygiene::hunt::own_memory;
use keyhaul_hygiene::program::finish;
use keyhaul_hygiene::{House, Needle};
use keyhaul_plugin_host::PluginFactory;
use keyhaul_servers::PyKmip;
use tempfile::TempDir;

/// Where a test's process finds the library, and its contents.
const LIBRARY: &str = "KEYHAUL_TEST_LIBRARY";
/// And, where there are, the plugin's options: one in a line, its name before `=`.
const OPTIONS: &str = "KEYHAUL_TEST_OPTIONS";
const PIECE: usize = 12;

/// What was given back.
#[derive(Clone, Copy, Debug)]
struct Seen {
    /// Blocks with a piece of the secret in them.
    hits: usize,
    /// Blocks in all.
    blocks: usize,
    /// Blocks that the plugin gave back.
    of_plugin: usize,
}

#[test]
fn nothing_is_left_by_a_plugin_in_c() {
    let folder = trusted_folder();
    let seen = seen(&folder, &jar(&folder, &[]));
    assert_eq!(seen.hits, 0, "{seen:?}");
    assert!(seen.of_plugin > 0, "{seen:?}");
}

/// The control: the same plugin, whose wiping does nothing, is found out.
#[test]
fn a_plugin_that_does_not_wipe_is_found_out() {
    let folder = trusted_folder();
    let seen = seen(&folder, &unwiped(&folder));
    assert!(seen.hits > 0, "{seen:?}");
}

/// The jar in C, whose wiping does nothing.
fn unwiped(folder: &TempDir) -> PathBuf {
    let source = folder.path().join("unwiped.c");
    let keep = "#include <stddef.h>\nvoid wipe_nothing(void *a, size_t b);\nvoid wipe_nothing(void *a, size_t b) { (void)a, (void)b; }\n";
    std::fs::write(&source, keep).expect("written");
    let more = [
        "-Dexplicit_bzero=wipe_nothing",
        source.to_str().expect("text"),
    ];
    jar(folder, &more)
}

#[test]
fn nothing_is_left_by_a_plugin_in_rust() {
    let folder = trusted_folder();
    let seen = seen(&folder, &in_rust(&folder));
    assert_eq!(seen.hits, 0, "{seen:?}");
    // Its own blocks are seen, which an allocator of this program's would not do.
    assert!(seen.of_plugin > 0, "{seen:?}");
}

#[test]
fn nothing_is_left_by_the_plugin_of_systemds_credentials() {
    let folder = trusted_folder();
    let place = folder.path().join("credentials");
    let options = format!("folder={}\nkey=host\ncreate=true", place.display());
    let library = built(&folder, "libkeyhaul_systemd_creds.so");
    let seen = seen_with(&folder, &library, &[(OPTIONS, &options)]);
    assert_eq!(seen.hits, 0, "{seen:?}");
    assert!(seen.of_plugin > 0, "{seen:?}");
}

/// SoftHSM is in the process, too, and is looked at as well.
#[test]
fn nothing_is_left_by_the_plugin_of_tokens() {
    let folder = trusted_folder();
    let (config, pin) = (
        folder.path().join("softhsm2.conf"),
        folder.path().join("pin"),
    );
    let tokens = format!("directories.tokendir = {}\n", folder.path().display());
    std::fs::write(&config, tokens).expect("written");
    private_file(&pin, b"1234-user");
    let config = config.to_str().expect("text");
    let made = Command::new("softhsm2-util")
        .args(["--init-token", "--free", "--label", "vms"])
        .args(["--so-pin", "5678-officer", "--pin", "1234-user"])
        .env("SOFTHSM2_CONF", config)
        .output()
        .unwrap_or_else(|error| panic!("softhsm2-util: {error}; apt-get install softhsm2"));
    assert!(made.status.success(), "{made:?}");
    let options = format!(
        "module=/usr/lib/softhsm/libsofthsm2.so\ntoken=vms\npin=file:{}",
        pin.display()
    );
    let library = built(&folder, "libkeyhaul_pkcs11.so");
    let variables = [(OPTIONS, options.as_str()), ("SOFTHSM2_CONF", config)];
    let seen = seen_with(&folder, &library, &variables);
    assert_eq!(seen.hits, 0, "{seen:?}");
    assert!(seen.of_plugin > 0, "{seen:?}");
}

/// What TLS keeps of a value, the library's own allocator wipes.
#[test]
fn nothing_is_left_by_the_plugin_of_kmip_servers() {
    let folder = trusted_folder();
    let server = PyKmip::start();
    let (certificate, key) = server.client("hunted");
    let options = format!(
        "url={}\nca-cert={}\nclient-cert={}\nclient-key=file:{}",
        server.url(),
        server.ca_path().display(),
        certificate.display(),
        key.display()
    );
    let library = built(&folder, "libkeyhaul_kmip.so");
    let seen = seen_with(&folder, &library, &[(OPTIONS, &options)]);
    assert_eq!(seen.hits, 0, "{seen:?}");
    assert!(seen.of_plugin > 0, "{seen:?}");
}

/// keyhaul's own memory, while the program runs that it started with secrets from the plugin.
fn nothing_is_left_in_memory(library: &Path) {
    let house = House::new();
    let contents = house.outside().join("contents");
    let canary = house.canary().bytes();
    let large = canary.repeat(1300);
    let text = [b"web01/root ", canary, b"\nweb01/large ", &large, b"\n"].concat();
    private_file(&contents, &text);
    house.policy(&format!(
        "version = 1\n[stores.jar]\nurl = \"plugin://{}\"\n\
         options = {{ contents = \"file:{}\" }}\n[[routes]]\nmatch = \"**\"\nstore = \"jar\"\n",
        library.display(),
        contents.display(),
    ));
    own_memory(&house, &["--channel", "pipe"]);
    house.end(&[]);
}

#[test]
fn nothing_is_left_in_keyhauls_memory_by_a_plugin_in_c() {
    let folder = trusted_folder();
    nothing_is_left_in_memory(&jar(&folder, &[]));
}

#[test]
fn nothing_is_left_in_keyhauls_memory_by_a_plugin_in_rust() {
    let folder = trusted_folder();
    nothing_is_left_in_memory(&in_rust(&folder));
}

/// A program's memory is its own. What it was told and has answered passed through keyhaul's.
#[test]
fn nothing_is_left_in_keyhauls_memory_by_a_program() {
    let folder = trusted_folder();
    let house = House::new();
    let program = folder.path().join("database.py");
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins/examples/python");
    keyhaul_servers::copy_program(&example.join("database.py"), &program);
    house.policy(&format!(
        "version = 1\n[stores.kept]\nurl = \"plugin+exec://{}\"\nargs = [\"{}\"]\n\
         [[routes]]\nmatch = \"**\"\nstore = \"kept\"\n",
        program.display(),
        folder.path().join("secrets.db").display(),
    ));
    let canary = house.canary().bytes();
    for (name, value) in [
        ("web01/root", canary.to_vec()),
        ("web01/large", canary.repeat(1300)),
    ] {
        // Untraced: the program gets the value, over a pipe.
        let (status, _, words) = finish(&mut house.keyhaul(&["set", name]), &value);
        assert!(status.success(), "{}", String::from_utf8_lossy(&words));
    }
    own_memory(&house, &["--channel", "pipe"]);
    house.end(&[]);
}

/// The control: what a plugin does not wipe is found there, too.
#[test]
#[should_panic(expected = "the canary")]
fn what_a_plugin_leaves_in_keyhauls_memory_is_found() {
    let folder = trusted_folder();
    nothing_is_left_in_memory(&unwiped(&folder));
}

/// What is given back while the work below is done in a process of its own.
fn seen(folder: &TempDir, library: &Path) -> Seen {
    seen_with(folder, library, &[])
}

/// The same with more in the environment of that process.
fn seen_with(folder: &TempDir, library: &Path, variables: &[(&str, &str)]) -> Seen {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plugins/scan.c");
    let scan = compile(folder, "libscan.so", &["-std=gnu11", "-O2"], &source);
    let done = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "--nocapture", "the_work"])
        .env("LD_PRELOAD", scan)
        .env(LIBRARY, library)
        .envs(variables.iter().copied())
        .output()
        .expect("started");
    let text = String::from_utf8_lossy(&done.stdout);
    let words = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{text}{words}");
    let line = text
        .lines()
        .find_map(|line| line.split_once("given back: "));
    let (_, numbers) = line.unwrap_or_else(|| panic!("{text}{words}"));
    let numbers: Vec<usize> = numbers
        .split(' ')
        .map(|number| number.parse().expect("a number"))
        .collect();
    let seen = Seen {
        hits: numbers[0],
        blocks: numbers[1],
        of_plugin: numbers[2],
    };
    assert!(seen.blocks > 10, "{seen:?}");
    seen
}

/// Everything that is done with a secret, under the eyes of `scan.c`. Nothing outside of it.
#[test]
fn the_work() {
    let Some(library) = std::env::var_os(LIBRARY) else {
        return;
    };
    let (first, put) = (Needle::canary(), Needle::canary());
    let pieces: Vec<u8> = [first.bytes(), put.bytes()]
        .iter()
        .flat_map(|text| text.chunks_exact(PIECE).flatten().copied())
        .collect();
    let library = PathBuf::from(library);
    let (options, begun) = match std::env::var(OPTIONS) {
        Ok(options) => (options, None),
        Err(_) => {
            let contents = library.with_file_name("contents");
            private_file(&contents, &[b"first ", first.bytes(), b"\n"].concat());
            (
                format!("contents=file:{}", contents.display()),
                Some(&first),
            )
        }
    };

    begin(&pieces);
    work(&library, &options, begun, &put);
    let [hits, blocks, of_plugin] = end();
    println!("\ngiven back: {hits} {blocks} {of_plugin}");
}

fn work(library: &Path, options: &str, begun: Option<&Needle>, put: &Needle) {
    let plugin = options.lines().map(|line| {
        let (name, text) = line.split_once('=').expect("name=value");
        let value = match text {
            "true" => Value::Boolean(true),
            text => text.into(),
        };
        (name, value)
    });
    let plugin = Options::at("test", plugin);
    let given = Options::at("test", [("options", plugin)]);
    let url = format!("plugin://{}", library.display());
    let config = StoreConfig::new("jar", &url, given, "test").expect("valid");
    let registry = Registry::new().with(PluginFactory::default());
    let store = registry.open(&config).expect("a store");
    let path = |path| SecretPath::new(path).expect("valid");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let get = GetOptions::default();
        if let Some(first) = begun {
            let begun = store.get(&path("first"), &get).await.expect("there");
            assert_eq!(begun.value.expose(), first.bytes());
        }
        let value = SecretBytes::copy_from(put.bytes());
        for _ in 0..3 {
            let done = store.put(&path("a"), &value, &PutOptions::default()).await;
            done.expect("put");
            let got = store.get(&path("a"), &get).await.expect("there");
            assert!(got.value == value);
            let many = store.get_many(&[path("a"), path("none")], &get).await;
            assert!(many[0].is_ok() && many[1].is_err());
        }
        for gone in ["a", "first"] {
            let done = store.delete(&path(gone), &DeleteOptions::default()).await;
            done.expect("deleted");
        }
    });
}

/// The jar in Rust.
fn in_rust(folder: &TempDir) -> PathBuf {
    built(folder, "libkeyhaul_plugin_example.so")
}

/// A library that cargo has built beside this program, where it may be loaded from.
fn built(folder: &TempDir, name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("this program");
    let (built, library) = (test.with_file_name(name), folder.path().join("libjar.so"));
    std::fs::copy(&built, &library).unwrap_or_else(|error| panic!("{}: {error}", built.display()));
    library
}

fn private_file(path: &Path, content: &[u8]) {
    std::fs::write(path, content).expect("written");
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).expect("mode");
}

/// The jar in C, compiled as its first lines say.
fn jar(folder: &TempDir, more: &[&str]) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let include = format!("-I{}", root.join("plugins/abi/include").display());
    let flags = [&["-std=c99", &include], more].concat();
    compile(
        folder,
        "libjar.so",
        &flags,
        &root.join("plugins/examples/c/jar.c"),
    )
}

fn compile(folder: &TempDir, name: &str, flags: &[&str], source: &Path) -> PathBuf {
    let library = folder.path().join(name);
    let done = Command::new("cc")
        .args(["-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", "-o"])
        .arg(&library)
        .args(flags)
        .arg(source)
        .arg("-lpthread")
        .output()
        .unwrap_or_else(|error| panic!("cc: {error}; apt-get install gcc libc6-dev"));
    let words = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{words}");
    library
}

/// A folder that nobody else can write, nor any above it: where plugins are loaded from.
fn trusted_folder() -> TempDir {
    // SAFETY: it only tells.
    let above = match unsafe { libc::geteuid() } {
        0 => PathBuf::from("/run"),
        _ => std::env::home_dir().expect("a home"),
    };
    tempfile::tempdir_in(above).expect("a folder")
}

/// A function of `scan.c`, which was loaded before this program.
fn symbol(name: &std::ffi::CStr) -> *mut libc::c_void {
    // SAFETY: a name that ends with a zero, among what is loaded.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    assert!(!found.is_null(), "{name:?} is not loaded");
    found
}

fn begin(pieces: &[u8]) {
    // SAFETY: `scan.c` gives it this type, and copies what it is given.
    unsafe {
        let begin: unsafe extern "C" fn(*const u8, usize) =
            std::mem::transmute(symbol(c"scan_begin"));
        begin(pieces.as_ptr(), pieces.len() / PIECE);
    }
}

fn end() -> [usize; 3] {
    let mut seen = [0; 3];
    // SAFETY: `scan.c` gives it this type, and writes three numbers.
    unsafe {
        let end: unsafe extern "C" fn(*mut usize) = std::mem::transmute(symbol(c"scan_end"));
        end(seen.as_mut_ptr());
    }
    seen
}
