//! Files: their contents, their names, and what links point to.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::{Find, Needle, search};

/// Looks through everything below `folder`, save what lies below `skipped`.
///
/// What disappears while it looks is passed over.
///
/// # Errors
/// Where a file cannot be read.
pub fn scan(folder: &Path, skipped: &[&Path], needles: &[&Needle]) -> io::Result<Vec<Find>> {
    let mut finds = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(path) = open.pop() {
        if skipped.contains(&path.as_path()) {
            continue;
        }
        let place = path.display().to_string();
        finds.extend(search(
            &format!("the name {place}"),
            path.as_os_str().as_bytes(),
            needles,
        ));
        match look(&path, &mut open) {
            Ok(bytes) => finds.extend(search(&format!("the file {place}"), &bytes, needles)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(io::Error::other(format!("{place}: {error}"))),
        }
    }
    Ok(finds)
}

/// What is in a file or link; the entries of a folder go to `open`.
fn look(path: &Path, open: &mut Vec<std::path::PathBuf>) -> io::Result<Vec<u8>> {
    let kind = fs::symlink_metadata(path)?.file_type();
    if kind.is_dir() {
        for entry in fs::read_dir(path)? {
            open.push(entry?.path());
        }
        Ok(Vec::new())
    } else if kind.is_symlink() {
        Ok(fs::read_link(path)?.as_os_str().as_bytes().to_vec())
    } else if kind.is_file() {
        fs::read(path)
    } else {
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::Disguise;

    #[test]
    fn every_disguise_is_found_in_a_file_and_names_and_links_too() {
        let needle = Needle::canary();
        let folder = tempfile::tempdir().expect("folder");
        let deep = folder.path().join("a/b/c");
        fs::create_dir_all(&deep).expect("folders");
        let clean = || scan(folder.path(), &[], &[&needle]).expect("readable");
        assert_eq!(clean(), []);
        for disguise in Disguise::ALL {
            for text in disguise.texts(needle.bytes()) {
                fs::write(
                    deep.join("file"),
                    [b"before ", &text[..], b" after"].concat(),
                )
                .expect("written");
                let finds = clean();
                assert!(
                    finds.iter().any(|find| find.hit.disguise == *disguise),
                    "{disguise}"
                );
                assert!(
                    scan(folder.path(), &[&deep], &[&needle])
                        .expect("readable")
                        .is_empty()
                );
            }
        }
        fs::remove_file(deep.join("file")).expect("removed");
        let text = String::from_utf8(needle.bytes().to_vec()).expect("letters");
        symlink(format!("/nowhere/{text}"), deep.join("link")).expect("link");
        assert_eq!(clean().len(), 1);
        fs::remove_file(deep.join("link")).expect("removed");
        fs::create_dir(deep.join(&text)).expect("folder");
        assert!(
            clean()
                .iter()
                .any(|find| find.place.starts_with("the name "))
        );
    }
}
