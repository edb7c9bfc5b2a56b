//! What clients do, and what their answers must be.

use coordinator_core::CallId;
use proto::internal::{Caller, call_request, call_response};
use proto::v1::{Role, Task};

use super::{Event, World};
use crate::{
    call::{Down, Origin},
    client::{ANSWER_US, Operation, PATIENCE_US},
    oracle::is_over,
    workload::Workload,
};

impl World {
    pub(super) fn think(&mut self, client: usize) {
        if self.clients[client].operation.is_none() {
            match &self.workload {
                Workload::Mixed if self.peaceful => return,
                Workload::Mixed => self.clients[client].begin(&self.known, &mut self.random, self.now_us),
                Workload::Saturated(saturation) => {
                    let (known, now_us) = (&self.known, self.now_us);
                    if !self.clients[client].saturate(saturation, client, known, &mut self.random, now_us) {
                        return;
                    }
                    if self.clients[client].operation.is_none() {
                        return self.after(1_000_000, Event::Think { client });
                    }
                }
            }
            // From the moment it is asked for: an answer that got lost doesn't undo it.
            if let Some(call_request::Request::RetryJob(request)) =
                self.clients[client].operation.as_ref().map(|operation| &operation.request)
                && let Some(facts) = self.known.get_mut(&request.job_id)
            {
                facts.retried = true;
            }
        }
        self.ask(client);
    }

    pub(super) fn ask(&mut self, client: usize) {
        let Some(operation) = &self.clients[client].operation else { return };
        let (number, request) = (operation.number, operation.request.clone());
        let front = self.clients[client].coordinator;
        let caller = Caller { role: Role::Client as i32, name: self.clients[client].name.clone() };
        let origin = Origin::Client { client, operation: number };
        match self.open_call(origin, front, caller, request) {
            Some(call) => {
                if let Some(operation) = &mut self.clients[client].operation {
                    operation.call = Some(call);
                }
                self.after(ANSWER_US, Event::GiveUp { client, operation: number, call });
            }
            None => self.repeat(client, 200_000),
        }
    }

    /// Asks again, elsewhere, until patience ends.
    pub(super) fn repeat(&mut self, client: usize, delay_us: u64) {
        let now_us = self.now_us;
        let one = &mut self.clients[client];
        one.coordinator = (one.coordinator + 1) % 3;
        let too_long = |waits: &Operation| !waits.stubborn && now_us >= waits.begun_us + PATIENCE_US;
        if one.operation.as_ref().is_some_and(too_long) {
            one.operation = None;
        }
        self.after(delay_us, Event::Think { client });
    }

    pub(super) fn client_hears(&mut self, client: usize, number: u64, call: CallId, down: Down) {
        let waits = self.clients[client].operation.as_ref();
        if !waits.is_some_and(|waits| waits.number == number && waits.call == Some(call)) {
            return;
        }
        match down {
            Down::Response(response) => {
                self.learn(client, &response);
                self.clients[client].operation = None;
                let pause_us = 20_000 + self.random.skewed(1_500_000);
                self.after(pause_us, Event::Think { client });
            }
            Down::Finish(Err(refusal)) if refusal.code == coordinator_core::refusal::Code::Unavailable as i32 => {
                self.repeat(client, 100_000);
            }
            Down::Finish(result) => {
                if let Err(refusal) = result {
                    self.refused(client, &refusal);
                }
                self.clients[client].operation = None;
                let pause_us = 20_000 + self.random.skewed(1_500_000);
                self.after(pause_us, Event::Think { client });
            }
        }
    }

    pub(super) fn learn(&mut self, client: usize, response: &call_response::Response) {
        let Some(operation) = &self.clients[client].operation else { return };
        let begun_us = operation.begun_us;
        match (&operation.request, response) {
            (call_request::Request::SubmitJob(request), call_response::Response::Job(job)) => {
                self.figures.acknowledged += 1;
                let at_most_once = request.spec.as_ref().is_some_and(|spec| spec.at_most_once);
                self.known.entry(job.id).or_default().at_most_once = at_most_once;
                let before = self.oracle.acknowledged.insert(request.request_id.clone(), job.id);
                if before.is_some_and(|before| before != job.id) {
                    self.oracle.violated("I2", format!("{} was answered with two jobs", request.request_id));
                }
            }
            (call_request::Request::SubmitJobs(request), call_response::Response::SubmitJobs(response)) => {
                self.figures.acknowledged += response.jobs.len() as u64;
                for (spec, job) in request.specs.iter().zip(&response.jobs) {
                    self.known.entry(job.id).or_default();
                    self.oracle.acknowledged.insert(spec.name.clone(), job.id);
                }
            }
            (call_request::Request::GetJob(request), call_response::Response::Job(job)) => {
                self.figures.reads += 1;
                let Some(facts) = self.known.get_mut(&request.job_id) else { return };
                let tasks = job.tasks.unwrap_or_default();
                let (over, waiting) = (is_over(job.state()), tasks.queued + tasks.waiting);
                let stale_end = facts.over_us.is_some_and(|since| since < begun_us) && !over && !facts.retried;
                let stale_cancel =
                    facts.cancelled_us.is_some_and(|since| since < begun_us) && waiting > 0 && !facts.retried;
                if over {
                    facts.over_us.get_or_insert(self.now_us);
                }
                if stale_end || stale_cancel {
                    let detail = format!("a read of job {} shows less than an earlier answer", request.job_id);
                    self.oracle.violated("I7", detail);
                }
            }
            (call_request::Request::CancelJob(request), _) => {
                self.figures.acknowledged += 1;
                let now_us = self.now_us;
                if let Some(facts) = self.known.get_mut(&request.job_id) {
                    facts.cancelled_us.get_or_insert(now_us);
                }
            }
            (call_request::Request::ListTasks(request), call_response::Response::ListTasks(list)) => {
                self.figures.reads += 1;
                self.check_tasks(request.job_id, &list.tasks);
            }
            (call_request::Request::RetryJob(_), _) => self.figures.acknowledged += 1,
            _ => {}
        }
    }

    /// What was said of the tasks of a job that has moved is what the log says of them.
    fn check_tasks(&mut self, job: u64, tasks: &[Task]) {
        if self.oracle.state.gone(job).is_none() {
            return;
        }
        let expected =
            self.oracle.everything().tasks(job, &[], &[], true, 0, tasks.len().max(1)).map(|(tasks, _)| tasks);
        if expected.as_deref() != Some(tasks) {
            let detail = format!("tasks of job {job} in the history: {tasks:?}, expected {expected:?}");
            self.oracle.violated("I1", detail);
        }
    }

    pub(super) fn refused(&mut self, client: usize, refusal: &proto::internal::Refusal) {
        let Some(operation) = &self.clients[client].operation else { return };
        let job = match &operation.request {
            call_request::Request::GetJob(request) => request.job_id,
            call_request::Request::ListTasks(request) => request.job_id,
            _ => return,
        };
        let detail = format!("job {job} was acknowledged, but a read says: {}", refusal.message);
        self.oracle.violated("I1", detail);
    }
}
