//! Calls of clients: writes become commands, reads wait for a round of leadership, outcomes become answers.

use bytes::Bytes;
use prost::Message;
use proto::internal::{
    Caller, CancelTasks, DrainWorker, JobSubmissions, Mark, MarkResponse, PutBlob, Refusal, Request, RetryTasks,
    SetHold, SubmitJobs, call_request, call_response::Response, command::Command, dependency::On,
};
use proto::v1::{self, IndexRange, Role};
use scheduler::{Outcome, Rejection};

use crate::{
    CallId, allows,
    core::Core,
    limits,
    logs::task_not_found,
    operations,
    proposals::Waiter,
    reads::Reader,
    refusal::{self, invalid},
    submission,
};

impl Core {
    /// Takes up a call, once this coordinator leads.
    pub(crate) fn open(&mut self, call: CallId, caller: Caller, request: call_request::Request) {
        use call_request::Request as Asked;
        if !self.is_allowed(call, &caller, &request) {
            return;
        }
        let proposed = match request {
            Asked::SubmitJob(request) => self.submit_one(call, &caller, request),
            Asked::SubmitJobs(request) => self.submit_many(call, &caller, request),
            Asked::UploadBlob(request) => self.upload_blob(call, request),
            Asked::CancelJob(request) => self.cancel(call, &caller, request),
            Asked::RetryJob(request) => self.retry(call, &caller, request),
            Asked::HoldJob(v1::HoldJobRequest { request_id, job_id }) => {
                self.set_hold(call, &caller, request_id, job_id, true)
            }
            Asked::ReleaseJob(v1::ReleaseJobRequest { request_id, job_id }) => {
                self.set_hold(call, &caller, request_id, job_id, false)
            }
            Asked::DrainWorker(request) => self.drain_worker(call, &caller, request),
            Asked::SetJob(request) => self.set_job(call, &caller, request),
            Asked::CreateQueue(_)
            | Asked::SetQueue(_)
            | Asked::DeleteQueue(_)
            | Asked::SetFairShare(_)
            | Asked::SetLicense(_)
            | Asked::CordonWorker(_)
            | Asked::UncordonWorker(_)
            | Asked::SetHistory(_) => self.operate(call, &caller, request),
            Asked::Mark(_) => {
                self.proposals.push_urgent(Command::Mark(Mark::default()), Waiter::Mark(call));
                Ok(())
            }
            Asked::StreamConnect(_) => {
                self.stream_connected(call, caller);
                Ok(())
            }
            Asked::WorkerConnect(_) => {
                self.worker_connected(call, caller.name);
                Ok(())
            }
            Asked::TransferLeader(_) => {
                let message = "leadership is not the core's to move";
                Err(refusal::refusal(refusal::Code::FailedPrecondition, "NOT_HERE", message, ""))
            }
            Asked::PlanJobs(_)
            | Asked::GetJob(_)
            | Asked::ListJobs(_)
            | Asked::ListTasks(_)
            | Asked::ListOutputs(_)
            | Asked::ExplainJob(_)
            | Asked::WatchJobs(_)
            | Asked::ReadLogs(_)
            | Asked::GetQueue(_)
            | Asked::ListQueues(_)
            | Asked::GetWorker(_)
            | Asked::ListWorkers(_)
            | Asked::GetFairShare(_)
            | Asked::ListLicenses(_)
            | Asked::GetHistory(_)
            | Asked::FetchBlob(_) => {
                self.reads.push(Reader::Query { call, caller, request });
                Ok(())
            }
        };
        if let Err(refused) = proposed {
            self.finish(call, Err(refused));
        }
    }

    /// Refuses a call that the caller's role may not make.
    pub(crate) fn is_allowed(&mut self, call: CallId, caller: &Caller, request: &call_request::Request) -> bool {
        let allowed = allows(request).contains(&Role::try_from(caller.role).unwrap_or_default());
        if !allowed {
            let message = "this certificate's role may not make this call";
            let refused =
                refusal::refusal(refusal::Code::PermissionDenied, "WRONG_ROLE", message, "use another certificate");
            self.finish(call, Err(refused));
        }
        allowed
    }

    pub(crate) fn propose_for(&mut self, command: Command, waiter: Waiter) -> Result<(), Refusal> {
        self.proposals.push(command, waiter).map_err(|()| refusal::overloaded("writes"))
    }

    fn submit_one(&mut self, call: CallId, caller: &Caller, request: v1::SubmitJobRequest) -> Result<(), Refusal> {
        let spec = request.spec.ok_or_else(|| invalid("spec", "the job is missing", "send a JobSpec"))?;
        let request = v1::SubmitJobsRequest { request_id: request.request_id, specs: vec![spec], edges: Vec::new() };
        let mut command = self.submission(caller, request)?;
        self.store_parts(&mut command)?;
        self.propose_for(Command::SubmitJobs(command), Waiter::Job(call))
    }

