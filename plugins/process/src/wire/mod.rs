//! The protocol's words: one JSON object a line, version 1.
//!
//! Both ends are told in `docs/plugin-process.md`, whose examples a test reads. A value is in a line
//! as base64, or from a plugin as text; it is read straight into locked memory, since serde_json only
//! finds where it stands.

mod answer;
mod hello;
mod known;
mod request;

pub(crate) use answer::{Answer, Reply};
pub(crate) use hello::{Declared, Hello};
pub(crate) use request::{Line, Wants, cancel, hello};

/// The version of the protocol.
pub(crate) const VERSION: u64 = 1;

/// The longest value that goes through, whatever a plugin says.
pub(crate) const MAX_VALUE: usize = 1024 * 1024;

/// The longest value where a plugin does not say.
pub(crate) const DEFAULT_MAX_VALUE: usize = 64 * 1024;

/// The most entries of a page.
pub(crate) const LONGEST_PAGE: usize = 500;

/// What a line may have besides a value: metadata, or a page of a listing.
const BESIDES: usize = 1024 * 1024;

/// The longest first line of a plugin.
pub(crate) const MAX_HELLO: usize = 64 * 1024;

/// The longest line of a plugin whose values have at most `max_value` bytes.
pub(crate) fn longest_line(max_value: usize) -> usize {
    // As text, each byte can be an escape of six.
    max_value * 6 + BESIDES
}

#[cfg(test)]
mod tests {
    use keyhaul_core::registry::Options;

    use super::*;

    /// The objects among the document's listings.
    fn listings() -> Vec<String> {
        let page = include_str!("../../../../docs/plugin-process.md");
        let blocks = page.split("```json\n").skip(1);
        let blocks = blocks.map(|block| block.split("```").next().expect("an end"));
        let joined: String = blocks.map(|block| block.replace("\n ", "")).collect();
        joined.lines().map(str::to_owned).collect()
    }

    #[test]
    fn the_documents_examples_are_what_is_spoken() {
        let listings = listings();
        let options = [
            ("server", "odd.example.com"),
            ("pin", "file:/etc/keyhaul/odd-pin"),
        ];
        let ours = hello("odd", Some(&Options::at("", options)));
        let json = |text: &[u8]| serde_json::from_slice::<serde_json::Value>(text).expect("JSON");
        assert_eq!(json(ours.expose()), json(listings[0].as_bytes()));
        let theirs = Hello::parse(listings[1].as_bytes()).expect("a hello");
        assert_eq!((theirs.batch, theirs.options.len()), (Some(100), 2));
        assert_eq!(theirs.capabilities.can.iter().count(), 3);
        let answers: Vec<_> = listings[2..]
            .iter()
            .filter(|line| line.starts_with("{\"id\":7,") && !line.contains("\"do\""))
            .collect();
        assert_eq!(answers.len(), 3);
        for (line, good) in answers.iter().zip([true, true, false]) {
            let reply = Answer::parse(line.as_bytes()).expect("an answer").reply(
                Wants::Value,
                MAX_VALUE,
                |words| String::from_utf8_lossy(words).into_owned(),
            );
            assert_eq!(
                reply.is_ok_and(|reply| reply.value.is_some()),
                good,
                "{line}"
            );
        }
        assert!(listings.contains(&"{\"cancel\":7}".to_owned()));
        let value = keyhaul_core::SecretBytes::copy_from(b"hunter2");
        let line = Line::new("credential")
            .text("option", "pin")
            .finish(1, Some(&value))
            .expect("encodes");
        let line = std::str::from_utf8(line.expose()).expect("text");
        assert!(listings.contains(&line.trim_end().to_owned()), "{line}");
    }
}
