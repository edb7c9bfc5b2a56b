//! `millgrid show`

use proto::v1::{self, ListTasksRequest};

use crate::{
    failure::Failure,
    globals::Format,
    grammar::selector::Selector,
    output::{self, Part},
    scope::{self, Scope},
    view::{self, job::Job, task::Task},
};

/// Tasks of a table.
const TABLE_ROWS: usize = 1000;

/// Arguments of show.
#[derive(Debug, Clone, clap::Args)]
#[command(before_help = "Examples:
  millgrid show 42                    # an array: progress, and its failures grouped by cause
  millgrid show 42.7 --attempts
  millgrid show 42 --tasks -o jsonl   # a task a line")]
pub struct Args {
    /// Jobs or tasks: 42, 42.7, 42.0-9, last
    #[arg(required = true, value_name = "JOB")]
    selectors: Vec<Selector>,
    /// The job's tasks too
    #[arg(long)]
    tasks: bool,
    /// The tasks' attempts too
    #[arg(long)]
    attempts: bool,
}

/// What one selector found.
enum Found {
    Job(Box<v1::Job>, Vec<v1::Task>),
    Tasks(Vec<v1::Task>),
}

/// Shows jobs and tasks.
pub async fn run(args: Args, scope: &Scope) -> Result<u8, Failure> {
    let grid = scope.grid()?;
    let format = scope.output.format();
    let with_tasks = args.tasks || args.attempts;
    let by_line = matches!(format, Format::Jsonl | Format::Csv | Format::Id);
    let mut part = Part::new(scope.output);
    let mut found = Vec::new();
    for selector in &args.selectors {
        let id = scope::job_id(&grid, selector.job).await?;
        let request = ListTasksRequest {
            job_id: id,
            ranges: selector.tasks.clone(),
            attempts: args.attempts,
            ..ListTasksRequest::default()
        };
        if by_line && (with_tasks || !selector.tasks.is_empty()) {
            let mut failed = Ok(());
            let pages = grid.jobs().each_page_of_tasks(request, |tasks| {
                failed = part.add(&views(&tasks, args.attempts));
                failed.is_ok()
            });
            pages.await?;
            failed?;
        } else if selector.tasks.is_empty() {
            let job = scope::job(&grid, id).await?;
            let most = if format == Format::Json { usize::MAX } else { TABLE_ROWS };
            let tasks = if with_tasks { tasks(&grid, request, most).await? } else { Vec::new() };
            if by_line {
                part.add(&[Job::from(&job)])?;
            }
            found.push(Found::Job(Box::new(job), tasks));
        } else {
            found.push(Found::Tasks(tasks(&grid, request, usize::MAX).await?));
        }
    }
    if !by_line {
        if format == Format::Json {
            json(&args, found, with_tasks, scope)?;
        } else {
            screens(&args, &found, scope)?;
        }
    }
    Ok(0)
}

async fn tasks(grid: &client::Grid, request: ListTasksRequest, most: usize) -> Result<Vec<v1::Task>, Failure> {
    let mut tasks = Vec::new();
    let pages = grid.jobs().each_page_of_tasks(request, |page| {
        tasks.extend(page);
        tasks.len() < most
    });
    pages.await?;
    Ok(tasks)
}

fn views(tasks: &[v1::Task], attempts: bool) -> Vec<Task> {
    tasks.iter().map(|task| Task::new(task, attempts)).collect()
}

/// A job, or a task, as a document of its own.
#[derive(serde::Serialize)]
#[serde(untagged)]
enum Document {
    Job(Box<Job>),
    Task(Box<Task>),
}

fn json(args: &Args, found: Vec<Found>, with_tasks: bool, scope: &Scope) -> Result<(), Failure> {
    let single = matches!(args.selectors.as_slice(), [one] if one.tasks.is_empty() || one.single().is_some());
    let mut documents = Vec::new();
    for found in found {
        match found {
            Found::Job(job, tasks) => {
                let mut view = Job::from(&*job);
                view.task_list = with_tasks.then(|| views(&tasks, args.attempts));
                documents.push(Document::Job(Box::new(view)));
            }
            Found::Tasks(tasks) => {
                documents.extend(views(&tasks, args.attempts).into_iter().map(|task| Document::Task(Box::new(task))))
            }
        }
    }
    match documents.as_slice() {
        [only] if single => scope.output.one(only, "", String::new),
        many => scope.output.one(&many, "", String::new),
    }
}

fn screens(args: &Args, found: &[Found], scope: &Scope) -> Result<(), Failure> {
    for (position, found) in found.iter().enumerate() {
        if position > 0 {
            output::line("")?;
        }
        match found {
            Found::Job(job, tasks) => {
                scope.output.one(&Job::from(&**job), "", || view::job::screen(job))?;
                if !tasks.is_empty() {
                    output::line("")?;
                    table(tasks, args.attempts, scope)?;
                }
                if (tasks.len() as u64) < job.task_count && !tasks.is_empty() {
                    scope.note(&format!("the first {} of {} tasks; `-o jsonl` has all", tasks.len(), job.task_count));
                }
            }
            Found::Tasks(tasks) => match tasks.as_slice() {
                [only] => {
                    scope.output.one(&Task::new(only, false), "", || view::task::screen(only))?;
                    if args.attempts {
                        output::line("")?;
                        table(tasks, true, scope)?;
                    }
                }
                many => table(many, args.attempts, scope)?,
            },
        }
    }
    Ok(())
}

fn table(tasks: &[v1::Task], attempts: bool, scope: &Scope) -> Result<(), Failure> {
    let rows = views(tasks, attempts);
    if attempts {
        let rows: Vec<Task> = rows.iter().flat_map(|task| task.attempts().iter().cloned()).collect();
        return scope.output.rows(&rows);
    }
    scope.output.rows(&rows)
}
