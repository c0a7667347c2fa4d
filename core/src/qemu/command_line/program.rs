//! Which program a command starts, and which of its words are options.
//!
//! The emulators and the tools spell options differently: `-opt VALUE` with one dash or two and a
//! table of their own, against getopt's short clusters, long options, `=` and abbreviations.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Which option syntax a command has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Program {
    /// `qemu-system-*`, `qemu-kvm` or `kvm`.
    System,
    /// `qemu-img`.
    Img,
    /// `qemu-io`.
    Io,
    /// `qemu-nbd`.
    Nbd,
    /// `qemu-storage-daemon`.
    StorageDaemon,
    /// None of them: a script of one's own, most likely.
    Unknown,
}

impl Program {
    /// The first word that is one of QEMU's programs; wrappers such as `sudo -u x` come before it.
    /// Without one, the first word.
    pub(super) fn find(words: &[OsString]) -> (Self, usize) {
        let found = words.iter().enumerate().find_map(|(at, word)| {
            // An assignment of `env`, or an option with a path in it, is no program.
            if word
                .as_bytes()
                .iter()
                .any(|byte| matches!(byte, b'=' | b','))
            {
                return None;
            }
            Self::of_name(Path::new(word).file_name()?).map(|program| (program, at))
        });
        found.unwrap_or((Self::Unknown, 0))
    }

    fn of_name(name: &OsStr) -> Option<Self> {
        match name.to_str()? {
            "qemu-img" => Some(Self::Img),
            "qemu-io" => Some(Self::Io),
            "qemu-nbd" => Some(Self::Nbd),
            "qemu-storage-daemon" => Some(Self::StorageDaemon),
            "kvm" | "qemu-kvm" => Some(Self::System),
            name if name.starts_with("qemu-system-") => Some(Self::System),
            _ => None,
        }
    }
}

/// An option with a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Opt {
    /// Its full name without dashes; of a short option of a tool, one letter.
    pub(super) name: String,
    /// The word it stands in.
    pub(super) at: usize,
    /// The word its value stands in.
    pub(super) value_at: usize,
    /// Where the value begins in that word.
    pub(super) offset: usize,
}

/// A command's words, told apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Words {
    pub(super) options: Vec<Opt>,
    /// Options without a value.
    pub(super) flags: Vec<String>,
    /// Words that are no options: images and subcommands.
    pub(super) positional: Vec<usize>,
}

impl Words {
    pub(super) fn read(program: Program, words: &[OsString], start: usize) -> Self {
        let mut read = Self::default();
        match program {
            Program::System => read.system(words, start + 1),
            Program::Unknown => read.unknown(words, start + 1),
            Program::Img => read.img(words, start + 1),
            Program::Io => read.getopt(words, start + 1, "cdfitT"),
            Program::Nbd => read.getopt(words, start + 1, "bcefklopxBDT"),
            Program::StorageDaemon => read.getopt(words, start + 1, "T"),
        }
        read
    }

