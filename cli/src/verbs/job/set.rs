//! `millgrid job set` and `millgrid job reprioritize`

use std::time::Duration;

use proto::v1::SetJobRequest;

use super::rows;
use crate::{
    failure::Failure,
    grammar::{numbers, selector::Selector},
    scope::{self, Scope},
    submission::build::proto_duration,
    view::job::Job,
};

/// Arguments of set.
#[derive(Debug, Clone, clap::Args)]
pub struct Set {
    /// Jobs: 42, last
    #[arg(required = true, value_name = "JOB")]
    selectors: Vec<Selector>,
    /// Time limit of each attempt from its start, those that run too; none: without
    #[arg(long, value_parser = numbers::time_limit, value_name = "TIME", allow_hyphen_values = true)]
    time: Option<Duration>,
    /// How long a task may wait for its first start; none: for ever
    #[arg(long, value_parser = numbers::time_limit, value_name = "TIME", allow_hyphen_values = true)]
    queue_time: Option<Duration>,
    /// How long the job may take in all; none: for ever
    #[arg(long, value_parser = numbers::time_limit, value_name = "TIME", allow_hyphen_values = true)]
    total_time: Option<Duration>,
    /// Tasks that may run at once; none: no limit
    #[arg(long, value_parser = numbers::limit::<u32>, value_name = "N", allow_hyphen_values = true)]
    max_running: Option<u32>,
    /// End the job when so many of its tasks have failed; none: never
    #[arg(long, value_parser = numbers::limit::<u32>, value_name = "N", allow_hyphen_values = true)]
    max_failures: Option<u32>,
    /// Higher goes first, -1000 to 1000
    #[arg(long, value_name = "N", allow_hyphen_values = true, value_parser = clap::value_parser!(i32).range(-1000..=1000))]
    priority: Option<i32>,
}

/// Arguments of reprioritize.
#[derive(Debug, Clone, clap::Args)]
pub struct Reprioritize {
    /// Jobs: 42, last
    #[arg(required = true, value_name = "JOB")]
    selectors: Vec<Selector>,
    /// Higher goes first, -1000 to 1000
    #[arg(long, value_name = "N", allow_hyphen_values = true, value_parser = clap::value_parser!(i32).range(-1000..=1000))]
    priority: i32,
}

impl Set {
    fn request(&self) -> SetJobRequest {
        SetJobRequest {
            request_id: String::new(),
            job_id: 0,
            priority: self.priority,
            time_limit: self.time.map(proto_duration),
            queue_time_limit: self.queue_time.map(proto_duration),
            total_time_limit: self.total_time.map(proto_duration),
            max_running: self.max_running,
            max_failures: self.max_failures,
        }
    }
}

/// Changes limits and priority.
pub async fn set(set: Set, grid: &client::Grid, scope: &Scope) -> Result<u8, Failure> {
    let request = set.request();
    if request == SetJobRequest::default() {
        return Err(Failure::usage("", "nothing of the job is to be changed")
            .hint("name what, e.g. `--time 2h`; see `millgrid job set --help`"));
    }
    change(&set.selectors, request, grid, scope).await
}

/// Changes the priority alone.
pub async fn reprioritize(args: Reprioritize, grid: &client::Grid, scope: &Scope) -> Result<u8, Failure> {
    let request = SetJobRequest { priority: Some(args.priority), ..SetJobRequest::default() };
    change(&args.selectors, request, grid, scope).await
}

async fn change(
    selectors: &[Selector],
    request: SetJobRequest,
    grid: &client::Grid,
    scope: &Scope,
) -> Result<u8, Failure> {
    super::whole_jobs(selectors, "changed")?;
    let mut changed = Vec::new();
    for selector in selectors {
        let job_id = scope::job_id(grid, selector.job).await?;
        let job = grid.jobs().set(SetJobRequest { job_id, ..request.clone() }).await?;
        if scope.output.asked().is_none() {
            scope.note(&format!("job {job_id} was changed"));
        }
        changed.push(Job::from(&job));
    }
    rows(&changed, scope)?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use clap::{Args, FromArgMatches};

    use super::*;

    fn parse(words: &str) -> Option<SetJobRequest> {
        let parser = Set::augment_args(clap::Command::new("x").no_binary_name(true));
        let matches = parser.try_get_matches_from(words.split_whitespace()).ok()?;
        Some(Set::from_arg_matches(&matches).unwrap().request())
    }

    #[test]
    fn limits_are_set_lifted_or_left() {
        let seconds = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
        assert_eq!(parse("42"), Some(SetJobRequest::default()));
        let expected = SetJobRequest {
            priority: Some(-5),
            time_limit: seconds(7200),
            queue_time_limit: seconds(0),
            max_running: Some(0),
            max_failures: Some(3),
            ..SetJobRequest::default()
        };
        let words = "42 --priority -5 --time 2h --queue-time none --max-running none --max-failures 3";
        assert_eq!(parse(words), Some(expected));
        for wrong in ["", "42 --time 2", "42 --priority 1001", "42 --max-running -1", "fit --time 2h"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
