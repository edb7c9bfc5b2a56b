//! Files below a directory, and nowhere else.

use std::{
    fs::File,
    io,
    os::fd::OwnedFd,
    path::{Component, Path},
};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, linkat, mkdirat, openat, openat2, renameat, unlinkat};

/// Mode of an input: where the file system can't share blocks, its bytes are the cache's own.
const INPUT_MODE: Mode = Mode::from_raw_mode(0o444);

/// The parts of a relative path that stays below where it starts; `None` for any other.
pub(super) fn parts(path: &str) -> Option<Vec<&str>> {
    let parts: Option<Vec<&str>> = Path::new(path)
        .components()
        .filter(|component| *component != Component::CurDir)
        .map(|component| match component {
            Component::Normal(part) => part.to_str(),
            _ => None,
        })
        .collect();
    parts.filter(|parts| !parts.is_empty() && !path.contains('\0'))
}

/// Puts the content of `source` at `path` below `directory`, making folders; what was there is replaced. No
/// symbolic link on the way is followed.
pub(super) fn place(source: &Path, directory: &Path, path: &str) -> io::Result<()> {
    let parts = parts(path).ok_or(io::ErrorKind::InvalidInput)?;
    let (name, folders) = parts.split_last().ok_or(io::ErrorKind::InvalidInput)?;
    let mut folder = openat(CWD, directory, DIRECTORY, Mode::empty())?;
    for part in folders {
        match mkdirat(&folder, *part, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        folder = openat(&folder, *part, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?;
    }
    match unlinkat(&folder, *name, AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    put(source, &folder, name)
}

const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::CLOEXEC);

/// Shares blocks where the file system can; else shares the file; else copies it.
fn put(source: &Path, folder: &OwnedFd, name: &str) -> io::Result<()> {
    let mut from = File::open(source)?;
    let temporary = format!(".{name}.staging");
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let mut to = File::from(openat(folder, &temporary, flags, INPUT_MODE)?);
    if rustix::fs::ioctl_ficlone(&to, &from).is_ok() {
        return Ok(renameat(folder, &temporary, folder, name)?);
    }
    if linkat(CWD, source, folder, name, AtFlags::empty()).is_ok() {
        return Ok(unlinkat(folder, &temporary, AtFlags::empty())?);
    }
    io::copy(&mut from, &mut to)?;
    Ok(renameat(folder, &temporary, folder, name)?)
}

/// Opens a file for reading; links are followed only as long as they stay below `directory`.
pub(super) fn open_beneath(directory: &Path, path: &str) -> io::Result<File> {
    let folder = openat(CWD, directory, DIRECTORY, Mode::empty())?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    Ok(openat2(&folder, path, flags, Mode::empty(), resolve)?.into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn only_paths_that_stay_below_have_parts() {
        assert_eq!(parts("a/./b//c"), Some(vec!["a", "b", "c"]));
        assert_eq!(parts("./a"), Some(vec!["a"]));
        for wrong in ["", ".", "/a", "..", "a/../b", "../a", "a\0b"] {
            assert_eq!(parts(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_file_is_placed_in_folders_that_are_made() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("source"), "content").unwrap();
        fs::create_dir(root.path().join("task")).unwrap();
        for _ in 0..2 {
            place(&root.path().join("source"), &root.path().join("task"), "a/b/c").unwrap();
        }
        assert_eq!(fs::read_to_string(root.path().join("task/a/b/c")).unwrap(), "content");
        assert_eq!(fs::read_dir(root.path().join("task/a/b")).unwrap().count(), 1);
    }

    #[test]
    fn a_link_out_of_the_directory_is_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let task = root.path().join("task");
        fs::create_dir_all(&task).unwrap();
        fs::create_dir(root.path().join("outside")).unwrap();
        fs::write(root.path().join("source"), "content").unwrap();
        symlink("../outside", task.join("link")).unwrap();
        symlink("../source", task.join("file")).unwrap();

        place(&root.path().join("source"), &task, "link/c").unwrap_err();
        assert_eq!(fs::read_dir(root.path().join("outside")).unwrap().count(), 0);
        open_beneath(&task, "file").unwrap_err();
        // What is a link is replaced, not written through.
        symlink("../outside/x", task.join("x")).unwrap();
        place(&root.path().join("source"), &task, "x").unwrap();
        assert!(!root.path().join("outside/x").exists());

        symlink("x", task.join("inside")).unwrap();
        open_beneath(&task, "inside").unwrap();
    }
}
