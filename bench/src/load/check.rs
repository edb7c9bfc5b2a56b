//! After a figure: nothing acknowledged is lost, and the replicas agree.

use std::collections::HashMap;

use anyhow::{Context, ensure};
use proto::v1::{Job, ListJobsRequest};

use super::{clients::Jobs, grid::Loaded};

/// Every job of the grid, ended ones too.
pub async fn all_jobs(mut client: Jobs) -> anyhow::Result<Vec<Job>> {
    let mut jobs = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListJobsRequest { all: true, page_size: 1_000, page_token, ..ListJobsRequest::default() };
        let page = client.list_jobs(request).await.context("can't list the jobs")?.into_inner();
        jobs.extend(page.jobs);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(jobs);
        }
    }
}

/// Every acknowledged submit is there under its number and its name, no number was given twice, and the replicas
/// have one digest.
pub async fn submits(grid: &Loaded, client: Jobs, acknowledged: &[(u64, String)]) -> anyhow::Result<()> {
    let jobs: HashMap<u64, String> = all_jobs(client).await?.into_iter().map(|job| (job.id, job.name)).collect();
    let lost = acknowledged.iter().filter(|(id, name)| jobs.get(id) != Some(name)).count();
    ensure!(lost == 0, "{lost} of {} acknowledged submits are lost", acknowledged.len());
    ensure!(jobs.len() <= acknowledged.len(), "{} jobs of {} acknowledged submits", jobs.len(), acknowledged.len());
    let mut ids: Vec<u64> = acknowledged.iter().map(|(id, _)| *id).collect();
    ids.sort_unstable();
    ids.dedup();
    ensure!(ids.len() == acknowledged.len(), "a number was given to two submits");
    let digests = digests(grid);
    eprintln!("  {} submits acknowledged, 0 lost; {digests}", acknowledged.len());
    Ok(())
}

/// Every acknowledged end is counted as a success, once.
pub async fn ends(grid: &Loaded, client: Jobs, acknowledged: u64) -> anyhow::Result<()> {
    let jobs = all_jobs(client).await?;
    let succeeded: u64 = jobs.iter().filter_map(|job| job.tasks.as_ref()).map(|tasks| tasks.succeeded).sum();
    ensure!(succeeded == acknowledged, "{acknowledged} ends acknowledged, {succeeded} tasks succeeded");
    let digests = digests(grid);
    eprintln!("  {acknowledged} ends acknowledged, 0 lost; {digests}");
    Ok(())
}

/// The same after changes of leader: an end whose acknowledgement was lost with one counts too.
pub async fn ends_at_least(grid: &Loaded, client: Jobs, acknowledged: u64) -> anyhow::Result<()> {
    let jobs = all_jobs(client).await?;
    let succeeded: u64 = jobs.iter().filter_map(|job| job.tasks.as_ref()).map(|tasks| tasks.succeeded).sum();
    ensure!(succeeded >= acknowledged, "{acknowledged} ends acknowledged, {succeeded} tasks succeeded");
    let digests = digests(grid);
    eprintln!("  {acknowledged} ends acknowledged, {succeeded} recorded, 0 lost; {digests}");
    Ok(())
}

/// Waits until the three replicas have one digest at one index, and says so.
pub fn digests(grid: &Loaded) -> String {
    grid.grid.check_replicas();
    "the digests of the three replicas are equal".to_owned()
}
