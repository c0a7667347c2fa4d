//! The least that a program can do to read secrets from a Vault: one reqwest client, one request for
//! each path, all of them in flight at once, the field taken out, the value written. The floor that
//! keyhaul is held against: no policy, no time limits, no care for memory, no errors worth reading.
//!
//! `minimal CA|- TOKEN-FILE URL…`

use std::io::Write as _;
use std::time::Duration;

use futures_util::future::join_all;
use reqwest::{Certificate, Client};
use serde_json::Value;

type Error = Box<dyn std::error::Error>;

fn main() -> Result<(), Error> {
    let mut arguments = std::env::args().skip(1);
    let ca = arguments.next().ok_or("no CA")?;
    let token = std::fs::read_to_string(arguments.next().ok_or("no token file")?)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(read(&ca, token.trim(), arguments.collect()))
}

async fn read(ca: &str, token: &str, urls: Vec<String>) -> Result<(), Error> {
    let client = Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(60));
    // Wanted by reqwest without TLS too.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    // Without TLS no certificates, so that reqwest does not read the system's for nothing.
    let ca = match ca {
        "-" => None,
        ca => Some(Certificate::from_pem(&std::fs::read(ca)?)?),
    };
    let client = client.tls_certs_only(ca).build()?;
    let read = |url: String| async {
        let request = client.get(url).header("X-Vault-Token", token);
        let body = request.send().await?.error_for_status()?.bytes().await?;
        let body: Value = serde_json::from_slice(&body)?;
        let value = body["data"]["data"]["value"].as_str().ok_or("no value")?;
        Ok::<String, Error>(value.to_owned())
    };
    for value in join_all(urls.into_iter().map(read)).await {
        std::io::stdout().write_all(value?.as_bytes())?;
    }
    Ok(())
}
