//! The interface's description, held against the running server by programs that know nothing else
//! of it: schemathesis, and a client in Python.

mod ground;

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use keyhaul_core::{MemoryStore, PutOptions, SecretBytes, SecretPath, SecretStore};
use keyhaul_servers::Issued;
use serde_json::{Value, json};
use tokio::process::Command;

use ground::Ground;

/// The longest that one program may take.
const LIMIT: Duration = Duration::from_secs(180);

/// How many requests of its own making schemathesis sends to each operation.
const EXAMPLES: &str = "12";
/// What of an answer is held against the description.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
                      response_headers_conformance,response_schema_conformance,\
                      unsupported_method";
/// Those that refuse each item for itself, in an answer that is none.
const PER_ITEM: &str = "^/v1/secrets/(read|stat)$";

/// What may be answered to what the description does not allow.
const REFUSALS: &str = "[400, 403, 404, 405, 412, 413, 415]";

/// A program of the environment that `scripts/setup` makes.
fn tool(name: &str) -> PathBuf {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools/python/bin");
    let program = tools.join(name);
    assert!(
        program.is_file(),
        "{name} is not installed: scripts/setup test"
    );
    program
}

async fn ground() -> (Ground, Arc<MemoryStore>) {
    let store = Arc::new(MemoryStore::new("memory"));
    let ground = Ground::start(store.clone()).await;
    ground.generate("web01/root").await;
    ground.grant("web01", "n").await;
    (ground, store)
}

fn files(ground: &Ground, who: &str) -> (PathBuf, PathBuf) {
    let issued: Issued = ground.who(who);
    issued.write(ground.folder.path(), &who.replace('/', "-"))
}

/// Runs schemathesis as `who` by the description at `place`, on what `more` says.
async fn schemathesis(ground: &Ground, who: &str, place: &str, more: &[&str]) -> Output {
    let (certificate, key) = files(ground, who);
    let url = format!("https://{}", ground.address);
    // 501 is a store that cannot; 504 a client that waits for a millisecond, as its header says.
    let settings = format!(
        "[checks]\nnegative_data_rejection.expected-statuses = {REFUSALS}\n\
         not_a_server_error.expected-statuses = [\"2xx\", \"4xx\", 501, 504]\n\
         [generation]\nallow-extra-parameters = false\n"
    );
    let folder = ground.folder.path();
    std::fs::write(folder.join("schemathesis.toml"), settings).expect("written");
    let mut command = Command::new(tool("st"));
    command
        .current_dir(folder)
        .args(["run", place, "--url", &url])
        .args([
            "--max-examples",
            EXAMPLES,
            "--phases",
            "examples,coverage,fuzzing",
        ])
        .args(["--generation-deterministic", "--request-timeout", "20"])
        .args([
            "--suppress-health-check",
            "all",
            "--no-color",
            "--warnings",
            "off",
        ])
        .arg("--request-cert")
        .arg(certificate)
        .arg("--request-cert-key")
        .arg(key)
        .arg("--tls-verify")
        .arg(folder.join("ca.crt"))
        .args(more)
        .env("REQUESTS_CA_BUNDLE", folder.join("ca.crt"))
        .env("NO_PROXY", "*");
    finish(command).await
}

async fn finish(mut command: Command) -> Output {
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(LIMIT, output).await;
    output.expect("in time").expect("it starts")
}

fn said(output: &Output) -> String {
    let text = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    text.concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_description_holds_for_a_node() {
    holds_for("node/n").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_description_holds_for_an_operator() {
    holds_for("operator/o").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_description_holds_for_a_manager() {
    holds_for("manager/m").await;
}

async fn holds_for(who: &str) {
    let (ground, _store) = ground().await;
    let place = format!("https://{}/v1/openapi.json", ground.address);
    // Where a member may be left out, the server takes null for the same, which the description
    // does not say; nodes and operators send no such body.
    let checks = match who {
        "manager/m" => CHECKS.to_owned(),
        _ => format!("{CHECKS},negative_data_rejection"),
    };
    for more in [
        ["--include-path-regex", PER_ITEM, "--checks", CHECKS],
        ["--exclude-path-regex", PER_ITEM, "--checks", &checks],
    ] {
        let output = schemathesis(&ground, who, &place, &more).await;
        assert!(output.status.success(), "as {who}: {}", said(&output));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_description_is_served_as_it_is_checked_in() {
    let (ground, _store) = ground().await;
    let manager = ground.who("manager/m");
    let served = ground.ask(&manager, "GET", "/v1/openapi.json", None).await;
    let kept = include_str!("../src/protocol/openapi.json");
    assert_eq!(
        served.json(),
        serde_json::from_str::<Value>(kept).expect("JSON")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_description_that_lies_is_found_out() {
    let (ground, _store) = ground().await;
    let text = include_str!("../src/protocol/openapi.json");
    let mut lie: Value = serde_json::from_str(text).expect("JSON");
    let required = &mut lie["components"]["schemas"]["ServiceAnswer"]["required"];
    required
        .as_array_mut()
        .expect("what an answer holds")
        .push(json!("invented"));
    let place = ground.folder.path().join("lie.json");
    std::fs::write(&place, lie.to_string()).expect("written");
    let place = place.display().to_string();
    let only = ["--include-path", "/v1/service", "--checks", CHECKS];
    let output = schemathesis(&ground, "node/n", &place, &only).await;
    let said = said(&output);
    assert!(!output.status.success(), "{said}");
    assert!(
        said.contains("\"invented\" is a required property"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_in_python_reads_a_secret() {
    let (ground, store) = ground().await;
    let value = b"correct, horse=battery staple\n\x00\xff";
    let path = SecretPath::new("web01/disk").expect("a path");
    let put = store
        .put(
            &path,
            &SecretBytes::copy_from(value),
            &PutOptions::default(),
        )
        .await;
    put.expect("written");
    let client = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/examples/read_secret.py");
    let read = async |who: &str, secret: &str| {
        let (certificate, key) = files(&ground, who);
        let mut command = Command::new(tool("python"));
        command
            .arg(&client)
            .arg(ground.address.to_string())
            .arg(ground.folder.path().join("ca.crt"))
            .args([certificate, key])
            .arg(secret);
        finish(command).await
    };
    let output = read("node/n", "web01/disk").await;
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(output.stdout, value);
    for (who, secret, word) in [
        ("node/n", "web01/none", "not found"),
        ("node/other", "web01/disk", "permission denied"),
        ("manager/m", "web01/disk", "permission denied"),
    ] {
        let output = read(who, secret).await;
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert!(output.stdout.is_empty());
        assert!(
            said(&output).to_lowercase().contains(word),
            "{}",
            said(&output)
        );
    }
}