    /// The value of the last option of this name.
    pub(super) fn value<'a>(&self, words: &'a [OsString], name: &str) -> Option<&'a [u8]> {
        let found = self.options.iter().rev().find(|opt| opt.name == name)?;
        Some(value_of(words, found))
    }

    pub(super) fn has_flag(&self, name: &str) -> bool {
        self.flags.iter().any(|flag| flag == name)
    }

    fn system(&mut self, words: &[OsString], mut at: usize) {
        while let Some(word) = words.get(at) {
            match system_name(word) {
                None => self.positional.push(at),
                Some(name) if SYSTEM_WITH_VALUE.binary_search(&name).is_ok() => {
                    self.take_next(words, name, at);
                    at += 1;
                }
                Some(name) => self.flags.push(name.to_owned()),
            }
            at += 1;
        }
    }

    /// Of a program that is not known, only the options that matter here are read.
    fn unknown(&mut self, words: &[OsString], mut at: usize) {
        while let Some(word) = words.get(at) {
            let name = system_name(word);
            if let Some(name) = name.filter(|name| KNOWN_ANYWHERE.contains(name)) {
                self.take_next(words, name, at);
                at += 1;
            } else if word.as_bytes().starts_with(b"--object=") {
                self.push("object", at, at, b"--object=".len());
            }
            at += 1;
        }
    }

    fn img(&mut self, words: &[OsString], start: usize) {
        let mut at = start;
        // Options before the subcommand; of these, only -T has a value.
        while let Some(word) = words.get(at) {
            match word.as_bytes() {
                b"-T" | b"--trace" => at += 1,
                [b'-', ..] => {}
                _ => break,
            }
            at += 1;
        }
        let Some(subcommand) = words.get(at) else {
            return;
        };
        self.positional.push(at);
        let found = IMG_WITH_VALUE.iter().find(|(name, _)| subcommand == name);
        let letters = found.map_or("", |(_, letters)| letters);
        self.getopt(words, at + 1, letters);
    }

    /// Reads words as getopt_long does: options and other words mixed, until `--`.
    fn getopt(&mut self, words: &[OsString], mut at: usize, letters: &str) {
        while let Some(word) = words.get(at) {
            match word.as_bytes() {
                b"--" => {
                    self.positional.extend(at + 1..words.len());
                    return;
                }
                [b'-', b'-', long @ ..] => at += self.long(words, at, long),
                [b'-', cluster @ ..] if !cluster.is_empty() => {
                    at += self.short(words, at, cluster, letters);
                }
                _ => self.positional.push(at),
            }
            at += 1;
        }
    }

    /// Reads `--name`, `--name=value` or `--name value`; gives how many more words it took.
    fn long(&mut self, words: &[OsString], at: usize, long: &[u8]) -> usize {
        let name_end = long.iter().position(|b| *b == b'=').unwrap_or(long.len());
        let Ok(given) = std::str::from_utf8(&long[..name_end]) else {
            return 0;
        };
        let mut matching = TOOL_LONG_WITH_VALUE
            .iter()
            .filter(|name| name.starts_with(given));
        let name = match (TOOL_LONG_WITH_VALUE.contains(&given), matching.next()) {
            (true, _) => given,
            // An abbreviation of exactly one. `--o` alone is several tools' several options.
            (false, Some(only)) if matching.next().is_none() && given.len() > 1 => only,
            _ => {
                self.flags.push(given.to_owned());
                return 0;
            }
        };
        if name_end < long.len() {
            self.push(name, at, at, 2 + name_end + 1);
            return 0;
        }
        self.take_next(words, name, at);
        1
    }

    /// Reads `-abc VALUE` or `-abcVALUE`; gives how many more words it took.
    fn short(&mut self, words: &[OsString], at: usize, cluster: &[u8], letters: &str) -> usize {
        for (index, letter) in cluster.iter().enumerate() {
            let name = char::from(*letter).to_string();
            if !letters.as_bytes().contains(letter) {
                self.flags.push(name);
            } else if index + 1 < cluster.len() {
                self.push(&name, at, at, 1 + index + 1);
                return 0;
            } else {
                self.take_next(words, &name, at);
                return 1;
            }
        }
        0
    }

    fn take_next(&mut self, words: &[OsString], name: &str, at: usize) {
        if at + 1 < words.len() {
            self.push(name, at, at + 1, 0);
        }
    }

    fn push(&mut self, name: &str, at: usize, value_at: usize, offset: usize) {
        self.options.push(Opt {
            name: name.to_owned(),
            at,
            value_at,
            offset,
        });
    }
}

/// An option's value.
pub(super) fn value_of<'a>(words: &'a [OsString], opt: &Opt) -> &'a [u8] {
    &words[opt.value_at].as_bytes()[opt.offset..]
}

