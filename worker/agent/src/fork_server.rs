//! Programs that are loaded once per worker and make processes for many tasks: which task may use which, and their files.
//!
//! Two jobs share a server when their command, their environment and the files that the server needs are the same.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use prost::Message;
use proto::v1::{JobSpec, LocalFile, Resources};
use worker_core::Failure;
use worker_keeper::protocol::SetForkServer;

use crate::blobs::Blobs;

/// Below the state directory: a folder for each server, with its files and what it writes.
const FOLDER: &str = "servers";
const LOG: &str = "server.log";
/// Variables that are a task's or a job's alone, also where the job sets them.
const OWN: [&[u8]; 2] = [b"MILLGRID_ENTRY=", b"MILLGRID_CALLS="];

/// A server that a task could use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForkServer {
    /// The same for equal ones.
    pub id: Bytes,
    /// Whose tasks may follow one another in a process; empty: nobody's.
    pub group: Bytes,
    argv: Vec<Bytes>,
    env: Vec<Bytes>,
    files: Vec<LocalFile>,
}

impl ForkServer {
    /// That of a job with this expanded command, and the environment that its tasks have in common. None when the job
    /// names none, or files that it hasn't.
    pub fn of(spec: &JobSpec, owner: &str, resources: Resources, argv: &[Bytes], env: Vec<Bytes>) -> Option<Self> {
        let wanted = spec.fork_server.as_ref()?;
        let file = |path: &String| spec.files.iter().find(|file| file.path == *path).cloned();
        let files = wanted.files.iter().map(file).collect::<Option<Vec<LocalFile>>>()?;
        let env: Vec<Bytes> = env.into_iter().filter(|entry| !OWN.iter().any(|name| entry.starts_with(name))).collect();
        let mut hasher = blake3::Hasher::new();
        let mut add = |part: &[u8]| {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
        };
        for group in [argv, &env] {
            add(&(group.len() as u64).to_le_bytes());
            group.iter().for_each(|part| add(part));
        }
        files.iter().for_each(|file| add(&file.encode_to_vec()));
        let id = Bytes::copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        // What a process has loaded was made for what its task may use, and counts as what the next one uses.
        let Resources { cpu_milli, memory_mib, gpus, .. } = resources;
        let group = match &*wanted.group {
            "" => String::new(),
            group => format!("{cpu_milli} {memory_mib} {gpus} {} {owner}{group}", owner.len()),
        };
        Some(Self { id, group: group.into(), argv: argv.to_vec(), env, files })
    }

    /// Puts its files where it will be started, unless they are there.
    pub async fn settle(&self, state_dir: &Path, blobs: &Blobs) -> Result<(), Failure> {
        let folder = self.folder(state_dir);
        if folder.exists() {
            return Ok(());
        }
        // Two tasks may do this at one time: each its own, and the first to be done counts.
        static MADE: AtomicU64 = AtomicU64::new(0);
        let making = folder.with_extension(MADE.fetch_add(1, Ordering::Relaxed).to_string());
        let failed = |error| crate::prepare::system("make a folder for a fork server", &error);
        fs::create_dir_all(&making).map_err(failed)?;
        for file in &self.files {
            blobs.place(&making, file).await?;
            let mode = if file.executable { 0o500 } else { 0o400 };
            fs::set_permissions(making.join(&file.path), Permissions::from_mode(mode)).map_err(failed)?;
        }
        match fs::rename(&making, &folder) {
            Err(error) if !folder.exists() => Err(failed(error)),
            Err(_) => fs::remove_dir_all(&making).map_err(failed),
            Ok(()) => Ok(()),
        }
    }

    /// Gives a task a file that the server has, the very same one; whether it did.
    pub fn share(&self, state_dir: &Path, work: &Path, file: &LocalFile) -> bool {
        if !self.files.contains(file) || file.path.contains('/') {
            return false;
        }
        let (ours, theirs) = (self.folder(state_dir).join(&file.path), work.join(&file.path));
        let shared = fs::hard_link(ours, &theirs);
        if shared.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::AlreadyExists) {
            // What is written there next must not be written into the server's.
            let _ = fs::remove_file(theirs);
        }
        shared.is_ok()
    }

    /// What the keeper is told.
    pub fn definition(&self, state_dir: &Path) -> SetForkServer {
        let folder = self.folder(state_dir);
        SetForkServer {
            id: self.id.clone(),
            argv: self.argv.clone(),
            env: self.env.clone(),
            log_path: folder.join(LOG).to_string_lossy().into_owned(),
            directory: folder.to_string_lossy().into_owned(),
        }
    }

    fn folder(&self, state_dir: &Path) -> PathBuf {
        state_dir.join(FOLDER).join(self.id.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
    }
}

