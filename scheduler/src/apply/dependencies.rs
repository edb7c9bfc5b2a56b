//! Jobs that wait for others. What can no longer run is skipped, and so is what waits for its success.

use super::Step;
use crate::job::{Bearing, Place};

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
        let bearings: Vec<Bearing> = job
            .after()
            .iter()
            .map(|edge| if edge.met { Bearing::Met } else { edge.bearing(self.state_of(edge.job)) })
            .collect();
        // What is met stays met, whatever becomes of the job: a retry of it asks for the others alone.
        let met: Vec<bool> = bearings.iter().map(|bearing| *bearing == Bearing::Met).collect();
        let changed = job.after().iter().zip(&met).any(|(edge, met)| edge.met != *met);
        let impossible = bearings.iter().position(|bearing| *bearing == Bearing::Impossible);
        let released = met.iter().all(|met| *met);
        if !(changed || released || impossible.is_some()) {
            return;
        }
        let job = self.state.jobs.get_mut(id).expect("it was found");
        if changed {
            for (edge, met) in job.extra_mut().after.iter_mut().zip(met) {
                edge.met = met;
            }
        }
        job.released = released;
        let count = job.tasks.count();
        if let Some(position) = impossible {
            let edge = self.state.jobs.get(id).expect("it was found").after()[position];
            let state = state_word(self.state_of(edge.job));
            self.skip(id, format!("it waited for {} of job {}, which {state}", edge.word(), edge.job));
        } else if released {
            self.touch_tasks(id, 0, count);
        } else {
            self.touch(id);
        }
    }

    fn skip(&mut self, id: u64, reason: String) {
        let wall_ms = self.state.wall_ms;
        let job = self.state.jobs.get_mut(id).expect("it was found");
        let count = job.tasks.count();
        let skipped = job.tasks.shift(0, count, Place::Pending, Place::Skipped);
        job.counts.pending -= skipped;
        job.counts.skipped += skipped;
        let extra = job.extra_mut();
        extra.reason = Some(reason.into());
        extra.stopped_ms = Some(wall_ms);
        self.touch_tasks(id, 0, count);
    }
}

/// What became of a job, for people.
pub(crate) fn state_word(state: proto::v1::JobState) -> &'static str {
    use proto::v1::JobState;
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
