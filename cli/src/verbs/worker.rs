//! `millgrid worker`

use proto::v1::{CordonWorkerRequest, DrainWorkerRequest, GetWorkerRequest, UncordonWorkerRequest};

use crate::{failure::Failure, globals::Format, scope::Scope, view::worker::Worker};

/// Arguments of worker.
#[derive(Debug, Clone, clap::Args)]
#[command(before_help = "Examples:
  millgrid worker ls
  millgrid worker show worker-1 -o json
  millgrid worker cordon worker-1 --reason 'odd disk'     # until it is uncordoned
  millgrid worker uncordon worker-1                       # ends a quarantine, too
  millgrid worker drain worker-1 --reason 'kernel update' # until it joins anew")]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum Verb {
    /// List all workers
    Ls,
    /// Show workers
    Show(Names),
    /// Give workers no further tasks; what they run goes on
    Drain {
        #[command(flatten)]
        names: Names,
        /// Why; shown with the worker
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Give workers no further tasks until they are uncordoned
    Cordon {
        #[command(flatten)]
        names: Names,
        /// Why; shown with the worker
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// End a cordon, or a quarantine
    Uncordon(Names),
}

#[derive(Debug, Clone, clap::Args)]
struct Names {
    /// Names
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

/// Lists and shows workers, and says which get tasks.
pub async fn run(args: Args, scope: &Scope) -> Result<u8, Failure> {
    let grid = scope.grid()?;
    let (rows, changed): (Vec<Worker>, bool) = match args.verb {
        Verb::Ls => {
            let rows: Vec<Worker> = grid.workers().all().await?.iter().map(Worker::from).collect();
            scope.output.rows(&rows)?;
            return Ok(0);
        }
        Verb::Show(Names { names }) => {
            let mut rows = Vec::new();
            for name in names {
                rows.push(Worker::from(&grid.workers().get(GetWorkerRequest { name }).await?));
            }
            (rows, false)
        }
        Verb::Drain { names: Names { names }, reason } => {
            let mut rows = Vec::new();
            for name in names {
                let reason = reason.clone().unwrap_or_default();
                let request = DrainWorkerRequest { request_id: String::new(), name: name.clone(), reason };
                rows.push(Worker::from(&grid.workers().drain(request).await?));
                if scope.output.asked().is_none() {
                    scope.note(&format!("worker {name} gets no further tasks"));
                }
            }
            (rows, true)
        }
        Verb::Cordon { names: Names { names }, reason } => {
            let mut rows = Vec::new();
            for name in names {
                let reason = reason.clone().unwrap_or_default();
                let request = CordonWorkerRequest { request_id: String::new(), name: name.clone(), reason };
                rows.push(Worker::from(&grid.workers().cordon(request).await?));
                if scope.output.asked().is_none() {
                    scope.note(&format!("worker {name} gets no further tasks until it is uncordoned"));
                }
            }
            (rows, true)
        }
        Verb::Uncordon(Names { names }) => {
            let mut rows = Vec::new();
            for name in names {
                let request = UncordonWorkerRequest { request_id: String::new(), name: name.clone() };
                rows.push(Worker::from(&grid.workers().uncordon(request).await?));
                if scope.output.asked().is_none() {
                    scope.note(&format!("worker {name} gets tasks again"));
                }
            }
            (rows, true)
        }
    };
    match (scope.output.asked(), rows.as_slice()) {
        (None, _) if changed => {}
        (Some(Format::Json), [only]) => scope.output.row(only, String::new)?,
        (_, many) => scope.output.rows(many)?,
    }
    Ok(0)
}
