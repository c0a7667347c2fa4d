//! QEMU's two sorts of secret object, and the four dialects they are written in.

use std::borrow::Cow;
use std::fmt;

use super::option::escape;
use super::{Ciphertext, KeySource};
use crate::{Error, ErrorKind, Result};

/// The longest word of a command line: the kernel's `MAX_ARG_STRLEN` of 32 pages of 4 KiB, without
/// the closing NUL.
pub const MAX_WORD: usize = 128 * 1024 - 1;
/// The longest line of a `-readconfig` file, its newline included: what QEMU's buffer holds.
pub const MAX_CONFIG_LINE: usize = 1023;
/// The longest id of an object in a `-readconfig` file.
const MAX_CONFIG_ID: usize = 63;

/// How an object is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// `secret,id=…`: the value of `-object`.
    Args,
    /// `{"qom-type":"secret",…}`: the value of `-object`, in QEMU 6.0 and later.
    Json,
    /// `{"execute":"object-add",…}`: a QMP command.
    Qmp,
    /// `[object "…"]`: a section of a `-readconfig` file.
    Readconfig,
}

impl Dialect {
    /// Every dialect, in alphabetical order.
    pub const ALL: &'static [Self] = &[Self::Args, Self::Json, Self::Qmp, Self::Readconfig];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Args => "args",
            Self::Json => "json",
            Self::Qmp => "qmp",
            Self::Readconfig => "readconfig",
        }
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The object that holds the master key. It comes before every [`SecretObject`] that names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MasterObject {
    id: String,
    source: KeySource,
}

impl MasterObject {
    /// An object of this id, whose key is where a channel says.
    ///
    /// # Errors
    /// As [`check_id`].
    pub fn new(id: impl Into<String>, source: KeySource) -> Result<Self> {
        let id = id.into();
        check_id(&id)?;
        Ok(Self { id, source })
    }

    /// Its id, the `keyid` of others.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The object in a dialect. The key is raw in both sources, so there is no `format`.
    ///
    /// # Errors
    /// `TooLarge` or `Unsupported` where the dialect cannot say it.
    pub fn render(&self, dialect: Dialect) -> Result<String> {
        match &self.source {
            KeySource::File(path) => {
                render(dialect, "secret", &self.id, &[("file", Text(path.into()))])
            }
            KeySource::Serial(serial) => render(
                dialect,
                "secret_keyring",
                &self.id,
                &[("serial", Number(*serial))],
            ),
        }
    }
}

/// The object of one secret: ciphertext under a master key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretObject {
    id: String,
    keyid: String,
    ciphertext: Ciphertext,
}

impl SecretObject {
    /// An object of this id under the master key's.
    ///
    /// # Errors
    /// As [`check_id`], for both ids.
    pub fn new(
        id: impl Into<String>,
        keyid: impl Into<String>,
        ciphertext: Ciphertext,
    ) -> Result<Self> {
        let (id, keyid) = (id.into(), keyid.into());
        check_id(&id)?;
        check_id(&keyid)?;
        Ok(Self {
            id,
            keyid,
            ciphertext,
        })
    }

    /// Its id, which devices name.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The object in a dialect. The ciphertext is always base64: raw bytes would end at their first
    /// NUL.
    ///
    /// # Errors
    /// `TooLarge` where the dialect has no room for the value.
    pub fn render(&self, dialect: Dialect) -> Result<String> {
        let properties = properties(&self.keyid, &self.ciphertext);
        render(dialect, "secret", &self.id, &properties)
    }
}

/// Refuses what QEMU does not take as an id.
///
/// # Errors
/// `InvalidReference` with the rule.
pub fn check_id(id: &str) -> Result<()> {
    let mut bytes = id.bytes();
    let valid = bytes
        .next()
        .is_some_and(|first| first.is_ascii_alphabetic())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'));
    if valid {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::InvalidReference,
        format!("`{}` is no id of an object", id.escape_debug()),
    )
    .with_advice("an id is a letter, followed by letters, digits, `-`, `.` and `_`"))
}

