//! keyhaul: the composition root, and the only place that knows every backend.

mod app;
mod commands;
mod deferred;
mod ending;
mod failure;
mod fetch;
mod global;
mod groups;
mod hardening;
mod input;
mod output;
mod process;
mod prompt;
mod session;
mod times;

use clap::FromArgMatches as _;

fn main() -> ! {
    let inherited = hardening::harden();
    let matches = app::command().get_matches();
    let app = app::App::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    start_log(app.global.verbose);
    let broken = match app.command {
        app::Command::Run(_) => failure::RUN,
        _ => keyhaul_core::ErrorKind::Internal.exit_code(),
    };
    match commands::plugin::is_worker() {
        true => ending::guard_worker(),
        false => ending::guard(broken),
    }
    let status = match std::panic::catch_unwind(|| app.run(inherited)) {
        Ok(Ok(status)) => status,
        Ok(Err(failure)) => {
            output::failures(failure.errors());
            failure.status()
        }
        // The hook has said where.
        Err(_) => broken,
    };
    ending::end(status)
}

fn start_log(verbose: u8) {
    let level = match verbose {
        0 => tracing::Level::WARN,
        1 => tracing::Level::INFO,
        2 => tracing::Level::DEBUG,
        _ => tracing::Level::TRACE,
    };
    let _ = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .without_time()
        .with_target(verbose > 1)
        // It would complain by a panic where standard error takes no words.
        .log_internal_errors(false)
        .try_init();
}
