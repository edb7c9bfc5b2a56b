//! Submits: one after the other, many clients at once, and one stream.

use std::time::{Duration, Instant};

use anyhow::Context;
use proto::v1::SubmitJobRequest;

use super::milliseconds;
use crate::{
    figure::{Bar, Figure, median},
    load::{
        check,
        clients::{self, Jobs},
        disk::median_sync_ms,
        grid::{Loaded, carry},
    },
};

const ONE: Bar = Bar::at_most("submit_one_ratio", "ms", 2.0, 1.2);
const STREAM: Bar = Bar::at_least("submit_stream", "1/s", 50_000.0, 150_000.0);
const MANY: Bar = Bar::at_least("submit_64", "1/s", 7_000.0, 20_000.0);

/// What this measures.
pub const BARS: [Bar; 3] = [ONE, MANY, STREAM];

/// Submits of one client, through each of the three coordinators in turn.
const SINGLE: usize = 600;
/// Clients at once.
const CLIENTS: usize = 64;
const WINDOWS: usize = 3;
const WINDOW: Duration = Duration::from_secs(3);

/// A grid without workers: what is accepted stays queued.
pub fn measure() -> anyhow::Result<Vec<Figure>> {
    let grid = Loaded::start(0)?;
    carry(run(&grid))
}

async fn run(grid: &Loaded) -> anyhow::Result<Vec<Figure>> {
    let clients = clients::connect(grid, CLIENTS).await?;
    let mut acknowledged = Vec::new();
    for number in 0..30 {
        acknowledged.push(submit(clients[number % 3].clone(), format!("first-{number}")).await?);
    }
    let sync_ms = median_sync_ms(grid.grid.folder())?;
    let mut times = Vec::with_capacity(SINGLE);
    for number in 0..SINGLE {
        let client = clients[number % 3].clone();
        let start = Instant::now();
        acknowledged.push(submit(client, format!("one-{number}")).await?);
        times.push(milliseconds(start.elapsed()));
    }
    let by_coordinator = |which: usize| median(times.iter().skip(which).step_by(3).copied().collect());
    eprintln!(
        "  one sync of this disk {sync_ms:.3} ms; one submit through each coordinator {:.2}, {:.2}, {:.2} ms",
        by_coordinator(0),
        by_coordinator(1),
        by_coordinator(2)
    );
    let call = |client: Jobs, number: u64| async move {
        submit(client, format!("many-{number}")).await.map_err(|error| tonic::Status::unknown(format!("{error:#}")))
    };
    let (rates, many) = clients::rates(grid, &clients, WINDOWS, WINDOW, call).await?;
    acknowledged.extend(many);
    let streamed = stream(grid, &mut acknowledged).await?;
    check::submits(grid, clients[0].clone(), &acknowledged).await?;
    Ok(vec![ONE.against(&times, 2.0 * sync_ms + 0.5), MANY.measured(&rates), STREAM.measured(&streamed)])
}

async fn submit(mut client: Jobs, name: String) -> anyhow::Result<(u64, String)> {
    let request = SubmitJobRequest { request_id: name.clone(), spec: Some(clients::job(name.clone())) };
    let job = client.submit_job(request).await.context("a submit was refused")?.into_inner();
    Ok((job.id, name))
}

/// One stream of the client crate, each submit its own job: accepted jobs a second, by the thousand answers.
async fn stream(grid: &Loaded, acknowledged: &mut Vec<(u64, String)>) -> anyhow::Result<Vec<f64>> {
    let client = grid.client()?;
    let mut stream = client.jobs().stream();
    let mut rates = Vec::new();
    let meter = grid.meter()?;
    let mut accepted = 0.0;
    for window in 0..=WINDOWS {
        let (start, before) = (Instant::now(), acknowledged.len());
        while start.elapsed() < WINDOW {
            let sequence = stream.submit(clients::job(String::new())).await?;
            debug_assert!(sequence > 0, "numbers begin at 1");
            while let Some(decided) = stream.take() {
                acknowledged.push((decided.job.map_err(|refused| anyhow::anyhow!("{refused:?}"))?, String::new()));
            }
        }
        let count = (acknowledged.len() - before) as f64;
        accepted += count;
        // The first one finds everything cold.
        if window > 0 {
            rates.push(count / start.elapsed().as_secs_f64());
        }
    }
    eprintln!("  {}", meter.each(accepted)?);
    while let Some(decided) = stream.next().await? {
        acknowledged.push((decided.job.map_err(|refused| anyhow::anyhow!("{refused:?}"))?, String::new()));
    }
    stream.close().await?;
    Ok(rates)
}
