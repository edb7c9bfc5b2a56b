//! Where a job stands: in its queue, among the queues, and in time.

use prost_types::Timestamp;
use proto::v1::{Reason, WaitReason};

use super::reason;
use crate::{
    State,
    indexes::{Bucket, turn_of},
    job::Job,
    plan::rank_of,
};

/// Jobs before one that are counted for its position; with more it stays unknown.
const COUNTED_AHEAD: usize = 100_000;
/// Jobs before one whose tasks are counted for the time of its start; with more it stays unknown.
const WEIGHED_AHEAD: usize = 1_000;

impl State {
    /// The place of a job in its queue, from 1, and the job in front of it; nothing for one that doesn't stand
    /// there.
    pub(super) fn position(&self, id: u64, job: &Job) -> (Option<u64>, Option<u64>) {
        if !job.indexed.ready {
            return (None, None);
        }
        let turn = turn_of(&job.terms, id);
        let lines = self.indexes.ready.iter().filter(|(bucket, _): &(&Bucket, _)| bucket.queue == job.terms.queue);
        let (mut before, mut ahead) = (0usize, None);
        for (_, line) in lines {
            before += line.range(..turn).take(COUNTED_AHEAD + 1 - before.min(COUNTED_AHEAD)).count();
            ahead = ahead.max(line.range(..turn).next_back().copied());
        }
        let position = (before <= COUNTED_AHEAD).then_some(before as u64 + 1);
        (position, ahead.map(|(_, job)| job))
    }

    /// Whether another queue is served before this job's, and why.
    pub(super) fn reason_of_share(&self, job: &Job) -> Option<Reason> {
        let name = &job.terms.queue;
        let capacity = self.capacity();
        let mine = rank_of(self, self.queues.get(name)?, &capacity);
        let served = |bucket: &&Bucket| {
            bucket.queue != *name
                && self.queues.get(&bucket.queue).is_some_and(|queue| {
                    !queue.paused
                        && queue.room(&queue.load, bucket.ask.shape()) > 0
                        && rank_of(self, queue, &capacity) < mine
                })
        };
        let other = self.indexes.ready.keys().find(served)?;
        let of = |queue: &str| self.queue(queue).unwrap_or_default();
        let (this, that) = (of(name), of(&other.queue));
        let detail = format!(
            "queue `{}` (weight {}, {:.0} % of late) comes before queue `{name}` (weight {}, {:.0} %)",
            other.queue,
            that.weight,
            100.0 * that.usage,
            this.weight,
            100.0 * this.usage
        );
        let advice = format!("`millgrid queue set {name} --weight N` gives its queue a larger part");
        Some(reason(WaitReason::FairShare, 0, detail, advice))
    }

    /// When a job may start that only waits for its turn and for room: from how many tasks stand before it, and how
    /// fast those of its queue end.
    pub(super) fn estimated_start(&self, id: u64, job: &Job) -> Option<Timestamp> {
        let queue = self.queues.get(&job.terms.queue)?;
        if !job.indexed.ready || queue.load.running == 0 || queue.recent.ends == 0 {
            return None;
        }
        let turn = turn_of(&job.terms, id);
        let lines = self.indexes.ready.iter().filter(|(bucket, _): &(&Bucket, _)| bucket.queue == job.terms.queue);
        let (mut jobs, mut tasks) = (0, 0u64);
        for (_, line) in lines {
            for (_, before) in line.range(..turn) {
                jobs += 1;
                if jobs > WEIGHED_AHEAD {
                    return None;
                }
                tasks += self.jobs.get(*before).map_or(0, |job| u64::from(job.counts.pending));
            }
        }
        let mean_ms = queue.recent.run_ms / u64::from(queue.recent.ends);
        // So many end, and are followed by others, in the mean time that one runs.
        let wait_ms = (tasks + 1).saturating_mul(mean_ms.max(1)) / queue.load.running;
        let wall_ms = self.wall_ms.saturating_add(i64::try_from(wait_ms).unwrap_or(i64::MAX));
        Some(crate::view::timestamp(wall_ms))
    }
}
