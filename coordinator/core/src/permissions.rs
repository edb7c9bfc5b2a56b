//! Which role may make which call. Deny by default: what is not in the table doesn't exist.

use proto::internal::call_request::Request;
use proto::v1::Role;

const CLIENTS: &[Role] = &[Role::Client];
const WORKERS: &[Role] = &[Role::Worker];
const CLIENTS_AND_WORKERS: &[Role] = &[Role::Client, Role::Worker];
const COORDINATORS: &[Role] = &[Role::Coordinator];

/// The roles that may make this call. The front asks before it relays, and the leader asks again.
pub fn allows(request: &Request) -> &'static [Role] {
    match request {
        Request::SubmitJob(_)
        | Request::SubmitJobs(_)
        | Request::StreamConnect(_)
        | Request::PlanJobs(_)
        | Request::UploadBlob(_)
        | Request::GetJob(_)
        | Request::ListJobs(_)
        | Request::ListTasks(_)
        | Request::CancelJob(_)
        | Request::RetryJob(_)
        | Request::HoldJob(_)
        | Request::ReleaseJob(_)
        | Request::ExplainJob(_)
        | Request::WatchJobs(_)
        | Request::ReadLogs(_)
        | Request::GetQueue(_)
        | Request::ListQueues(_)
        | Request::GetWorker(_)
        | Request::ListWorkers(_)
        | Request::DrainWorker(_)
        | Request::SetJob(_)
        | Request::CreateQueue(_)
        | Request::SetQueue(_)
        | Request::DeleteQueue(_)
        | Request::GetFairShare(_)
        | Request::SetFairShare(_)
        | Request::ListLicenses(_)
        | Request::SetLicense(_)
        | Request::CordonWorker(_)
        | Request::UncordonWorker(_)
        | Request::GetHistory(_)
        | Request::SetHistory(_)
        | Request::TransferLeader(_) => CLIENTS,
        // A worker resolves `job:N/PATH` inputs by it.
        Request::ListOutputs(_) => CLIENTS_AND_WORKERS,
        Request::WorkerConnect(_) | Request::FetchBlob(_) => WORKERS,
        // Of a front, for the status that a client asked it for.
        Request::Mark(_) => COORDINATORS,
    }
}
