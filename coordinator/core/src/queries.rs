//! Reads: answered from the state as it is, once leadership is confirmed.

use bytes::Bytes;
use proto::internal::{Caller, Refusal, call_request, call_response::Response};
use proto::v1::{self, JobState};
use scheduler::{JobFilter, State};

use crate::{
    CallId,
    core::Core,
    limits,
    logs::task_not_found,
    refusal::{self, invalid},
    submission,
};

impl Core {
    /// Answers a read from the state as it is now.
    pub(crate) fn answer(&mut self, call: CallId, caller: &Caller, request: call_request::Request) {
        use call_request::Request as Asked;
        if !self.calls.contains(call) {
            return;
        }
        let Some((caller, request)) = self.fetch_first(call, caller.clone(), request) else { return };
        let caller = &caller;
        let answer = match request {
            Asked::WatchJobs(request) => return self.watch(call, request),
            Asked::ReadLogs(request) => return self.read_logs(call, &request),
            Asked::FetchBlob(request) => return self.fetch_blob(call, &request),
            Asked::PlanJobs(request) => self.plan_jobs(request).map(Response::PlanJobs),
            Asked::GetJob(request) => self.get_job(call, caller, &request).map(Response::Job),
            Asked::ListJobs(request) => match self.answer_list(call, caller.clone(), request) {
                Ok(()) => return,
                Err(refused) => Err(refused),
            },
            Asked::ListTasks(request) => {
                list_tasks(self.state_for(call, request.job_id), &request).map(Response::ListTasks)
            }
            Asked::ListOutputs(request) => {
                list_outputs(self.state_for(call, request.job_id), &self.settings.grid_prefix, &request)
                    .map(Response::ListOutputs)
            }
            Asked::ExplainJob(request) => self.explain(call, &request).map(Response::Explanation),
            Asked::GetQueue(request) => {
                let hint = "see the queues with `millgrid queue ls`";
                let missing = || refusal::not_found("name", format!("queue `{}` doesn't exist", request.name), hint);
                self.state.queue(&request.name).map(Response::Queue).ok_or_else(missing)
            }
            Asked::ListQueues(_) => {
                let queues = self.state.queues();
                Ok(Response::ListQueues(v1::ListQueuesResponse { queues, next_page_token: String::new() }))
            }
            Asked::GetWorker(request) => {
                let hint = "see the workers with `millgrid worker ls`";
                let missing = || refusal::not_found("name", format!("worker `{}` doesn't exist", request.name), hint);
                self.state.worker(&request.name).map(Response::Worker).ok_or_else(missing)
            }
            Asked::GetFairShare(_) => Ok(Response::FairShare(crate::operations::fair_share(self.state.half_life_ms()))),
            Asked::ListLicenses(_) => {
                Ok(Response::ListLicenses(v1::ListLicensesResponse { licenses: self.state.licenses() }))
            }
            Asked::GetHistory(_) => Ok(Response::History(self.history_view())),
            Asked::ListWorkers(request) => Ok(Response::ListWorkers(list_workers(&self.state, &request))),
            // Writes never wait for a read.
            Asked::SubmitJob(_)
            | Asked::SubmitJobs(_)
            | Asked::UploadBlob(_)
            | Asked::CancelJob(_)
            | Asked::RetryJob(_)
            | Asked::HoldJob(_)
            | Asked::ReleaseJob(_)
            | Asked::DrainWorker(_)
            | Asked::SetJob(_)
            | Asked::CreateQueue(_)
            | Asked::SetQueue(_)
            | Asked::DeleteQueue(_)
            | Asked::SetFairShare(_)
            | Asked::SetLicense(_)
            | Asked::CordonWorker(_)
            | Asked::UncordonWorker(_)
            | Asked::SetHistory(_)
            | Asked::WorkerConnect(_)
            | Asked::StreamConnect(_)
            | Asked::Mark(_)
            | Asked::TransferLeader(_) => return,
        };
        match answer {
            Ok(response) => self.reply(call, response),
            Err(refused) => self.finish(call, Err(refused)),
        }
    }

