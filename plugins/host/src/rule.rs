//! The rules that a library is held to, one after another, before it is a plugin.

use std::fmt;

/// What is asked of a library, in the order in which it is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rule {
    /// Its path is absolute.
    Absolute,
    /// No folder above it is a link or another's to write.
    Folders,
    /// It is a regular file, and nobody else's to write.
    File,
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
    /// Its table has the functions that each plugin has, and texts and options that can be read.
    Table,
}

impl Rule {
    /// Every rule, in order.
    pub const ALL: [Self; 9] = [
        Self::Absolute,
        Self::Folders,
        Self::File,
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
            Self::File => "it is a regular file, root's or ours, and nobody else can write it",
            Self::Pin => "its SHA-256 is the one that is pinned, where one is",
            Self::Loads => "it is a library that the system's linker loads",
            Self::Entry => "it exports keyhaul_plugin_entry",
            Self::Accepts => "it takes this keyhaul for one that it knows",
            Self::Interface => "its table is of version 1 of the interface",
            Self::Table => "its table has open, close and capabilities, and can be read",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words())
    }
}
