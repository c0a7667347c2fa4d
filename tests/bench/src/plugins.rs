//! Stores that are plugins: what a `get` costs more than from the same store called directly, in turn,
//! in the same process, on a runtime as keyhaul's own.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future;
use keyhaul_core::registry::Options;
use keyhaul_core::{
    GetOptions, PutOptions, Registry, SecretBytes, SecretPath, SecretStore, StoreConfig,
    StoreFactory,
};
use keyhaul_plugin_example::JarFactory;
use keyhaul_plugin_host::PluginFactory;
use keyhaul_plugin_process::ProcessFactory;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::runtime::Runtime;

use crate::ground::Ground;
use crate::measure::{Row, median};

const ROUNDS: usize = 41;
/// Gets of one way before the other has its turn.
const BLOCK: u32 = 200;
const CROWD: usize = 1000;
/// What is held of a plugin's threads.
const THREADS: usize = 16;

pub fn rows(_: &Ground) -> Vec<Row> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let folder = trusted_folder();
    let direct = filled(&runtime, JarFactory.open(&config("jar:jar")));
    let url = format!("plugin://{}", library(&folder).display());
    let library = Registry::new().with(PluginFactory::default());
    let library = filled(&runtime, library.open(&config(&url)));
    let url = format!("plugin+exec://{}", program(&folder).display());
    let program = Registry::new().with(ProcessFactory);
    let program = filled(&runtime, program.open(&config(&url)));
    let (interface, pipes) = ("the C interface", "the process protocol");
    let most = [20, 40].map(Duration::from_micros);
    let mut call = || calls(&runtime);
    let mut line = lines(&runtime);
    vec![
        beside_direct(&runtime, interface, &library, &direct, &mut call, most[0]),
        beside_direct(&runtime, pipes, &program, &direct, &mut line, most[1]),
        crowd(&runtime, interface, &library, &direct),
        crowd(&runtime, pipes, &program, &direct),
    ]
}

/// One `get` at a time, and how much longer it takes through a plugin. Beside it the floor: what it
/// takes to be woken on the other side and on this one, and nothing else.
fn beside_direct(
    runtime: &Runtime,
    name: &str,
    plugin: &Arc<dyn SecretStore>,
    direct: &Arc<dyn SecretStore>,
    floor: &mut dyn FnMut() -> Duration,
    most: Duration,
) -> Row {
    let (mut through, mut straight, mut floors) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        through.push(gets(runtime, plugin));
        straight.push(gets(runtime, direct));
        floors.push(floor());
    }
    let (through, straight, floor) = (median(through), median(straight), median(floors));
    let more = through.saturating_sub(straight);
    Row {
        what: format!("get from a plugin, by {name}"),
        measured: format!("{}, {} more", micros(through), micros(more)),
        beside: format!(
            "directly {}; a bare wake-up there and back {}, ratio {:.2}",
            micros(straight),
            micros(floor),
            through.as_secs_f64() / floor.as_secs_f64()
        ),
        target: format!("at most {} µs more", most.as_micros()),
        met: Some(more <= most),
    }
}

/// How long one of a block of gets takes.
fn gets(runtime: &Runtime, store: &Arc<dyn SecretStore>) -> Duration {
    let (path, options) = (path(), GetOptions::default());
    runtime.block_on(async {
        let before = Instant::now();
        for _ in 0..BLOCK {
            store.get(&path, &options).await.expect("the secret");
        }
        before.elapsed() / BLOCK
    })
}

/// How long it takes to have nothing done on another thread.
fn calls(runtime: &Runtime) -> Duration {
    runtime.block_on(async {
        let before = Instant::now();
        for _ in 0..BLOCK {
            let done = tokio::task::spawn_blocking(|| ()).await;
            done.expect("done");
        }
        before.elapsed() / BLOCK
    })
}