/// Removes the files of servers of earlier times; those that run have read theirs.
pub fn sweep(state_dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(state_dir.join(FOLDER)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proto::v1::{Blob, ForkServer as Wanted};

    use super::*;

    fn wanted(file: &str) -> Wanted {
        Wanted { files: vec![file.into()], group: String::new() }
    }

    fn spec(file: &'static [u8]) -> JobSpec {
        let blob = Some(Blob { size: 1, chunk_hashes: vec![Bytes::from_static(file)] });
        let files = vec![LocalFile { path: "serve.py".into(), blob, executable: false }];
        JobSpec { files, fork_server: Some(wanted("serve.py")), ..JobSpec::default() }
    }

    #[test]
    fn what_a_server_depends_on_tells_it_apart() {
        let id = |spec: &JobSpec, argv: &'static str, env: &'static str| {
            ForkServer::of(spec, "me", Resources::default(), &[Bytes::from_static(argv.as_bytes())], vec![env.into()])
                .unwrap()
                .id
        };
        let (one, other) = (spec(b"1"), spec(b"2"));
        let first = id(&one, "python", "A=1");
        assert_eq!(first, id(&one, "python", "A=1"));
        for different in [id(&other, "python", "A=1"), id(&one, "pypy", "A=1"), id(&one, "python", "A=2")] {
            assert_ne!(first, different);
        }
        let mut named = one.clone();
        named.name = "another".into();
        assert_eq!(first, id(&named, "python", "A=1"));
    }

    #[test]
    fn a_group_is_of_one_owner_and_of_the_same_resources() {
        let of = |owner, group: &str, memory_mib| {
            let mut spec = spec(b"1");
            spec.fork_server = Some(Wanted { group: group.into(), ..wanted("serve.py") });
            ForkServer::of(&spec, owner, Resources { memory_mib, ..Resources::default() }, &[], Vec::new()).unwrap()
        };
        assert_eq!(of("me", "a", 1), of("me", "a", 1));
        for other in [of("you", "a", 1), of("me", "b", 1), of("me", "a", 2), of("m", "ea", 1)] {
            assert_ne!(of("me", "a", 1).group, other.group);
            assert_eq!(of("me", "a", 1).id, other.id);
        }
        assert!(of("me", "", 1).group.is_empty());
    }

    #[test]
    fn a_task_shares_what_the_server_has_and_nothing_else() {
        let spec = spec(b"1");
        let server = ForkServer::of(&spec, "me", Resources::default(), &[], Vec::new()).unwrap();
        let (state, work) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let share = |file: &LocalFile| server.share(state.path(), work.path(), file);
        assert!(!share(&spec.files[0]), "it isn't there");
        fs::create_dir_all(server.folder(state.path())).unwrap();
        fs::write(server.folder(state.path()).join("serve.py"), "text").unwrap();
        assert!(share(&spec.files[0]));
        assert_eq!(fs::read(work.path().join("serve.py")).unwrap(), b"text");
        assert!(!share(&spec.files[0]), "another file stands there");
        assert!(!work.path().join("serve.py").exists(), "writing there would write into the server's");
        assert!(!share(&LocalFile { path: "other.py".into(), ..spec.files[0].clone() }));
    }

    #[test]
    fn a_file_that_the_job_has_not_makes_no_server() {
        let mut spec = spec(b"1");
        spec.fork_server = Some(wanted("other.py"));
        assert_eq!(ForkServer::of(&spec, "me", Resources::default(), &[], Vec::new()), None);
        spec.fork_server = None;
        assert_eq!(ForkServer::of(&spec, "me", Resources::default(), &[], Vec::new()), None);
    }
}
