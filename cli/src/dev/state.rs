use std::{
    env,
    fs::{self, File},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::FlockOperation;

use super::{failure::Failure, record::Record};

/// What is in a folder before its record is.
const MADE_FIRST: [&str; 8] = ["lock", "record.lock", "dev.json.new", "ca", "config", "log", "s3", "s3-credentials"];

/// The folder of one grid.
///
/// ```text
/// STATE/dev.json         ports, processes; see `Record`
/// STATE/lock             held while the grid is started, and by the program in the foreground
/// STATE/record.lock      held for the moment of a change to dev.json
/// STATE/s3-credentials   the key pair of the S3 endpoint
/// STATE/ca/              the authority, and everyone's certificate and key
/// STATE/c1/ ...          disks of coordinators
/// STATE/worker-1/ ...    state directories of workers
/// STATE/s3/dev/          the bucket `dev`
/// STATE/config/          configuration files of all processes
/// STATE/log/NAME.log     what the processes wrote
/// ```
#[derive(Debug, Clone)]
pub struct State {
    path: PathBuf,
}

impl State {
    /// The folder that is meant, which need not exist.
    pub fn chosen(state: Option<PathBuf>) -> Result<Self, Failure> {
        let path = match state {
            Some(path) => path,
            None => default_path()?,
        };
        Ok(Self { path: resolved(path)? })
    }

    /// The folder of a grid that was started once.
    pub fn existing(state: Option<PathBuf>) -> Result<Self, Failure> {
        let state = Self::chosen(state)?;
        if state.record_path().exists() { Ok(state) } else { Err(Failure::NoState(state.path)) }
    }

    /// A temporary folder, removed when the grid is stopped.
    pub fn temporary() -> Result<Self, Failure> {
        let parent = env::temp_dir();
        let made = tempfile::Builder::new().prefix("millgrid-dev-").tempdir_in(&parent);
        Ok(Self { path: resolved(made.map_err(Failure::file("make a folder in", parent))?.keep())? })
    }

    /// Whether it is the one that is meant when none is named.
    pub fn is_default(&self) -> bool {
        default_path().and_then(resolved).is_ok_and(|path| path == self.path)
    }

    /// Makes the folder. One that has other things in it is refused: `reset` would delete them.
    pub fn create(&mut self) -> Result<(), Failure> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.path);
        made.map_err(Failure::file("make", &self.path))?;
        self.path = resolved(std::mem::take(&mut self.path))?;
        if self.record_path().exists() {
            return Ok(());
        }
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(Failure::file("read", &self.path))? {
            names.push(entry.map_err(Failure::file("read", &self.path))?.file_name());
        }
        // A start that was cut short before it wrote the record left some of these.
        let ours = names.iter().all(|name| MADE_FIRST.iter().any(|known| name == known));
        if names.is_empty() || (ours && names.iter().any(|name| name == "lock")) {
            Ok(())
        } else {
            Err(Failure::ForeignFolder(self.path.clone()))
        }
    }

    /// Held as long as the result lives; `None` when another process has it.
    pub fn lock(&self) -> Result<Option<File>, Failure> {
        let path = self.path.join("lock");
        let file = File::create(&path).map_err(Failure::file("write", &path))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(file)),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(Failure::file("lock", path)(error.into())),
        }
    }

    /// As `lock`, of a folder that may be gone: then there is nothing to lock.
    pub fn lock_if_there(&self) -> Result<Option<Option<File>>, Failure> {
        if self.path.exists() { Ok(self.lock()?.map(Some)) } else { Ok(Some(None)) }
    }

    /// What is written down about the grid; `None` before its first start.
    pub fn record(&self) -> Result<Option<Record>, Failure> {
        let path = self.record_path();
        match fs::read(&path) {
            Ok(bytes) => match serde_json::from_slice(&bytes) {
                Ok(record) => Ok(Some(record)),
                Err(error) => Err(Failure::file("read", path)(error.into())),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Failure::file("read", path)(error)),
        }
    }

    /// As `record`, of a grid that must have been started once.
    pub fn started(&self) -> Result<Record, Failure> {
        self.record()?.ok_or_else(|| Failure::NoState(self.path.clone()))
    }

    /// Writes the record anew.
    pub fn write_record(&self, record: &Record) -> Result<(), Failure> {
        let path = self.record_path();
        let text = serde_json::to_vec_pretty(record).map_err(|error| Failure::file("write", &path)(error.into()))?;
        let new = self.path.join("dev.json.new");
        fs::write(&new, text).and_then(|()| fs::rename(&new, &path)).map_err(Failure::file("write", path))
    }

    /// Changes the record while no other process does.
    pub fn change_record(&self, change: impl FnOnce(&mut Record)) -> Result<Record, Failure> {
        let path = self.path.join("record.lock");
        let lock = File::create(&path).map_err(Failure::file("write", &path))?;
        rustix::fs::flock(&lock, FlockOperation::LockExclusive)
            .map_err(|error| Failure::file("lock", path)(error.into()))?;
        let mut record = self.started()?;
        change(&mut record);
        self.write_record(&record)?;
        Ok(record)
    }

    /// Deletes everything.
    pub fn remove(&self) -> Result<(), Failure> {
        match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Failure::file("remove", &self.path)(error)),
            _ => Ok(()),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn ca(&self) -> PathBuf {
        self.path.join("ca")
    }

    /// The disk of a coordinator or a worker.
    pub fn disk(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub fn s3(&self) -> PathBuf {
        self.path.join("s3")
    }

    pub fn config(&self, name: &str) -> PathBuf {
        self.path.join("config").join(format!("{name}.toml"))
    }

    pub fn logs(&self) -> PathBuf {
        self.path.join("log")
    }

    pub fn log(&self, name: &str) -> PathBuf {
        self.logs().join(format!("{name}.log"))
    }

    /// The key pair of the S3 endpoint, drawn when there is none.
    pub fn s3_credentials(&self) -> Result<dev_s3::Credentials, Failure> {
        let path = self.path.join("s3-credentials");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let text = format!("MILLGRID{}\n{}\n", super::launch::random_hex(6)?, super::launch::random_hex(20)?);
                let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
                file.and_then(|mut file| io::Write::write_all(&mut file, text.as_bytes()))
                    .map_err(Failure::file("write", &path))?;
                text
            }
            Err(error) => return Err(Failure::file("read", path)(error)),
        };
        match text.split_whitespace().collect::<Vec<_>>()[..] {
            [access_key, secret_key] => {
                Ok(dev_s3::Credentials { access_key: access_key.to_owned(), secret_key: secret_key.to_owned() })
            }
            _ => Err(Failure::Other(format!("`{}` doesn't hold two words", path.display()))),
        }
    }

    fn record_path(&self) -> PathBuf {
        self.path.join("dev.json")
    }
}

