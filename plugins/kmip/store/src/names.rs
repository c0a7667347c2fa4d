//! Paths as the Names of objects.
//!
//! KMIP's texts are UTF-8, and not every server knows: PyKMIP takes a text of anything but ASCII for a
//! message that is none. So a name is ASCII: each byte of a path that is not, and `%`, stands in it
//! as `%XX`. References never need it.

use std::fmt::Write as _;

use keyhaul_core::{SecretPath, percent};

/// The name of the object of `path`, without the store's prefix.
pub(crate) fn of_path(path: &SecretPath) -> String {
    let mut name = String::with_capacity(path.as_str().len());
    for byte in path.as_str().bytes() {
        if byte.is_ascii() && byte != b'%' {
            name.push(char::from(byte));
        } else {
            // To a String that never fails.
            let _ = write!(name, "%{byte:02X}");
        }
    }
    name
}

/// A name of its own for the object of a turn, where its name is taken. No path has it.
pub(crate) fn apart(name: &str, turn: &str) -> String {
    format!("{name}%~{turn}")
}

/// The path whose object has this name; none for a name that no path has.
pub(crate) fn to_path(name: &str) -> Option<SecretPath> {
    let path = SecretPath::new(percent::decoded(name).ok()?).ok()?;
    // Else it would be listed, and not be found under that path.
    (of_path(&path) == name).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::turn::Turn;

    #[test]
    fn names_are_ascii_and_lead_back_to_their_paths() {
        for (path, name) in [
            ("web01/root-disk~next", "web01/root-disk~next"),
            ("r\u{f6}\u{f6}t", "r%C3%B6%C3%B6t"),
            ("100%", "100%25"),
            ("a%2Fb", "a%252Fb"),
            (" a b ", " a b "),
        ] {
            let path = SecretPath::new(path).expect("a path");
            assert_eq!(of_path(&path), name);
            assert_eq!(to_path(name), Some(path));
        }
    }

    #[test]
    fn names_that_no_path_has_are_nobodys() {
        for name in ["", "a//b", "100%", "%2f", "%41", "r\u{f6}t", "%ff", "a%00b"] {
            assert_eq!(to_path(name), None, "{name}");
        }
        assert_eq!(to_path(&apart("a", &Turn::default().to_string())), None);
    }
}
