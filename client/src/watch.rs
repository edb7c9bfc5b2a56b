//! A watch that outlives its connections.

use proto::v1::{WatchJobsRequest, WatchJobsResponse, job_service_client::JobServiceClient};
use tokio::time::{Instant, sleep_until, timeout_at};
use tonic::Streaming;

use crate::{Connection, Error, Grid, backoff::Pauses, error::Trouble};

/// Changes of jobs in the order of the log, without gap or repeat: where a stream breaks, the next begins with
/// the token of the last message.
pub struct Watch {
    grid: Grid,
    request: WatchJobsRequest,
    open: Option<(Connection, Streaming<WatchJobsResponse>)>,
    pauses: Pauses,
}

impl Watch {
    pub(crate) fn new(grid: Grid, request: WatchJobsRequest) -> Self {
        let pauses = grid.pauses();
        Self { grid, request, open: None, pauses }
    }

    /// The token behind the last message; empty before the first.
    pub fn resume_token(&self) -> &str {
        &self.request.resume_token
    }

    /// The next message; waits through any outage until the grid's deadline ([`Grid::until`]), else for ever.
    ///
    /// # Errors
    /// What the grid refuses for good, and the end of time.
    pub async fn next(&mut self) -> Result<WatchJobsResponse, Error> {
        let started = Instant::now();
        loop {
            let deadline = self.grid.deadline();
            let (connection, stream) = match &mut self.open {
                Some(open) => open,
                closed => match open(&self.grid, &self.request).await {
                    Ok(open) => closed.insert(open),
                    // Coordinators had been reached, and time ran out while they were away.
                    Err(Error::Unreachable { .. } | Error::Unavailable { .. })
                        if !self.request.resume_token.is_empty() =>
                    {
                        return Err(Error::TimedOut { waited: started.elapsed(), request_id: String::new() });
                    }
                    Err(error) => return Err(error),
                },
            };
            let message = match deadline {
                None => stream.message().await,
                Some(deadline) => match timeout_at(deadline, stream.message()).await {
                    Ok(message) => message,
                    Err(_) => {
                        let waited = started.elapsed();
                        return Err(Error::TimedOut { waited, request_id: String::new() });
                    }
                },
            };
            match message {
                Ok(Some(message)) => {
                    self.request.resume_token.clone_from(&message.resume_token);
                    self.pauses = self.grid.pauses();
                    return Ok(message);
                }
                Ok(None) => {}
                Err(status) => {
                    if let Trouble::Final(answer) = Trouble::from_status(&status, "") {
                        return Err(Error::Refused(answer));
                    }
                }
            }
            self.grid.discard(connection).await;
            self.open = None;
            let wake = Instant::now() + self.pauses.next_pause();
            sleep_until(deadline.map_or(wake, |deadline| wake.min(deadline))).await;
        }
    }
}

async fn open(grid: &Grid, request: &WatchJobsRequest) -> Result<(Connection, Streaming<WatchJobsResponse>), Error> {
    let attempt = |channel| {
        let request = request.clone();
        async move { JobServiceClient::new(channel).watch_jobs(request).await }
    };
    grid.call_until(grid.deadline(), "", attempt).await
}