/// Refuses a word of the command line that the kernel would not take.
pub(super) fn check_word(id: &str, len: usize) -> Result<()> {
    if len <= MAX_WORD {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::TooLarge,
        format!("the object `{id}` has {len} bytes, and an argument has at most {MAX_WORD}"),
    )
    .with_advice("start QEMU without it and add it by QMP: keyhaul resolve --format qmp"))
}

/// What an object says of its ciphertext.
pub(super) fn properties<'a>(
    keyid: &'a str,
    ciphertext: &Ciphertext,
) -> [(&'static str, Property<'a>); 4] {
    [
        ("keyid", Text(keyid.into())),
        ("format", Text("base64".into())),
        ("iv", Text(ciphertext.iv_base64().into())),
        ("data", Text(ciphertext.data_base64().into())),
    ]
}

/// The value of a property.
#[derive(Debug)]
pub(super) enum Property<'a> {
    Number(i32),
    Text(Cow<'a, str>),
}

use Property::{Number, Text};

impl Property<'_> {
    /// Adds `key=value`.
    pub(super) fn write_pair(&self, key: &str, text: &mut String) {
        text.push_str(key);
        text.push('=');
        match self {
            Number(number) => text.push_str(&number.to_string()),
            Text(value) => text.push_str(&escape(value)),
        }
    }

    /// As JSON.
    pub(super) fn json(&self) -> serde_json::Value {
        match self {
            Number(number) => (*number).into(),
            Text(value) => value.as_ref().into(),
        }
    }

    fn len(&self) -> usize {
        match self {
            Number(_) => 11,
            Text(value) => value.len(),
        }
    }
}

fn render(
    dialect: Dialect,
    qom_type: &str,
    id: &str,
    properties: &[(&'static str, Property<'_>)],
) -> Result<String> {
    let rendered = match dialect {
        Dialect::Args => pairs(qom_type, id, properties),
        Dialect::Json => json(qom_type, id, properties).to_string(),
        Dialect::Qmp => {
            let arguments = json(qom_type, id, properties);
            let command = serde_json::json!({"execute": "object-add", "arguments": arguments});
            return Ok(command.to_string());
        }
        Dialect::Readconfig => return section(qom_type, id, properties),
    };
    check_word(id, rendered.len())?;
    Ok(rendered)
}

fn pairs(qom_type: &str, id: &str, properties: &[(&'static str, Property<'_>)]) -> String {
    let room: usize = properties
        .iter()
        .map(|(key, value)| key.len() + value.len() + 2)
        .sum();
    let mut text = String::with_capacity(qom_type.len() + id.len() + room + 4);
    text.push_str(qom_type);
    text.push_str(",id=");
    text.push_str(id);
    for (key, value) in properties {
        text.push(',');
        value.write_pair(key, &mut text);
    }
    text
}

fn json(
    qom_type: &str,
    id: &str,
    properties: &[(&'static str, Property<'_>)],
) -> serde_json::Value {
    let mut members = serde_json::Map::new();
    members.insert("qom-type".into(), qom_type.into());
    members.insert("id".into(), id.into());
    for (key, value) in properties {
        members.insert((*key).into(), value.json());
    }
    members.into()
}

