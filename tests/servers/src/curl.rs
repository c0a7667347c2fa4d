//! Requests to a server under test by curl: a client that shares no code with the product.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// How to reach a server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Curl {
    /// `https://127.0.0.1:8200`.
    pub(crate) address: String,
    /// Where the certificate is right: the CA it is held against.
    pub(crate) ca: Option<PathBuf>,
    /// The client's certificate and key.
    pub(crate) client: Option<(PathBuf, PathBuf)>,
}

/// What a server answered.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// The body; `null` where it was empty.
    pub json: Value,
}

impl Reply {
    /// The text at a JSON pointer.
    pub fn text(&self, pointer: &str) -> String {
        self.json
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_else(|| panic!("no text at {pointer} in {self:?}"))
            .to_owned()
    }
}

impl Curl {
    /// Asks for `path`, below `/v1/`; why not, where there is no answer at all.
    pub(crate) fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<Reply, String> {
        // By its input, so that no token is in its arguments.
        let output = run(&(self.settings(method, path, headers, body) + "\n"))?;
        let (body, status) = output.rsplit_once('\n').unwrap_or(("", &output));
        let status = status
            .parse()
            .map_err(|_| format!("curl gave no status: {output}"))?;
        let json = match body.trim() {
            "" => Value::Null,
            text => serde_json::from_str(text).unwrap_or_else(|_| Value::from(text)),
        };
        Ok(Reply { status, json })
    }

    /// The program that asks, with what it is told in a file of this folder: to be watched, or killed.
    pub(crate) fn asking(
        &self,
        folder: &Path,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Command {
        let settings = self.settings(method, path, headers, body);
        let mut file = tempfile::Builder::new()
            .prefix("curl-")
            .tempfile_in(folder)
            .expect("a file");
        file.write_all(settings.as_bytes()).expect("written");
        let (_, file) = file.keep().expect("it stays");
        let mut command = Command::new("curl");
        command.arg("--config").arg(file);
        command
    }

    /// Asks several things over one connection: the statuses, in order.
    pub(crate) fn ask_all(
        &self,
        method: &str,
        headers: &[(&str, &str)],
        asked: &[(String, Value)],
    ) -> Result<Vec<u16>, String> {
        let (output, failed) = self.all(method, headers, asked);
        match failed {
            Some(words) => Err(words),
            None => Ok(output),
        }
    }

    /// The same of a server that may go away meanwhile: 0 stands for no answer.
    pub(crate) fn try_all(
        &self,
        method: &str,
        headers: &[(&str, &str)],
        asked: &[(String, Value)],
    ) -> Vec<u16> {
        self.all(method, headers, asked).0
    }

    fn all(
        &self,
        method: &str,
        headers: &[(&str, &str)],
        asked: &[(String, Value)],
    ) -> (Vec<u16>, Option<String>) {
        let settings = asked
            .iter()
            .map(|(path, body)| {
                self.settings(method, path, headers, Some(body)) + "\noutput = \"/dev/null\"\n"
            })
            .collect::<Vec<_>>()
            .join("next\n");
        let output = output(&settings);
        let statuses = String::from_utf8_lossy(&output.stdout)
            .split_whitespace()
            .map(|line| line.parse().expect("a status"))
            .collect();
        let words = || String::from_utf8_lossy(&output.stderr).trim().to_owned();
        (statuses, (!output.status.success()).then(words))
    }

    fn settings(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> String {
        let mut settings = vec![
            "silent".to_owned(),
            "show-error".to_owned(),
            "globoff".to_owned(),
            "max-time = 30".to_owned(),
            "noproxy = \"*\"".to_owned(),
            format!("request = {}", quoted(method)),
            format!("url = {}", quoted(&format!("{}/v1/{path}", self.address))),
            "write-out = \"\\n%{http_code}\"".to_owned(),
        ];
        match &self.ca {
            Some(path) => settings.push(format!("cacert = {}", quoted(&path.to_string_lossy()))),
            None => settings.push("insecure".to_owned()),
        }
        if let Some((certificate, key)) = &self.client {
            settings.push(format!("cert = {}", quoted(&certificate.to_string_lossy())));
            settings.push(format!("key = {}", quoted(&key.to_string_lossy())));
        }
        for (name, value) in headers {
            settings.push(format!("header = {}", quoted(&format!("{name}: {value}"))));
        }
        if let Some(body) = body {
            settings.push(format!("data-raw = {}", quoted(&body.to_string())));
        }
        settings.join("\n")
    }
}

fn run(settings: &str) -> Result<String, String> {
    let output = output(settings);
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }
}

fn output(settings: &str) -> Output {
    let mut curl = Command::new("curl")
        .args(["--config", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("curl is not installed: scripts/setup test ({error})"));
    let mut input = curl.stdin.take().expect("piped above");
    input.write_all(settings.as_bytes()).expect("curl reads");
    drop(input);
    curl.wait_with_output().expect("curl ends")
}

fn quoted(text: &str) -> String {
    let escaped = text
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n");
    format!("\"{escaped}\"")
}