/// How long a byte takes to another thread and back, by way of the kernel.
fn lines(runtime: &Runtime) -> impl FnMut() -> Duration {
    let (mut near, far) = std::os::unix::net::UnixStream::pair().expect("a pair");
    far.set_nonblocking(true).expect("set");
    let far = runtime.block_on(async { UnixStream::from_std(far) });
    let mut far = far.expect("a stream");
    std::thread::spawn(move || {
        let mut byte = [0];
        // Until the other end is closed.
        while near.read_exact(&mut byte).is_ok() && near.write_all(&byte).is_ok() {}
    });
    move || {
        runtime.block_on(async {
            let before = Instant::now();
            for _ in 0..BLOCK {
                far.write_all(&[0]).await.expect("written");
                far.read_exact(&mut [0]).await.expect("read");
            }
            before.elapsed() / BLOCK
        })
    }
}

/// Many gets at once, and how many threads that makes.
fn crowd(
    runtime: &Runtime,
    name: &str,
    plugin: &Arc<dyn SecretStore>,
    direct: &Arc<dyn SecretStore>,
) -> Row {
    let (path, options) = (path(), GetOptions::default());
    let at_once = |store: &Arc<dyn SecretStore>, look: fn() -> usize| {
        let one = async |_| {
            store.get(&path, &options).await.expect("the secret");
            look()
        };
        let before = Instant::now();
        let seen = runtime.block_on(future::join_all((0..CROWD).map(one)));
        (before.elapsed(), seen.into_iter().max().unwrap_or_default())
    };
    // To count takes longer than to get, so that is done apart; and first of all without a crowd of
    // the plugin's, whose threads stay for a while.
    let (without, with) = (at_once(direct, threads).1, at_once(plugin, threads).1);
    let (straight, through) = (at_once(direct, || 0).0, at_once(plugin, || 0).0);
    Row {
        what: format!("{CROWD} gets at once, by {name}"),
        measured: format!("{with} threads in all"),
        beside: format!(
            "directly {without}; {:.1} ms against {:.1}",
            through.as_secs_f64() * 1000.0,
            straight.as_secs_f64() * 1000.0
        ),
        target: format!("at most {THREADS} threads more"),
        met: Some(with <= without + THREADS),
    }
}

/// A store with the secret in it.
fn filled(
    runtime: &Runtime,
    store: keyhaul_core::Result<Arc<dyn SecretStore>>,
) -> Arc<dyn SecretStore> {
    let store = store.expect("a store");
    let value = SecretBytes::random(32).expect("the system has randomness");
    let put = runtime.block_on(store.put(&path(), &value, &PutOptions::default()));
    put.expect("put");
    store
}

fn path() -> SecretPath {
    SecretPath::new("web01/root").expect("a path")
}

fn config(url: &str) -> StoreConfig {
    StoreConfig::new("jar", url, Options::default(), "bench").expect("a store's settings")
}

/// Where libraries may be loaded from: a folder that nobody else can write, nor any above it.
fn trusted_folder() -> TempDir {
    // SAFETY: it only tells.
    let above = match unsafe { libc::geteuid() } {
        0 => PathBuf::from("/run"),
        _ => std::env::home_dir().expect("a home"),
    };
    tempfile::tempdir_in(above).expect("a folder")
}

/// The Rust example, of which cargo made a library as it built this very program.
fn library(folder: &TempDir) -> PathBuf {
    const NAME: &str = "libkeyhaul_plugin_example.so";
    let here = std::env::current_exe().expect("this program");
    let built = here
        .parent()
        .map(|programs| programs.join("deps").join(NAME));
    let built = built.expect("the folder of programs");
    let path = folder.path().join(NAME);
    fs::copy(&built, &path).unwrap_or_else(|error| panic!("{}: {error}", built.display()));
    path
}

/// The same example as a program, which lies beside this one.
fn program(folder: &TempDir) -> PathBuf {
    const NAME: &str = "keyhaul-bench-jar";
    let here = std::env::current_exe().expect("this program");
    let path = folder.path().join(NAME);
    let built = here.with_file_name(NAME);
    fs::copy(&built, &path).unwrap_or_else(|error| panic!("{}: {error}", built.display()));
    path
}

/// The threads of this process, as the kernel lists them.
fn threads() -> usize {
    let tasks = fs::read_dir(Path::new("/proc/self/task"));
    tasks.expect("the list of threads").count()
}

fn micros(time: Duration) -> String {
    format!("{:.1} µs", time.as_nanos() as f64 / 1000.0)
}
