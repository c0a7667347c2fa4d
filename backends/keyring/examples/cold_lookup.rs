//! How long a process takes that looks one secret up in gnome-keyring and ends, against
//! `secret-tool lookup`: `cargo run -p keyhaul-keyring --example cold_lookup [ROUNDS]`.

#![allow(clippy::print_stdout, reason = "an example reports there")]

use std::error::Error;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use keyhaul_core::registry::Options;
use keyhaul_core::{
    GetOptions, PutOptions, SecretBytes, SecretPath, SecretStore, StoreConfig, StoreFactory,
};
use keyhaul_keyring::KeyringFactory;
use keyhaul_servers::SecretService;

type Done<T> = Result<T, Box<dyn Error>>;

const NAME: &str = "web01/root-disk";
const VALUE: &[u8] = b"correct horse battery staple";

fn main() -> Done<()> {
    let argument = std::env::args().nth(1);
    match argument.as_deref() {
        Some(session @ ("dh" | "plain")) => look_up(session),
        rounds => measure(rounds.map_or(Ok(100), str::parse)?),
    }
}

/// What is measured: a whole process.
fn look_up(session: &str) -> Done<()> {
    runtime()?.block_on(async {
        let store = store(session)?;
        let (path, options) = (SecretPath::new(NAME)?, GetOptions::default());
        let secret = store.get(&path, &options).await?;
        std::io::stdout().write_all(secret.value.expose())?;
        Ok(())
    })
}

fn measure(rounds: usize) -> Done<()> {
    let service = SecretService::start();
    let this = std::env::current_exe()?;
    let ours = |session: &str| {
        let mut command = service.command(&this);
        command.arg(session);
        command
    };
    let theirs = || {
        let mut command = service.command("secret-tool");
        command.args(["lookup", "service", "keyhaul", "username", NAME]);
        command
    };
    seed(&service)?;
    let mut times = [Vec::new(), Vec::new(), Vec::new()];
    // In turns, so that what the machine does meanwhile falls on all.
    for _ in 0..rounds {
        for (times, command) in times.iter_mut().zip([theirs(), ours("dh"), ours("plain")]) {
            times.push(time(command)?);
        }
    }
    let medians = times.map(|mut times| {
        times.sort_unstable();
        times[times.len() / 2]
    });
    for (name, median) in ["secret-tool lookup", "dh session", "plain session"]
        .iter()
        .zip(medians)
    {
        let ratio = medians[0].as_secs_f64() / median.as_secs_f64();
        println!("{name:20} {median:>9.2?}  {ratio:.2} times as fast");
    }
    Ok(())
}

fn seed(service: &SecretService) -> Done<()> {
    let mut command = service.command("secret-tool");
    command.args(["store", "--label=x", "service", "keyhaul", "username", NAME]);
    let mut child = command.stdin(Stdio::piped()).spawn()?;
    child.stdin.take().ok_or("a pipe")?.write_all(VALUE)?;
    child.wait()?;
    // A value of the right bytes, which a store writes and reads as well.
    runtime()?.block_on(async {
        let bus = service.address();
        let store = open("plain", Some(bus))?;
        let value = SecretBytes::copy_from(VALUE);
        let (path, options) = (SecretPath::new(NAME)?, PutOptions::default());
        store.put(&path, &value, &options).await?;
        Ok(())
    })
}

fn time(mut command: Command) -> Done<Duration> {
    let start = Instant::now();
    let done = command.stdin(Stdio::null()).output()?;
    let took = start.elapsed();
    if done.stdout != VALUE {
        return Err(format!("{command:?}: {done:?}").into());
    }
    Ok(took)
}

fn store(session: &str) -> Done<Arc<dyn SecretStore>> {
    open(session, None)
}

fn open(session: &str, bus: Option<String>) -> Done<Arc<dyn SecretStore>> {
    let bus = bus.map(|bus| ("bus", bus));
    let given = [("session", session.to_owned())].into_iter().chain(bus);
    let options = Options::at("", given);
    let config = StoreConfig::new("ring", "keyring+secret-service:", options, "")?;
    Ok(KeyringFactory.open(&config)?)
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
}
