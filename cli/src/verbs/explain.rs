//! `millgrid explain`

mod log;

use proto::v1::ExplainJobRequest;

use crate::{
    failure::Failure,
    globals::Format,
    grammar::selector::Selector,
    scope::{self, Scope},
    view::explanation::Explanation,
};

/// Arguments of explain.
#[derive(Debug, Clone, clap::Args)]
#[command(before_help = "Examples:
  millgrid explain 42                 # why it waits, why it failed
  millgrid explain 42.7 -o json")]
pub struct Args {
    /// Jobs or tasks: 42, 42.7, last
    #[arg(required = true, value_name = "JOB")]
    selectors: Vec<Selector>,
}

/// Says why jobs and tasks are where they are.
pub async fn run(args: Args, scope: &Scope) -> Result<u8, Failure> {
    for selector in &args.selectors {
        if !selector.tasks.is_empty() && selector.single().is_none() {
            return Err(Failure::usage("", format!("`{selector}` names several tasks"))
                .hint("ask for one, e.g. `42.7`, or for the job"));
        }
    }
    let grid = scope.grid()?;
    let mut all = Vec::new();
    for selector in &args.selectors {
        let job_id = scope::job_id(&grid, selector.job).await?;
        let answer = grid.jobs().explain(ExplainJobRequest { job_id, index: selector.single() }).await?;
        let mut explanation = Explanation::from(&answer);
        explanation.log_tail = log::tail(&answer, &grid).await;
        if scope.output.format() != Format::Json {
            scope.output.one(&explanation, &explanation.id(), || explanation.screen())?;
        }
        all.push(explanation);
    }
    if scope.output.format() == Format::Json {
        match all.as_slice() {
            [only] => scope.output.one(only, "", String::new)?,
            many => scope.output.one(&many, "", String::new)?,
        }
    }
    Ok(0)
}
