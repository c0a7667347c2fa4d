//! Reading, where the bytes lie: nothing is copied, nothing allocated, no length believed before it
//! is held against what is there.

use std::fmt;

use super::{HEADER, kind, padded};

/// Structures within structures, twice as many as any answer has.
const DEEPEST: usize = 16;

/// What is wrong with bytes that should be TTLV: a rule and a tag, never what stands there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed {
    rule: &'static str,
    tag: u32,
}

impl Malformed {
    pub(crate) const fn new(rule: &'static str, tag: u32) -> Self {
        Self { rule, tag }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (tag {:06x})", self.rule, self.tag)
    }
}

impl std::error::Error for Malformed {}

/// One item: a tag and a value of some type.
#[derive(Clone, Copy)]
pub(crate) struct Item<'a> {
    pub(crate) tag: u32,
    kind: u8,
    value: &'a [u8],
}

impl<'a> Item<'a> {
    /// The item that `bytes` are, all of them.
    pub(crate) fn only(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let (item, rest) = Self::first(bytes)?;
        if rest.is_empty() {
            Ok(item)
        } else {
            Err(Malformed::new("something follows the end", item.tag))
        }
    }

    /// Holds every length within the item against what is around it, down to the innermost: so that
    /// what nobody looks at does not lie either.
    pub(crate) fn check(&self) -> Result<(), Malformed> {
        self.check_down(DEEPEST)
    }

    fn check_down(&self, left: usize) -> Result<(), Malformed> {
        if self.kind != kind::STRUCTURE {
            return Ok(());
        }
        let left = left
            .checked_sub(1)
            .ok_or(Malformed::new("structures nested too deeply", self.tag))?;
        self.structure()?
            .items()
            .try_for_each(|item| item?.check_down(left))
    }

    /// The first item of `bytes`, and what follows it.
    fn first(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), Malformed> {
        let cut = |tag| Malformed::new("the bytes end before their item does", tag);
        let (header, rest) = bytes.split_first_chunk::<HEADER>().ok_or_else(|| cut(0))?;
        let [a, b, c, kind, len @ ..] = *header;
        let tag = u32::from_be_bytes([0, a, b, c]);
        let len = usize::try_from(u32::from_be_bytes(len)).map_err(|_| cut(tag))?;
        let whole = padded(len).ok_or_else(|| cut(tag))?;
        let (value, rest) = rest.split_at_checked(whole).ok_or_else(|| cut(tag))?;
        let value = value.get(..len).ok_or_else(|| cut(tag))?;
        Ok((Self { tag, kind, value }, rest))
    }

    pub(crate) fn structure(&self) -> Result<Structure<'a>, Malformed> {
        self.expect(kind::STRUCTURE, "no structure")?;
        Ok(Structure {
            tag: self.tag,
            bytes: self.value,
        })
    }

    pub(crate) fn integer(&self) -> Result<i32, Malformed> {
        self.expect(kind::INTEGER, "no integer")?;
        Ok(i32::from_be_bytes(self.fixed()?))
    }

    pub(crate) fn enumeration(&self) -> Result<u32, Malformed> {
        self.expect(kind::ENUMERATION, "no enumeration")?;
        Ok(u32::from_be_bytes(self.fixed()?))
    }

    /// Seconds since 1970.
    pub(crate) fn date(&self) -> Result<i64, Malformed> {
        self.expect(kind::DATE, "no date")?;
        Ok(i64::from_be_bytes(self.fixed()?))
    }

    pub(crate) fn text(&self) -> Result<&'a str, Malformed> {
        self.expect(kind::TEXT, "no text")?;
        std::str::from_utf8(self.value).map_err(|_| Malformed::new("text is no UTF-8", self.tag))
    }

    pub(crate) fn bytes(&self) -> Result<&'a [u8], Malformed> {
        self.expect(kind::BYTES, "no bytes")?;
        Ok(self.value)
    }

    pub(crate) fn is_bytes(&self) -> bool {
        self.kind == kind::BYTES
    }

    fn expect(&self, kind: u8, rule: &'static str) -> Result<(), Malformed> {
        if self.kind == kind {
            Ok(())
        } else {
            Err(Malformed::new(rule, self.tag))
        }
    }

    fn fixed<const N: usize>(&self) -> Result<[u8; N], Malformed> {
        let wrong = |_| Malformed::new("a number of another length than its type's", self.tag);
        self.value.try_into().map_err(wrong)
    }
}

/// What is within a structure.
#[derive(Clone, Copy)]
pub(crate) struct Structure<'a> {
    tag: u32,
    bytes: &'a [u8],
}

impl<'a> Structure<'a> {
    /// The items in order. The first that is wrong ends them.
    pub(crate) fn items(&self) -> impl Iterator<Item = Result<Item<'a>, Malformed>> {
        let mut rest = self.bytes;
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            match Item::first(rest) {
                Ok((item, after)) => {
                    rest = after;
                    Some(Ok(item))
                }
                Err(malformed) => {
                    rest = &[];
                    Some(Err(malformed))
                }
            }
        })
    }

    /// The items of this tag.
    pub(crate) fn all(&self, tag: u32) -> impl Iterator<Item = Result<Item<'a>, Malformed>> {
        self.items()
            .filter(move |item| item.as_ref().map_or(true, |item| item.tag == tag))
    }

    /// The first item of this tag, where there is one.
    pub(crate) fn find(&self, tag: u32) -> Result<Option<Item<'a>>, Malformed> {
        self.all(tag).next().transpose()
    }

    /// The first item of this tag.
    pub(crate) fn need(&self, tag: u32) -> Result<Item<'a>, Malformed> {
        self.find(tag)?
            .ok_or(Malformed::new("an item is missing", tag))
    }

    /// The tag of the structure itself.
    pub(crate) fn tag(&self) -> u32 {
        self.tag
    }
}
