//! From paths to credential names and back, without loss.
//!
//! systemd's names are file names of at most 255 bytes, of ASCII, without `/` and `:`. A name that
//! begins with a dot is none of ours: such files are writes in progress.

use keyhaul_core::{Error, ErrorKind, Result, SecretPath, percent};

/// systemd's `CREDENTIAL_NAME_MAX`.
const MOST: usize = 255;

/// The credential's name, which is its file's.
///
/// # Errors
/// `InvalidReference` where it would be too long for systemd.
pub(crate) fn name(path: &SecretPath) -> Result<String> {
    let mut name = String::with_capacity(path.as_str().len());
    for (index, byte) in path.as_str().bytes().enumerate() {
        let plain = byte.is_ascii_alphanumeric()
            || matches!(byte, b'-' | b'_' | b'@' | b'~' | b'+' | b'=' | b',')
            || (byte == b'.' && index > 0);
        if plain {
            name.push(char::from(byte));
        } else {
            name.push_str(&format!("%{byte:02X}"));
        }
    }
    if name.len() > MOST {
        return Err(Error::new(
            ErrorKind::InvalidReference,
            format!(
                "the name of a credential has at most {MOST} bytes, and this path's would have {}",
                name.len()
            ),
        )
        .with_advice("each byte that is no letter, digit or one of -_.@~+=, takes three"));
    }
    Ok(name)
}

/// The path of a credential's name; none where this store would name none so.
pub(crate) fn path(name_of_file: &str) -> Option<SecretPath> {
    let path = SecretPath::new(percent::decoded(name_of_file).ok()?).ok()?;
    (name(&path).ok()? == name_of_file).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_as_paths_do_and_come_back() {
        let cases = [
            ("network.wireguard", "network.wireguard"),
            ("web01/root-disk~next", "web01%2Froot-disk~next"),
            ("@site/a", "@site%2Fa"),
            (".hidden", "%2Ehidden"),
            ("a/.b", "a%2F.b"),
            ("a%2Fb", "a%252Fb"),
            ("a:b", "a%3Ab"),
            ("röt", "r%C3%B6t"),
        ];
        for (text, expected) in cases {
            let there = SecretPath::new(text).expect(text);
            assert_eq!(name(&there).expect(text), expected);
            assert_eq!(path(expected), Some(there));
        }
    }

    #[test]
    fn the_longest_name_is_systemds() {
        let of = |text: String| name(&SecretPath::new(text).expect("a path"));
        assert_eq!(of("x".repeat(255)).expect("fits").len(), 255);
        for text in ["x".repeat(256), "ö".repeat(43)] {
            let error = of(text).expect_err("too long");
            assert_eq!(error.kind(), ErrorKind::InvalidReference);
        }
    }

    #[test]
    fn names_that_this_store_does_not_write_are_foreign() {
        for foreign in [
            ".tmp-1", "a b", "%41", "%2f", "%zz", "%FF", "a%2F", "%", "a:b",
        ] {
            assert_eq!(path(foreign), None, "{foreign}");
        }
    }
}
