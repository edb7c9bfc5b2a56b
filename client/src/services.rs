//! The methods of the API, each as a call that looks after endpoints, retries and request ids.

use proto::v1::{
    self, cluster_service_client::ClusterServiceClient, job_service_client::JobServiceClient,
    queue_service_client::QueueServiceClient, worker_service_client::WorkerServiceClient,
};

use crate::{Error, Grid, JobStream, Logs, Watch, request_id};

/// Largest answer that is read: a page of a thousand tasks with their attempts is below it.
const MAX_ANSWER_BYTES: usize = 32 << 20;

/// Jobs and their tasks.
#[derive(Clone, Copy)]
pub struct Jobs<'a> {
    pub(crate) grid: &'a Grid,
}

/// Queues.
#[derive(Clone, Copy)]
pub struct Queues<'a> {
    pub(crate) grid: &'a Grid,
}

/// Workers.
#[derive(Clone, Copy)]
pub struct Workers<'a> {
    pub(crate) grid: &'a Grid,
}

/// The coordinators themselves.
#[derive(Clone, Copy)]
pub struct Cluster<'a> {
    pub(crate) grid: &'a Grid,
}

macro_rules! calls {
    ($handle:ident, $client:ident: $($kind:ident $name:ident = $method:ident($request:ident) -> $response:ident, $doc:literal;)*) => {
        impl $handle<'_> {
            $(
                #[doc = $doc]
                pub async fn $name(self, request: v1::$request) -> Result<v1::$response, Error> {
                    let request = calls!(@prepare $kind request);
                    let id = calls!(@id $kind request);
                    let call = self.grid.call_as(&id, |channel| {
                        let request = request.clone();
                        async move {
                            let mut client = $client::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
                            client.$method(request).await
                        }
                    });
                    call.await
                }
            )*
        }
    };
    (@prepare read $request:ident) => { $request };
    (@prepare write $request:ident) => {{
        // Without an id a repeat could be a second write.
        let mut request = $request;
        if request.request_id.is_empty() {
            request.request_id = request_id();
        }
        request
    }};
    (@id read $request:ident) => { String::new() };
    (@id write $request:ident) => { $request.request_id.clone() };
}

calls! { Jobs, JobServiceClient:
    write submit = submit_job(SubmitJobRequest) -> Job, "Submits one job; draws a request id when there is none.";
    write submit_all = submit_jobs(SubmitJobsRequest) -> SubmitJobsResponse, "Submits several jobs, all or none.";
    read plan = plan_jobs(PlanJobsRequest) -> PlanJobsResponse, "Says what fits where, and changes nothing.";
    read upload = upload_blob(UploadBlobRequest) -> UploadBlobResponse, "Stores a chunk by its hash; a repeat changes nothing.";
    read get = get_job(GetJobRequest) -> Job, "One job, with its spec and its failures.";
    read list = list_jobs(ListJobsRequest) -> ListJobsResponse, "A page of jobs.";
    read list_tasks = list_tasks(ListTasksRequest) -> ListTasksResponse, "A page of tasks.";
    read list_outputs = list_outputs(ListOutputsRequest) -> ListOutputsResponse, "A page of published objects.";
    write cancel = cancel_job(CancelJobRequest) -> CancelJobResponse, "Cancels a job or some of its tasks.";
    write retry = retry_job(RetryJobRequest) -> Job, "New attempts for ended tasks.";
    write hold = hold_job(HoldJobRequest) -> Job, "Keeps what is queued from being started.";
    write release = release_job(ReleaseJobRequest) -> Job, "Undoes a hold.";
    write set = set_job(SetJobRequest) -> Job, "Changes limits and priority, also while it runs.";
    read history = get_history(GetHistoryRequest) -> History, "How long ended jobs stay at hand, and what has moved.";
    write set_history = set_history(SetHistoryRequest) -> History, "Sets how long ended jobs stay at hand.";
    read explain = explain_job(ExplainJobRequest) -> Explanation, "Why a job or a task is where it is.";
}

calls! { Queues, QueueServiceClient:
    read get = get_queue(GetQueueRequest) -> Queue, "One queue.";
    read list = list_queues(ListQueuesRequest) -> ListQueuesResponse, "A page of queues.";
    write create = create_queue(CreateQueueRequest) -> Queue, "Makes a queue.";
    write set = set_queue(SetQueueRequest) -> Queue, "Changes what is named of a queue.";
    write delete = delete_queue(DeleteQueueRequest) -> DeleteQueueResponse, "Deletes a queue without jobs.";
    read fair_share = get_fair_share(GetFairShareRequest) -> FairShare, "How the grid is shared among queues.";
    write set_fair_share = set_fair_share(SetFairShareRequest) -> FairShare, "Sets how the grid is shared.";
    read licenses = list_licenses(ListLicensesRequest) -> ListLicensesResponse, "All licenses.";
    write set_license = set_license(SetLicenseRequest) -> License, "How many of a license there are.";
}

calls! { Workers, WorkerServiceClient:
    read get = get_worker(GetWorkerRequest) -> Worker, "One worker.";
    read list = list_workers(ListWorkersRequest) -> ListWorkersResponse, "A page of workers.";
    write drain = drain_worker(DrainWorkerRequest) -> Worker, "Gives a worker no further tasks.";
    write cordon = cordon_worker(CordonWorkerRequest) -> Worker, "Gives it none until it is uncordoned.";
    write uncordon = uncordon_worker(UncordonWorkerRequest) -> Worker, "Ends a cordon, and a quarantine.";
}

calls! { Cluster, ClusterServiceClient:
    read status = get_cluster_status(GetClusterStatusRequest) -> ClusterStatus, "All members, their places in the log and digests.";
    read transfer_leader = transfer_leader(TransferLeaderRequest) -> TransferLeaderResponse, "Moves leadership; a repeat moves it to the same member.";
    read member = get_member(GetMemberRequest) -> Member, "The coordinator that answers, bootstrapped or not.";
    read bootstrap = bootstrap(BootstrapRequest) -> Member, "Names the first members; a repeat changes nothing.";
}

impl Jobs<'_> {
    /// Changes of jobs, from their present state on.
    pub fn watch(self, request: v1::WatchJobsRequest) -> Watch {
        Watch::new(self.grid.clone(), request)
    }

    /// Many jobs, each for itself, without waiting for each.
    pub fn stream(self) -> JobStream {
        JobStream::new(self.grid.clone())
    }

    /// What a task wrote.
    pub fn logs(self, request: v1::ReadLogsRequest) -> Logs {
        Logs::new(self.grid.clone(), request)
    }
}
