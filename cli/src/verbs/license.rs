//! `millgrid license`

use proto::v1::{ListLicensesRequest, SetLicenseRequest};

use crate::{failure::Failure, globals::Format, grammar::numbers, scope::Scope, view::license::License};

/// Arguments of license.
#[derive(Debug, Clone, clap::Args)]
#[command(before_help = "Examples:
  millgrid license set matlab --total 10      # tasks of `submit --license matlab` use 10 at most
  millgrid license ls
  millgrid license set matlab --total 0       # there are none any more")]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum Verb {
    /// List all licenses, and how many are in use
    Ls,
    /// Say how many of a license there are in the whole grid; what runs keeps what it has
    Set {
        /// Its name: letters, digits, `_`, `-` and `.`
        #[arg(value_name = "NAME")]
        name: String,
        /// How many; 0 removes it
        #[arg(long, value_name = "N", value_parser = numbers::limit::<u64>, allow_hyphen_values = true)]
        total: u64,
    },
}

/// Lists and sets licenses.
pub async fn run(args: Args, scope: &Scope) -> Result<u8, Failure> {
    let grid = scope.grid()?;
    match args.verb {
        Verb::Ls => {
            let answer = grid.queues().licenses(ListLicensesRequest {}).await?;
            let rows: Vec<License> = answer.licenses.iter().map(License::from).collect();
            scope.output.rows(&rows)?;
        }
        Verb::Set { name, total } => {
            let request = SetLicenseRequest { request_id: String::new(), name: name.clone(), total };
            let row = License::from(&grid.queues().set_license(request).await?);
            match scope.output.asked() {
                None => scope.note(&format!("there are {total} of the license {name}")),
                Some(Format::Json) => scope.output.row(&row, String::new)?,
                Some(_) => scope.output.rows(&[row])?,
            }
        }
    }
    Ok(0)
}
