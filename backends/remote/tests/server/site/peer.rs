//! A client: requests as they go over the wire, and their answers.

use std::sync::Arc;
use std::time::Duration;

use base64ct::{Base64, Encoding as _};
use http::{HeaderMap, Method, StatusCode};
use keyhaul_core::{Result, SecretBytes};
use keyhaul_remote::protocol::seal::{Binding, Purpose, Recipient, Sender};
use keyhaul_remote::protocol::{
    Outcome, Problem, ReadAnswer, ReadItem, ReadRequest, ServiceAnswer, path,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Issued, Site};

/// A client, on one connection where it can.
pub struct Peer {
    client: reqwest::Client,
    url: String,
    fingerprint: [u8; 32],
}

/// An answer, whole.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

pub fn client_config(site: &Site, issued: Option<&Issued>, alpn: &[&[u8]]) -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    let pem = site.authority.pem();
    roots
        .add(CertificateDer::from_pem_slice(pem.as_bytes()).expect("PEM"))
        .expect("a root");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots);
    let mut config = match issued {
        None => builder.with_no_client_auth(),
        Some(issued) => {
            let chain = CertificateDer::from_pem_slice(issued.pem.as_bytes()).expect("PEM");
            let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).expect("PEM");
            builder
                .with_client_auth_cert(vec![chain], key)
                .expect("they fit")
        }
    };
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config
}

impl Peer {
    pub fn new(site: &Site, issued: Option<&Issued>, alpn: &[&[u8]]) -> Self {
        let config = client_config(site, issued, alpn);
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(config)
            .no_proxy()
            .timeout(Duration::from_secs(30))
            .build()
            .expect("a client");
        let mut fingerprint = [0; 32];
        if let Some(issued) = issued {
            let der = CertificateDer::from_pem_slice(issued.pem.as_bytes()).expect("PEM");
            let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &der);
            fingerprint.copy_from_slice(digest.as_ref());
        }
        Self {
            client,
            url: format!("https://{}", site.server.addresses()[0]),
            fingerprint,
        }
    }

    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<String>,
    ) -> Result<Answer, reqwest::Error> {
        let mut request = self.client.request(method, format!("{}{path}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.body(body);
        }
        let answer = request.send().await?;
        Ok(Answer {
            status: answer.status(),
            headers: answer.headers().clone(),
            body: answer.bytes().await?.to_vec(),
        })
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], None)
            .await
            .expect("an answer")
    }

    pub async fn post(&self, path: &str, body: &impl Serialize) -> Answer {
        let body = serde_json::to_string(body).expect("JSON");
        let json = [("content-type", "application/json")];
        let answer = self.send(Method::POST, path, &json, Some(body)).await;
        answer.expect("an answer")
    }

    /// Reads secrets: values, or what went wrong.
    pub async fn read(&self, secrets: &[&str]) -> Vec<Result<Vec<u8>, Box<Problem>>> {
        let recipient = Recipient::new().expect("a key");
        let request = read_request(&recipient, secrets);
        let answer = self.post(path::READ, &request).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        self.open(&recipient, &request, answer.json())
    }

    pub fn open(
        &self,
        recipient: &Recipient,
        request: &ReadRequest,
        answer: ReadAnswer,
    ) -> Vec<Result<Vec<u8>, Box<Problem>>> {
        let receiver = recipient.meet(&answer.enc).expect("met");
        let opener = receiver
            .opener(Purpose::Read, &answer.salt)
            .expect("a salt");
        let items = answer.items.into_iter().zip(&request.items).enumerate();
        let open = items.map(|(index, (outcome, asked))| match outcome {
            Outcome::Problem { problem } => Err(Box::new(problem)),
            Outcome::Done(sealed) => {
                let binding = Binding {
                    client: &self.fingerprint,
                    nonce: &request.nonce,
                    secret: &asked.secret,
                    version: asked.version.as_deref(),
                    field: asked.field.as_deref(),
                };
                let opened = opener.open(&binding, index, &sealed.value);
                Ok(opened.expect("opens").expose().to_vec())
            }
        });
        open.collect()
    }

    /// Writes a value as an operator does.
    pub async fn write(&self, secret: &str, value: &[u8]) -> Answer {
        let service: ServiceAnswer = self.get(path::SERVICE).await.json();
        let body = self.sealed(&service.key, secret, value);
        self.post(path::WRITE, &body).await
    }

    pub fn sealed(&self, key: &str, secret: &str, value: &[u8]) -> serde_json::Value {
        let sender = Sender::to(key).expect("a key");
        let sealer = sender.sealer(Purpose::Write).expect("a sealer");
        let binding = Binding {
            client: &self.fingerprint,
            nonce: sealer.salt(),
            secret,
            version: None,
            field: None,
        };
        let value = SecretBytes::copy_from(value);
        let value = sealer.seal(&binding, 0, &value).expect("sealed");
        serde_json::json!({
            "secret": secret, "key": key, "enc": sender.enc(), "salt": sealer.salt(),
            "value": value,
        })
    }
}

pub fn read_request(recipient: &Recipient, secrets: &[&str]) -> ReadRequest {
    let item = |secret: &&str| ReadItem {
        secret: (*secret).to_owned(),
        version: None,
        field: None,
        expired: false,
    };
    ReadRequest {
        key: recipient.public().to_owned(),
        nonce: Base64::encode_string(&[7; 16]),
        items: secrets.iter().map(item).collect(),
    }
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json<T: DeserializeOwned>(&self) -> T {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The problem's kind.
    pub fn kind(&self) -> String {
        assert_eq!(
            self.headers
                .get("content-type")
                .map(http::HeaderValue::as_bytes),
            Some(&b"application/problem+json"[..]),
            "{}",
            self.text()
        );
        let problem: Problem = self.json();
        assert_eq!(problem.status, self.status.as_u16());
        let id = self
            .headers
            .get("x-request-id")
            .and_then(|id| id.to_str().ok());
        assert_eq!(problem.request.as_deref(), id);
        problem.kind
    }
}