    fn get_job(&self, call: CallId, caller: &Caller, request: &v1::GetJobRequest) -> Result<v1::Job, Refusal> {
        let id = if request.last {
            let missing = || refusal::not_found("last", "you have not submitted a job yet", "submit one first");
            self.state.newest_job_of(&caller.name).ok_or_else(missing)?
        } else {
            request.job_id
        };
        let state = self.state_for(call, id);
        let mut job = state.job(id).ok_or_else(|| refusal::job_not_found(id))?;
        let spec = state.spec(id).zip(state.submission(id));
        job.spec = spec.and_then(|(spec, view)| submission::write(&spec, &view));
        Ok(job)
    }

    fn explain(&self, call: CallId, request: &v1::ExplainJobRequest) -> Result<v1::Explanation, Refusal> {
        let state = self.state_for(call, request.job_id);
        let ranges = state.ranges(request.job_id).ok_or_else(|| refusal::job_not_found(request.job_id))?;
        let ordinal = match request.index {
            Some(index) => {
                Some(proto::ranges::ordinal_of(ranges, index).ok_or_else(|| task_not_found(request.job_id, index))?)
            }
            None => None,
        };
        let explanation = state.explain(request.job_id, ordinal, &self.settings.pools);
        explanation.ok_or_else(|| refusal::job_not_found(request.job_id))
    }

    fn plan_jobs(&self, request: v1::PlanJobsRequest) -> Result<v1::PlanJobsResponse, Refusal> {
        let mut plans = Vec::with_capacity(request.specs.len());
        for spec in request.specs.into_iter().take(limits::JOBS_PER_SUBMIT) {
            let job = submission::read(spec)?;
            plans.push(self.state.plan_job(&job, &self.settings.pools));
        }
        Ok(v1::PlanJobsResponse { plans })
    }
}

fn page_size(asked: u32, default: usize) -> usize {
    if asked == 0 { default } else { (asked as usize).min(limits::PAGE_SIZE) }
}

fn page_start<T: std::str::FromStr>(token: &str) -> Result<Option<T>, Refusal> {
    if token.is_empty() {
        return Ok(None);
    }
    let malformed = |_| invalid("page_token", format!("`{token}` is no page token"), "begin again without one");
    token.parse().map(Some).map_err(malformed)
}

fn token<T: ToString>(next: Option<T>) -> String {
    next.map(|next| next.to_string()).unwrap_or_default()
}

/// A page of jobs, and the job in the history, not at hand, at which it ends before its time.
pub(crate) fn list_jobs(
    state: &State,
    caller: &Caller,
    request: &v1::ListJobsRequest,
) -> Result<(v1::ListJobsResponse, Option<u64>), Refusal> {
    let before = page_start(&request.page_token)?;
    let states: Vec<JobState> = request.states().collect();
    let created_after_ms =
        request.created_after.as_ref().map(|time| time.seconds * 1_000 + i64::from(time.nanos / 1_000_000));
    let filter = JobFilter {
        owner: (!request.all).then(|| caller.name.clone()),
        ended: request.all,
        states,
        queue: request.queue.clone(),
        labels: request.labels.clone(),
        created_after_ms,
    };
    let limit = page_size(request.page_size, limits::DEFAULT_PAGE_SIZE);
    let page = state.jobs(&filter, before, limit);
    Ok((v1::ListJobsResponse { jobs: page.jobs, next_page_token: token(page.next) }, page.missing))
}

