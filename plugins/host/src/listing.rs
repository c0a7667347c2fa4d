//! What a plugin lists, held to the order of listings: else one could have no end.

use keyhaul_core::{Error, ErrorKind, Page, Result, SecretPath};

/// The most entries of a page.
pub(crate) const MAX_PAGE: usize = 1000;

/// Between a last entry and the plugin's cursor: no path has it.
const THEN: &str = "//";

/// One thing on a page. The order is that of listings: of the paths, and where two are the same, the
/// secret before the folder.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry {
    path: SecretPath,
    is_folder: bool,
}

/// Where a page ended: its last entry, which the next one is held against, and what the plugin calls
/// the place.
#[derive(Debug)]
pub(crate) struct Cursor {
    last: Entry,
    pub(crate) place: String,
}

impl Cursor {
    /// Reads what [`Listing::page`] gave.
    ///
    /// # Errors
    /// `InvalidReference` where that was nothing of the kind.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let parse = || {
            let (path, rest) = text.split_once(THEN)?;
            let mut place = rest.chars();
            let is_folder = match place.next()? {
                's' => false,
                'f' => true,
                _ => return None,
            };
            let path = SecretPath::new(path).ok()?;
            Some(Self {
                last: Entry { path, is_folder },
                place: place.as_str().to_owned(),
            })
        };
        parse().ok_or_else(|| {
            let rule = "not the end of a page of this store";
            Error::new(ErrorKind::InvalidReference, rule)
        })
    }

    fn text(&self) -> String {
        let kind = if self.last.is_folder { 'f' } else { 's' };
        format!("{}{THEN}{kind}{}", self.last.path, self.place)
    }
}

/// A page that a plugin fills.
#[derive(Debug)]
pub(crate) struct Listing {
    most: usize,
    shallow: bool,
    /// The entry that the next one comes after.
    last: Option<Entry>,
    page: Page,
}

impl Listing {
    /// A page of at most so many entries, which come after this one's.
    pub(crate) fn new(most: usize, shallow: bool, after: Option<&Cursor>) -> Self {
        Self {
            most: most.min(MAX_PAGE),
            shallow,
            last: after.map(|after| after.last.clone()),
            page: Page::default(),
        }
    }

    pub(crate) fn take(&mut self, path: &str, folder: u32) -> Result<()> {
        if self.page.secrets.len() + self.page.folders.len() == self.most {
            let rule = format!("listed more than {} entries on one page", self.most);
            return Err(wrong(&rule));
        }
        let path = SecretPath::new(path)
            .map_err(|error| wrong("listed what is no path").with_source(error))?;
        let entry = Entry {
            path,
            is_folder: folder != 0,
        };
        if entry.is_folder && !self.shallow {
            return Err(wrong("listed a folder among all secrets"));
        }
        if self.last.as_ref().is_some_and(|last| *last >= entry) {
            return Err(wrong(
                "listed something twice or not in byte order: there might be no end",
            ));
        }
        let list = match entry.is_folder {
            true => &mut self.page.folders,
            false => &mut self.page.secrets,
        };
        list.push(entry.path.clone());
        self.last = Some(entry);
        Ok(())
    }

    pub(crate) fn take_next(&mut self, place: String) -> Result<()> {
        if self.page.next.is_some() {
            return Err(wrong("gave a next page twice"));
        }
        self.page.next = Some(place);
        Ok(())
    }

    /// The page, whose end can be given to [`Cursor::parse`].
    ///
    /// # Errors
    /// `Internal` where it has nothing and is not the last one.
    pub(crate) fn page(self) -> Result<Page> {
        let Self { mut page, last, .. } = self;
        let is_empty = page.secrets.is_empty() && page.folders.is_empty();
        page.next = match (page.next, last) {
            (None, _) => None,
            (Some(place), Some(last)) if !is_empty => Some(Cursor { last, place }.text()),
            _ => {
                let rule = "listed nothing and says that there is more: there might be no end";
                return Err(wrong(rule));
            }
        };
        Ok(page)
    }
}

fn wrong(what: &str) -> Error {
    Error::new(ErrorKind::Internal, format!("the plugin {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shallow(after: Option<&Cursor>, entries: &[(&str, u32)]) -> Result<Listing> {
        let mut listing = Listing::new(10, true, after);
        for (path, folder) in entries {
            listing.take(path, *folder)?;
        }
        Ok(listing)
    }

    fn refused(after: Option<&Cursor>, entries: &[(&str, u32)]) -> String {
        let error = shallow(after, entries).expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Internal);
        error.message().to_owned()
    }

    #[test]
    fn a_secret_comes_before_the_folder_of_its_path_and_both_in_byte_order() {
        let entries = [("a", 0), ("a", 1), ("a!", 0), ("b", 1), ("\u{e4}", 0)];
        let page = shallow(None, &entries).and_then(Listing::page);
        let page = page.expect("in order");
        let texts = |paths: &[SecretPath]| -> Vec<String> {
            paths.iter().map(ToString::to_string).collect()
        };
        assert_eq!(texts(&page.secrets), ["a", "a!", "\u{e4}"]);
        assert_eq!(texts(&page.folders), ["a", "b"]);
        for wrong in [
            [("b", 0), ("a", 0)],
            [("a", 1), ("a", 0)],
            [("a", 0), ("a", 0)],
            [("a", 1), ("a", 1)],
            [("a/b", 0), ("a!", 0)],
        ] {
            assert!(refused(None, &wrong).contains("byte order"), "{wrong:?}");
        }
    }

    #[test]
    fn the_next_page_begins_behind_the_last_one_wherever_the_plugin_says_that_is() {
        for place in ["", "x", "//", "a//sb"] {
            for (entry, before) in [(("m", 0), ("m", 0)), (("m", 1), ("m", 0))] {
                let mut listing = shallow(None, &[entry]).expect("one");
                listing.take_next(place.to_owned()).expect("once");
                let next = listing.page().expect("a page").next.expect("more");
                let after = Cursor::parse(&next).expect("its own");
                assert_eq!(after.place, place);
                assert!(refused(Some(&after), &[before]).contains("byte order"));
                shallow(Some(&after), &[("n", 0)]).expect("behind");
            }
        }
        for foreign in ["", "a", "a//", "a//x", "//s", "a/../b//s", "a///s"] {
            let error = Cursor::parse(foreign).expect_err(foreign);
            assert_eq!(error.kind(), ErrorKind::InvalidReference);
        }
    }

    #[test]
    fn a_page_of_nothing_is_the_last_one() {
        assert_eq!(
            shallow(None, &[]).and_then(Listing::page).expect("empty"),
            Page::default()
        );
        let after = Cursor::parse("a//sx").expect("a cursor");
        for after in [None, Some(&after)] {
            let mut listing = shallow(after, &[]).expect("empty");
            listing.take_next("x".to_owned()).expect("once");
            let error = listing.page().expect_err("no end");
            assert!(error.message().contains("no end"), "{error}");
        }
    }

    #[test]
    fn all_secrets_have_no_folders_among_them() {
        let mut listing = Listing::new(10, false, None);
        listing.take("a/b", 0).expect("a secret");
        let error = listing.take("b", 1).expect_err("a folder");
        assert!(error.message().contains("a folder"), "{error}");
    }
}
