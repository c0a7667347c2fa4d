//! What a consumer can do with a value: refused before QEMU starts where it cannot work, warned
//! of where it silently weakens.
//!
//! No finding says more of a value than which rule it breaks.

use std::borrow::Cow;
use std::ffi::OsString;
use std::time::SystemTime;

use base64ct::{Base64, Encoding};

use super::objects::place;
use super::program::{Words, value_of};
use super::{Consumer, Place};
use crate::SecretBytes;
use crate::qemu::option::Options;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// It works, and not as well as one would think. An error with `--strict`.
    Warning,
    /// It cannot work.
    Error,
}

/// Something wrong with a value, or with the command itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Who cannot use the value, or not well; none for the command itself.
    pub consumer: Option<Consumer>,
    /// Where, for the command itself.
    pub place: Option<Place>,
    /// What is wrong, as a sentence without an end.
    pub rule: Cow<'static, str>,
    /// What to do.
    pub advice: Cow<'static, str>,
}

/// VNC's DES key.
const VNC_BYTES: usize = 8;
/// What is left of SPICE's 60-byte buffer.
const SPICE_BYTES: usize = 59;
/// The longest CHAP secret that targets agree on.
const ISCSI_BYTES: usize = 255;
/// An AES-128 key.
const QCOW_BYTES: usize = 16;
/// An AES-256 key.
const SECRET_KEY_BYTES: usize = 32;

/// Checks a value against the rules of who uses it.
pub fn check(consumer: Consumer, value: &SecretBytes) -> Vec<Finding> {
    let bytes = value.expose();
    let mut found = Findings {
        consumer,
        found: Vec::new(),
    };
    if !takes_any_bytes(consumer) {
        found.text(bytes);
    }
    match consumer {
        Consumer::CurlCookie if bytes.ends_with(b"\n") => found.error(
            "it ends in a newline, which breaks the HTTP header",
            "store it without, or set `encoding = \"text\"` in its route",
        ),
        Consumer::Iscsi if bytes.len() > ISCSI_BYTES => found.error(
            "it has more than 255 bytes, which targets refuse",
            "set a shorter CHAP secret on the target and in the store",
        ),
        Consumer::QcowAes => found.qcow_aes(bytes),
        Consumer::RbdKey => found.rbd_key(bytes),
        Consumer::SecretKey if bytes.len() != SECRET_KEY_BYTES => found.error(
            "it has not 32 bytes, as an AES-256 key has",
            "store the raw key, or set `encoding = \"base64\"` in its route",
        ),
        Consumer::Spice if bytes.len() > SPICE_BYTES => found.error(
            "it has more than 59 bytes: QEMU starts, and nobody can log in",
            "store one of at most 59 bytes",
        ),
        Consumer::Vnc if bytes.len() > VNC_BYTES => found.warning(
            "only its first 8 bytes count, as the VNC protocol has it",
            "do not rely on it alone: bind VNC to a private address, or use TLS and SASL",
        ),
        _ => {}
    }
    let has_newline_rule = matches!(
        consumer,
        Consumer::CurlCookie | Consumer::RbdKey | Consumer::SecretKey
    );
    if bytes.ends_with(b"\n") && !has_newline_rule {
        found.warning(
            "it ends in a newline, which is part of it",
            "if that is an editor's, set `encoding = \"text\"` in its route, or store it without",
        );
    }
    if bytes.is_empty() && !matches!(consumer, Consumer::RbdKey | Consumer::SecretKey) {
        found.warning(
            "it is empty, and protects nothing",
            "store one: keyhaul generate",
        );
    }
    found.found
}

/// Checks whether a secret that expires at `expires` can serve a consumer.
pub fn check_expiry(consumer: Consumer, expires: SystemTime) -> Option<Finding> {
    if !consumer.is_disk_encryption() {
        return None;
    }
    let when = jiff::Timestamp::try_from(expires)
        .map_or_else(|_| "a time to come".to_owned(), |at| format!("{at:.0}"));
    Some(Finding {
        severity: Severity::Warning,
        consumer: Some(consumer),
        place: None,
        rule: format!("it expires at {when}, and the volume cannot be opened from then on").into(),
        advice: "store the passphrase of a volume without an expiry, and rotate it instead".into(),
    })
}

/// A value in the clear in the command itself.
pub(super) fn plain_secret(place: &Place, options: &Options) -> Option<Finding> {
    let is_plain = options.get("data").is_some() && options.get("keyid").is_none();
    is_plain.then(|| plain(place.clone(), "data"))
}

