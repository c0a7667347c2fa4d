use clap::Args;

use super::login::StoreName;
use crate::failure::Outcome;
use crate::global::Global;
use crate::output;
use crate::session::Session;

/// Arguments of `logout`.
#[derive(Args, Debug)]
pub struct Arguments {
    #[command(flatten)]
    store: StoreName,
}

/// Revokes a kept login at the server, and forgets it.
pub fn run(global: &Global, arguments: Arguments) -> Outcome {
    let session = Session::open(global)?;
    let config = arguments.store.of(&session)?;
    let was_there = session.within(keyhaul_vault::logout(config))?;
    output::words(format_args!(
        "{} {}",
        if was_there {
            "logged out of"
        } else {
            "there is no kept login for"
        },
        config.name
    ));
    Ok(())
}