/// The name of an option with one dash or two.
fn system_name(word: &OsStr) -> Option<&str> {
    let word = word.to_str()?.strip_prefix('-')?;
    Some(word.strip_prefix('-').unwrap_or(word)).filter(|name| !name.is_empty())
}

/// Options of interest in the words of a program that is not known.
const KNOWN_ANYWHERE: &[&str] = &[
    "blockdev", "display", "drive", "iscsi", "object", "spice", "vnc",
];

/// The emulators' options with a value, of all targets and versions up to 10.2, in byte order.
const SYSTEM_WITH_VALUE: &[&str] = &[
    "D",
    "L",
    "M",
    "accel",
    "acpitable",
    "action",
    "add-fd",
    "alt",
    "append",
    "audio",
    "audiodev",
    "bios",
    "blockdev",
    "boot",
    "bt",
    "cdrom",
    "chardev",
    "chroot",
    "clock",
    "compat",
    "cpu",
    "d",
    "debugcon",
    "device",
    "dfilter",
    "display",
    "drive",
    "dtb",
    "dump-vmstate",
    "echr",
    "fda",
    "fdb",
    "fsdev",
    "fw_cfg",
    "g",
    "gdb",
    "global",
    "hda",
    "hdb",
    "hdc",
    "hdd",
    "icount",
    "incoming",
    "initrd",
    "iscsi",
    "k",
    "kernel",
    "loadvm",
    "m",
    "machine",
    "mem-path",
    "mon",
    "monitor",
    "msg",
    "mtdblock",
    "name",
    "net",
    "netdev",
    "nic",
    "numa",
    "object",
    "option-rom",
    "overcommit",
    "parallel",
    "pflash",
    "pidfile",
    "plugin",
    "prom-env",
    "qmp",
    "qmp-pretty",
    "qtest",
    "qtest-log",
    "readconfig",
    "redir",
    "rotate",
    "rtc",
    "run-with",
    "runas",
    "sandbox",
    "sd",
    "seed",
    "semihosting-config",
    "serial",
    "set",
    "shim",
    "smbios",
    "smp",
    "soundhw",
    "spice",
    "tb-size",
    "tpmdev",
    "trace",
    "usbdevice",
    "uuid",
    "vga",
    "virtfs",
    "vnc",
    "watchdog",
    "watchdog-action",
    "writeconfig",
    "xen-domid",
];

/// qemu-img's subcommands, and each one's short options with a value.
const IMG_WITH_VALUE: &[(&str, &str)] = &[
    ("amend", "fot"),
    ("bench", "cdfiostS"),
    ("bitmap", "bfgF"),
    ("check", "frT"),
    ("commit", "bfrt"),
    ("compare", "fFT"),
    ("convert", "flmortBFOST"),
    ("create", "bfoF"),
    ("dd", "fO"),
    ("info", "f"),
    ("map", "fls"),
    ("measure", "floO"),
    ("rebase", "bftFT"),
    ("resize", "f"),
    ("snapshot", "acd"),
];

/// The tools' long options with a value. No name has one in one tool and none in another.
const TOOL_LONG_WITH_VALUE: &[&str] = &[
    "aio",
    "backing-format",
    "bind",
    "bitmap",
    "blockdev",
    "cache",
    "chardev",
    "cmd",
    "connect",
    "description",
    "detect-zeroes",
    "discard",
    "export",
    "export-name",
    "flush-interval",
    "format",
    "granularity",
    "handshake-limit",
    "load-snapshot",
    "max-length",
    "merge",
    "monitor",
    "nbd-server",
    "object",
    "offset",
    "options",
    "output",
    "pattern",
    "pid-file",
    "pidfile",
    "port",
    "preallocation",
    "selinux-label",
    "shared",
    "size",
    "socket",
    "source-file",
    "source-format",
    "start-offset",
    "target-format",
    "target-options",
    "tls-authz",
    "tls-creds",
    "tls-hostname",
    "trace",
];
