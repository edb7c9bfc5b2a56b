//! `millgrid queue`

use proto::v1::GetQueueRequest;

use crate::{failure::Failure, globals::Format, scope::Scope, view::queue::Queue};

/// Arguments of queue.
#[derive(Debug, Clone, clap::Args)]
#[command(before_help = "Examples:
  millgrid queue ls
  millgrid queue show default -o json")]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum Verb {
    /// List all queues
    Ls,
    /// Show queues
    Show {
        /// Names
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
}

/// Lists and shows queues.
pub async fn run(args: Args, scope: &Scope) -> Result<u8, Failure> {
    let grid = scope.grid()?;
    match args.verb {
        Verb::Ls => {
            let rows: Vec<Queue> = grid.queues().all().await?.iter().map(Queue::from).collect();
            scope.output.rows(&rows)?;
        }
        Verb::Show { names } => {
            let mut rows = Vec::new();
            for name in names {
                rows.push(Queue::from(&grid.queues().get(GetQueueRequest { name }).await?));
            }
            match (scope.output.format(), rows.as_slice()) {
                (Format::Json, [only]) => scope.output.row(only, String::new)?,
                (_, many) => scope.output.rows(many)?,
            }
        }
    }
    Ok(0)
}
