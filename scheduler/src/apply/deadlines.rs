//! Time limits that count in log time from when a job waits for no other: how long its tasks may be queued before
//! their first start, and how long it may take in all. (How long one attempt may run is its keeper's clock's.)

use proto::v1::{AttemptKey, Cause};

use super::Step;
use crate::{
    Event, State,
    job::{Job, Kill, Phase, Place},
};

/// The place of the two limits in `Job::deadlines`.
const QUEUE: u8 = 0;

impl Step<'_> {
    /// Does what is due; how many limits were over.
    pub(super) fn end_limits(&mut self) -> u32 {
        let mut count = 0;
        while let Some((_, id, which)) = self.overdue() {
            self.note_over(id, which);
            if which == QUEUE {
                self.end_waiting(id)
            } else {
                self.end_all(id)
            }
            self.settle();
            count += 1;
        }
        count
    }

    fn overdue(&self) -> Option<(u64, u64, u8)> {
        self.state.indexes.deadlines.get_min().copied().filter(|(due, ..)| *due <= self.state.time_ms)
    }

    fn note_over(&mut self, id: u64, which: u8) {
        let State { jobs, indexes, .. } = &mut *self.state;
        let job = jobs.get_mut(id).expect("a time limit is of a job");
        job.extra_mut().fired[usize::from(which)] = true;
        indexes.set_deadlines(id, job);
        self.touch(id);
    }

    /// Tasks that never had an attempt fail.
    fn end_waiting(&mut self, id: u64) {
        let limit_ms = self.job(id).terms.queue_time_limit_ms;
        self.fail_untried(id, Cause::QueueTimeLimit, format!("its limit of {} in the queue is over", span(limit_ms)));
    }

    /// All that is left of the job fails; what runs is asked to stop.
    fn end_all(&mut self, id: u64) {
        let limit_ms = self.job(id).terms.total_time_limit_ms;
        self.fail_untried(id, Cause::TimeLimit, format!("its total time limit of {} is over", span(limit_ms)));
        let State { jobs, indexes, index, wall_ms, .. } = &mut *self.state;
        let job = jobs.get_mut(id).expect("a time limit is of a job");
        let ordinals: Vec<u32> = job.records.keys().copied().collect();
        for ordinal in &ordinals {
            let record = job.records.get_mut(ordinal).expect("it was listed");
            let (attempt, memory_mib) = (record.attempt, record.memory_mib);
            match &mut record.phase {
                Phase::Leased(lease) => {
                    if lease.kill.is_none() {
                        lease.kill = Some(Kill { index: *index, cause: Cause::TimeLimit });
                        let key = AttemptKey { job_id: id, ordinal: *ordinal, attempt };
                        self.events.push(Event::KillAsked { session: lease.session, key, cause: Cause::TimeLimit });
                    }
                    continue;
                }
                // It has succeeded but for its outputs.
                Phase::Publishing(_) => continue,
                Phase::Backoff { until_ms } => {
                    indexes.timers.remove(&(*until_ms, id, *ordinal));
                    job.counts.backoff -= 1;
                }
                Phase::Pending if memory_mib > 0 => {
                    indexes.set_grown(id, job, *ordinal, memory_mib, false);
                    job.counts.grown -= 1;
                }
                Phase::Pending => job.counts.pending -= 1,
            }
            let mut fact = super::cancel::given_back(attempt, *wall_ms);
            (fact.place, fact.cause) = (Place::Failed, Cause::TimeLimit);
            if let Some(last) = job.newest_fact(*ordinal).filter(|last| last.attempt >= attempt) {
                // What its last attempt did is known better.
                fact = last;
            } else {
                job.record_fact(*ordinal, fact.clone());
            }
            job.extra_mut().failures.add(*ordinal, &fact);
            job.records.remove(ordinal);
            job.tasks.set(*ordinal, Place::Failed);
            job.counts.failed += 1;
        }
        for ordinal in ordinals {
            self.touch_tasks(id, ordinal, 1);
        }
    }

    fn fail_untried(&mut self, id: u64, cause: Cause, reason: String) {
        let wall_ms = self.state.wall_ms;
        let job = self.state.jobs.get_mut(id).expect("a time limit is of a job");
        let count = job.tasks.count();
        let mut failed = 0;
        for from in [Place::Pending, Place::Blocked] {
            let mut at = 0;
            while let Some((run, length)) = job.tasks.next(at, from) {
                at = run + length;
                // Those that were tried and are queued again have records.
                let tried: Vec<u32> = job.records.range(run..at).map(|(ordinal, _)| *ordinal).collect();
                let mut first = run;
                for end in tried.into_iter().chain([at]) {
                    failed += fail_run(job, first, end, from, cause);
                    first = end + 1;
                }
            }
        }
        if failed == 0 {
            return;
        }
        let extra = job.extra_mut();
        extra.stopped_ms = Some(wall_ms);
        extra.stopped_cause = cause;
        extra.reason = Some(reason.into());
        self.touch_tasks(id, 0, count);
    }

    fn job(&self, id: u64) -> &Job {
        self.state.jobs.get(id).expect("a time limit is of a job")
    }
}

/// Fails all of a run that were never tried; how many these were.
fn fail_run(job: &mut Job, first: u32, end: u32, from: Place, cause: Cause) -> u32 {
    if first >= end {
        return 0;
    }
    let moved = job.tasks.shift(first, end, from, Place::Failed);
    if from == Place::Pending {
        job.counts.pending -= moved;
    } else {
        job.counts.blocked -= moved;
    }
    job.counts.failed += moved;
    job.extra_mut().failures.add_run(first, moved, cause);
    moved
}

/// Milliseconds for people.
fn span(milliseconds: u64) -> String {
    if milliseconds.is_multiple_of(1000) { format!("{} s", milliseconds / 1000) } else { format!("{milliseconds} ms") }
}
