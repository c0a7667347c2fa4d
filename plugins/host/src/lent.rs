//! Reading what a plugin lends: pointers with lengths, and none of them believed further than can
//! be told from here.

use std::mem::MaybeUninit;
use std::slice;

use keyhaul_core::{Error, ErrorKind, Result};
use keyhaul_plugin_abi::{Bytes, Head, MAGIC, MAJOR, MINOR, Pair, Str};

/// The largest table, and the largest text in it, that a plugin shows when it is loaded.
const MAX_TABLE: usize = 64 * 1024;

/// Bytes that a call lends, for as long as it lasts.
///
/// # Safety
/// `ptr` points to `len` bytes, for as long as the answer is used: the plugin's part of the contract.
/// What can be told to be wrong is refused: no memory at all, and more than `limit`.
pub(crate) unsafe fn bytes<'a>(
    what: &str,
    ptr: *const u8,
    len: usize,
    limit: usize,
) -> Result<&'a [u8]> {
    if len == 0 {
        return Ok(&[]);
    }
    if ptr.is_null() {
        let rule = format!("the plugin gave {what} of {len} bytes at no address");
        return Err(Error::new(ErrorKind::Internal, rule));
    }
    if len > limit {
        let rule = format!("the plugin gave {what} of {len} bytes; at most {limit} are taken");
        return Err(Error::new(ErrorKind::TooLarge, rule));
    }
    // SAFETY: as the caller vouches; the length is not 0, nor beyond what a slice can have.
    Ok(unsafe { slice::from_raw_parts(ptr, len) })
}

/// A value's bytes.
///
/// # Safety
/// As [`bytes`].
pub(crate) unsafe fn value<'a>(value: Bytes, limit: usize) -> Result<&'a [u8]> {
    // SAFETY: as the caller vouches.
    unsafe { bytes("a value", value.ptr, value.len, limit) }
}

/// A text, which may be absent.
///
/// # Safety
/// As [`bytes`].
pub(crate) unsafe fn text<'a>(what: &str, text: Str, limit: usize) -> Result<Option<&'a str>> {
    if text.ptr.is_null() && text.len == 0 {
        return Ok(None);
    }
    // SAFETY: as the caller vouches.
    let bytes = unsafe { bytes(what, text.ptr, text.len, limit) }?;
    std::str::from_utf8(bytes).map(Some).map_err(|_| {
        let rule = format!("the plugin gave {what} that is no UTF-8");
        Error::new(ErrorKind::Internal, rule)
    })
}

/// Words for a person: what is no UTF-8 and what could mislead a terminal is replaced, and what is
/// too long cut short.
///
/// # Safety
/// As [`bytes`].
pub(crate) unsafe fn words(text: Str, limit: usize) -> Option<String> {
    if text.ptr.is_null() || text.len == 0 {
        return None;
    }
    // More bytes than that are not looked at, however many are there.
    let len = text.len.min(limit * 4);
    // SAFETY: as the caller vouches, for at least as many.
    let bytes = unsafe { slice::from_raw_parts(text.ptr, len) };
    let whole = String::from_utf8_lossy(bytes);
    let tame = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    let mut shown: String = whole.chars().take(limit).map(tame).collect();
    if len < text.len || whole.chars().nth(limit).is_some() {
        shown.push('…');
    }
    Some(shown)
}

