//! From paths to file names and back, without loss.
//!
//! - Bytes that are not plain are percent-encoded, and so is a leading dot: hidden files are never
//!   secrets.
//! - In an encrypted store a secret's file ends in `.secret` and a folder never does: `a` and `a/b`
//!   can both be. In a clear-text one files are bare, and the folders below a scope end in `.d`.
//! - What is longer than a file name may be continues in a folder whose name ends in `%`, which no
//!   encoded byte does.

use keyhaul_core::SecretPath;

/// How a store names its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Naming {
    /// `SCOPE/FOLDER/NAME.secret`.
    Marked,
    /// `SCOPE/FOLDER.d/NAME`: the usual `SCOPE/NAME` as QEMU's users write it. Only a scope and a
    /// secret beside it cannot share a name.
    Bare,
}

/// What tells names of one kind from those of the other.
struct Style {
    /// Ends every name of this kind.
    suffix: &'static str,
    /// Ends no name of this kind.
    never: &'static str,
}

/// Where a secret is: folders to go through, and a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) folders: Vec<String>,
    pub(crate) file: String,
}

/// With the suffix, short of the 255 bytes that file systems allow.
const LONGEST: usize = 240;
const SECRET: &str = ".secret";
const FOLDER: &str = ".d";
const CONTINUED: char = '%';

impl Naming {
    /// Where `path` is.
    pub(crate) fn place(self, path: &SecretPath) -> Place {
        let mut folders = Vec::new();
        let mut segments = path.segments().peekable();
        let mut file = String::new();
        let mut depth = 0;
        while let Some(segment) = segments.next() {
            if segments.peek().is_some() {
                folders.extend(self.folder(segment, depth));
            } else {
                let mut names = self.file(segment);
                file = names.pop().unwrap_or_default();
                folders.append(&mut names);
            }
            depth += 1;
        }
        Place { folders, file }
    }

    /// The folders of a whole path.
    pub(crate) fn folders(self, path: &SecretPath) -> Vec<String> {
        let segments = path.segments().enumerate();
        segments
            .flat_map(|(depth, segment)| self.folder(segment, depth))
            .collect()
    }

    /// The segment whose folder, this deep below the base, has these names, one inside the other;
    /// none where this store would not name it so.
    pub(crate) fn folder_segment(self, names: &[String], depth: usize) -> Option<String> {
        self.folder_style(depth).segment(names)
    }

    /// The segment whose file has these names; none where this store would not name it so.
    pub(crate) fn file_segment(self, names: &[String]) -> Option<String> {
        self.file_style().segment(names)
    }

    fn folder(self, segment: &str, depth: usize) -> Vec<String> {
        self.folder_style(depth).names(segment)
    }

    fn file(self, segment: &str) -> Vec<String> {
        self.file_style().names(segment)
    }

    fn folder_style(self, depth: usize) -> Style {
        match (self, depth) {
            (Self::Marked, _) => Style::new("", SECRET),
            (Self::Bare, 0) => Style::new("", ""),
            (Self::Bare, _) => Style::new(FOLDER, ""),
        }
    }

    fn file_style(self) -> Style {
        match self {
            Self::Marked => Style::new(SECRET, ""),
            Self::Bare => Style::new("", FOLDER),
        }
    }
}

impl Style {
    const fn new(suffix: &'static str, never: &'static str) -> Self {
        Self { suffix, never }
    }

    /// The names, one inside the other, of a segment.
    fn names(&self, segment: &str) -> Vec<String> {
        let mut encoded = encode(segment);
        if !self.never.is_empty() && encoded.ends_with(self.never) {
            let dot = encoded.len() - self.never.len();
            encoded.replace_range(dot..=dot, "%2E");
        }
        let mut names = split(encoded);
        if let Some(last) = names.last_mut() {
            last.push_str(self.suffix);
        }
        names
    }

    /// The segment of these names; none where [`names`](Self::names) gives others.
    fn segment(&self, names: &[String]) -> Option<String> {
        let (last, before) = names.split_last()?;
        let mut encoded = String::new();
        for name in before {
            encoded.push_str(name.strip_suffix(CONTINUED)?);
        }
        encoded.push_str(last.strip_suffix(self.suffix)?);
        let segment = keyhaul_core::percent::decoded(&encoded).ok()?;
        (self.names(&segment) == names).then_some(segment)
    }
}

