//! Jobs.

use proto::internal::{StreamConnect, call_request, call_response};
use proto::v1::{job_service_server::JobService, *};
use tonic::{Request, Response, Status, Streaming};

use super::{Answers, Front, answers, logs, name_leader, streams, unary};

#[tonic::async_trait]
impl JobService for Front {
    type StreamJobsStream = Answers<StreamJobsResponse>;
    type WatchJobsStream = Answers<WatchJobsResponse>;
    type ReadLogsStream = Answers<ReadLogsResponse>;

    async fn submit_job(&self, request: Request<SubmitJobRequest>) -> Result<Response<Job>, Status> {
        unary!(self, request, SubmitJob, Job)
    }

    async fn submit_jobs(&self, request: Request<SubmitJobsRequest>) -> Result<Response<SubmitJobsResponse>, Status> {
        unary!(self, request, SubmitJobs, SubmitJobs)
    }

    async fn stream_jobs(
        &self,
        request: Request<Streaming<StreamJobsRequest>>,
    ) -> Result<Response<Self::StreamJobsStream>, Status> {
        let (_, extensions, messages) = request.into_parts();
        let call = self.open(&extensions, call_request::Request::StreamConnect(StreamConnect {})).await?;
        Ok(Response::new(streams::serve(messages, call)))
    }

    async fn plan_jobs(&self, request: Request<PlanJobsRequest>) -> Result<Response<PlanJobsResponse>, Status> {
        unary!(self, request, PlanJobs, PlanJobs)
    }

    async fn upload_blob(&self, request: Request<UploadBlobRequest>) -> Result<Response<UploadBlobResponse>, Status> {
        unary!(self, request, UploadBlob, UploadBlob)
    }

    async fn get_job(&self, request: Request<GetJobRequest>) -> Result<Response<Job>, Status> {
        unary!(self, request, GetJob, Job)
    }

    async fn list_jobs(&self, request: Request<ListJobsRequest>) -> Result<Response<ListJobsResponse>, Status> {
        unary!(self, request, ListJobs, ListJobs)
    }

    async fn list_tasks(&self, request: Request<ListTasksRequest>) -> Result<Response<ListTasksResponse>, Status> {
        unary!(self, request, ListTasks, ListTasks)
    }

    async fn list_outputs(
        &self,
        request: Request<ListOutputsRequest>,
    ) -> Result<Response<ListOutputsResponse>, Status> {
        unary!(self, request, ListOutputs, ListOutputs)
    }

    async fn cancel_job(&self, request: Request<CancelJobRequest>) -> Result<Response<CancelJobResponse>, Status> {
        unary!(self, request, CancelJob, CancelJob)
    }

    async fn retry_job(&self, request: Request<RetryJobRequest>) -> Result<Response<Job>, Status> {
        unary!(self, request, RetryJob, Job)
    }

    async fn hold_job(&self, request: Request<HoldJobRequest>) -> Result<Response<Job>, Status> {
        unary!(self, request, HoldJob, Job)
    }

    async fn release_job(&self, request: Request<ReleaseJobRequest>) -> Result<Response<Job>, Status> {
        unary!(self, request, ReleaseJob, Job)
    }

    async fn set_job(&self, request: Request<SetJobRequest>) -> Result<Response<Job>, Status> {
        unary!(self, request, SetJob, Job)
    }

    async fn explain_job(&self, request: Request<ExplainJobRequest>) -> Result<Response<Explanation>, Status> {
        unary!(self, request, ExplainJob, Explanation)
    }

    async fn watch_jobs(&self, request: Request<WatchJobsRequest>) -> Result<Response<Self::WatchJobsStream>, Status> {
        let (_, extensions, message) = request.into_parts();
        let call = self.open(&extensions, call_request::Request::WatchJobs(message)).await?;
        let mut response: Response<Self::WatchJobsStream> = Response::new(answers(call, |response| match response {
            call_response::Response::WatchJobs(message) => Some(message),
            _ => None,
        }));
        name_leader(&*self.running()?, &mut response);
        Ok(response)
    }

    async fn read_logs(&self, request: Request<ReadLogsRequest>) -> Result<Response<Self::ReadLogsStream>, Status> {
        let (_, extensions, message) = request.into_parts();
        let call = self.open(&extensions, call_request::Request::ReadLogs(message)).await?;
        Ok(Response::new(logs::stream(call, self.stored.clone())))
    }

    async fn get_history(&self, request: Request<GetHistoryRequest>) -> Result<Response<History>, Status> {
        unary!(self, request, GetHistory, History)
    }

    async fn set_history(&self, request: Request<SetHistoryRequest>) -> Result<Response<History>, Status> {
        unary!(self, request, SetHistory, History)
    }
}
