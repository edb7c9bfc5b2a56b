//! `millgrid queue`

mod settings;

use proto::v1::{
    CreateQueueRequest, DeleteQueueRequest, GetFairShareRequest, GetQueueRequest, QueueSettings, SetFairShareRequest,
    SetQueueRequest,
};

use self::settings::Settings;
use crate::{
    failure::Failure,
    globals::Format,
    grammar::numbers,
    scope::Scope,
    submission::build::proto_duration,
    view::queue::{Deleted, FairShare, Queue},
};

/// Arguments of queue.
#[derive(Debug, Clone, clap::Args)]
#[command(before_help = "Examples:
  millgrid queue ls
  millgrid queue create gpu --weight 3 --max-running 100 --guarantee-cpus 16
  millgrid queue set gpu --max-running none
  millgrid queue pause gpu   millgrid queue resume gpu   millgrid queue drain gpu
  millgrid queue fair-share --half-life 10m")]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum Verb {
    /// List all queues
    Ls,
    /// Show queues
    Show(Names),
    /// Make a queue
    Create(Change),
    /// Change a queue, at once, also for the jobs in it
    Set(Change),
    /// Start nothing of queues; submits are taken
    Pause(Names),
    /// Undo a pause or a drain
    Resume(Names),
    /// Take no submits; what is queued goes on
    Drain(Names),
    /// Delete queues that have no jobs left
    Delete(Names),
    /// Show, or set, how long the use of the grid counts against a queue
    FairShare {
        /// Use counts half after so long; none: only what is in use now counts
        #[arg(long, value_parser = numbers::time_limit, value_name = "TIME", allow_hyphen_values = true)]
        half_life: Option<std::time::Duration>,
    },
}

#[derive(Debug, Clone, clap::Args)]
struct Names {
    /// Names
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

#[derive(Debug, Clone, clap::Args)]
struct Change {
    /// Its name: letters, digits, `_`, `-` and `.`
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    settings: Settings,
}

/// Lists, shows and changes queues.
pub async fn run(args: Args, scope: &Scope) -> Result<u8, Failure> {
    let grid = scope.grid()?;
    match args.verb {
        Verb::Ls => {
            let rows: Vec<Queue> = grid.queues().all().await?.iter().map(Queue::from).collect();
            scope.output.rows(&rows)?;
        }
        Verb::Show(Names { names }) => {
            let mut rows = Vec::new();
            for name in names {
                rows.push(Queue::from(&grid.queues().get(GetQueueRequest { name }).await?));
            }
            match (scope.output.format(), rows.as_slice()) {
                (Format::Json, [only]) => scope.output.row(only, String::new)?,
                (_, many) => scope.output.rows(many)?,
            }
        }
        Verb::Create(Change { name, settings }) => {
            let settings = Some(settings.message());
            let request = CreateQueueRequest { request_id: String::new(), name: name.clone(), settings };
            let queue = grid.queues().create(request).await?;
            told(&[Queue::from(&queue)], &[format!("queue {name} was made")], scope)?;
        }
        Verb::Set(Change { name, settings }) => {
            let settings = settings.message();
            if settings == QueueSettings::default() {
                return Err(Failure::usage("", format!("nothing of queue `{name}` is to be changed"))
                    .hint("name what, e.g. `--weight 3`; see `millgrid queue set --help`"));
            }
            let queue = set(&grid, &name, settings).await?;
            told(&[queue], &[format!("queue {name} was changed")], scope)?;
        }
        Verb::Pause(Names { names }) => {
            let paused = QueueSettings { paused: Some(true), ..QueueSettings::default() };
            set_all(names, paused, "is paused: nothing of it is started", &grid, scope).await?;
        }
        Verb::Resume(Names { names }) => {
            let open = QueueSettings { paused: Some(false), draining: Some(false), ..QueueSettings::default() };
            set_all(names, open, "is open", &grid, scope).await?;
        }
        Verb::Drain(Names { names }) => {
            let draining = QueueSettings { draining: Some(true), ..QueueSettings::default() };
            set_all(names, draining, "takes no further jobs", &grid, scope).await?;
        }
        Verb::Delete(Names { names }) => {
            for name in &names {
                let request = DeleteQueueRequest { request_id: String::new(), name: name.clone() };
                grid.queues().delete(request).await?;
                if scope.output.asked().is_none() {
                    scope.note(&format!("queue {name} was deleted"));
                }
            }
            let rows: Vec<Deleted> = names.into_iter().map(|name| Deleted { name }).collect();
            match (scope.output.asked(), rows.as_slice()) {
                (None, _) => {}
                (Some(Format::Json), [only]) => scope.output.row(only, String::new)?,
                (Some(_), many) => scope.output.rows(many)?,
            }
        }
        Verb::FairShare { half_life } => {
            let answer = match half_life.map(proto_duration) {
                None => grid.queues().fair_share(GetFairShareRequest {}).await?,
                half_life => {
                    grid.queues().set_fair_share(SetFairShareRequest { request_id: String::new(), half_life }).await?
                }
            };
            let view = FairShare::from(&answer);
            scope.output.one(&view, &view.half_life.to_string(), || view.screen())?;
        }
    }
    Ok(0)
}

async fn set(grid: &client::Grid, name: &str, settings: QueueSettings) -> Result<Queue, Failure> {
    let request = SetQueueRequest { request_id: String::new(), name: name.to_owned(), settings: Some(settings) };
    Ok(Queue::from(&grid.queues().set(request).await?))
}

async fn set_all(
    names: Vec<String>,
    settings: QueueSettings,
    note: &str,
    grid: &client::Grid,
    scope: &Scope,
) -> Result<(), Failure> {
    let mut rows = Vec::new();
    for name in &names {
        rows.push(set(grid, name, settings).await?);
    }
    let notes: Vec<String> = names.iter().map(|name| format!("queue {name} {note}")).collect();
    told(&rows, &notes, scope)
}

/// The queues for programs that asked for them, remarks for people.
fn told(rows: &[Queue], notes: &[String], scope: &Scope) -> Result<(), Failure> {
    match (scope.output.asked(), rows) {
        (None, _) => {
            notes.iter().for_each(|note| scope.note(note));
            Ok(())
        }
        (Some(Format::Json), [only]) => scope.output.row(only, String::new),
        (Some(_), many) => scope.output.rows(many),
    }
}
