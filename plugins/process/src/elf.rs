//! Whether a file is a shared library: it can be executed often, and then only crashes.

use std::fs::File;

use object::Endianness;
use object::elf::{
    DF_1_PIE, DT_FLAGS_1, ET_DYN, FileHeader32, FileHeader64, PN_XNUM, PT_DYNAMIC, PT_INTERP,
};
use object::read::elf::{Dyn as _, FileHeader, ProgramHeader as _};
use object::read::{FileKind, ReadCache, ReadRef};

/// A dynamic section has some dozens of entries of 16 bytes.
const LONGEST: u64 = 64 * 1024;

/// Whether `file` is an ELF shared library, of this machine or another.
///
/// A program that can be loaded anywhere is of the same type; it asks for an interpreter, or, where it is
/// linked statically, says that it is one. The dynamic loader itself does neither. One that is damaged
/// is a library: who loads it says what is wrong.
pub fn is_library(file: &File) -> bool {
    let file = ReadCache::new(file);
    match FileKind::parse(&file) {
        Ok(FileKind::Elf32) => is_shared::<FileHeader32<Endianness>>(&file),
        Ok(FileKind::Elf64) => is_shared::<FileHeader64<Endianness>>(&file),
        _ => false,
    }
}

fn is_shared<'a, Header>(file: impl ReadRef<'a>) -> bool
where
    Header: FileHeader<Endian = Endianness>,
{
    let dynamic = Header::parse(file).and_then(|header| {
        let endian = header.endian()?;
        Ok((header.e_type(endian) == ET_DYN).then_some((header, endian)))
    });
    match dynamic {
        Ok(Some((header, endian))) => !is_program(file, header, endian).unwrap_or(false),
        _ => false,
    }
}

/// Whether it says that it is a program. No more is read of it than a sound one has.
fn is_program<'a, Header: FileHeader>(
    file: impl ReadRef<'a>,
    header: &Header,
    endian: Header::Endian,
) -> object::Result<bool> {
    if header.e_phnum(endian) == PN_XNUM {
        return Ok(false);
    }
    let segments = header.program_headers(endian, file)?;
    let of = |kind| {
        segments
            .iter()
            .find(move |segment| segment.p_type(endian) == kind)
    };
    if of(PT_INTERP).is_some() {
        return Ok(true);
    }
    let dynamic = of(PT_DYNAMIC).filter(|segment| segment.p_filesz(endian).into() <= LONGEST);
    let entries = match dynamic {
        Some(segment) => segment.dynamic(endian, file)?.unwrap_or_default(),
        None => &[],
    };
    let says_so = |entry: &Header::Dyn| {
        entry.d_tag(endian) == DT_FLAGS_1 && entry.d_val(endian).into() & DF_1_PIE.0 != 0
    };
    Ok(entries.iter().any(says_so))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::process::Command;

    use super::*;

    fn is(path: impl AsRef<Path>) -> bool {
        is_library(&File::open(path).expect("there"))
    }

    #[test]
    fn libraries_are_told_from_programs_however_these_are_linked() {
        let folder = tempfile::tempdir().expect("a folder");
        let source = folder.path().join("main.c");
        fs::write(&source, "int main(void) { return 0; }\n").expect("written");
        for (flags, expected) in [
            ("-shared -fPIC", true),
            ("-pie -fPIE", false),
            ("-no-pie", false),
            ("-static-pie -fPIE", false),
            ("-static", false),
        ] {
            let built = folder.path().join("built");
            let done = Command::new("cc")
                .args(flags.split(' '))
                .arg("-o")
                .args([&built, &source])
                .output()
                .unwrap_or_else(|error| panic!("cc: {error}; apt-get install gcc libc6-dev"));
            assert!(done.status.success(), "{done:?}");
            assert_eq!(is(&built), expected, "{flags}");
        }
        assert!(!is("/etc/passwd"));
        assert!(!is("/bin/sh"));
    }

    #[test]
    fn a_broken_file_does_no_harm() {
        let maps = fs::read_to_string("/proc/self/maps").expect("maps");
        let library = maps
            .lines()
            .filter_map(|line| line.split_whitespace().last())
            .find(|path| path.contains("/libgcc_s.so"));
        let whole = fs::read(library.expect("loaded")).expect("a library");
        let read = |bytes: &[u8]| is_shared::<FileHeader64<Endianness>>(bytes);
        assert!(read(&whole));
        for length in 0..2048 {
            // What it is stands in its first bytes; what of it is damaged, the loader says.
            assert_eq!(read(&whole[..length]), length >= 64, "{length}");
        }
        for at in 0..2048 {
            let mut damaged = whole.clone();
            damaged[at] ^= 0xff;
            read(&damaged);
        }
    }

    /// Of a file that nobody trusts no more is read than a sound one has.
    #[test]
    fn what_a_header_only_promises_is_not_read() {
        const HEADERS: u16 = 1000;
        let mut file = vec![0; 1 << 20];
        file[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        file[16..18].copy_from_slice(&3_u16.to_le_bytes());
        file[20] = 1;
        file[32..40].copy_from_slice(&64_u64.to_le_bytes());
        file[52..54].copy_from_slice(&64_u16.to_le_bytes());
        file[54..56].copy_from_slice(&56_u16.to_le_bytes());
        file[56..58].copy_from_slice(&HEADERS.to_le_bytes());
        for index in 0..u64::from(HEADERS) {
            let at = 64 + 56 * index as usize;
            file[at] = 2;
            file[at + 32..at + 40].copy_from_slice(&((1 << 19) + 16 * index).to_le_bytes());
        }
        let path = tempfile::NamedTempFile::new().expect("a file");
        fs::write(path.path(), &file).expect("written");
        let read = || -> u64 {
            let told = fs::read_to_string("/proc/thread-self/io").expect("told");
            let line = told.lines().find_map(|line| line.strip_prefix("rchar: "));
            line.expect("there").parse().expect("a number")
        };
        let before = read();
        assert!(is(path.path()));
        let all = read() - before;
        assert!(all < 128 * 1024, "{all} bytes");
    }
}
