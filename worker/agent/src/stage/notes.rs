//! Which logs were promised to be in which bundle: a file for each bundle, until that is on S3.
//!
//! An agent that dies takes its open bundle with it, though the ends of tasks have told the grid its number. The next
//! agent finds here what was to be in it; the spools are there still. Nothing is synced: this is to survive the agent,
//! and the machine takes the spools along.
//!
//! ```text
//! CACHE/log-notes/SESSION/BUNDLE                  small logs: a line `JOB ORDINAL ATTEMPT STDOUT STDERR` each, in bytes
//! CACHE/log-notes/SESSION/JOB.ORDINAL.ATTEMPT     a log in objects of its own
//! ```

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use proto::v1::AttemptKey;

const FOLDER: &str = "log-notes";

/// What an agent before this one has promised and not stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftover {
    /// The session that promised it.
    pub session: u64,
    /// The bundle; 0: objects of its own.
    pub bundle: u32,
    /// What is to be in it.
    pub logs: Vec<LeftLog>,
}

/// The logs of one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeftLog {
    /// Whose.
    pub key: AttemptKey,
    /// Bytes of standard output.
    pub stdout: u64,
    /// Bytes of standard error.
    pub stderr: u64,
}

/// The notes of one session.
#[derive(Debug, Clone)]
pub(super) struct Notes {
    directory: PathBuf,
}

/// The note of one bundle. Dropping it leaves the file.
#[derive(Debug)]
pub(super) struct Note {
    path: PathBuf,
    file: Option<File>,
}

impl Notes {
    /// Of this session; folders of others go once they are empty.
    pub fn open(cache_dir: &Path, session: u64) -> Notes {
        let all = cache_dir.join(FOLDER);
        for other in fs::read_dir(&all).into_iter().flatten().flatten() {
            // Fails while there is something in it.
            let _ = fs::remove_dir(other.path());
        }
        let directory = all.join(session.to_string());
        if let Err(error) = fs::create_dir_all(&directory) {
            tracing::warn!(%error, path = %directory.display(), "cannot note which logs are to be uploaded");
        }
        Notes { directory }
    }

    pub fn of_bundle(&self, number: u32) -> Note {
        Note { path: self.directory.join(number.to_string()), file: None }
    }

    pub fn of_one(&self, key: &AttemptKey) -> Note {
        Note { path: self.directory.join(format!("{}.{}.{}", key.job_id, key.ordinal, key.attempt)), file: None }
    }
}

impl Note {
    /// One that is there already.
    pub fn left(cache_dir: &Path, leftover: &Leftover) -> Note {
        let notes = Notes { directory: cache_dir.join(FOLDER).join(leftover.session.to_string()) };
        match (leftover.bundle, leftover.logs.first()) {
            (0, Some(log)) => notes.of_one(&log.key),
            (bundle, _) => notes.of_bundle(bundle),
        }
    }

    /// Adds logs. Without room on the disk they are uploaded all the same, unless this agent dies before.
    pub fn add(&mut self, log: &LeftLog) {
        let LeftLog { key: AttemptKey { job_id, ordinal, attempt }, stdout, stderr } = log;
        let line = format!("{job_id} {ordinal} {attempt} {stdout} {stderr}\n");
        let written = self.file().and_then(|mut file| file.write_all(line.as_bytes()));
        if let Err(error) = written {
            tracing::warn!(%error, path = %self.path.display(), "cannot note that a log is to be uploaded");
        }
    }

    fn file(&mut self) -> io::Result<&File> {
        if self.file.is_none() {
            self.file = Some(File::options().create(true).append(true).open(&self.path)?);
        }
        self.file.as_ref().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// It is stored. To be called before any of its spools goes.
    pub fn settle(self) {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, path = %self.path.display(), "cannot delete the note of a stored log");
            }
            _ => {}
        }
    }
}

/// Everything that agents before this one have promised and not stored. To be called once, before anything is promised.
pub fn leftovers(cache_dir: &Path) -> Vec<Leftover> {
    let mut found = Vec::new();
    for folder in fs::read_dir(cache_dir.join(FOLDER)).into_iter().flatten().flatten() {
        let Some(session) = number(&folder.file_name().to_string_lossy()) else { continue };
        for file in fs::read_dir(folder.path()).into_iter().flatten().flatten() {
            let name = file.file_name().to_string_lossy().into_owned();
            // An alone log has dots in its name.
            let bundle = number(&name).and_then(|bundle| u32::try_from(bundle).ok()).unwrap_or(0);
            let text = fs::read_to_string(file.path()).unwrap_or_default();
            // The last line may be torn.
            let whole = text.rfind('\n').map_or("", |end| &text[..end]);
            let logs: Vec<LeftLog> = whole.lines().filter_map(line).collect();
            if !logs.is_empty() {
                found.push(Leftover { session, bundle, logs });
            }
        }
    }
    found
}

fn number(text: &str) -> Option<u64> {
    text.parse().ok()
}

fn line(text: &str) -> Option<LeftLog> {
    let numbers: Vec<u64> = text.split(' ').map(number).collect::<Option<_>>()?;
    let [job_id, ordinal, attempt, stdout, stderr] = numbers[..] else { return None };
    let key = AttemptKey { job_id, ordinal: ordinal.try_into().ok()?, attempt: attempt.try_into().ok()? };
    Some(LeftLog { key, stdout, stderr })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn log(ordinal: u32) -> LeftLog {
        LeftLog { key: AttemptKey { job_id: 3, ordinal, attempt: 2 }, stdout: 5, stderr: 0 }
    }

    #[test]
    fn what_was_noted_and_not_settled_is_found() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(leftovers(folder.path()), []);
        let notes = Notes::open(folder.path(), 7);
        let (mut stored, mut open, mut alone) = (notes.of_bundle(1), notes.of_bundle(2), notes.of_one(&log(9).key));
        stored.add(&log(0));
        open.add(&log(1));
        open.add(&log(2));
        alone.add(&log(9));
        stored.settle();
        fs::OpenOptions::new().append(true).open(&open.path).unwrap().write_all(b"3 4 2 7").unwrap();
        Notes::open(folder.path(), 8);
        let mut found = leftovers(folder.path());
        found.sort_by_key(|leftover| leftover.bundle);
        let of = |bundle, logs| Leftover { session: 7, bundle, logs };
        assert_eq!(found, [of(0, vec![log(9)]), of(2, vec![log(1), log(2)])]);
        for leftover in &found {
            Note::left(folder.path(), leftover).settle();
        }
        assert_eq!(leftovers(folder.path()), []);
        Notes::open(folder.path(), 8);
        assert!(!folder.path().join(FOLDER).join("7").exists());
    }
}
