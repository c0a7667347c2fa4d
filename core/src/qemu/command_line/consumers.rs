//! Who uses which secret: every place in a command that takes a secret's id.
//!
//! The list is that of QEMU's source, complete up to version 10.2: LUKS, qcow2, curl, iSCSI, RBD,
//! TLS credentials, VNC, SPICE, and secrets under other secrets.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStrExt;

use serde_json::Value;

use super::Place;
use super::objects::{Objects, place};
use super::program::{Opt, Program, Words, value_of};
use crate::qemu::option::Options;

/// What a secret is used for. Each has rules of its own for the value, see
/// [`check`](super::check).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Consumer {
    /// The Cookie header of an http or https disk.
    CurlCookie,
    /// The password of an http, https, ftp or ftps disk.
    CurlPassword,
    /// The password of a proxy to one.
    CurlProxyPassword,
    /// The CHAP password of an iSCSI target.
    Iscsi,
    /// The passphrase of a LUKS volume.
    Luks,
    /// The passphrase of LUKS inside a qcow2 image.
    Qcow2Luks,
    /// The passphrase of a qcow or qcow2 image with the old AES encryption.
    QcowAes,
    /// The passphrase of an image that librbd encrypts.
    RbdEncryption,
    /// The cephx key of a RADOS user.
    RbdKey,
    /// The key that decrypts another secret.
    SecretKey,
    /// The password of the SPICE display.
    Spice,
    /// The passphrase of a TLS server's or client's private key.
    TlsKey,
    /// The password of the VNC display.
    Vnc,
}

impl Consumer {
    /// What it is called in messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::CurlCookie => "an HTTP cookie",
            Self::CurlPassword => "an HTTP or FTP password",
            Self::CurlProxyPassword => "a proxy password",
            Self::Iscsi => "an iSCSI CHAP password",
            Self::Luks => "a LUKS passphrase",
            Self::Qcow2Luks => "a qcow2 LUKS passphrase",
            Self::QcowAes => "a qcow AES passphrase",
            Self::RbdEncryption => "an RBD encryption passphrase",
            Self::RbdKey => "a Ceph key",
            Self::SecretKey => "a key of another secret",
            Self::Spice => "a SPICE password",
            Self::TlsKey => "a TLS key's passphrase",
            Self::Vnc => "a VNC password",
        }
    }

    /// Whether losing the value means losing data.
    pub const fn is_disk_encryption(self) -> bool {
        matches!(
            self,
            Self::Luks | Self::Qcow2Luks | Self::QcowAes | Self::RbdEncryption
        )
    }
}

impl fmt::Display for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One use of a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Use {
    /// The secret's id.
    pub secret_id: String,
    /// What it is used for.
    pub consumer: Consumer,
    /// Where the id stands.
    pub place: Place,
}

/// Every use of a secret in a command, in the order of its words.
pub(super) fn find(
    program: Program,
    words: &[OsString],
    read: &Words,
    objects: &Objects,
) -> Vec<Use> {
    let mut found = Finder {
        words,
        uses: Vec::new(),
    };
    for (place, options) in &objects.all {
        found.object(place, options);
    }
    for opt in &read.options {
        found.option(program, opt);
    }
    if program == Program::Img {
        found.image_options(read);
    }
    if !matches!(program, Program::Unknown) {
        found.images(read);
    }
    found.uses.sort_by_key(|user| user.place.word);
    found.uses
}

struct Finder<'a> {
    words: &'a [OsString],
    uses: Vec<Use>,
}

