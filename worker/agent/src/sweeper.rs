//! Deletes what attempts leave, on a thread of its own, and keeps some empty directories for attempts to come.
//!
//! On a file system with a journal two folders and two files cost as much as the start of a small process. So those
//! of an attempt that left only a few files in its folder are used again, under a new name: its spools only if no process
//! that escaped from its task can still write into them.

use std::{
    fs, io,
    os::{
        fd::AsRawFd,
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

/// Names in an attempt's directory.
pub const WORK: &str = "work";
/// Spool of standard output.
pub const STDOUT: &str = "stdout";
/// Spool of standard error.
pub const STDERR: &str = "stderr";
/// The job's script.
pub const SCRIPT: &str = "script";

/// As the keeper makes them, before the mask.
const SPOOL_MODE: u32 = 0o644;
/// fcntl(2): the signal that says that somebody else opens a file.
const F_SETSIG: libc::c_int = 10;
/// Directories kept for attempts to come: logs are stored once a second, and those of so many attempts at once.
const SPARES: usize = 256;
/// What the names of those begin with that were never used, and how many are made at once.
const SPARE: &str = "spare-";
const SOME: usize = 16;
/// After so long without anything to sweep.
const IDLE: Duration = Duration::from_millis(100);
/// Files of an attempt that are deleted one by one, so that its folder stays.
const FILES: usize = 16;
/// The thread wakes no more often than this while there is a lot to do.
const PAUSE: Duration = Duration::from_millis(20);

/// How much less of a busy processor the thread gets.
const BACKGROUND: i32 = 10;

/// Takes directories to be deleted, and gives out empty ones.
#[derive(Debug, Clone)]
pub struct Sweeper {
    dirt: mpsc::Sender<Dirt>,
    spares: Arc<Mutex<Vec<PathBuf>>>,
}

/// What is to be deleted.
#[derive(Debug)]
enum Dirt {
    /// A directory with all that is in it.
    Directory(PathBuf),
    /// What is in a working directory whose spools are still needed.
    Files(PathBuf),
}

impl Sweeper {
    /// Starts the thread, which ends with the last handle. While there is nothing to sweep it makes directories in
    /// `tasks` for attempts to come.
    pub fn start(tasks: PathBuf) -> io::Result<Self> {
        let (dirt, received) = mpsc::channel();
        let spares: Arc<Mutex<Vec<PathBuf>>> = Arc::default();
        let kept = Arc::clone(&spares);
        thread::Builder::new().name("sweeper".to_owned()).spawn(move || {
            // Of this thread alone, as Linux has it: whatever starts or ends a task goes first.
            let _ = rustix::process::nice(BACKGROUND);
            let mut maker = Some(Maker::new(tasks));
            loop {
                let first = match received.recv_timeout(if maker.is_some() { IDLE } else { Duration::MAX }) {
                    Ok(first) => first,
                    Err(RecvTimeoutError::Timeout) => {
                        maker = maker.and_then(|maker| maker.make_some(&kept));
                        continue;
                    }
                    Err(RecvTimeoutError::Disconnected) => return,
                };
                // Not a condition that is waited for: one wake-up serves many directories.
                thread::sleep(PAUSE);
                for dirt in std::iter::once(first).chain(received.try_iter()) {
                    let swept = match &dirt {
                        Dirt::Directory(directory) => sweep(directory, &kept),
                        Dirt::Files(folder) => empty_folder(folder),
                    };
                    if let Err(error) = swept {
                        tracing::warn!("can't delete {dirt:?}: {error}");
                    }
                }
            }
        })?;
        Ok(Self { dirt, spares })
    }

    /// Deletes a directory, some time soon.
    pub fn sweep(&self, directory: PathBuf) {
        // The thread lives as long as this handle does.
        let _ = self.dirt.send(Dirt::Directory(directory));
    }

    /// Deletes what is in an attempt's working directory, likewise; the spools beside it stay.
    pub fn sweep_work(&self, directory: &Path) {
        let _ = self.dirt.send(Dirt::Files(directory.join(WORK)));
    }

    /// Makes an attempt's directory with an empty working directory in it.
    pub fn make(&self, directory: &Path) -> io::Result<()> {
        let spare = lock(&self.spares).pop();
        if let Some(spare) = spare
            && fs::rename(spare, directory).is_ok()
        {
            return Ok(());
        }
        fs::create_dir(directory).or_else(|error| match error.kind() {
            // Left by an agent that died while it prepared the same attempt: begin anew.
            io::ErrorKind::AlreadyExists => fs::remove_dir_all(directory).and_then(|()| fs::create_dir(directory)),
            _ => Err(error),
        })?;
        fs::create_dir(directory.join(WORK))
    }
}

fn lock(spares: &Mutex<Vec<PathBuf>>) -> MutexGuard<'_, Vec<PathBuf>> {
    spares.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes directories for attempts to come, until there are enough: from then on those that were used come back.
struct Maker {
    tasks: PathBuf,
    made: usize,
}

impl Maker {
    fn new(tasks: PathBuf) -> Self {
        Self { tasks, made: 0 }
    }

    /// Makes some; nothing once there are enough, or none can be made.
    fn make_some(mut self, spares: &Mutex<Vec<PathBuf>>) -> Option<Self> {
        for _ in 0..SOME {
            if lock(spares).len() >= SPARES || self.made >= SPARES {
                return None;
            }
            match self.make() {
                Ok(directory) => lock(spares).push(directory),
                Err(error) => {
                    tracing::warn!("can't make directories ahead in {}: {error}", self.tasks.display());
                    return None;
                }
            }
        }
        Some(self)
    }

    fn make(&mut self) -> io::Result<PathBuf> {
        let directory = self.tasks.join(format!("{SPARE}{}", self.made));
        self.made += 1;
        if directory.exists() {
            // Of an agent before this one.
            remove(&directory)?;
        }
        fs::create_dir_all(directory.join(WORK))?;
        for spool in [STDOUT, STDERR] {
            fs::OpenOptions::new().write(true).create_new(true).mode(SPOOL_MODE).open(directory.join(spool))?;
        }
        Ok(directory)
    }
}

fn sweep(directory: &Path, spares: &Mutex<Vec<PathBuf>>) -> io::Result<()> {
    if lock(spares).len() < SPARES && clean(directory).unwrap_or(false) {
        lock(spares).push(directory.to_owned());
        return Ok(());
    }
    remove(directory)
}

fn empty_folder(folder: &Path) -> io::Result<()> {
    if remove_files(folder).unwrap_or(false) { Ok(()) } else { remove(folder) }
}

fn remove(directory: &Path) -> io::Result<()> {
    // A task that was just killed may still have been writing: once more for what came meanwhile.
    fs::remove_dir_all(directory).or_else(|_| fs::remove_dir_all(directory)).or_else(|error| match error.kind() {
        io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    })
}

/// Brings a directory to the state that [`Sweeper::make`] gives out, if that is cheap: nothing in it but an empty
/// folder that is writable for us, and empty spools.
fn clean(directory: &Path) -> io::Result<bool> {
    let work = directory.join(WORK);
    let (outer, inner) = (fs::symlink_metadata(directory)?, fs::symlink_metadata(&work)?);
    let unchanged = inner.is_dir() && inner.mode() == outer.mode() && inner.mode() & 0o700 == 0o700;
    if !unchanged || !remove_files(&work)? {
        return Ok(false);
    }
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        match entry.file_name().to_str() {
            Some(WORK) => {}
            Some(STDOUT | STDERR) => {
                if !empty(&entry.path())? {
                    fs::remove_file(entry.path())?;
                }
            }
            _ => return Ok(false),
        }
    }
    Ok(true)
}

/// Removes the files of a folder; not if there is more in it than a few of them.
fn remove_files(folder: &Path) -> io::Result<bool> {
    let entries: Vec<fs::DirEntry> = fs::read_dir(folder)?.take(FILES + 1).collect::<io::Result<_>>()?;
    for entry in &entries {
        if entries.len() > FILES || entry.file_type()?.is_dir() {
            return Ok(false);
        }
        fs::remove_file(entry.path())?;
    }
    Ok(true)
}

/// Empties a spool; not if another name leads to it, or anybody has it open.
fn empty(spool: &Path) -> io::Result<bool> {
    let file = fs::OpenOptions::new().write(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(spool)?;
    let facts = file.metadata()?;
    let untouched = facts.mode() & 0o7777 & !SPOOL_MODE == 0 && facts.mode() & 0o600 == 0o600;
    if !facts.is_file() || facts.nlink() != 1 || !untouched {
        return Ok(false);
    }
    // SAFETY: a descriptor that we own, and plain numbers.
    #[allow(unsafe_code)]
    let control = |command, argument: libc::c_int| unsafe { libc::fcntl(file.as_raw_fd(), command, argument) == 0 };
    // The system grants this lease only to the one who has the file open alone. Who opens it meanwhile waits, and we
    // get a signal: one that is ignored by default.
    if !(control(F_SETSIG, libc::SIGURG) && control(libc::F_SETLEASE, libc::F_WRLCK)) {
        return Ok(false);
    }
    if facts.len() > 0 {
        file.set_len(0)?;
    }
    Ok(control(libc::F_SETLEASE, libc::F_UNLCK))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_directory_goes_whatever_is_in_it_and_an_empty_one_is_used_again() {
        let folder = tempfile::tempdir().unwrap();
        let spares = Mutex::default();
        let (dirt, _received) = mpsc::channel();
        for (name, files, again) in [
            ("plain", vec![], true),
            ("files", vec!["work/.a", "work/b"], true),
            ("full", vec!["work/a/b", "work/c"], false),
            ("script", vec![SCRIPT], false),
        ] {
            let directory = folder.path().join(name);
            let sweeper = Sweeper { dirt: dirt.clone(), spares: Arc::default() };
            sweeper.make(&directory).unwrap();
            fs::write(directory.join(STDOUT), "x").unwrap();
            for file in files {
                fs::create_dir_all(directory.join(file).parent().unwrap()).unwrap();
                fs::write(directory.join(file), "y").unwrap();
            }
            sweep(&directory, &spares).unwrap();
            assert_eq!((lock(&spares).pop().is_some(), directory.exists()), (again, again), "{name}");
            sweep(&folder.path().join("absent"), &spares).unwrap();
        }
        let spare = folder.path().join("plain");
        let sweeper = Sweeper { dirt, spares: Arc::new(Mutex::new(vec![spare.clone()])) };
        sweeper.make(&folder.path().join("next")).unwrap();
        assert!(!spare.exists() && folder.path().join("next/work").is_dir());
        let left = folder.path().join("next").join(WORK).join("left");
        fs::write(&left, "").unwrap();
        sweeper.make(&folder.path().join("next")).unwrap();
        assert!(!left.exists(), "what a dead agent left isn't found by a task");
    }

    #[test]
    fn the_first_attempts_find_directories_too() {
        let tasks = tempfile::tempdir().unwrap();
        fs::create_dir_all(tasks.path().join("spare-3").join(WORK)).unwrap();
        fs::write(tasks.path().join("spare-3").join(WORK).join("left"), "").unwrap();
        let spares = Mutex::default();
        let mut maker = Some(Maker::new(tasks.path().to_owned()));
        while let Some(more) = maker.take() {
            maker = more.make_some(&spares);
        }
        let made = std::mem::take(&mut *lock(&spares));
        assert_eq!((made.len(), fs::read_dir(tasks.path()).unwrap().count()), (SPARES, SPARES));
        // They are what a used one is after it was swept.
        for directory in &made {
            assert!(clean(directory).unwrap());
            assert!(fs::read_dir(directory.join(WORK)).unwrap().next().is_none(), "{}", directory.display());
            assert!(directory.join(STDOUT).exists() && directory.join(STDERR).exists());
        }
    }

    #[test]
    fn a_folder_whose_spools_are_needed_is_emptied_and_used_again_later() {
        let folder = tempfile::tempdir().unwrap();
        let spares = Mutex::default();
        let directory = folder.path().join("1.0.1");
        let work = directory.join(WORK);
        fs::create_dir_all(&work).unwrap();
        fs::write(work.join("input"), "x").unwrap();
        fs::write(directory.join(STDOUT), "y").unwrap();
        empty_folder(&work).unwrap();
        assert!(fs::read_dir(&work).unwrap().next().is_none());
        assert_eq!(fs::read(directory.join(STDOUT)).unwrap(), b"y");
        sweep(&directory, &spares).unwrap();
        assert_eq!(lock(&spares).pop().as_deref(), Some(&*directory));
        for number in 0..=FILES {
            fs::write(work.join(number.to_string()), "").unwrap();
        }
        empty_folder(&work).unwrap();
        assert!(!work.exists(), "many files go with their folder");
    }

    #[test]
    fn a_folder_that_its_task_has_locked_is_not_used_again() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("1.0.1");
        fs::create_dir_all(directory.join(WORK)).unwrap();
        assert!(clean(&directory).unwrap());
        fs::set_permissions(directory.join(WORK), fs::Permissions::from_mode(0o500)).unwrap();
        assert!(!clean(&directory).unwrap());
    }

    #[test]
    fn a_spool_is_used_again_only_if_nobody_else_has_it() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let spool = folder.path().join(STDOUT);
        let spares = Mutex::default();
        fs::create_dir(folder.path().join(WORK)).unwrap();
        let check = |what: &str, again: bool| {
            sweep(folder.path(), &spares).unwrap();
            assert!(lock(&spares).pop().is_some(), "{what}");
            let left = fs::metadata(&spool).map(|spool| spool.len()).ok();
            assert_eq!(left, again.then_some(0), "{what}");
            fs::write(&spool, "of the task").unwrap();
        };
        check("none", false);
        check("full", true);
        let written = fs::OpenOptions::new().append(true).open(&spool).unwrap();
        check("somebody writes", false);
        drop(written);
        let read = fs::File::open(&spool).unwrap();
        check("somebody reads", false);
        drop(read);
        let elsewhere = tempfile::tempdir_in(folder.path().parent().unwrap()).unwrap();
        fs::hard_link(&spool, elsewhere.path().join("link")).unwrap();
        check("it has another name", false);
        fs::set_permissions(&spool, fs::Permissions::from_mode(0o444)).unwrap();
        check("it was locked", false);
        fs::remove_file(&spool).unwrap();
        std::os::unix::fs::symlink(elsewhere.path().join("link"), &spool).unwrap();
        sweep(folder.path(), &spares).unwrap();
        assert!(!folder.path().exists(), "it leads elsewhere");
        assert_eq!(fs::read(elsewhere.path().join("link")).unwrap(), b"of the task");
    }
}