/// Without links: the processes are recognized by the paths on their command lines.
fn resolved(path: PathBuf) -> Result<PathBuf, Failure> {
    match fs::canonicalize(&path) {
        Ok(path) => Ok(path),
        Err(_) => std::path::absolute(&path).map_err(Failure::file("find", path)),
    }
}

fn default_path() -> Result<PathBuf, Failure> {
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    // The XDG specification has relative paths ignored.
    let base = set("XDG_STATE_HOME").filter(|path| path.is_absolute());
    let base = base.or_else(|| set("HOME").map(|home| home.join(".local/state")));
    let base = base.ok_or_else(|| Failure::Other("there is no HOME; name a folder with --state".to_owned()))?;
    Ok(base.join("millgrid/dev"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn check(files: &[&str], accepted: bool) {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            fs::write(folder.path().join(file), "").unwrap();
        }
        let created = State::chosen(Some(folder.path().to_owned())).unwrap().create();
        assert_eq!(created.is_ok(), accepted, "{files:?}");
    }

    #[test]
    fn a_folder_with_other_things_in_it_becomes_no_state() {
        check(&[], true);
        check(&["lock", "ca", "s3-credentials"], true);
        check(&["dev.json", "thesis.tex"], true);
        check(&["thesis.tex"], false);
        check(&["lock", "thesis.tex"], false);
        check(&["config", "log"], false);
    }

    #[test]
    fn a_state_is_locked_by_one() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::chosen(Some(folder.path().to_owned())).unwrap();
        let first = state.lock().unwrap();
        assert!(first.is_some() && state.lock().unwrap().is_none());
        drop(first);
        assert!(state.lock().unwrap().is_some());
    }

    #[test]
    fn credentials_are_drawn_once_and_are_the_owners_alone() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let state = State::chosen(Some(folder.path().to_owned())).unwrap();
        let (first, again) = (state.s3_credentials().unwrap(), state.s3_credentials().unwrap());
        assert_eq!((first.access_key, first.secret_key), (again.access_key, again.secret_key));
        let mode = fs::metadata(folder.path().join("s3-credentials")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
