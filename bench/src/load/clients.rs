//! Many clients that call one after the other, each over a connection of its own.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::{connection::Connection, grid::Loaded};
use anyhow::Context;
use proto::v1::{JobSpec, job_service_client::JobServiceClient};
use tokio::{task::JoinSet, time::sleep};

/// A client of jobs.
pub type Jobs = JobServiceClient<Connection>;

/// So many clients, spread over the coordinators.
pub async fn connect(grid: &Loaded, count: usize) -> anyhow::Result<Vec<Jobs>> {
    let mut clients = Vec::with_capacity(count);
    for number in 0..count {
        let (connection, origin) = grid.connection(number).await?;
        clients.push(JobServiceClient::with_origin(connection, origin));
    }
    Ok(clients)
}

/// A job of one task that does nothing.
pub fn job(name: String) -> JobSpec {
    JobSpec { name, command: vec!["/bin/true".to_owned()], ..JobSpec::default() }
}

/// Lets every client call again and again: answered calls a second in each of `windows` spans of so long, after a
/// first one that doesn't count; and what the calls gave.
pub async fn rates<T, F, A>(
    grid: &Loaded,
    clients: &[Jobs],
    windows: usize,
    span: Duration,
    call: F,
) -> anyhow::Result<(Vec<f64>, Vec<T>)>
where
    T: Send + 'static,
    F: Fn(Jobs, u64) -> A + Send + Sync + Clone + 'static,
    A: Future<Output = Result<T, tonic::Status>> + Send,
{
    let (answered, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let numbers = Arc::new(AtomicU64::new(0));
    let mut loops = JoinSet::new();
    for client in clients {
        let (client, call) = (client.clone(), call.clone());
        let (answered, over, numbers) = (Arc::clone(&answered), Arc::clone(&over), Arc::clone(&numbers));
        loops.spawn(async move {
            let mut results = Vec::new();
            while !over.load(Ordering::Relaxed) {
                let number = numbers.fetch_add(1, Ordering::Relaxed);
                results.push(call(client.clone(), number).await?);
                answered.fetch_add(1, Ordering::Relaxed);
            }
            Ok::<_, tonic::Status>(results)
        });
    }
    sleep(span / 2).await;
    let mut rates = Vec::new();
    let (leader, _) = grid.leader()?;
    let rounds = || {
        let of = |name: &str| grid.metric(&leader, name);
        Ok::<_, anyhow::Error>((of("millgrid_read_rounds_total")?, of("millgrid_entries_proposed_total")?))
    };
    let rounds_before = rounds()?;
    let (meter, begun) = (grid.meter()?, answered.load(Ordering::Relaxed));
    for _ in 0..windows {
        let (start, before) = (Instant::now(), answered.load(Ordering::Relaxed));
        sleep(span).await;
        rates.push((answered.load(Ordering::Relaxed) - before) as f64 / start.elapsed().as_secs_f64());
    }
    let calls = (answered.load(Ordering::Relaxed) - begun) as f64;
    let rounds = rounds()?;
    eprintln!(
        "  {calls} calls in {} rounds of reading and {} entries; {}",
        rounds.0 - rounds_before.0,
        rounds.1 - rounds_before.1,
        meter.each(calls)?
    );
    over.store(true, Ordering::Relaxed);
    let mut results = Vec::new();
    while let Some(ended) = loops.join_next().await {
        results.extend(ended?.context("a call was refused")?);
    }
    Ok((rates, results))
}
