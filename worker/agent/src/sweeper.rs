//! Deletes directories of attempts, on a thread of its own: the core loop shouldn't wait for a disk.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::mpsc,
};

/// Names in an attempt's directory.
pub const WORK: &str = "work";
/// Spool of standard output.
pub const STDOUT: &str = "stdout";
/// Spool of standard error.
pub const STDERR: &str = "stderr";
/// The job's script.
pub const SCRIPT: &str = "script";

/// Takes directories to be deleted.
#[derive(Debug, Clone)]
pub struct Sweeper {
    directories: mpsc::Sender<PathBuf>,
}

impl Sweeper {
    /// Starts the thread, which ends with the last handle.
    pub fn start() -> io::Result<Self> {
        let (directories, received) = mpsc::channel::<PathBuf>();
        std::thread::Builder::new().name("sweeper".to_owned()).spawn(move || {
            for directory in received {
                if let Err(error) = delete(&directory) {
                    tracing::warn!("can't delete {}: {error}", directory.display());
                }
            }
        })?;
        Ok(Self { directories })
    }

    /// Deletes a directory, some time soon.
    pub fn sweep(&self, directory: PathBuf) {
        // The thread lives as long as this handle does.
        let _ = self.directories.send(directory);
    }
}

fn delete(directory: &Path) -> io::Result<()> {
    // Most attempts leave an empty folder and two spools: five calls instead of a walk.
    for name in [STDOUT, STDERR, SCRIPT] {
        let _ = fs::remove_file(directory.join(name));
    }
    let _ = fs::remove_dir(directory.join(WORK));
    match fs::remove_dir(directory) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // A task that was just killed may still have been writing: once more for what came meanwhile.
        Err(_) => fs::remove_dir_all(directory).or_else(|_| match fs::remove_dir_all(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_directory_goes_whatever_is_in_it() {
        let folder = tempfile::tempdir().unwrap();
        for (name, files) in [("plain", vec![]), ("full", vec!["work/a/b", "work/c", "scratch/d"])] {
            let directory = folder.path().join(name);
            fs::create_dir_all(directory.join(WORK)).unwrap();
            fs::write(directory.join(STDOUT), "x").unwrap();
            for file in files {
                fs::create_dir_all(directory.join(file).parent().unwrap()).unwrap();
                fs::write(directory.join(file), "y").unwrap();
            }
            delete(&directory).unwrap();
            assert!(!directory.exists());
            delete(&directory).unwrap();
        }
    }
}
