//! A place in the tree, with the way to it.

use keyhaul_core::Result;

use crate::tree::Folder;

/// Walks from a base through folders, and keeps those it is in: the next path is often beside the
/// last, and folders that were emptied are removed on the way back.
#[derive(Debug)]
pub(crate) struct Cursor {
    base: Folder,
    way: Vec<(String, Folder)>,
}

impl Cursor {
    pub(crate) fn new(base: Folder) -> Self {
        Self {
            base,
            way: Vec::new(),
        }
    }

    /// Goes to the folder of these names; none where it is not there.
    pub(crate) fn go(&mut self, names: &[String]) -> Result<Option<&Folder>> {
        self.back_to_common(names);
        for name in &names[self.way.len()..] {
            match self.here().enter(name)? {
                Some(folder) => self.way.push((name.clone(), folder)),
                None => return Ok(None),
            }
        }
        Ok(Some(self.here()))
    }

    /// Goes to the folder of these names and makes what is missing. Where that fails, what was made
    /// is taken away again.
    pub(crate) fn make(&mut self, names: &[String]) -> Result<&Folder> {
        self.back_to_common(names);
        for name in &names[self.way.len()..] {
            match self.here().enter_or_make(name) {
                Ok(folder) => self.way.push((name.clone(), folder)),
                Err(error) => {
                    self.prune();
                    return Err(error);
                }
            }
        }
        Ok(self.here())
    }

    /// The folder it is in.
    pub(crate) fn here(&self) -> &Folder {
        self.way.last().map_or(&self.base, |(_, folder)| folder)
    }

    /// Removes the folders on the way that are empty, and goes back as far.
    pub(crate) fn prune(&mut self) {
        while let Some((name, folder)) = self.way.pop() {
            if !self.here().remove_empty(&name) {
                self.way.push((name, folder));
                return;
            }
        }
    }

    fn back_to_common(&mut self, names: &[String]) {
        let common = self
            .way
            .iter()
            .zip(names)
            .take_while(|((here, _), name)| here == *name)
            .count();
        self.way.truncate(common);
    }
}
