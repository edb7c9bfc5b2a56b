//! Linearizable reads, one call each.

use std::time::Duration;

use proto::v1::{ExplainJobRequest, GetJobRequest, SubmitJobsRequest};

use crate::{
    figure::{Bar, Figure},
    load::{
        check, clients,
        grid::{Loaded, carry},
    },
};

const GET: Bar = Bar::at_least("get_rate", "1/s", 15_000.0, 40_000.0);
const EXPLAIN: Bar = Bar::at_least("explain_rate", "1/s", 1_000.0, 10_000.0);

/// What this measures.
pub const BARS: [Bar; 2] = [GET, EXPLAIN];

const CLIENTS: usize = 64;
/// Jobs that are asked about.
const JOBS: u64 = 1_000;
const WINDOWS: usize = 3;
const WINDOW: Duration = Duration::from_secs(2);

/// Queued jobs of a grid without workers, asked about in turn.
pub fn measure() -> anyhow::Result<Vec<Figure>> {
    let grid = Loaded::start(0)?;
    carry(async {
        let clients = clients::connect(&grid, CLIENTS).await?;
        let specs = (0..JOBS).map(|number| clients::job(format!("job-{number}"))).collect();
        let request = SubmitJobsRequest { request_id: String::new(), specs, edges: Vec::new() };
        let jobs = clients[0].clone().submit_jobs(request).await?.into_inner().jobs;
        let acknowledged: Vec<(u64, String)> = jobs.into_iter().map(|job| (job.id, job.name)).collect();
        let (gets, _) = clients::rates(&grid, &clients, WINDOWS, WINDOW, |mut client, number| async move {
            client.get_job(GetJobRequest { job_id: 1 + number % JOBS, last: false }).await.map(drop)
        })
        .await?;
        let (explains, _) = clients::rates(&grid, &clients, WINDOWS, WINDOW, |mut client, number| async move {
            client.explain_job(ExplainJobRequest { job_id: 1 + number % JOBS, index: None }).await.map(drop)
        })
        .await?;
        check::submits(&grid, clients[0].clone(), &acknowledged).await?;
        Ok(vec![GET.measured(&gets), EXPLAIN.measured(&explains)])
    })
}