    fn submit_many(&mut self, call: CallId, caller: &Caller, request: v1::SubmitJobsRequest) -> Result<(), Refusal> {
        let mut command = self.submission(caller, request)?;
        self.store_parts(&mut command)?;
        self.propose_for(Command::SubmitJobs(command), Waiter::Jobs(call))
    }

    /// Sends the jobs of a submit that is too large for an entry ahead of it.
    fn store_parts(&mut self, submit: &mut SubmitJobs) -> Result<(), Refusal> {
        if submit.encoded_len() <= limits::COMMAND_BYTES {
            return Ok(());
        }
        let mut part = JobSubmissions::default();
        let mut bytes = 0;
        let mut parts = Vec::new();
        for job in std::mem::take(&mut submit.jobs) {
            // Tag and length of the job within its part.
            let size = job.encoded_len() + 8;
            if bytes + size > limits::PART_BYTES && !part.jobs.is_empty() {
                parts.push(std::mem::take(&mut part));
                bytes = 0;
            }
            bytes += size;
            part.jobs.push(job);
        }
        parts.push(part);
        for part in parts {
            let data = Bytes::from(part.encode_to_vec());
            submit.parts.push(Bytes::copy_from_slice(blake3::hash(&data).as_bytes()));
            let put = self.proposals.push(Command::PutBlob(PutBlob { data }), Waiter::Nobody);
            put.map_err(|()| refusal::overloaded("submits"))?;
        }
        Ok(())
    }

    fn submission(&self, caller: &Caller, mut request: v1::SubmitJobsRequest) -> Result<SubmitJobs, Refusal> {
        if request.specs.is_empty() || request.specs.len() > limits::JOBS_PER_SUBMIT {
            let message = format!("{} jobs in one submit, 1 to {}", request.specs.len(), limits::JOBS_PER_SUBMIT);
            return Err(invalid("specs", message, "split them into several submits"));
        }
        let id = std::mem::take(&mut request.request_id);
        let stamp = stamp(caller, id, &request);
        let mut jobs = Vec::with_capacity(request.specs.len());
        for spec in request.specs {
            let job = submission::read(spec)?;
            self.check_feasible(job.resources.as_ref(), &job.alternatives)?;
            jobs.push(job);
        }
        for edge in request.edges {
            let known = edge.from < edge.to && (edge.to as usize) < jobs.len();
            if !known {
                let message = format!("the edge from {} to {} is not from an earlier job", edge.from, edge.to);
                return Err(invalid("edges", message, "put jobs behind those that they wait for"));
            }
            let on = Some(On::Position(edge.from));
            let (condition, exit_codes) = (edge.condition, edge.exit_codes);
            jobs[edge.to as usize].after.push(proto::internal::Dependency { on, condition, exit_codes });
        }
        let command = SubmitJobs { request: Some(stamp), jobs, parts: Vec::new() };
        let bytes = command.encoded_len();
        // One that can't be parted must fit into an entry.
        let largest = command.jobs.iter().map(Message::encoded_len).max().unwrap_or_default();
        if bytes > limits::SUBMIT_BYTES || (bytes > limits::COMMAND_BYTES && largest > limits::PART_BYTES) {
            let message = format!("the jobs take {bytes} bytes, {} at most", limits::SUBMIT_BYTES);
            return Err(invalid("specs", message, "split them into several submits; put large scripts on S3"));
        }
        // Whoever asks again, because the answer got lost, is to hear of the jobs that he has.
        let command = Command::SubmitJobs(command);
        if !self.state.was_answered(&command) {
            self.check_new_work()?;
        }
        let Command::SubmitJobs(command) = command else { unreachable!("it was made above") };
        Ok(command)
    }

    pub(crate) fn check_feasible(
        &self,
        resources: Option<&v1::Resources>,
        alternatives: &[v1::Resources],
    ) -> Result<(), Refusal> {
        let Some(resources) = resources.filter(|_| !self.settings.pools.is_empty()) else { return Ok(()) };
        scheduler::Pool::feasible(&self.settings.pools, resources, alternatives).map_err(|message| {
            let hint = "ask for less, or add a pool with larger workers";
            refusal::refusal(refusal::Code::FailedPrecondition, refusal::INFEASIBLE, message, hint)
        })
    }

