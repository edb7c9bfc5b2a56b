//! What an attempt needs before it starts: directory, script, scratch, files and inputs.

use std::{
    fs::{self, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use proto::v1::{Cause, Output};
use worker_core::{Failure, Task};

use crate::{
    blobs::Blobs,
    connection::Coordinators,
    fork_server::ForkServer,
    job_outputs,
    launch::{Launch, Malformed, Plan, Values},
    stage::{Stage, StageFailure},
    sweeper::{SCRIPT, Sweeper, WORK},
};

/// Where an attempt's things are.
#[derive(Debug, Clone)]
pub struct Places {
    /// `STATE_DIR/tasks/JOB.ORDINAL.ATTEMPT`.
    pub directory: PathBuf,
    /// Its scratch directory, should it ask for one.
    pub scratch: PathBuf,
}

/// What came of it.
#[derive(Debug)]
pub struct Ready {
    /// How to start it.
    pub launch: Launch,
    /// Its outputs, with their placeholders replaced.
    pub outputs: Vec<Output>,
}

impl From<Malformed> for Failure {
    fn from(malformed: Malformed) -> Self {
        Self { cause: Cause::StageIn, detail: malformed.to_string(), retryable: false }
    }
}

/// Whether a task needs nothing but [`make`], which is quick enough to be done at once.
pub fn is_plain(plan: &Plan) -> bool {
    plan.spec().inputs.is_empty() && plan.spec().files.is_empty()
}

/// Makes the directory and the script, and says how to start the task.
pub fn make(task: &Task, plan: &Plan, places: &Places, sweeper: &Sweeper) -> Result<Ready, Failure> {
    let values = Values::new(task)?;
    let work = places.directory.join(WORK);
    sweeper.make(&places.directory).map_err(|error| system("make the task's directory", &error))?;
    let scratch = if task.resources.scratch_gib > 0 {
        fs::create_dir_all(&places.scratch).map_err(|error| system("make the task's scratch directory", &error))?;
        places.scratch.as_path()
    } else {
        work.as_path()
    };
    let script = match plan.spec().script.is_empty() {
        true => None,
        false => {
            let path = places.directory.join(SCRIPT);
            write(&path, &plan.spec().script, true).map_err(|error| system("write the script", &error))?;
            Some(path)
        }
    };
    let launch = plan.launch(&values, &work, scratch, script.as_deref())?;
    Ok(Ready { launch, outputs: plan.outputs(&values)? })
}

/// Brings what comes from elsewhere into the directory: local files, then inputs. The files of its fork server go into
/// the state directory.
pub async fn fetch(
    task: &Task,
    plan: &Plan,
    places: &Places,
    stage: &Stage,
    blobs: &Blobs,
    grid: &Coordinators,
    server: Option<(&ForkServer, &Path)>,
) -> Result<(), Failure> {
    let work = places.directory.join(WORK);
    if let Some((server, state_dir)) = server {
        server.settle(state_dir, blobs).await?;
    }
    for file in &plan.spec().files {
        if !server.is_some_and(|(server, state_dir)| server.share(state_dir, &work, file)) {
            blobs.place(&work, file).await?;
        }
    }
    let inputs = job_outputs::resolve(grid, stage, plan.inputs(&Values::new(task)?)?).await?;
    stage.stage_in(&work, &inputs).await.map_err(|failure| staging(Cause::StageIn, failure))
}

/// A failure of staging as the cause of an attempt's end.
pub fn staging(cause: Cause, failure: StageFailure) -> Failure {
    Failure { cause, detail: failure.detail, retryable: failure.retryable }
}

/// Writes a new file.
pub fn write(path: &Path, content: &[u8], executable: bool) -> io::Result<()> {
    let mode = if executable { 0o700 } else { 0o600 };
    OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path)?.write_all(content)?;
    // Whatever the umask is, and whatever stood there.
    if executable { fs::set_permissions(path, Permissions::from_mode(mode)) } else { Ok(()) }
}

/// A reason of this machine: another may do better.
pub fn system(what: &str, error: &io::Error) -> Failure {
    Failure { cause: Cause::StageIn, detail: format!("the worker can't {what}: {error}"), retryable: true }
}
