//! The two changes of a secret's file, step by step: the same for both kinds of store.

use keyhaul_core::Result;

use crate::cursor::Cursor;
use crate::lock::Lock;
use crate::names::Place;
use crate::tree::Folder;

/// Writes the file at `place`, over what is there. Durable when it answers; where it fails, what was
/// there before is intact.
pub(crate) fn write(
    lock: Lock,
    root: &Folder,
    cursor: &mut Cursor,
    place: &Place,
    bytes: &[u8],
) -> Result<()> {
    lock.begin()?;
    // Written before folders are made for it: a full disk then leaves nothing behind.
    let temporary = root.write_temporary(bytes)?;
    let folder = cursor.make(&place.folders)?;
    if let Err(error) = temporary.place(folder, &place.file) {
        cursor.prune();
        return Err(error);
    }
    cursor.here().sync()?;
    lock.done()
}

/// Removes the file at `place`, in whose folder `cursor` is, and the folders that this empties.
pub(crate) fn remove(lock: Lock, cursor: &mut Cursor, place: &Place) -> Result<()> {
    lock.begin()?;
    cursor.here().remove(&place.file)?;
    cursor.prune();
    cursor.here().sync()?;
    lock.done()
}