    fn upload_blob(&mut self, call: CallId, request: v1::UploadBlobRequest) -> Result<(), Refusal> {
        self.check_new_work()?;
        if request.data.is_empty() || request.data.len() > limits::BLOB_BYTES {
            let message = format!("{} bytes, 1 to {}", request.data.len(), limits::BLOB_BYTES);
            return Err(invalid("data", message, "split it into several blobs"));
        }
        self.propose_for(Command::PutBlob(PutBlob { data: request.data }), Waiter::Blob(call))
    }

    fn cancel(&mut self, call: CallId, caller: &Caller, mut request: v1::CancelJobRequest) -> Result<(), Refusal> {
        if request.reason.len() > 1_024 {
            return Err(invalid("reason", "the reason has more than 1024 bytes", "shorten it"));
        }
        let id = std::mem::take(&mut request.request_id);
        let stamp = stamp(caller, id, &request);
        let tasks = self.select(request.job_id, &request.ranges)?;
        if request.cascade && !tasks.is_empty() {
            let message = "single tasks are cancelled without what waits for their job";
            return Err(invalid("cascade", message, "cancel the whole job, or leave `cascade` out"));
        }
        let v1::CancelJobRequest { job_id, reason, cascade, .. } = request;
        let command = CancelTasks { request: Some(stamp), job_id, tasks, reason, cascade };
        self.propose_for(Command::CancelTasks(command), Waiter::Cancel(call))
    }

    fn retry(&mut self, call: CallId, caller: &Caller, mut request: v1::RetryJobRequest) -> Result<(), Refusal> {
        if let Some(changed) = &request.resources {
            let now = self.state.submission(request.job_id).map(|view| view.resources).unwrap_or_default();
            let pick = |new: u64, old: u64| if new == 0 { old } else { new };
            let resources = v1::Resources {
                cpu_milli: pick(changed.cpu_milli, now.cpu_milli),
                memory_mib: pick(changed.memory_mib, now.memory_mib),
                gpus: if changed.gpus == 0 { now.gpus } else { changed.gpus },
                scratch_gib: pick(changed.scratch_gib, now.scratch_gib),
            };
            self.check_feasible(Some(&resources), &[])?;
        }
        let id = std::mem::take(&mut request.request_id);
        let stamp = stamp(caller, id, &request);
        let tasks = self.select(request.job_id, &request.ranges)?;
        let command = RetryTasks {
            request: Some(stamp),
            job_id: request.job_id,
            tasks,
            failed_only: request.failed_only,
            resources: request.resources,
        };
        self.propose_for(Command::RetryTasks(command), Waiter::Job(call))
    }

    /// The ordinals of a selection. A job that isn't in the state yet may be in an entry on its way: the rules say then.
    fn select(&self, job: u64, ranges: &[IndexRange]) -> Result<Vec<proto::internal::OrdinalRange>, Refusal> {
        // Nothing can be done to a job in the history, whichever of its tasks are meant: the rules say what is answered.
        if ranges.is_empty() || self.state.gone(job).is_some() {
            return Ok(Vec::new());
        }
        let known = self.state.ranges(job).ok_or_else(|| refusal::job_not_found(job))?;
        proto::ranges::select(known, ranges).map_err(|index| task_not_found(job, index))
    }

    fn set_hold(
        &mut self,
        call: CallId,
        caller: &Caller,
        request_id: String,
        job_id: u64,
        hold: bool,
    ) -> Result<(), Refusal> {
        let content = v1::HoldJobRequest { request_id: hold.to_string(), job_id };
        let stamp = stamp(caller, request_id, &content);
        let command = SetHold { request: Some(stamp), job_id, hold };
        self.propose_for(Command::SetHold(command), Waiter::Job(call))
    }

    fn drain_worker(
        &mut self,
        call: CallId,
        caller: &Caller,
        mut request: v1::DrainWorkerRequest,
    ) -> Result<(), Refusal> {
        let id = std::mem::take(&mut request.request_id);
        let stamp = stamp(caller, id, &request);
        let command = DrainWorker { request: Some(stamp), worker: request.name, reason: request.reason, session: 0 };
        self.propose_for(Command::DrainWorker(command), Waiter::Thing(call))
    }