/// Pairs of texts.
///
/// # Safety
/// As [`bytes`], for the pairs and each text in them.
pub(crate) unsafe fn pairs<'a>(
    ptr: *const Pair,
    len: usize,
    limit: usize,
) -> Result<Vec<(&'a str, &'a str)>> {
    if len == 0 {
        return Ok(Vec::new());
    }
    if ptr.is_null() || !ptr.is_aligned() || len > limit {
        let rule = format!("the plugin gave {len} pairs at {ptr:p}; at most {limit} are taken");
        return Err(Error::new(ErrorKind::Internal, rule));
    }
    // SAFETY: as the caller vouches; not null, aligned, and no more than a slice can have.
    let pairs = unsafe { slice::from_raw_parts(ptr, len) };
    let read = |pair: &Pair| {
        // SAFETY: as the caller vouches.
        let name = unsafe { text("a name", pair.name, MAX_TABLE) }?;
        // SAFETY: as the caller vouches.
        let value = unsafe { text("a text", pair.value, MAX_TABLE) }?;
        Ok((name.unwrap_or_default(), value.unwrap_or_default()))
    };
    pairs.iter().map(read).collect()
}

/// A copy of a table, with zeros where the plugin knows fewer fields than we do.
///
/// `T` is one of the interface's tables, all of whose fields may be zero.
///
/// # Errors
/// `Unsupported` with what is wrong with it. Memory that is not there is one of these: it is the
/// kernel that reads it.
pub(crate) fn table<T>(what: &str, ptr: *const T) -> Result<T> {
    let refuse = |rule: String| Err(Error::new(ErrorKind::Unsupported, format!("{what} {rule}")));
    if !ptr.is_aligned() {
        return refuse(format!("is at {ptr:p}, where none can be"));
    }
    let Some(head) = copied::<Head>(ptr.cast(), size_of::<Head>()) else {
        return refuse(format!("is at {ptr:p}, where there is no memory"));
    };
    if head.magic != MAGIC {
        return refuse(format!(
            "is none of keyhaul's: it begins with the magic {:#x}, not {MAGIC:#x}",
            head.magic
        ));
    }
    if head.major != MAJOR {
        return refuse(format!(
            "is of version {}.{} of the interface, and this is {MAJOR}.{MINOR}",
            head.major, head.minor
        ));
    }
    let (least, most) = (size_of::<Head>(), MAX_TABLE);
    if !(least..=most).contains(&head.size) || head.size % align_of::<T>() != 0 {
        return refuse(format!(
            "says that it has {} bytes, which none has",
            head.size
        ));
    }
    match copied(ptr, head.size) {
        Some(table) => Ok(table),
        None => refuse(format!("ends before its {} bytes do", head.size)),
    }
}

/// An element of an array whose elements have `size` bytes for the plugin. Nothing where there is
/// no memory.
pub(crate) fn element<T>(array: *const T, index: usize, size: usize) -> Option<T> {
    let at = array.addr().checked_add(index.checked_mul(size)?)?;
    copied(array.with_addr(at), size)
}

/// A text of a table, which lives on.
///
/// # Errors
/// `Unsupported` where there is no memory, too much of it, or no UTF-8 in it.
pub(crate) fn lasting(what: &str, text: Str) -> Result<String> {
    let refuse = |rule: &str| Error::new(ErrorKind::Unsupported, format!("{what} {rule}"));
    if text.len > MAX_TABLE {
        return Err(refuse("is too long"));
    }
    let mut bytes = vec![0; text.len];
    if !kernel_copies(text.ptr, &mut bytes) {
        return Err(refuse("is where there is no memory"));
    }
    let tame = |text: &String| !text.chars().any(char::is_control);
    let text = String::from_utf8(bytes).ok().filter(tame);
    text.ok_or_else(|| refuse("is no UTF-8, or has control characters"))
}

/// `T` with its first bytes from there, `size` at most, and zeros behind.
fn copied<T>(ptr: *const T, size: usize) -> Option<T> {
    let mut value = MaybeUninit::<T>::zeroed();
    let size = size.min(size_of::<T>());
    // SAFETY: as many bytes as `value` has, and they are initialised: to zeros.
    let bytes = unsafe { slice::from_raw_parts_mut(value.as_mut_ptr().cast(), size) };
    // SAFETY: the interface's tables are numbers, pointers and optional functions: any bytes are
    // one, and a function is only ever as good as the plugin's word.
    kernel_copies(ptr.cast(), bytes).then(|| unsafe { value.assume_init() })
}

