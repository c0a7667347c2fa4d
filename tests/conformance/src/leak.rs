//! Looking for values where none may be.

use base64ct::Encoding as _;
use keyhaul_core::{Error, SecretBytes, random};

/// A value that is recognised wherever a piece of it shows up.
pub(crate) struct Canary {
    forms: Vec<(&'static str, String)>,
}

impl Canary {
    /// A fresh value, and what it looks like when it leaks.
    pub(crate) fn new() -> (SecretBytes, Self) {
        let text = format!("canary{}", random::hex(18).expect("randomness"));
        let value = SecretBytes::copy_from(text.as_bytes());
        (value, Self::of(text.as_bytes()))
    }

    fn of(value: &[u8]) -> Self {
        // The first half is proof enough, and found where an error cuts a value short.
        let half = &value[..24];
        let decimals: Vec<_> = half[..8].iter().map(u8::to_string).collect();
        Self {
            forms: vec![
                ("as it is", String::from_utf8_lossy(half).into_owned()),
                ("in hex", base16ct::lower::encode_string(half)),
                ("in base64", base64ct::Base64::encode_string(half)),
                ("as a list of bytes", decimals.join(", ")),
            ],
        }
    }

    /// How the value shows up in `text`, if it does.
    pub(crate) fn found_in(&self, text: &str) -> Option<&'static str> {
        self.forms
            .iter()
            .find(|(_, form)| text.contains(form.as_str()))
            .map(|(how, _)| *how)
    }
}

/// Everything that an error could print.
pub(crate) fn all_of(error: &Error) -> String {
    let mut text = format!(
        "{error} {error:?} {:?} {:?}",
        error.advice(),
        error.context()
    );
    let mut next = std::error::Error::source(error);
    while let Some(source) = next {
        text.push_str(&format!(" {source} {source:?}"));
        next = source.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use keyhaul_core::ErrorKind;

    use super::*;

    #[test]
    fn a_value_is_found_in_each_form_and_nowhere_else() {
        let value = b"canary0123456789abcdef0123456789";
        let canary = Canary::of(value);
        let source = std::io::Error::other("Y2FuYXJ5MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODk=");
        let error = Error::new(ErrorKind::Internal, "x").with_source(source);
        assert_eq!(canary.found_in(&all_of(&error)), Some("in base64"));
        let hex = "0x63616e6172793031323334353637383961626364656630313233";
        assert_eq!(canary.found_in(hex), Some("in hex"));
        assert_eq!(
            canary.found_in(&format!("{:?}", value)),
            Some("as a list of bytes")
        );
        assert_eq!(
            canary.found_in("got `canary0123456789abcdef01` …"),
            Some("as it is")
        );
        assert_eq!(canary.found_in("canary"), None);
    }
}
