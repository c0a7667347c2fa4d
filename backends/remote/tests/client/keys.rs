//! A key service of few words for a [`Stage`](crate::stage::Stage): it keeps values in a map, seals
//! them as the protocol has it, and lets a test spoil what it says.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use keyhaul_core::{Error, ErrorKind, SecretBytes};
use keyhaul_remote::protocol::seal::{Binding, Purpose, Recipient, Sender};
use keyhaul_remote::protocol::{
    self, MetadataBody, Mode, Outcome, Problem, ReadAnswer, ReadRequest, Role, SealedValue,
    ServiceAnswer, Stat, WriteRequest, limit, path,
};
use serde::Serialize;

use crate::stage::{Asked, Said};

/// The service behind one or more stages.
#[derive(Clone)]
pub struct Keys(Arc<Mutex<Inner>>);

pub struct Inner {
    pub values: BTreeMap<String, Vec<u8>>,
    recipient: Recipient,
    /// How many bytes of values fit into one answer.
    pub room: usize,
    /// What every write is refused with, where it is sealed to the right key.
    pub refuses_writes: Option<ErrorKind>,
    /// Every idempotency key that came with a write that was carried out.
    pub written: Vec<Option<String>>,
    pub can: Vec<&'static str>,
}

impl Keys {
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(Inner {
            values: BTreeMap::new(),
            recipient: Recipient::new().expect("a key"),
            room: limit::ANSWER,
            refuses_writes: None,
            written: Vec::new(),
            can: vec!["read", "write", "create", "update", "idempotent"],
        })))
    }

    pub fn with(self, secret: &str, value: &[u8]) -> Self {
        self.lock().values.insert(secret.into(), value.to_vec());
        self
    }

    pub fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As after a start: what was sealed to the old key cannot be opened any more.
    pub fn restart(&self) {
        self.lock().recipient = Recipient::new().expect("a key");
    }

    /// What a key service says.
    pub fn answer(&self, asked: &Asked) -> Said {
        let path = asked.target.split('?').next().unwrap_or_default();
        match path {
            path::SERVICE => json(&self.service()),
            path::READ => {
                let request = serde_json::from_slice(&asked.body).expect("a read");
                json(&self.read(&request, &asked.client))
            }
            path::WRITE => self.write(asked),
            _ => problem(ErrorKind::NotFound, "the test has no such path"),
        }
    }

    fn service(&self) -> ServiceAnswer {
        let inner = self.lock();
        ServiceAnswer {
            version: "0".into(),
            name: "y".into(),
            uri: "spiffe://site/node/y".into(),
            role: Role::Node,
            scopes: Vec::new(),
            can: inner.can.iter().map(|word| (*word).to_owned()).collect(),
            max_value: limit::VALUE,
            max_batch: limit::BATCH,
            key: inner.recipient.public().to_owned(),
        }
    }

    pub fn read(&self, request: &ReadRequest, client: &[u8; 32]) -> ReadAnswer {
        let inner = self.lock();
        let sender = Sender::to(&request.key).expect("a key");
        let sealer = sender.sealer(Purpose::Read).expect("a sealer");
        let mut room = inner.room;
        let items = request.items.iter().enumerate().map(|(index, item)| {
            let refuse = |kind| Outcome::Problem {
                problem: Problem::of(&Error::new(kind, "as the test wants it"), None),
            };
            let Some(value) = inner.values.get(&item.secret) else {
                return refuse(ErrorKind::NotFound);
            };
            if value.len() > room {
                return refuse(ErrorKind::TooLarge);
            }
            room -= value.len();
            let binding = Binding {
                client,
                nonce: &request.nonce,
                secret: &item.secret,
                version: item.version.as_deref(),
                field: item.field.as_deref(),
            };
            let value = SecretBytes::copy_from(value);
            Outcome::Done(SealedValue {
                value: sealer.seal(&binding, index, &value).expect("sealed"),
                metadata: metadata(),
            })
        });
        ReadAnswer {
            items: items.collect(),
            enc: sender.enc().to_owned(),
            salt: sealer.salt().to_owned(),
        }
    }

    fn write(&self, asked: &Asked) -> Said {
        let mut inner = self.lock();
        let request: WriteRequest = serde_json::from_slice(&asked.body).expect("a write");
        if request.key != inner.recipient.public() {
            return problem(ErrorKind::Conflict, "the key is another by now");
        }
        if let Some(kind) = inner.refuses_writes {
            return problem(kind, "as the test wants it");
        }
        let binding = Binding {
            client: &asked.client,
            nonce: &request.salt,
            secret: &request.secret,
            version: None,
            field: request.field.as_deref(),
        };
        let receiver = inner.recipient.meet(&request.enc).expect("an agreement");
        let opener = receiver
            .opener(Purpose::Write, &request.salt)
            .expect("an opener");
        let value = opener.open(&binding, 0, &request.value).expect("opened");
        if request.mode == Mode::Create && inner.values.contains_key(&request.secret) {
            return problem(ErrorKind::AlreadyExists, "it is there");
        }
        inner.values.insert(request.secret, value.expose().to_vec());
        let id = asked.headers.get(protocol::header::IDEMPOTENCY_KEY);
        let id = id.map(|id| id.to_str().expect("text").to_owned());
        inner.written.push(id);
        json(&Stat {
            metadata: metadata(),
        })
    }
}

fn metadata() -> MetadataBody {
    MetadataBody {
        version: Some("1".into()),
        created: None,
        expires: None,
        labels: BTreeMap::new(),
        lease: None,
    }
}

/// An answer as JSON.
pub fn json(body: &impl Serialize) -> Said {
    let body = serde_json::to_vec(body).expect("JSON");
    Said::Answer(200, "application/json", body, true)
}

/// A failed request.
pub fn problem(kind: ErrorKind, words: &'static str) -> Said {
    let problem = Problem::of(&Error::new(kind, words), Some("r-1"));
    let body = serde_json::to_vec(&problem).expect("JSON");
    Said::Answer(kind.http_status(), protocol::MEDIA_TYPE, body, true)
}
