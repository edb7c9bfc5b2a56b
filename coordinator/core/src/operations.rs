//! What operators set, and what submitters change of a job: from requests to commands.

use proto::internal::{
    Caller, CreateQueue, DeleteQueue, Refusal, SetCordon, SetFairShare, SetHistory, SetJob, SetLicense, SetQueue,
    call_request, command::Command,
};
use proto::v1;

use crate::{CallId, core::Core, jobs::stamp, proposals::Waiter, submission::duration_ms};

impl Core {
    pub(crate) fn set_job(
        &mut self,
        call: CallId,
        caller: &Caller,
        mut request: v1::SetJobRequest,
    ) -> Result<(), Refusal> {
        let id = std::mem::take(&mut request.request_id);
        let stamp = stamp(caller, id, &request);
        let command = SetJob {
            request: Some(stamp),
            job_id: request.job_id,
            priority: request.priority,
            time_limit_ms: duration_ms(request.time_limit.as_ref(), "time_limit")?,
            queue_time_limit_ms: duration_ms(request.queue_time_limit.as_ref(), "queue_time_limit")?,
            total_time_limit_ms: duration_ms(request.total_time_limit.as_ref(), "total_time_limit")?,
            max_running: request.max_running,
            max_failures: request.max_failures,
        };
        self.propose_for(Command::SetJob(command), Waiter::Job(call))
    }

    /// Queues, licenses and workers.
    pub(crate) fn operate(
        &mut self,
        call: CallId,
        caller: &Caller,
        request: call_request::Request,
    ) -> Result<(), Refusal> {
        use call_request::Request as Asked;
        let command = match request {
            Asked::CreateQueue(mut asked) => {
                let id = std::mem::take(&mut asked.request_id);
                let request = Some(stamp(caller, id, &asked));
                Command::CreateQueue(CreateQueue { request, name: asked.name, settings: asked.settings })
            }
            Asked::SetQueue(mut asked) => {
                let id = std::mem::take(&mut asked.request_id);
                let request = Some(stamp(caller, id, &asked));
                Command::SetQueue(SetQueue { request, name: asked.name, settings: asked.settings })
            }
            Asked::DeleteQueue(mut asked) => {
                let id = std::mem::take(&mut asked.request_id);
                let request = Some(stamp(caller, id, &asked));
                Command::DeleteQueue(DeleteQueue { request, name: asked.name })
            }
            Asked::SetFairShare(mut asked) => {
                let id = std::mem::take(&mut asked.request_id);
                let request = Some(stamp(caller, id, &asked));
                let half_life_ms = duration_ms(asked.half_life.as_ref(), "half_life")?.unwrap_or_default();
                Command::SetFairShare(SetFairShare { request, half_life_ms })
            }
            Asked::SetLicense(mut asked) => {
                let id = std::mem::take(&mut asked.request_id);
                let request = Some(stamp(caller, id, &asked));
                Command::SetLicense(SetLicense { request, name: asked.name, total: asked.total })
            }
            Asked::CordonWorker(mut asked) => {
                let id = std::mem::take(&mut asked.request_id);
                let request = Some(stamp(caller, id, &asked));
                let v1::CordonWorkerRequest { name: worker, reason, .. } = asked;
                Command::SetCordon(SetCordon { request, worker, cordoned: true, reason })
            }
            Asked::UncordonWorker(mut asked) => {
                let id = std::mem::take(&mut asked.request_id);
                let request = Some(stamp(caller, id, &asked));
                let reason = String::new();
                Command::SetCordon(SetCordon { request, worker: asked.name, cordoned: false, reason })
            }
            Asked::SetHistory(mut asked) => {
                let id = std::mem::take(&mut asked.request_id);
                let request = Some(stamp(caller, id, &asked));
                let keep_ms = duration_ms(asked.keep.as_ref(), "keep")?;
                Command::SetHistory(SetHistory { request, keep_ms, keep_jobs: asked.keep_jobs })
            }
            _ => return Ok(()),
        };
        self.propose_for(command, Waiter::Thing(call))
    }
}

/// The half-life as the API has it.
pub(crate) fn fair_share(half_life_ms: u64) -> v1::FairShare {
    let (seconds, nanos) = ((half_life_ms / 1_000) as i64, (half_life_ms % 1_000) as i32 * 1_000_000);
    v1::FairShare { half_life: Some(prost_types::Duration { seconds, nanos }) }
}