/// Passwords in the clear in other options than objects.
pub(super) fn plain_options<'a>(
    words: &'a [OsString],
    read: &'a Words,
) -> impl Iterator<Item = Finding> + 'a {
    let with_password = read
        .options
        .iter()
        .filter(|opt| matches!(opt.name.as_str(), "iscsi" | "spice"));
    with_password.filter_map(|opt| {
        let options = Options::of_pairs(value_of(words, opt), None);
        let key = ["password", "x509-key-password"]
            .into_iter()
            .find(|key| options.get(key).is_some())?;
        Some(plain(place(words, opt), key))
    })
}

fn plain(place: Place, key: &str) -> Finding {
    Finding {
        severity: Severity::Warning,
        consumer: None,
        place: Some(place),
        rule: format!("`{key}=` is in the clear, and every user of the host can read arguments")
            .into(),
        advice: "keep it in a store, and write -object secret,id=…,ref=SCOPE/NAME".into(),
    }
}

/// Whether QEMU hands the value on as bytes. All others ask for text.
fn takes_any_bytes(consumer: Consumer) -> bool {
    matches!(
        consumer,
        Consumer::RbdEncryption | Consumer::RbdKey | Consumer::SecretKey
    )
}

struct Findings {
    consumer: Consumer,
    found: Vec<Finding>,
}

impl Findings {
    fn text(&mut self, bytes: &[u8]) {
        let advice = if self.consumer.is_disk_encryption() {
            "QEMU cannot open volumes with a binary key: add a passphrase to the volume, as text"
        } else {
            "store text; for base64 or hex, say so by `encoding` in its route"
        };
        if bytes.contains(&0) {
            self.error("it has a NUL byte, where QEMU asks for text", advice);
        } else if std::str::from_utf8(bytes).is_err() {
            self.error("it is not UTF-8, where QEMU asks for text", advice);
        }
    }

    fn qcow_aes(&mut self, bytes: &[u8]) {
        self.warning(
            "the format checks no password: a wrong one opens the image and reads garbage",
            "convert the image: qemu-img convert -O qcow2 -o encrypt.format=luks,…",
        );
        if bytes.len() > QCOW_BYTES {
            self.warning("only its first 16 bytes count", "convert the image to LUKS");
        }
    }

    /// librados takes base64, and QEMU makes it: it wants the decoded key.
    fn rbd_key(&mut self, bytes: &[u8]) {
        if is_ceph_key(bytes) {
            return;
        }
        if decodes_to_ceph_key(bytes) {
            self.error(
                "it is the key's base64 text, and QEMU wants the decoded key",
                "set `encoding = \"base64\"` in its route",
            );
        } else {
            self.error(
                "it is no Ceph key",
                "store what `ceph auth get-key` prints, with `encoding = \"base64\"` in its route",
            );
        }
    }

    fn error(&mut self, rule: &'static str, advice: &'static str) {
        self.add(Severity::Error, rule, advice);
    }

    fn warning(&mut self, rule: &'static str, advice: &'static str) {
        self.add(Severity::Warning, rule, advice);
    }

    fn add(&mut self, severity: Severity, rule: &'static str, advice: &'static str) {
        self.found.push(Finding {
            severity,
            consumer: Some(self.consumer),
            place: None,
            rule: rule.into(),
            advice: advice.into(),
        });
    }
}

/// A cephx key as Ceph encodes it: type, time of creation, and the key after its length, all
/// little-endian.
fn is_ceph_key(bytes: &[u8]) -> bool {
    const HEAD: usize = 2 + 8 + 2;
    let Some((head, key)) = bytes.split_at_checked(HEAD) else {
        return false;
    };
    !key.is_empty() && usize::from(u16::from_le_bytes([head[10], head[11]])) == key.len()
}