fn list_tasks(state: &State, request: &v1::ListTasksRequest) -> Result<v1::ListTasksResponse, Refusal> {
    let missing = || refusal::job_not_found(request.job_id);
    let ranges = state.ranges(request.job_id).ok_or_else(missing)?;
    let selection =
        proto::ranges::select(ranges, &request.ranges).map_err(|index| task_not_found(request.job_id, index))?;
    let states: Vec<v1::TaskState> = request.states().collect();
    let from = page_start(&request.page_token)?.unwrap_or(0);
    let limit = page_size(request.page_size, limits::PAGE_SIZE);
    let (tasks, next) =
        state.tasks(request.job_id, &selection, &states, request.attempts, from, limit).ok_or_else(missing)?;
    Ok(v1::ListTasksResponse { tasks, next_page_token: token(next) })
}

fn list_outputs(
    state: &State,
    grid_prefix: &str,
    request: &v1::ListOutputsRequest,
) -> Result<v1::ListOutputsResponse, Refusal> {
    let missing = || refusal::job_not_found(request.job_id);
    let ranges = state.ranges(request.job_id).ok_or_else(missing)?;
    let selection =
        proto::ranges::select(ranges, &request.ranges).map_err(|index| task_not_found(request.job_id, index))?;
    let from = page_start(&request.page_token)?.unwrap_or(0);
    let limit = page_size(request.page_size, limits::PAGE_SIZE);
    let succeeded = [v1::TaskState::Succeeded];
    let (tasks, next) = state.tasks(request.job_id, &selection, &succeeded, false, from, limit).ok_or_else(missing)?;
    let (mut objects, mut stored) = (Vec::new(), Vec::new());
    for task in tasks {
        let ordinal = proto::ranges::ordinal_of(ranges, task.index);
        let Some((attempt, manifest, etags)) = ordinal.and_then(|ordinal| state.published(request.job_id, ordinal))
        else {
            continue;
        };
        if !manifest.hash.is_empty() {
            stored.push(stored_manifest(&task, attempt, &manifest, &etags, grid_prefix));
            continue;
        }
        for (position, entry) in manifest.entries.into_iter().enumerate() {
            objects.push(v1::OutputObject {
                index: task.index,
                attempt,
                path: entry.path,
                url: format!("s3://{}/{}", entry.bucket, entry.key),
                size: entry.size,
                etag: etags.get(position).cloned().unwrap_or_default(),
            });
        }
    }
    Ok(v1::ListOutputsResponse { objects, next_page_token: token(next), stored })
}

/// Where the manifest of a task is, and the ETags of what it names.
fn stored_manifest(
    task: &v1::Task,
    attempt: u32,
    manifest: &v1::Manifest,
    etags: &[String],
    grid_prefix: &str,
) -> v1::StoredManifest {
    let url = |hash: &blake3::Hash| format!("{grid_prefix}manifests/{}", hash.to_hex());
    let hash = blake3::Hash::from_slice(&manifest.hash).ok();
    let etags_hash = etags.first().and_then(|text| blake3::Hash::from_hex(text).ok());
    v1::StoredManifest {
        index: task.index,
        attempt,
        entry_count: manifest.entry_count,
        url: hash.as_ref().map(url).unwrap_or_default(),
        hash: manifest.hash.clone(),
        etags_url: etags_hash.as_ref().map(url).unwrap_or_default(),
        etags_hash: etags_hash.map(|hash| Bytes::copy_from_slice(hash.as_bytes())).unwrap_or_default(),
    }
}

fn list_workers(state: &State, request: &v1::ListWorkersRequest) -> v1::ListWorkersResponse {
    let limit = page_size(request.page_size, limits::PAGE_SIZE);
    let behind = |worker: &v1::Worker| request.page_token.is_empty() || worker.name > request.page_token;
    let mut workers: Vec<v1::Worker> = state.workers().into_iter().filter(behind).collect();
    let more = workers.len() > limit;
    workers.truncate(limit);
    let next_page_token = workers.last().filter(|_| more).map(|worker| worker.name.clone()).unwrap_or_default();
    v1::ListWorkersResponse { workers, next_page_token }
}
