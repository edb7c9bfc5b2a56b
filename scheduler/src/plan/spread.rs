//! Which workers get the tasks of one shape: always the one with the greatest free share, so that load is even.

use std::{cmp::Ordering, collections::BinaryHeap};

use super::Worker;
use crate::shape::Shape;

/// The workers that one shape fits, the freest first. Shares only fall in a plan, so that an entry that was
/// overtaken is put back where it belongs when it comes up.
#[derive(Debug)]
pub(super) struct Spread {
    heap: BinaryHeap<Entry>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Entry {
    share: f64,
    leases: usize,
    worker: usize,
}

impl Eq for Entry {}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_share = self.share.total_cmp(&other.share);
        by_share.then(other.leases.cmp(&self.leases)).then(other.worker.cmp(&self.worker))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

fn entry(workers: &[Worker], worker: usize) -> Entry {
    Entry { share: workers[worker].share(), leases: workers[worker].leases, worker }
}

impl Spread {
    pub fn new(workers: &[Worker], shape: &Shape) -> Self {
        let fitting = (0..workers.len()).filter(|worker| shape.fits(&workers[*worker].free));
        Self { heap: fitting.map(|worker| entry(workers, worker)).collect() }
    }

    /// Whether the shape fits no worker any more.
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    /// Takes room for `wanted` tasks, as far as there is any: (worker, how many), by worker.
    pub fn take(&mut self, workers: &mut [Worker], shape: &Shape, wanted: usize) -> Vec<(usize, usize)> {
        let mut shares: Vec<(usize, usize)> = Vec::new();
        let mut left = wanted;
        while left > 0 {
            let Some(top) = self.heap.pop() else { break };
            let worker = &mut workers[top.worker];
            if !shape.fits(&worker.free) {
                continue;
            }
            let now = entry(workers, top.worker);
            if now != top {
                self.heap.push(now);
                continue;
            }
            let worker = &mut workers[top.worker];
            worker.free = worker.free.less(shape);
            worker.leases += 1;
            shares.push((top.worker, 1));
            left -= 1;
            if shape.fits(&worker.free) {
                self.heap.push(entry(workers, top.worker));
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
