//! Which workers get the tasks of one shape: those it likes best, and among them always the one with the greatest
//! free share, so that load is even; or with the least, so that whole workers come free.

use std::{cmp::Ordering, collections::BinaryHeap};

use proto::v1::Placement;

use super::Worker;
use crate::{ask::Ask, shape::Shape};

/// The workers that one shape fits, the best first. An entry that was overtaken, since other shapes took of its
/// worker, is put back where it belongs when it comes up. (Packing, the worker would have come up earlier: it is
/// found a little late, which costs a little of the packing and nothing else.)
#[derive(Debug)]
pub(super) struct Spread {
    heap: BinaryHeap<Entry>,
    placement: Placement,
    now_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Entry {
    liking: usize,
    /// Free share; negated when packing.
    share: f64,
    leases: usize,
    worker: usize,
}

impl Eq for Entry {}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_liking = self.liking.cmp(&other.liking).then(self.share.total_cmp(&other.share));
        by_liking.then(other.leases.cmp(&self.leases)).then(other.worker.cmp(&self.worker))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

fn share(worker: &Worker, placement: Placement) -> f64 {
    if placement == Placement::Pack { -worker.share() } else { worker.share() }
}

impl Spread {
    pub fn new(workers: &[Worker], ask: &Ask, shape: &Shape, placement: Placement, now_ms: u64) -> Self {
        let fitting = workers.iter().enumerate().filter(|(_, worker)| {
            // The cheaper question first: most workers are full most of the time.
            worker.fits(ask, shape, now_ms) && ask.unmet(worker.about).is_none()
        });
        let entry = |(position, worker): (usize, &Worker)| Entry {
            liking: ask.liking(worker.about),
            share: share(worker, placement),
            leases: worker.leases,
            worker: position,
        };
        Self { heap: fitting.map(entry).collect(), placement, now_ms }
    }

    /// Whether the shape fits no worker any more.
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    /// Takes room for `wanted` tasks, as far as there is any: (worker, how many), by worker.
    pub fn take(&mut self, workers: &mut [Worker], ask: &Ask, shape: &Shape, wanted: usize) -> Vec<(usize, usize)> {
        let mut shares: Vec<(usize, usize)> = Vec::new();
        let mut left = wanted;
        while left > 0 {
            let Some(top) = self.heap.pop() else { break };
            let worker = &mut workers[top.worker];
            if !worker.fits(ask, shape, self.now_ms) {
                continue;
            }
            let now = Entry { share: share(worker, self.placement), leases: worker.leases, ..top };
            if now < top {
                self.heap.push(now);
                continue;
            }
            worker.free = worker.free.less(shape);
            worker.leases += 1;
            shares.push((top.worker, 1));
            left -= 1;
            if worker.fits(ask, shape, self.now_ms) {
                self.heap.push(Entry { share: share(worker, self.placement), leases: worker.leases, ..top });
            }
        }
        // Runs of neighbours for each worker make the entry small.
        shares.sort_unstable();
        shares.dedup_by(|next, kept| {
            let same = next.0 == kept.0;
            kept.1 += if same { next.1 } else { 0 };
            same
        });
        shares
    }
}
