//! The job service of the fake: what tests don't use is unimplemented.

use std::sync::{Arc, Mutex};

use proto::v1::{job_service_server::JobService, *};
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use super::Mind;

pub struct Fake {
    pub mind: Arc<Mutex<Mind>>,
}

type Answer<T> = Result<Response<T>, Status>;
type Later<'a, T> = std::pin::Pin<Box<dyn Future<Output = Answer<T>> + Send + 'a>>;
type Messages<T> = std::pin::Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn messages<T: Send + 'static>(items: Vec<Result<T, Status>>) -> Response<Messages<T>> {
    Response::new(Box::pin(tokio_stream::iter(items)))
}

/// What the fake's task writes: each attempt 21 bytes a stream.
pub fn log(stream: &str, attempt: u32) -> String {
    format!("{stream} of attempt {attempt:>5}\n")
}

/// As `async_trait` would write it: the attribute doesn't look into macros.
macro_rules! unimplemented {
    ($($name:ident($request:ident) -> $response:ident),*) => {
        $(fn $name<'a, 'b>(&'a self, _: Request<$request>) -> Later<'b, $response>
        where
            'a: 'b,
            Self: 'b,
        {
            Box::pin(async { Err(Status::unimplemented("the fake has no such method")) })
        })*
    };
}

#[tonic::async_trait]
impl JobService for Fake {
    type WatchJobsStream = Messages<WatchJobsResponse>;
    type ReadLogsStream = Messages<ReadLogsResponse>;
    type StreamJobsStream = Messages<StreamJobsResponse>;

    async fn stream_jobs(&self, _: Request<tonic::Streaming<StreamJobsRequest>>) -> Answer<Self::StreamJobsStream> {
        Err(Status::unimplemented("the fake has no such method"))
    }

    async fn submit_job(&self, request: Request<SubmitJobRequest>) -> Answer<Job> {
        Mind::answer(&self.mind, &request.into_inner().request_id).await.map(Response::new)
    }

    /// Two messages, then the stream breaks or ends.
    async fn watch_jobs(&self, request: Request<WatchJobsRequest>) -> Answer<Self::WatchJobsStream> {
        let behind: u64 = request.into_inner().resume_token.parse().unwrap_or(0);
        let mut items: Vec<_> = (behind + 1..=behind + 2)
            .map(|index| Ok(WatchJobsResponse { index, resume_token: index.to_string(), ..Default::default() }))
            .collect();
        if behind.is_multiple_of(4) {
            items.push(Err(Status::unavailable("the leader changed")));
        }
        Ok(messages(items))
    }

    /// Five messages of three bytes, the first of which repeats a byte; then the stream breaks.
    async fn read_logs(&self, request: Request<ReadLogsRequest>) -> Answer<Self::ReadLogsStream> {
        let request = request.into_inner();
        // The latest attempt is the second, but only once the first was read to its end.
        let latest = 1 + u32::from(self.mind.lock().unwrap().first_attempt_is_read);
        let attempt = if request.attempt == 0 { latest } else { request.attempt };
        let mut items = Vec::new();
        let streams =
            [(LogStream::Stdout, "out", request.stdout_offset), (LogStream::Stderr, "err", request.stderr_offset)];
        for (stream, name, from) in streams {
            let text = log(name, attempt);
            let mut at = (from as usize).saturating_sub(1);
            while at < text.len() {
                let end = text.len().min(at + 3);
                let data = text.as_bytes()[at..end].to_vec().into();
                let (stream, offset, end_of_log) = (stream.into(), at as u64, end == text.len());
                items.push(ReadLogsResponse { stream, attempt, offset, data, lost_bytes: 0, end: end_of_log });
                at = end;
            }
        }
        let all = items.len() <= 5;
        let mut items: Vec<_> = items.into_iter().take(5).map(Ok).collect();
        if all {
            self.mind.lock().unwrap().first_attempt_is_read = true;
        } else {
            items.push(Err(Status::unavailable("the worker's front is gone")));
        }
        Ok(messages(items))
    }

    unimplemented! {
        submit_jobs(SubmitJobsRequest) -> SubmitJobsResponse,
        plan_jobs(PlanJobsRequest) -> PlanJobsResponse,
        upload_blob(UploadBlobRequest) -> UploadBlobResponse,
        get_job(GetJobRequest) -> Job,
        list_jobs(ListJobsRequest) -> ListJobsResponse,
        list_tasks(ListTasksRequest) -> ListTasksResponse,
        list_outputs(ListOutputsRequest) -> ListOutputsResponse,
        cancel_job(CancelJobRequest) -> CancelJobResponse,
        retry_job(RetryJobRequest) -> Job,
        hold_job(HoldJobRequest) -> Job,
        release_job(ReleaseJobRequest) -> Job,
        set_job(SetJobRequest) -> Job,
        explain_job(ExplainJobRequest) -> Explanation,
        get_history(GetHistoryRequest) -> History,
        set_history(SetHistoryRequest) -> History
    }
}
