//! What is made of what a plugin lends: pointers with lengths, and none of them believed further than
//! can be told from here.
//!
//! It is the kernel that reads them, so that a pointer to where there is no memory is an error, and no
//! crash.

use keyhaul_core::law::{LONGEST_TEXT, MOST_TEXT};
use keyhaul_core::{Error, ErrorKind, Result, SecretBytes, misleads};
use keyhaul_plugin_abi::{Bytes, Head, MAGIC, MAJOR, MINOR, Pair, Str};

use crate::copy::{self, Table, gather, read};

/// The largest table, and the largest text in it, that a plugin shows when it is loaded.
const MAX_TABLE: usize = 64 * 1024;

/// A value's bytes, copied straight to where they are wiped.
pub(crate) fn value(given: Bytes, limit: usize) -> Result<SecretBytes> {
    let (what, len) = ("a value", given.len);
    sane(what, given.ptr, len, limit)?;
    SecretBytes::try_init_with(len, |block| match read(given.ptr, block) {
        true => Ok(()),
        false => Err(nowhere(what)),
    })
}

/// A text, which may be absent.
pub(crate) fn text(what: &str, text: Str, limit: usize) -> Result<Option<String>> {
    if text.ptr.is_null() && text.len == 0 {
        return Ok(None);
    }
    sane(what, text.ptr, text.len, limit)?;
    let mut bytes = vec![0; text.len];
    if !read(text.ptr, &mut bytes) {
        return Err(nowhere(what));
    }
    String::from_utf8(bytes)
        .map(Some)
        .map_err(|_| no_text(what))
}

/// Words for a person: what is no UTF-8 and what could mislead a terminal is replaced, and what is
/// too long cut short. Nothing where there is no memory.
pub(crate) fn words(text: Str, limit: usize) -> Option<String> {
    // More bytes than that are not looked at, however many are there.
    let len = text.len.min(limit * 4);
    let mut bytes = vec![0; len];
    if text.ptr.is_null() || len == 0 || !read(text.ptr, &mut bytes) {
        return None;
    }
    let whole = String::from_utf8_lossy(&bytes);
    let tame = |c: char| if misleads(c) { '\u{fffd}' } else { c };
    let mut shown: String = whole.chars().take(limit).map(tame).collect();
    if len < text.len || whole.chars().nth(limit).is_some() {
        shown.push('…');
    }
    Some(shown)
}

/// Pairs of texts.
pub(crate) fn pairs(ptr: *const Pair, len: usize, limit: usize) -> Result<Vec<(String, String)>> {
    if len == 0 {
        return Ok(Vec::new());
    }
    if ptr.is_null() || !ptr.is_aligned() || len > limit {
        let rule = format!("the plugin gave {len} pairs at {ptr:p}; at most {limit} are taken");
        return Err(Error::new(ErrorKind::Internal, rule));
    }
    let absent = Pair {
        name: Str::ABSENT,
        value: Str::ABSENT,
    };
    let mut pairs = vec![absent; len];
    if !read(ptr.cast(), copy::bytes(&mut pairs)) {
        return Err(nowhere("pairs"));
    }
    let mut all = 0;
    for (what, text) in pairs.iter().flat_map(named) {
        sane(what, text.ptr, text.len, LONGEST_TEXT)?;
        all += text.len;
    }
    if all > MOST_TEXT {
        let rule = format!("the plugin gave pairs of {all} bytes; at most {MOST_TEXT} are taken");
        return Err(Error::new(ErrorKind::TooLarge, rule));
    }
    let mut bytes = vec![0; all];
    let pieces: Vec<(*const u8, usize)> = pairs
        .iter()
        .flat_map(named)
        .map(|(_, text)| (text.ptr, text.len))
        .collect();
    if !gather(&pieces, &mut bytes) {
        return Err(nowhere("a text of a pair"));
    }
    let mut rest = &bytes[..];
    let mut next = |what: &str, len: usize| -> Result<String> {
        // They have as many bytes together.
        let (text, behind) = rest.split_at(len);
        rest = behind;
        let text = std::str::from_utf8(text).map_err(|_| no_text(what))?;
        Ok(text.to_owned())
    };
    let one = |pair: &Pair| {
        Ok((
            next("a name", pair.name.len)?,
            next("a text", pair.value.len)?,
        ))
    };
    pairs.iter().map(one).collect()
}