    /// An applied command's outcome goes to whoever waits for it.
    pub(crate) fn decided(&mut self, waiter: Waiter, outcome: Result<Outcome, Rejection>) {
        match waiter {
            Waiter::Nobody | Waiter::Expiry(_) | Waiter::Reclaim(_) => {}
            Waiter::Plan => self.planning.settled(),
            Waiter::Upkeep => self.upkeep_ended(false),
            Waiter::OpenSession(call) => self.session_opened(call, outcome),
            Waiter::Resume(call) => self.session_resumed(call),
            Waiter::Report { call } => self.report_decided(call, outcome),
            Waiter::Stream { call, closing } => self.stream_decided(call, closing, outcome),
            Waiter::Renewal { call, session, nonce } => self.silence_cleared(call, session, nonce),
            Waiter::Job(call)
            | Waiter::Jobs(call)
            | Waiter::Blob(call)
            | Waiter::Cancel(call)
            | Waiter::Thing(call)
            | Waiter::Mark(call) => match outcome {
                Ok(outcome) => self.answer_write(call, waiter, outcome),
                // Its parts got lost with a change of leader: the client sends all of it again.
                Err(rejection) if rejection.reason == "PART_NOT_FOUND" => {
                    self.finish(call, Err(refusal::leader_changed()));
                }
                Err(rejection) => self.finish(call, Err(refusal::rejected(&rejection))),
            },
        }
    }

    pub(crate) fn answer_write(&mut self, call: CallId, waiter: Waiter, outcome: Outcome) {
        let Some((waiter, outcome)) = self.fetch_for_write(call, waiter, outcome) else { return };
        let job_of = |job: u64| self.state_for(call, job).job(job);
        let response = match outcome {
            Outcome::Jobs { first, count, duplicate } => {
                let jobs = (first..first + u64::from(count)).filter_map(job_of);
                let mut jobs: Vec<v1::Job> = jobs.map(|job| v1::Job { duplicate, ..job }).collect();
                if matches!(waiter, Waiter::Jobs(_)) {
                    Some(Response::SubmitJobs(v1::SubmitJobsResponse { jobs }))
                } else {
                    jobs.pop().map(Response::Job)
                }
            }
            Outcome::Job(job) => job_of(job).map(Response::Job),
            Outcome::Blob(hash) => {
                let hash = Bytes::copy_from_slice(&hash);
                Some(Response::UploadBlob(v1::UploadBlobResponse { hash }))
            }
            Outcome::Cancelled { job, count, note } => {
                let job = job_of(job);
                Some(Response::CancelJob(v1::CancelJobResponse { job, cancelled: count, note }))
            }
            Outcome::Worker(name) => self.state.worker(&name).map(Response::Worker),
            Outcome::Queue(name) => Some(match self.state.queue(&name) {
                Some(queue) => Response::Queue(queue),
                None => Response::DeleteQueue(v1::DeleteQueueResponse {}),
            }),
            Outcome::FairShare(half_life_ms) => Some(Response::FairShare(operations::fair_share(half_life_ms))),
            Outcome::License(name) => {
                let gone = v1::License { name: name.clone(), total: 0, used: 0 };
                Some(Response::License(self.state.license(&name).unwrap_or(gone)))
            }
            Outcome::Nothing | Outcome::Count(_) if matches!(waiter, Waiter::Mark(_)) => {
                Some(Response::Mark(MarkResponse { index: self.applied_index() }))
            }
            Outcome::History => Some(Response::History(self.history_view())),
            Outcome::Nothing
            | Outcome::Count(_)
            | Outcome::Session(_)
            | Outcome::Reported { .. }
            | Outcome::Streamed { .. } => None,
        };
        match response {
            Some(response) => self.reply(call, response),
            // What was repeated long after is not in the state any more.
            None => {
                let refused = refusal::not_found("", "what this request made is gone", "list what there is");
                self.finish(call, Err(refused));
            }
        }
    }

    /// A command whose fate is not known here any more.
    pub(crate) fn abandon(&mut self, waiter: Waiter) {
        match waiter {
            Waiter::Nobody | Waiter::Renewal { .. } => {}
            Waiter::Expiry(session) => self.expiry_lost(session),
            Waiter::Reclaim(session) => self.reclaim_lost(session),
            Waiter::Plan => self.planning.dropped(self.now_ms),
            Waiter::Upkeep => self.upkeep_ended(true),
            Waiter::Job(call)
            | Waiter::Jobs(call)
            | Waiter::Blob(call)
            | Waiter::Cancel(call)
            | Waiter::Thing(call)
            | Waiter::Mark(call)
            | Waiter::OpenSession(call)
            | Waiter::Resume(call)
            // The worker comes back and is told from where to send again.
            | Waiter::Report { call }
            // Likewise the client, with everything that it has no answer to.
            | Waiter::Stream { call, .. } => self.finish(call, Err(refusal::leader_changed())),
        }
    }
}

/// Who asks, under which id, and for what, so that a repeat is known as one.
pub(crate) fn stamp(caller: &Caller, id: String, content: &impl Message) -> Request {
    let hash = blake3::hash(&content.encode_to_vec());
    Request { owner: caller.name.clone(), id, payload_hash: Bytes::copy_from_slice(hash.as_bytes()) }
}
