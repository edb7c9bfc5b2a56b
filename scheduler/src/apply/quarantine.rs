//! Workers on which everything fails: what is granted to them is lost, and they come free fastest.
//!
//! One is quarantined when so many different jobs failed there in a row, within a short time, that it is more likely
//! to blame than they; and only while others succeed elsewhere: when all fails everywhere, it is the jobs.

use proto::v1::Cause;

use super::Step;
use crate::{Event, limits, session::Session};

/// Whether such an end may be its worker's fault.
fn speaks_against_the_worker(cause: Cause) -> bool {
    match cause {
        Cause::ExitCode
        | Cause::Signal
        | Cause::StageIn
        | Cause::StageOut
        | Cause::CommandNotFound
        | Cause::CommandNotExecutable => true,
        Cause::OutOfMemory
        | Cause::TimeLimit
        | Cause::QueueTimeLimit
        | Cause::SpotReclaimed
        | Cause::WorkerLost
        | Cause::Infeasible
        | Cause::Cancelled
        | Cause::Dependency
        | Cause::Unspecified => false,
    }
}

impl Step<'_> {
    /// Notes how an attempt ended that nobody had asked to stop.
    pub(super) fn note_health(&mut self, session_id: u64, job: u64, cause: Cause, succeeded: bool) {
        let now_ms = self.state.time_ms;
        let Some(session) = self.state.sessions.get_mut(&session_id) else { return };
        let health = &mut session.health;
        if succeeded {
            health.failed_jobs.clear();
            health.succeeded_ms = Some(now_ms);
            return;
        }
        if !speaks_against_the_worker(cause) {
            return;
        }
        if health.failed_jobs.is_empty() || now_ms - health.failing_since_ms > limits::QUARANTINE_MS {
            health.failed_jobs.clear();
            health.failing_since_ms = now_ms;
        }
        if !health.failed_jobs.contains(&job) && health.failed_jobs.len() < limits::QUARANTINE_JOBS {
            health.failed_jobs.push(job);
        }
        let (jobs, since_ms) = (health.failed_jobs.len(), health.failing_since_ms);
        if jobs < limits::QUARANTINE_JOBS || health.quarantined.is_some() {
            return;
        }
        let succeeds = |(id, other): (&u64, &Session)| {
            *id != session_id && other.accepts() && other.health.succeeded_ms.is_some_and(|at| at >= since_ms)
        };
        if !self.state.sessions.iter().any(succeeds) {
            return;
        }
        let reason = format!("{jobs} different jobs failed there in a row, while others succeeded elsewhere");
        let session = self.state.sessions.get_mut(&session_id).expect("it was found");
        session.health.quarantined = Some(reason.into());
        let silent = session.silent_since_ms.is_some();
        self.events.push(Event::SessionChanged { session: session_id, silent, draining: true });
    }
}
