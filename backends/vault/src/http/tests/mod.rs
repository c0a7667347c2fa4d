//! The wire against real servers and against sockets that misbehave. They are here and not in
//! `tests/` because the wire is nobody's business outside this crate.

mod failures;
mod proxies;
pub(crate) mod raw;
mod redirects;
mod statuses;
mod tls;
mod transport;

use std::sync::OnceLock;

use keyhaul_core::registry::{Options, Value};
use keyhaul_core::{Error, SecretBytes};
use keyhaul_servers::OpenBao;
use reqwest::Method;

use super::*;
use crate::environment::Environment;

pub(crate) use raw::Raw;

/// Options as a policy gives them.
fn options<const N: usize>(given: [(&str, Value); N]) -> Options {
    Options::at("keyhaul.toml:1:1", given)
}

fn text(text: impl std::fmt::Display) -> Value {
    Value::Text(text.to_string())
}

/// A wire to `address` with these options and an empty environment.
fn http<const N: usize>(address: &str, given: [(&str, Value); N]) -> Http {
    wire(address, options(given), &[])
}

fn wire(address: &str, options: Options, environment: &[(&str, &str)]) -> Http {
    let address = Address::parse(address, "the address").expect("an address");
    let environment = Environment::of(environment);
    Http::new(Settings::new(Some(address), &options, &environment).expect("settings"))
}

impl Http {
    /// Takes only success for an answer.
    async fn ask(&self, call: Call<'_>) -> Result<Answer> {
        let answer = self.send(call).await?;
        if answer.is_success() {
            Ok(answer)
        } else {
            Err(answer.refusal())
        }
    }
}

fn get(path: &str) -> Call<'static> {
    Call::new(Method::GET, path)
}

/// What nobody has to be anybody for.
fn health() -> Call<'static> {
    get("sys/health")
}

fn secret(text: &str) -> SecretBytes {
    SecretBytes::copy_from(text.as_bytes())
}

fn with_token(token: &SecretBytes) -> Manner<'_> {
    Manner {
        token: Some(token),
        ..Manner::default()
    }
}

/// An error, all its sources and its advice.
fn whole(error: &Error) -> String {
    format!("{error:?} {}", error.advice().unwrap_or_default())
}

/// A development server for all tests that leave it as it is.
fn dev() -> &'static OpenBao {
    static SERVER: OnceLock<OpenBao> = OnceLock::new();
    SERVER.get_or_init(|| {
        let server = OpenBao::dev();
        server.write(
            "secret/data/web01/root",
            &serde_json::json!({"data": {"value": "hunter2"}}),
        );
        server
    })
}

/// A server over TLS for all tests that leave it as it is.
fn tls_server() -> &'static OpenBao {
    static SERVER: OnceLock<OpenBao> = OnceLock::new();
    SERVER.get_or_init(OpenBao::tls)
}