fn named(pair: &Pair) -> [(&'static str, Str); 2] {
    [("a name", pair.name), ("a text", pair.value)]
}

/// What can be told to be wrong unread: no address, and more than `limit`.
fn sane(what: &str, ptr: *const u8, len: usize, limit: usize) -> Result<()> {
    if len > 0 && ptr.is_null() {
        let rule = format!("the plugin gave {what} of {len} bytes at no address");
        return Err(Error::new(ErrorKind::Internal, rule));
    }
    if len > limit {
        let rule = format!("the plugin gave {what} of {len} bytes; at most {limit} are taken");
        return Err(Error::new(ErrorKind::TooLarge, rule));
    }
    Ok(())
}

fn nowhere(what: &str) -> Error {
    let rule = format!("the plugin gave {what} where there is no memory");
    Error::new(ErrorKind::Internal, rule)
}

fn no_text(what: &str) -> Error {
    let rule = format!("the plugin gave {what} that is no UTF-8");
    Error::new(ErrorKind::Internal, rule)
}

/// A copy of a table, with zeros where the plugin knows fewer fields than we do.
///
/// # Errors
/// `Unsupported` with what is wrong with it. Memory that is not there is one of these: it is the
/// kernel that reads it.
pub(crate) fn table<T: Table>(what: &str, ptr: *const T) -> Result<T> {
    let refuse = |rule: String| Err(Error::new(ErrorKind::Unsupported, format!("{what} {rule}")));
    if !ptr.is_aligned() {
        return refuse(format!("is at {ptr:p}, where none can be"));
    }
    let Some(head) = copy::table::<Head>(ptr.cast(), size_of::<Head>()) else {
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
    match copy::table(ptr, head.size) {
        Some(table) => Ok(table),
        None => refuse(format!("ends before its {} bytes do", head.size)),
    }
}

/// An element of an array whose elements have `size` bytes for the plugin. Nothing where there is
/// no memory.
pub(crate) fn element<T: Table>(array: *const T, index: usize, size: usize) -> Option<T> {
    let at = array.addr().checked_add(index.checked_mul(size)?)?;
    copy::table(array.with_addr(at), size)
}

/// A name in a table, as [`lasting`]. None is empty.
pub(crate) fn name(what: &str, text: Str) -> Result<String> {
    let name = lasting(what, text)?;
    if name.is_empty() {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!("{what} is empty"),
        ));
    }
    Ok(name)
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
    if !read(text.ptr, &mut bytes) {
        return Err(refuse("is where there is no memory"));
    }
    let tame = |text: &String| !text.chars().any(misleads);
    let text = String::from_utf8(bytes).ok().filter(tame);
    text.ok_or_else(|| refuse("is no UTF-8, or has characters that steer a terminal"))
}

#[cfg(test)]
mod tests {
    use std::ptr;

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
            words(text, 5)
        };
        assert_eq!(shown(b""), None);
        assert_eq!(shown(b"a\x1b[b").as_deref(), Some("a\u{fffd}[b"));
        assert_eq!(shown(b"a\xffb").as_deref(), Some("a\u{fffd}b"));
        assert_eq!(shown(b"123456").as_deref(), Some("12345…"));
        let turned = "a\u{202e}b\u{2028}c".as_bytes();
        assert_eq!(shown(turned).as_deref(), Some("a\u{fffd}b\u{fffd}c"));
        let nowhere = Str {
            ptr: ptr::without_provenance(4096),
            len: 3,
        };
        assert_eq!(words(nowhere, 5), None);
    }

    #[test]
    fn pairs_come_through_however_many_they_are() {
        let texts: Vec<(String, String)> = (0..1000)
            .map(|number| (format!("name-{number}"), "x".repeat(number)))
            .collect();
        let lent = |texts: &[(String, String)]| -> Vec<Pair> {
            let pair = |(name, value): &(String, String)| Pair {
                name: Str::new(name),
                value: Str::new(value),
            };
            texts.iter().map(pair).collect()
        };
        let given = lent(&texts);
        assert_eq!(pairs(given.as_ptr(), 1000, 1000).expect("read"), texts);
        let error = pairs(given.as_ptr(), 1000, 999).expect_err("too many");
        assert!(error.message().contains("at most 999"), "{error}");
        // Each of them may be so long, and not all together.
        let long = vec![("a".to_owned(), "x".repeat(LONGEST_TEXT)); 17];
        let error = pairs(lent(&long).as_ptr(), 17, 1000).expect_err("too long");
        assert_eq!(error.kind(), ErrorKind::TooLarge);
    }

    #[test]
    fn what_lies_nowhere_is_an_error_and_no_crash() {
        let nowhere = |len| Str {
            ptr: ptr::without_provenance(4096),
            len,
        };
        let told = |error: Error| assert!(error.message().contains("no memory"), "{error}");
        let (at, len) = (nowhere(3).ptr, 3);
        told(value(Bytes { ptr: at, len }, 10).expect_err("nowhere"));
        told(text("a text", nowhere(3), 10).expect_err("nowhere"));
        told(pairs(ptr::without_provenance(4096), 1, 10).expect_err("nowhere"));
        let there = Pair {
            name: Str::new("a"),
            value: nowhere(3),
        };
        told(pairs(&there, 1, 10).expect_err("nowhere"));
        assert_eq!(
            text("a text", nowhere(0), 10).expect("empty").as_deref(),
            Some("")
        );
    }
}
