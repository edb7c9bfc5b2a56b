//! The Pythons that tasks find on their PATH, as far as files tell: none is started, since that would cost each start
//! of a worker tens of milliseconds for every one of them.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs,
    io::Read,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// The newest minor version of Python 3 that is looked for.
const NEWEST: u32 = 40;

/// What a name on the PATH stands for.
#[derive(Debug, PartialEq, Eq)]
enum Meaning {
    /// An interpreter of this minor version.
    Python(u32),
    /// A shim that has nothing to run.
    Nothing,
    /// Nothing here: directories behind this one count.
    Elsewhere,
}

/// The minor versions on a PATH, e.g. `3.9,3.11`. None where only running a script would tell.
pub fn on_path(path: &OsStr) -> Option<String> {
    let names = std::iter::once("python3".to_owned()).chain((6..=NEWEST).map(|minor| format!("python3.{minor}")));
    let mut minors = BTreeSet::new();
    for name in names {
        // As the shell does: the first that is executable.
        for folder in std::env::split_paths(path).filter(|folder| folder.is_absolute()) {
            match meaning(&folder, &name)? {
                Meaning::Python(minor) => {
                    minors.insert(minor);
                    break;
                }
                Meaning::Nothing => break,
                Meaning::Elsewhere => {}
            }
        }
    }
    Some(minors.into_iter().map(|minor| format!("3.{minor}")).collect::<Vec<_>>().join(","))
}

/// What a name in a folder stands for; none if that can't be told.
fn meaning(folder: &Path, name: &str) -> Option<Meaning> {
    let file = folder.join(name);
    if !is_executable(&file) {
        return Some(Meaning::Elsewhere);
    }
    if is_script(&file) {
        return behind_shim(folder, name);
    }
    interpreter(&file, name).map(Meaning::Python)
}

/// The minor version of a program, by the name that it has behind its links: `python3` is one to `python3.11`.
fn interpreter(file: &Path, name: &str) -> Option<u32> {
    let real = fs::canonicalize(file).ok()?;
    minor(real.file_name()?.to_str()?).or_else(|| minor(name))
}

fn minor(name: &str) -> Option<u32> {
    name.strip_prefix("python3.")?.parse().ok()
}

/// A shim of pyenv runs the first of the chosen versions that has the name.
fn behind_shim(folder: &Path, name: &str) -> Option<Meaning> {
    let root = folder.parent().filter(|_| folder.ends_with("shims"))?;
    let chosen = fs::read_to_string(root.join("version")).unwrap_or_else(|_| "system".to_owned());
    for version in chosen.split_whitespace() {
        if version == "system" {
            return Some(Meaning::Elsewhere);
        }
        if let Some(file) = installed(&root.join("versions"), version).map(|home| home.join("bin").join(name))
            && is_executable(&file)
        {
            return interpreter(&file, name).map(Meaning::Python);
        }
    }
    Some(Meaning::Nothing)
}

/// Where a version is; `3.12` is the newest 3.12 that is there.
fn installed(versions: &Path, version: &str) -> Option<PathBuf> {
    let exact = versions.join(version);
    if exact.is_dir() {
        return Some(exact);
    }
    let patch = |entry: &fs::DirEntry| -> Option<u32> {
        entry.file_name().to_str()?.strip_prefix(version)?.strip_prefix('.')?.parse().ok()
    };
    let newest = fs::read_dir(versions).ok()?.flatten().filter(|entry| patch(entry).is_some()).max_by_key(patch);
    newest.map(|entry| entry.path())
}

fn is_executable(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

fn is_script(file: &Path) -> bool {
    let mut start = [0; 2];
    fs::File::open(file).and_then(|mut file| file.read_exact(&mut start)).is_ok() && start == *b"#!"
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn put(file: &Path, content: &str, mode: u32) {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, content).unwrap();
        fs::set_permissions(file, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn found(folders: &[PathBuf]) -> Option<String> {
        on_path(&std::env::join_paths(folders).unwrap())
    }

    #[test]
    fn programs_are_known_by_the_names_behind_their_links() {
        let root = tempfile::tempdir().unwrap();
        let (first, second) = (root.path().join("a"), root.path().join("b"));
        put(&second.join("python3.9"), "\x7fELF", 0o755);
        put(&second.join("python3.13"), "\x7fELF", 0o644);
        put(&first.join("python3.11"), "\x7fELF", 0o755);
        std::os::unix::fs::symlink("python3.11", first.join("python3")).unwrap();
        assert_eq!(found(&[first.clone(), second.clone()]).unwrap(), "3.9,3.11", "3.13 can't be executed");
        assert_eq!(found(&[second]).unwrap(), "3.9");
        assert_eq!(found(&[root.path().to_owned()]).unwrap(), "");
    }

    #[test]
    fn shims_of_versions_that_are_not_chosen_do_not_count() {
        let root = tempfile::tempdir().unwrap();
        let (pyenv, system) = (root.path().join("pyenv"), root.path().join("bin"));
        for version in ["3.10.4", "3.11.7", "3.12.1", "3.12.11"] {
            let name = format!("python{}", version.rsplit_once('.').unwrap().0);
            put(&pyenv.join("versions").join(version).join("bin").join(&name), "\x7fELF", 0o755);
            put(&pyenv.join("shims").join(&name), "#!/bin/sh", 0o755);
        }
        put(&system.join("python3.10"), "\x7fELF", 0o755);
        put(&system.join("python3.8"), "\x7fELF", 0o755);
        let path = [pyenv.join("shims"), system];
        for (chosen, expected) in
            [("3.11.7\n", "3.8,3.11"), ("3.12\n3.11.7\n", "3.8,3.11,3.12"), ("system", "3.8,3.10"), ("3.7.1", "3.8")]
        {
            put(&pyenv.join("version"), chosen, 0o644);
            assert_eq!(found(&path).unwrap(), expected, "{chosen}");
        }
    }

    #[test]
    fn a_script_that_is_no_shim_leaves_it_open() {
        let root = tempfile::tempdir().unwrap();
        put(&root.path().join("python3.12"), "#!/bin/sh", 0o755);
        assert_eq!(found(&[root.path().to_owned()]), None);
    }
}
