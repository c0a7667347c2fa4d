//! The Rust example's jar as a program that is asked over its stdin and stdout: compiled, so that no
//! interpreter's time is measured.
#![expect(clippy::print_stdout, reason = "stdout is where a plugin answers")]

use std::io::{self, BufRead as _, Write as _};
use std::sync::Arc;

use base64ct::{Base64, Encoding as _};
use keyhaul_core::registry::Options;
use keyhaul_core::{
    GetOptions, Metadata, PutOptions, Result, SecretBytes, SecretPath, SecretStore, StoreConfig,
    StoreFactory as _,
};
use keyhaul_plugin_example::JarFactory;
use serde::Deserialize;

#[derive(Deserialize)]
struct Request<'l> {
    id: Option<u64>,
    #[serde(rename = "do", default)]
    what: &'l str,
    #[serde(default)]
    path: String,
    #[serde(default)]
    base64: &'l str,
}

fn main() {
    let config = StoreConfig::new("jar", "jar:jar", Options::default(), "bench");
    let store = config.and_then(|config| JarFactory.open(&config));
    let store = store.expect("a jar");
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.expect("a runtime");
    let mut lines = io::stdin().lock().lines();
    let hello = lines.next().expect("a hello").expect("text");
    assert!(hello.starts_with("{\"keyhaul\":1,"), "{hello}");
    println!(r#"{{"keyhaul":1,"name":"jar","version":"1","capabilities":["read","write"]}}"#);
    for line in lines {
        let line = line.expect("text");
        let request: Request<'_> = serde_json::from_str(&line).expect("a request");
        // Nobody waits any more: it is answered by now.
        let Some(id) = request.id else { continue };
        let answer = match runtime.block_on(answer(&store, &request)) {
            Ok(rest) => format!("{{\"id\":{id}{rest}}}\n"),
            Err(error) => format!(
                "{{\"id\":{id},\"error\":{{\"kind\":\"internal\",\"message\":\"{}\"}}}}\n",
                error.kind()
            ),
        };
        io::stdout().write_all(answer.as_bytes()).expect("read");
    }
}

/// What an answer has besides its id.
async fn answer(store: &Arc<dyn SecretStore>, request: &Request<'_>) -> Result<String> {
    let path = SecretPath::new(&request.path)?;
    if request.what == "put" {
        let value = Base64::decode_vec(request.base64).expect("base64");
        let value = SecretBytes::copy_from(&value);
        let done = store.put(&path, &value, &PutOptions::default()).await?;
        return Ok(known(&done));
    }
    let secret = store.get(&path, &GetOptions::default()).await?;
    let value = Base64::encode_string(secret.value.expose());
    Ok(format!(
        ",\"base64\":\"{value}\"{}",
        known(&secret.metadata)
    ))
}

fn known(metadata: &Metadata) -> String {
    let version = metadata.version.as_ref().map(|version| version.as_str());
    version.map_or(String::new(), |version| {
        format!(",\"metadata\":{{\"version\":\"{version}\"}}")
    })
}
