//! `millgrid job`

mod set;

use proto::v1::{HoldJobRequest, ListOutputsRequest, OutputObject, ReleaseJobRequest, StoredManifest};
use serde::Serialize;

use crate::{
    failure::Failure,
    globals::Format,
    grammar::selector::Selector,
    s3::{Location, Store},
    scope::{self, Scope},
    view::{self, Row},
};

/// Arguments of job.
#[derive(Debug, Clone, clap::Args)]
#[command(before_help = "Examples:
  millgrid job hold 42
  millgrid job release 42
  millgrid job set 42 --time 2h       # from now on, for what runs too
  millgrid job reprioritize 42 --priority 10
  millgrid job outputs 42 -o jsonl")]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum Verb {
    /// Start nothing more of a job
    Hold(Jobs),
    /// Undo a hold
    Release(Jobs),
    /// Change limits and priority of jobs, also while they run
    Set(set::Set),
    /// Change the priority of jobs
    Reprioritize(set::Reprioritize),
    /// List the objects that a job published
    Outputs(Jobs),
}

#[derive(Debug, Clone, clap::Args)]
struct Jobs {
    /// Jobs: 42, last
    #[arg(required = true, value_name = "JOB")]
    selectors: Vec<Selector>,
}

/// Holds, releases, changes, lists outputs.
pub async fn run(args: Args, scope: &Scope) -> Result<u8, Failure> {
    let grid = scope.grid()?;
    match args.verb {
        Verb::Outputs(jobs) => outputs(jobs, &grid, scope).await,
        Verb::Hold(jobs) => change(jobs, true, &grid, scope).await,
        Verb::Release(jobs) => change(jobs, false, &grid, scope).await,
        Verb::Set(args) => set::set(args, &grid, scope).await,
        Verb::Reprioritize(args) => set::reprioritize(args, &grid, scope).await,
    }
}

async fn change(jobs: Jobs, hold: bool, grid: &client::Grid, scope: &Scope) -> Result<u8, Failure> {
    whole_jobs(&jobs.selectors, "held and released")?;
    let mut changed = Vec::new();
    for selector in &jobs.selectors {
        let job_id = scope::job_id(grid, selector.job).await?;
        let request_id = String::new();
        let job = if hold {
            grid.jobs().hold(HoldJobRequest { request_id, job_id }).await?
        } else {
            grid.jobs().release(ReleaseJobRequest { request_id, job_id }).await?
        };
        if scope.output.asked().is_none() {
            scope.note(&format!("job {job_id} is {}", if hold { "held" } else { "released" }));
        }
        changed.push(view::job::Job::from(&job));
    }
    rows(&changed, scope)?;
    Ok(0)
}

fn whole_jobs(selectors: &[Selector], what: &str) -> Result<(), Failure> {
    match selectors.iter().find(|selector| !selector.tasks.is_empty()) {
        None => Ok(()),
        Some(part) => {
            let hint = format!("only whole jobs are {what}");
            Err(Failure::usage("", format!("`{part}` names tasks")).hint(hint))
        }
    }
}

/// The jobs, for programs that asked for them.
fn rows(jobs: &[view::job::Job], scope: &Scope) -> Result<(), Failure> {
    match (scope.output.asked(), jobs) {
        (None, _) => Ok(()),
        (Some(Format::Json), [only]) => scope.output.row(only, String::new),
        (Some(_), many) => scope.output.rows(many),
    }
}

/// A published object as JSON has it.
#[derive(Debug, Serialize)]
struct Object {
    job_id: u64,
    index: u64,
    attempt: u32,
    path: String,
    url: String,
    size: u64,
    etag: Option<String>,
}

impl Object {
    fn new(job_id: u64, object: OutputObject) -> Self {
        let OutputObject { index, attempt, path, url, size, etag } = object;
        Self { job_id, index, attempt, path, url, size, etag: view::text(etag.trim_matches('"')) }
    }
}

impl Row for Object {
    fn headers(wide: bool) -> Vec<&'static str> {
        let mut headers = vec!["TASK", "PATH", "SIZE", "URL"];
        if wide {
            headers.extend(["ATTEMPT", "ETAG"]);
        }
        headers
    }

    fn cells(&self, wide: bool) -> Vec<String> {
        let task = format!("{}.{}", self.job_id, self.index);
        let mut cells = vec![task, self.path.clone(), self.size.to_string(), self.url.clone()];
        if wide {
            cells.extend([self.attempt.to_string(), view::or_dash(self.etag.as_ref())]);
        }
        cells
    }

    fn columns() -> &'static [&'static str] {
        &["job_id", "index", "attempt", "path", "url", "size", "etag"]
    }

    fn id(&self) -> String {
        self.url.clone()
    }
}

async fn outputs(jobs: Jobs, grid: &client::Grid, scope: &Scope) -> Result<u8, Failure> {
    let mut rows = Vec::new();
    for selector in &jobs.selectors {
        let job_id = scope::job_id(grid, selector.job).await?;
        let request = ListOutputsRequest { job_id, ranges: selector.tasks.clone(), ..ListOutputsRequest::default() };
        let (mut objects, stored) = grid.jobs().all_outputs(request).await?;
        if !stored.is_empty() {
            let store = Store::connect(scope.config.dev).await;
            for manifest in &stored {
                objects.extend(read_manifest(&store, manifest).await?);
            }
            // In the order of the array; those of one task stay as they were found.
            objects.sort_by_key(|object| object.index);
        }
        rows.extend(objects.into_iter().map(|object| Object::new(job_id, object)));
    }
    if rows.is_empty() && matches!(scope.output.format(), Format::Table | Format::Wide) {
        scope.note("nothing was published");
        return Ok(0);
    }
    scope.output.rows(&rows)?;
    Ok(0)
}

/// The objects of a task that published so many that their list is on S3.
async fn read_manifest(store: &Store, stored: &StoredManifest) -> Result<Vec<OutputObject>, Failure> {
    let manifest = read_by_hash(store, &stored.url, &stored.hash).await?;
    let etags = match stored.etags_url.is_empty() {
        true => None,
        false => Some(read_by_hash(store, &stored.etags_url, &stored.etags_hash).await?),
    };
    proto::outputs::objects(stored, &manifest, etags.as_deref())
        .map_err(|error| Failure::local(format!("{} is no manifest: {error}", stored.url)))
}

async fn read_by_hash(store: &Store, url: &str, hash: &[u8]) -> Result<Vec<u8>, Failure> {
    let Some(location) = Location::parse(url)? else {
        return Err(Failure::local(format!("`{url}` is not on S3")));
    };
    let content = store.read(&location).await?;
    if blake3::hash(&content).as_bytes() != hash {
        return Err(Failure::local(format!("{url} is damaged: its content is not what its hash says")));
    }
    Ok(content)
}