impl Finder<'_> {
    fn object(&mut self, place: &Place, options: &Options) {
        let (key, consumer) = match options.get("qom-type") {
            Some("tls-creds-x509") => ("passwordid", Consumer::TlsKey),
            Some("secret" | "secret_keyring") => ("keyid", Consumer::SecretKey),
            _ => return,
        };
        if let Some(id) = options.get(key) {
            self.add(id, consumer, place);
        }
    }

    fn option(&mut self, program: Program, opt: &Opt) {
        let text = value_of(self.words, opt);
        let one = |implied, consumer| {
            let options = Options::of_pairs(text, implied);
            options
                .get("password-secret")
                .map(|id| (id.to_owned(), consumer))
        };
        let used = match (program, opt.name.as_str()) {
            (_, "blockdev") => {
                return self.device(&options(text, Some("driver")), opt);
            }
            (Program::System | Program::Unknown, "drive") => {
                return self.device(&options(text, None), opt);
            }
            (Program::System | Program::Unknown, "vnc") => one(Some("vnc"), Consumer::Vnc),
            (Program::System | Program::Unknown, "display") if text.starts_with(b"vnc=") => {
                one(None, Consumer::Vnc)
            }
            (Program::System | Program::Unknown, "spice") => one(None, Consumer::Spice),
            (Program::System | Program::Unknown, "iscsi") => one(None, Consumer::Iscsi),
            _ => None,
        };
        if let Some((id, consumer)) = used {
            self.add(&id, consumer, &place(self.words, opt));
        }
    }

    /// The ids in a block device's options.
    fn device(&mut self, options: &Options, opt: &Opt) {
        let place = place(self.words, opt);
        self.device_at(options, &place);
    }

    fn device_at(&mut self, options: &Options, place: &Place) {
        for (key, id) in options.iter() {
            if let Some(consumer) = consumer_of(options, key) {
                self.add(id, consumer, place);
            }
        }
    }

    /// `-o` of qemu-img: the options of the image that is made, measured or amended.
    fn image_options(&mut self, read: &Words) {
        let Some(subcommand) = read.positional.first() else {
            return;
        };
        let format = match self.words[*subcommand].as_bytes() {
            b"amend" | b"create" => read
                .value(self.words, "f")
                .or_else(|| read.value(self.words, "format")),
            b"convert" | b"measure" => read
                .value(self.words, "O")
                .or_else(|| read.value(self.words, "target-format")),
            _ => return,
        };
        let given: Vec<_> = read
            .options
            .iter()
            .filter(|opt| matches!(opt.name.as_str(), "o" | "options" | "target-options"))
            .collect();
        let mut all = Options::default();
        if let Some(format) = format.and_then(|format| std::str::from_utf8(format).ok()) {
            all.push("driver", format);
        }
        // What is made comes first, but for `convert`, where the sources do.
        let mut images = read.positional[1..].iter();
        let image = if self.words[*subcommand] == "convert" {
            images.next_back()
        } else {
            images.next()
        };
        if let Some(image) = image
            && let Some(image) = self.words[*image].to_str()
        {
            all.push("filename", image);
        }
        for opt in &given {
            all.extend(Options::of_pairs(value_of(self.words, opt), None));
        }
        for opt in given {
            let own = Options::of_pairs(value_of(self.words, opt), None);
            let place = place(self.words, opt);
            for (key, id) in own.iter() {
                // `amend` changes keys: the new one, the old one, the one that opens the volume.
                let plain = match key.rsplit('.').next() {
                    Some("new-secret" | "old-secret" | "secret") => {
                        let prefix = key.rfind('.').map_or("", |dot| &key[..=dot]);
                        format!("{prefix}key-secret")
                    }
                    _ => key.to_owned(),
                };
                if let Some(consumer) = consumer_of(&all, &plain) {
                    self.add(id, consumer, &place);
                }
            }
        }
    }

    /// Images that are options themselves: with `--image-opts`, or as `json:{…}`.
    fn images(&mut self, read: &Words) {
        let has_options = read.has_flag("image-opts") || read.has_flag("target-image-opts");
        for at in &read.positional {
            let text = self.words[*at].as_bytes();
            let options = match text.strip_prefix(b"json:") {
                Some(json) => Options::of_json(json),
                None if has_options => Some(Options::of_pairs(text, None)),
                None => None,
            };
            if let Some(options) = options {
                let place = Place {
                    word: *at,
                    option: "the image".to_owned(),
                };
                self.device_at(&options, &place);
            }
        }
    }

    fn add(&mut self, id: &str, consumer: Consumer, place: &Place) {
        self.uses.push(Use {
            secret_id: id.to_owned(),
            consumer,
            place: place.clone(),
        });
    }
}

/// A block device's options in either form, `file=json:{…}` included.
fn options(text: &[u8], implied: Option<&str>) -> Options {
    if text.first() == Some(&b'{') {
        return Options::of_json(text).unwrap_or_default();
    }
    let mut options = Options::of_pairs(text, implied);
    let nested = options
        .get("file")
        .and_then(|file| file.strip_prefix("json:"));
    if let Some(Ok(value)) = nested.map(serde_json::from_str::<Value>) {
        options.flatten("", &value);
    }
    options
}

/// What the secret whose id is the value of `key` is used for.
fn consumer_of(options: &Options, key: &str) -> Option<Consumer> {
    let (prefix, name) = match key.rfind('.') {
        Some(dot) => key.split_at(dot + 1),
        None => ("", key),
    };
    match name {
        "cookie-secret" => Some(Consumer::CurlCookie),
        "proxy-password-secret" => Some(Consumer::CurlProxyPassword),
        "password-secret" => match driver(options, prefix)? {
            "iscsi" => Some(Consumer::Iscsi),
            "rbd" => Some(Consumer::RbdKey),
            "http" | "https" | "ftp" | "ftps" => Some(Consumer::CurlPassword),
            _ => None,
        },
        "key-secret" => {
            let Some(node) = prefix.strip_suffix("encrypt.") else {
                return match driver(options, prefix) {
                    Some("rbd") => Some(Consumer::RbdKey),
                    Some("luks") | None => Some(Consumer::Luks),
                    Some(_) => None,
                };
            };
            let format = options.get(&format!("{prefix}format"));
            Some(match driver(options, node) {
                Some("rbd") => Consumer::RbdEncryption,
                Some("qcow") => Consumer::QcowAes,
                _ if format == Some("aes") => Consumer::QcowAes,
                _ => Consumer::Qcow2Luks,
            })
        }
        _ => None,
    }
}

/// The driver of the node whose options begin with `prefix`: said outright, or by the protocol
/// of its file name.
fn driver<'a>(options: &'a Options, prefix: &str) -> Option<&'a str> {
    let of = |name: &str| options.get(&format!("{prefix}{name}"));
    let named = of("driver").or_else(|| of("format").filter(|_| prefix.is_empty()));
    let file_name = || {
        let own = of("filename").or_else(|| of("uri")).or_else(|| of("url"));
        // The file node of a legacy drive is named by its parent's `file`.
        own.or_else(|| options.get("file").filter(|_| prefix == "file."))
            .or_else(|| options.get("file.filename").filter(|_| prefix.is_empty()))
            .or_else(|| options.get("file").filter(|_| prefix.is_empty()))
    };
    let protocol = || {
        let (protocol, _) = file_name()?.split_once(':')?;
        matches!(
            protocol,
            "rbd" | "iscsi" | "http" | "https" | "ftp" | "ftps"
        )
        .then_some(protocol)
    };
    match named {
        // `raw` passes the options of its file through.
        None | Some("raw") => protocol().or(named),
        named => named,
    }
}