/// Whether the folder of this name continues a segment.
pub(crate) fn continues(name: &str) -> bool {
    name.ends_with(CONTINUED)
}

fn encode(segment: &str) -> String {
    let mut encoded = String::with_capacity(segment.len());
    for (index, byte) in segment.bytes().enumerate() {
        let plain = byte.is_ascii_alphanumeric()
            || matches!(byte, b'-' | b'_' | b'@' | b'~' | b'+' | b'=' | b',')
            || (byte == b'.' && index > 0);
        if plain {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// Cuts an encoded segment where a file name ends, never inside an encoded byte.
fn split(encoded: String) -> Vec<String> {
    let mut names = Vec::new();
    let mut rest = encoded.as_str();
    while rest.len() > LONGEST {
        let end = match rest[LONGEST - 2..LONGEST].find('%') {
            Some(found) => LONGEST - 2 + found,
            None => LONGEST,
        };
        names.push(format!("{}{CONTINUED}", &rest[..end]));
        rest = &rest[end..];
    }
    if names.is_empty() {
        return vec![encoded];
    }
    names.push(rest.to_owned());
    names
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn place(path: &str) -> Place {
        Naming::Marked.place(&SecretPath::new(path).expect(path))
    }

    #[test]
    fn plain_names_stay_readable() {
        let found = place("web01/luks/root-disk~next");
        assert_eq!(found.folders, ["web01", "luks"]);
        assert_eq!(found.file, "root-disk~next.secret");
        assert_eq!(place("@site/.x").file, "%2Ex.secret");
        assert_eq!(place("web 01/a%b").folders, ["web%2001"]);
        assert_eq!(place("x.secret/a").folders, ["x%2Esecret"]);
        let bare = |path: &str| Naming::Bare.place(&SecretPath::new(path).expect("valid"));
        let found = bare("web01.secret/vnc.pass");
        assert_eq!(found.folders, ["web01.secret"]);
        assert_eq!(found.file, "vnc.pass");
        assert_eq!(bare("web01/luks/root").folders, ["web01", "luks.d"]);
        assert_eq!(bare("web01.d/luks.d").folders, ["web01.d"]);
        assert_eq!(bare("web01.d/luks.d").file, "luks%2Ed");
    }

    #[test]
    fn every_segment_comes_back_and_no_two_share_a_name() {
        let segments = [
            "a".to_owned(),
            "A".into(),
            "a.secret".into(),
            ".secret".into(),
            "a%".into(),
            "%41".into(),
            "...".into(),
            "röt \u{1f511}".into(),
            "a\\b:*?\"<>|".into(),
            "b".repeat(240),
            "b".repeat(241),
            "b".repeat(1024),
            format!("{}ö", "b".repeat(238)),
            format!("{}ö", "b".repeat(239)),
            "ö".repeat(512),
            format!("{}.secret", "b".repeat(236)),
            "a.d".into(),
            "a.d.d".into(),
            format!("{}.d", "b".repeat(239)),
        ];
        for naming in [Naming::Marked, Naming::Bare] {
            let mut seen = HashSet::new();
            for segment in &segments {
                let (folder, file) = (naming.folder(segment, 1), naming.file(segment));
                assert_eq!(naming.folder_segment(&folder, 1).as_ref(), Some(segment));
                assert_eq!(naming.file_segment(&file).as_ref(), Some(segment));
                for name in folder.iter().chain(&file) {
                    assert!(!name.is_empty() && name.len() < 255 && !name.contains(['/', '\0']));
                }
                let (_, before) = folder.split_last().expect("at least one");
                assert!(before.iter().all(|name| continues(name)));
                assert!(seen.insert(folder.clone()), "{segment}: folder");
                assert!(seen.insert(file), "{segment}: file");
            }
        }
    }

    #[test]
    fn names_that_this_store_does_not_write_are_foreign() {
        for name in [
            "a",
            ".a.secret",
            "a b.secret",
            "%41.secret",
            "%2e.secret",
            "%zz.secret",
            "%FF.secret",
            "%",
        ] {
            assert_eq!(Naming::Marked.file_segment(&[name.into()]), None, "{name}");
        }
        assert_eq!(Naming::Marked.folder_segment(&["a.secret".into()], 1), None);
    }
}