fn decodes_to_ceph_key(bytes: &[u8]) -> bool {
    let text = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    // Three bytes for four letters, and the padding's too many.
    let mut decoded = SecretBytes::init_with(text.len() / 4 * 3, |_| {});
    Base64::decode(text, decoded.expose_mut()).is_ok_and(is_ceph_key)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn found(consumer: Consumer, value: &[u8]) -> Vec<(Severity, String)> {
        let findings = check(consumer, &SecretBytes::copy_from(value));
        findings
            .into_iter()
            .map(|finding| (finding.severity, finding.rule.into_owned()))
            .collect()
    }

    fn assert_found(consumer: Consumer, value: &[u8], severity: Severity, rule: &str) {
        let found = found(consumer, value);
        assert!(
            found
                .iter()
                .any(|(s, r)| *s == severity && r.contains(rule)),
            "{consumer}: {rule}: {found:?}"
        );
    }

    const ALL: [Consumer; 13] = [
        Consumer::CurlCookie,
        Consumer::CurlPassword,
        Consumer::CurlProxyPassword,
        Consumer::Iscsi,
        Consumer::Luks,
        Consumer::Qcow2Luks,
        Consumer::QcowAes,
        Consumer::RbdEncryption,
        Consumer::RbdKey,
        Consumer::SecretKey,
        Consumer::Spice,
        Consumer::TlsKey,
        Consumer::Vnc,
    ];

    #[test]
    fn an_ordinary_password_passes() {
        for consumer in ALL {
            let fine = found(consumer, b"hunter2");
            match consumer {
                Consumer::QcowAes => assert_eq!(fine.len(), 1),
                Consumer::RbdKey | Consumer::SecretKey => assert_eq!(fine[0].0, Severity::Error),
                _ => assert_eq!(fine, [], "{consumer}"),
            }
        }
    }

    #[test]
    fn limits_are_exact() {
        assert_eq!(found(Consumer::Vnc, &[b'a'; 8]), []);
        assert_found(Consumer::Vnc, &[b'a'; 9], Severity::Warning, "8 bytes");
        assert_eq!(found(Consumer::Spice, &[b'a'; 59]), []);
        assert_found(Consumer::Spice, &[b'a'; 60], Severity::Error, "59 bytes");
        assert_eq!(found(Consumer::Iscsi, &[b'a'; 255]), []);
        assert_found(Consumer::Iscsi, &[b'a'; 256], Severity::Error, "255 bytes");
        assert_eq!(found(Consumer::QcowAes, &[b'a'; 16]).len(), 1);
        assert_found(
            Consumer::QcowAes,
            &[b'a'; 17],
            Severity::Warning,
            "16 bytes",
        );
        assert_eq!(found(Consumer::SecretKey, &[0xff; 32]), []);
        assert_found(Consumer::SecretKey, &[0; 31], Severity::Error, "32 bytes");
    }

    #[test]
    fn text_is_asked_for_where_qemu_does() {
        for consumer in ALL {
            let raw = takes_any_bytes(consumer);
            for value in [b"a\0b".as_slice(), b"\xff\xfe"] {
                let errors = found(consumer, value)
                    .into_iter()
                    .any(|(_, rule)| rule.contains("asks for text"));
                assert_eq!(errors, !raw, "{consumer}");
            }
        }
        assert_eq!(found(Consumer::RbdEncryption, b"\0\xff"), []);
    }

    #[test]
    fn newlines_and_nothing_are_noticed() {
        assert_found(Consumer::Luks, b"a\n", Severity::Warning, "newline");
        assert_found(Consumer::CurlCookie, b"a=b\n", Severity::Error, "newline");
        assert_found(Consumer::Vnc, b"", Severity::Warning, "empty");
        assert_found(Consumer::Luks, b"", Severity::Warning, "empty");
    }

    /// The key is a made-up one, encoded by the rules of Ceph's CryptoKey.
    #[test]
    fn ceph_keys_are_told_from_their_text() {
        let mut key = vec![1, 0];
        key.extend(1_700_000_000_u32.to_le_bytes());
        key.extend([0; 4]);
        key.extend([16, 0]);
        key.extend([0xa5; 16]);
        assert_eq!(found(Consumer::RbdKey, &key), []);
        let text = Base64::encode_string(&key);
        assert_eq!(text.len(), 40);
        assert_found(
            Consumer::RbdKey,
            text.as_bytes(),
            Severity::Error,
            "base64 text",
        );
        let line = format!("{text}\n");
        assert_found(
            Consumer::RbdKey,
            line.as_bytes(),
            Severity::Error,
            "base64 text",
        );
        assert_found(Consumer::RbdKey, &key[..27], Severity::Error, "no Ceph key");
        assert_found(Consumer::RbdKey, b"", Severity::Error, "no Ceph key");
    }

    #[test]
    fn only_disks_suffer_from_an_expiry() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_893_456_000);
        let finding = check_expiry(Consumer::Luks, at).expect("a warning");
        assert!(finding.rule.contains("2030-01-01T00:00:00Z"), "{finding:?}");
        assert_eq!(finding.severity, Severity::Warning);
        assert_eq!(check_expiry(Consumer::Vnc, at), None);
    }
}
