//! The rules that a library is held to, one after another, before it is a plugin.

use std::fmt;

use keyhaul_core::Error;

/// What is asked of a library, in the order in which it is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Rule {
    /// Its path is absolute.
    Absolute,
    /// No folder above it is missing, a link, or another's to write.
    Folders,
    /// It is a regular file and no link, and nobody else's to write.
    File,
    /// It is not too long, and can be copied into memory.
    Copied,
    /// It has the digest that the policy pins, where it does.
    Pin,
    /// The system's linker loads it.
    Loads,
    /// It exports the entry.
    Entry,
    /// It takes this host for one that it knows.
    Accepts,
    /// Its table is of this version of the interface.
    Interface,
    /// Its table has the functions that each plugin has, texts that can be read, and a name for
    /// everything.
    Table,
}

impl Rule {
    /// Every rule, in order.
    pub const ALL: [Self; 10] = [
        Self::Absolute,
        Self::Folders,
        Self::File,
        Self::Copied,
        Self::Pin,
        Self::Loads,
        Self::Entry,
        Self::Accepts,
        Self::Interface,
        Self::Table,
    ];

    /// The rule as a sentence.
    pub fn words(self) -> &'static str {
        match self {
            Self::Absolute => "its path is absolute",
            Self::Folders => {
                "every folder above it is root's or ours, is no link, and nobody else can write it"
            }
            Self::File => {
                "it is a regular file, root's or ours, is no link, and nobody else can write it"
            }
            Self::Copied => "it has at most 256 MiB, and can be copied into memory",
            Self::Pin => "its SHA-256 is the one that is pinned, where one is",
            Self::Loads => "it is a library that the system's linker loads",
            Self::Entry => "it exports keyhaul_plugin_entry",
            Self::Accepts => "it takes this keyhaul for one that it knows",
            Self::Interface => "its table is of version 1 of the interface",
            Self::Table => {
                "its table has open, close and capabilities, can be read, and names the plugin and each option"
            }
        }
    }

    /// The rules before this one.
    pub(crate) fn passed(self) -> Vec<Self> {
        let before = Self::ALL.into_iter().take_while(|rule| *rule < self);
        before.collect()
    }

    /// This rule, as what refuses a library.
    pub(crate) fn broken(self, error: Error) -> Broken {
        Broken { rule: self, error }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words())
    }
}

/// Why a library is refused: the first rule that it breaks, and how.
#[derive(Debug)]
pub(crate) struct Broken {
    pub(crate) rule: Rule,
    pub(crate) error: Error,
}

impl Broken {
    /// The same, for somebody else who asks.
    pub(crate) fn duplicate(&self) -> Self {
        self.rule.broken(self.error.duplicate())
    }
}

impl From<Broken> for Error {
    fn from(broken: Broken) -> Self {
        broken.error
    }
}
