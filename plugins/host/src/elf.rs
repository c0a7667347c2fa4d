//! Whether a library is whole. One that was copied by half can be mapped all the same, and whoever touches
//! what is not there is ended by a signal.

use std::fs::File;

use object::Endianness;
use object::elf::{FileHeader32, FileHeader64, PT_LOAD};
use object::read::elf::{FileHeader, ProgramHeader as _};
use object::read::{FileKind, ReadCache, ReadRef};

/// Whether what is to be in memory goes on behind the end of the file. What is no library at all, the
/// loader says.
pub(crate) fn is_cut_short(file: &File) -> bool {
    let file = ReadCache::new(file);
    let lacks = match FileKind::parse(&file) {
        Ok(FileKind::Elf32) => lacks::<FileHeader32<Endianness>>(&file),
        Ok(FileKind::Elf64) => lacks::<FileHeader64<Endianness>>(&file),
        _ => Ok(false),
    };
    lacks.unwrap_or(false)
}

fn lacks<'a, Header>(file: impl ReadRef<'a>) -> object::Result<bool>
where
    Header: FileHeader<Endian = Endianness>,
{
    let header = Header::parse(file)?;
    let endian = header.endian()?;
    let len = file.len().unwrap_or(u64::MAX);
    let segments = header.program_headers(endian, file)?;
    let mut loaded = segments
        .iter()
        .filter(|segment| segment.p_type(endian) == PT_LOAD);
    Ok(loaded.any(|segment| {
        let end = segment
            .p_offset(endian)
            .into()
            .checked_add(segment.p_filesz(endian).into());
        end.is_none_or(|end| end > len)
    }))
}