/// A section of a `-readconfig` file, which has no way to escape anything.
fn section(
    qom_type: &str,
    id: &str,
    properties: &[(&'static str, Property<'_>)],
) -> Result<String> {
    if id.len() > MAX_CONFIG_ID {
        return Err(Error::new(
            ErrorKind::TooLarge,
            format!("the id `{id}` has more than the {MAX_CONFIG_ID} characters that fit into a -readconfig section"),
        )
        .with_advice("choose a shorter id"));
    }
    let mut text = format!("[object \"{id}\"]\n");
    let kind = ("qom-type", Text(qom_type.into()));
    for (key, value) in std::iter::once(&kind).chain(properties) {
        let value: Cow<'_, str> = match value {
            Number(number) => number.to_string().into(),
            Text(value) => value.as_ref().into(),
        };
        if value.contains(['"', '\n', '\0']) {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("a -readconfig file cannot hold a quote or a newline, as in the `{key}` of `{id}`"),
            )
            .with_advice("use another --runtime-dir, or --format args or json"));
        }
        let line = format!("  {key} = \"{value}\"\n");
        if line.len() > MAX_CONFIG_LINE {
            return Err(Error::new(
                ErrorKind::TooLarge,
                format!("the `{key}` of `{id}` makes a line of {} bytes, and QEMU reads {MAX_CONFIG_LINE} of a -readconfig file's", line.len()),
            )
            .with_advice("use --format args, json or qmp"));
        }
        text.push_str(&line);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(bytes: usize) -> SecretObject {
        let ciphertext = Ciphertext {
            iv: [0; 16],
            data: vec![0; bytes],
        };
        SecretObject::new("root", "m", ciphertext).expect("valid ids")
    }

    #[test]
    fn a_secret_in_every_dialect() {
        let rendered = |dialect| secret(16).render(dialect).expect("fits");
        let zeros = "AAAAAAAAAAAAAAAAAAAAAA==";
        assert_eq!(
            rendered(Dialect::Args),
            format!("secret,id=root,keyid=m,format=base64,iv={zeros},data={zeros}")
        );
        let members = serde_json::json!({
            "qom-type": "secret", "id": "root", "keyid": "m", "format": "base64", "iv": zeros, "data": zeros,
        });
        let parsed = |text: String| serde_json::from_str::<serde_json::Value>(&text).expect("JSON");
        assert_eq!(parsed(rendered(Dialect::Json)), members);
        assert_eq!(
            parsed(rendered(Dialect::Qmp)),
            serde_json::json!({"execute": "object-add", "arguments": members})
        );
        assert_eq!(
            rendered(Dialect::Readconfig),
            format!(
                "[object \"root\"]\n  qom-type = \"secret\"\n  keyid = \"m\"\n  format = \"base64\"\n  iv = \"{zeros}\"\n  data = \"{zeros}\"\n"
            )
        );
    }

    #[test]
    fn a_master_key_names_its_source_and_no_format() {
        let file = MasterObject::new("m", KeySource::File("/run/a,b".into())).expect("valid");
        assert_eq!(
            file.render(Dialect::Args).expect("fits"),
            "secret,id=m,file=/run/a,,b"
        );
        let ring = MasterObject::new("m", KeySource::Serial(7)).expect("valid");
        assert_eq!(
            ring.render(Dialect::Args).expect("fits"),
            "secret_keyring,id=m,serial=7"
        );
        assert_eq!(
            ring.render(Dialect::Json).expect("fits"),
            r#"{"id":"m","qom-type":"secret_keyring","serial":7}"#
        );
    }

    #[test]
    fn what_does_not_fit_is_named_with_its_limit() {
        let rest = secret(16).render(Dialect::Args).expect("fits").len() - 24;
        // The largest whole number of blocks whose base64 fits.
        let fits = (MAX_WORD - rest) / 4 * 3 / 16 * 16;
        assert!(secret(fits).render(Dialect::Args).is_ok());
        let error = secret(fits + 16)
            .render(Dialect::Args)
            .expect_err("too large");
        assert_eq!(error.kind(), ErrorKind::TooLarge);
        assert!(error.message().contains("`root`") && error.message().contains("131071"));
        assert!(secret(fits + 16).render(Dialect::Qmp).is_ok());
        assert!(secret(752).render(Dialect::Readconfig).is_ok());
        let error = secret(768)
            .render(Dialect::Readconfig)
            .expect_err("too large");
        assert_eq!(error.kind(), ErrorKind::TooLarge);
        let quoted = MasterObject::new("m", KeySource::File("/a\"b".into())).expect("valid");
        let error = quoted.render(Dialect::Readconfig).expect_err("a quote");
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }

    #[test]
    fn ids_are_checked() {
        for id in ["a", "A1-._"] {
            check_id(id).expect(id);
        }
        for id in ["", "1a", "-a", "a b", "a,b", "\u{e4}", "_a"] {
            check_id(id).expect_err(id);
        }
    }
}
