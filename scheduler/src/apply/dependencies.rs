//! Jobs that wait for others. What can no longer run is skipped, and so is what waits for its success.

use super::Step;
use proto::v1::JobState;

use crate::{
    State,
    job::{Bearing, Edge, Job, Place},
};

impl State {
    /// What has become of the job that an edge leads to.
    pub(super) fn bearing(&self, edge: &Edge) -> Bearing {
        if edge.met {
            return Bearing::Met;
        }
        match (self.jobs.get(edge.job), self.jobs.gone(edge.job)) {
            (Some(job), _) => edge.bearing(job.state(), job.exit_code()),
            (None, Some(gone)) => edge.bearing(gone.state, gone.end_code()),
            (None, None) => Bearing::Open,
        }
    }

    /// How a job stands, or ended before it left.
    pub(super) fn state_of_job(&self, id: u64) -> JobState {
        let here = self.jobs.get(id).map(Job::state);
        here.or_else(|| Some(self.jobs.gone(id)?.state)).unwrap_or(JobState::Unspecified)
    }

    /// What the twins of a task mean for it; for how many from it on that holds, and which job is to blame.
    fn twins_of(&self, job: &Job, ordinal: u32) -> (Bearing, u32, u64) {
        let (mut all, mut length, mut blame) = (Bearing::Met, u32::MAX, 0);
        for edge in job.after().iter().filter(|edge| edge.is_by_task()) {
            let Some(other) = self.jobs.get(edge.job) else {
                // It left before this job came, and is waited for since all of it succeeded.
                continue;
            };
            let (place, run) = other.tasks.run_at(ordinal);
            length = length.min(run);
            match place {
                Place::Succeeded => {}
                Place::Pending | Place::Active | Place::Blocked if all == Bearing::Met => all = Bearing::Open,
                Place::Pending | Place::Active | Place::Blocked => {}
                Place::Failed | Place::Cancelled | Place::Skipped => (all, blame) = (Bearing::Impossible, edge.job),
            }
        }
        (all, length, blame)
    }
}

impl Step<'_> {
    /// Tells all who wait for a job that it has ended.
    pub(super) fn tell_dependents(&mut self, ended: u64) {
        let waiting: Vec<u64> =
            self.state.indexes.dependents.range((ended, 0)..=(ended, u64::MAX)).map(|(_, waiting)| *waiting).collect();
        for id in waiting {
            self.weigh_dependencies(id);
        }
    }

    /// Releases a job whose dependencies are all met; skips it when one can't be met any more.
    pub(super) fn weigh_dependencies(&mut self, id: u64) {
        let Some(job) = self.state.jobs.get(id).filter(|job| !job.released && !job.ended()) else { return };
        // Edges between tasks hold up single tasks, not the job.
        let weigh = |edge: &Edge| if edge.is_by_task() { Bearing::Open } else { self.state.bearing(edge) };
        let bearings: Vec<Bearing> = job.after().iter().map(weigh).collect();
        // What is met stays met, whatever becomes of the job: a retry of it asks for the others alone.
        let met: Vec<bool> = bearings.iter().map(|bearing| *bearing == Bearing::Met).collect();
        let changed = job.after().iter().zip(&met).any(|(edge, met)| edge.met != *met);
        let impossible = bearings.iter().position(|bearing| *bearing == Bearing::Impossible);
        let released = job.after().iter().zip(&met).all(|(edge, met)| *met || edge.is_by_task());
        if !(changed || released || impossible.is_some()) {
            return;
        }
        let job = self.state.jobs.get_mut(id).expect("it was found");
        if released {
            let since = self.state.time_ms;
            job.start_limits(since);
        }
        if changed {
            for (edge, met) in job.extra_mut().after.iter_mut().zip(met) {
                edge.met = met;
            }
        }
        job.released = released;
        let count = job.tasks.count();
        if let Some(position) = impossible {
            let edge = &self.state.jobs.get(id).expect("it was found").after()[position];
            let state = state_word(self.state.state_of_job(edge.job));
            let reason = format!("it waited for {} of job {}, which {state}", edge.word(), edge.job);
            self.skip(id, reason);
        } else if released {
            self.touch_tasks(id, 0, count);
        } else {
            self.touch(id);
        }
    }

    /// Looks again at those of `first..end` that wait for their twins in other arrays.
    pub(super) fn weigh_twins(&mut self, id: u64, first: u32, end: u32) {
        let mut at = first;
        while let Some((run, count)) = self.state.jobs.get(id).and_then(|job| job.tasks.next(at, Place::Blocked)) {
            if run >= end {
                return;
            }
            let job = self.state.jobs.get(id).expect("it was found");
            let (bearing, length, blame) = self.state.twins_of(job, run);
            let stop = (run + count.min(length)).min(end);
            let place = match bearing {
                Bearing::Open => Place::Blocked,
                Bearing::Met => Place::Pending,
                Bearing::Impossible => Place::Skipped,
            };
            if place != Place::Blocked {
                let wall_ms = self.state.wall_ms;
                let job = self.state.jobs.get_mut(id).expect("it was found");
                let moved = job.tasks.shift(run, stop, Place::Blocked, place);
                job.counts.blocked -= moved;
                if place == Place::Pending {
                    job.counts.pending += moved;
                } else {
                    job.counts.skipped += moved;
                    let extra = job.extra_mut();
                    extra.stopped_ms = Some(wall_ms);
                    let reason = || format!("tasks whose twins in job {blame} didn't succeed were skipped").into();
                    extra.reason.get_or_insert_with(reason);
                }
                self.touch_tasks(id, run, stop - run);
            }
            at = stop;
        }
    }

    fn skip(&mut self, id: u64, reason: String) {
        let wall_ms = self.state.wall_ms;
        let job = self.state.jobs.get_mut(id).expect("it was found");
        let count = job.tasks.count();
        let skipped = job.tasks.shift(0, count, Place::Pending, Place::Skipped);
        job.counts.pending -= skipped;
        let blocked = job.tasks.shift(0, count, Place::Blocked, Place::Skipped);
        job.counts.blocked -= blocked;
        job.counts.skipped += skipped + blocked;
        let extra = job.extra_mut();
        extra.reason = Some(reason.into());
        extra.stopped_ms = Some(wall_ms);
        self.touch_tasks(id, 0, count);
    }
}

/// What became of a job, for people.
pub(crate) fn state_word(state: JobState) -> &'static str {
    match state {
        JobState::Succeeded => "succeeded",
        JobState::Failed => "failed",
        JobState::Cancelled => "was cancelled",
        JobState::Skipped => "was skipped",
        JobState::Waiting => "waits",
        JobState::Queued => "is queued",
        JobState::Running => "runs",
        JobState::Unspecified => "is unknown",
    }
}