/// Copies what is at `ptr`, by way of the kernel, which does not crash where nothing is.
fn kernel_copies(ptr: *const u8, to: &mut [u8]) -> bool {
    if to.is_empty() {
        return true;
    }
    let local = libc::iovec {
        iov_base: to.as_mut_ptr().cast(),
        iov_len: to.len(),
    };
    let remote = libc::iovec {
        iov_base: ptr.cast_mut().cast(),
        iov_len: to.len(),
    };
    // SAFETY: `local` is an exclusive slice, and the kernel checks `remote` itself.
    let copied = unsafe { libc::process_vm_readv(libc::getpid(), &local, 1, &remote, 1, 0) };
    match usize::try_from(copied) {
        Ok(copied) => copied == to.len(),
        // A sandbox that has no such call: then the plugin's word must do.
        Err(_) if is_forbidden() && !ptr.is_null() => {
            // SAFETY: as the plugin's contract says.
            unsafe { ptr.copy_to_nonoverlapping(to.as_mut_ptr(), to.len()) };
            true
        }
        Err(_) => false,
    }
}

fn is_forbidden() -> bool {
    let error = std::io::Error::last_os_error().raw_os_error();
    matches!(error, Some(libc::EPERM | libc::ENOSYS))
}

#[cfg(test)]
mod tests {
    use keyhaul_plugin_abi::Plugin;

    use super::*;

    /// A table of a plugin that knows nothing but the head.
    fn head() -> Head {
        let mut head = Head::of::<Plugin>();
        head.size = size_of::<Head>();
        head
    }

    fn refused(head: Head) -> String {
        let ptr: *const Head = &head;
        let error = table::<Head>("the table", ptr).expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        error.message().to_owned()
    }

    #[test]
    fn a_shorter_table_is_filled_up_with_zeros() {
        #[repr(C, align(8))]
        struct Longer(Head, [u64; 60]);
        let given = Longer(head(), [u64::MAX; 60]);
        let ptr: *const Longer = &given;
        let read = table::<Plugin>("the table", ptr.cast()).expect("read");
        assert!(read.get.is_none() && read.name.ptr.is_null() && read.options_len == 0);
    }

    #[test]
    fn a_wrong_head_is_refused_by_what_is_wrong() {
        table::<Head>("the table", &head()).expect("right");
        let wrong = |change: fn(&mut Head)| {
            let mut head = head();
            change(&mut head);
            refused(head)
        };
        assert!(wrong(|head| head.magic = 7).contains("magic 0x7"));
        assert!(wrong(|head| head.major = 2).contains("version 2.0 of the interface"));
        for size in [0, 8, 15, 17, 1 << 20, usize::MAX] {
            let mut head = head();
            head.size = size;
            assert!(refused(head).contains(&format!("{size} bytes")));
        }
    }

    #[test]
    fn a_table_where_there_is_no_memory_is_refused() {
        for (at, rule) in [(0, "no memory"), (4096, "no memory"), (4097, "none can be")] {
            let ptr = std::ptr::without_provenance::<Plugin>(at);
            let error = table("the table", ptr).err().expect("refused");
            assert!(error.message().contains(rule), "{error}");
        }
    }

    #[test]
    fn words_are_cut_and_tamed() {
        let shown = |text: &[u8]| {
            let text = Str {
                ptr: text.as_ptr(),
                len: text.len(),
            };
            // SAFETY: a slice.
            unsafe { words(text, 5) }
        };
        assert_eq!(shown(b""), None);
        assert_eq!(shown(b"a\x1b[b").as_deref(), Some("a\u{fffd}[b"));
        assert_eq!(shown(b"a\xffb").as_deref(), Some("a\u{fffd}b"));
        assert_eq!(shown(b"123456").as_deref(), Some("12345…"));
    }
}
