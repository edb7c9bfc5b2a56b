//! Which queue is served next: first those that have less than they are guaranteed, then the one that used least of
//! late for its weight, by its dominant resource. What the plan itself hands out counts as if it ran for a second, so
//! that queues without a past share what is free by their weights too.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    sync::Arc,
};

use super::{Cursor, Planner};
use crate::{
    State,
    indexes::{Bucket, Turn, turn_of},
    queue::{Load, Queue},
    shape::{Resource, Shape},
    usage::Usage,
};

/// As how long a use what is in use now counts, in milliseconds.
const PRESENT_MS: u64 = 1_000;
/// Shares are counted in parts of the grid's capacity as small as this.
const UNIT: u128 = 1 << 32;

/// The first of a bucket's jobs, or a task that stands for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Head<'s> {
    pub turn: Turn,
    /// A task that needs more memory than the others of its job.
    pub grown: Option<u32>,
    pub bucket: &'s Bucket,
}

/// One queue, and what stands first in it.
#[derive(Debug)]
pub(super) struct Lane<'s> {
    name: Arc<str>,
    queue: &'s Queue,
    heads: BinaryHeap<Reverse<Head<'s>>>,
}

impl<'s> Lane<'s> {
    pub fn pop(&mut self) -> Option<Head<'s>> {
        self.heads.pop().map(|Reverse(head)| head)
    }

    pub fn push(&mut self, head: Head<'s>) {
        self.heads.push(Reverse(head));
    }

    /// Puts what stands behind a head in its bucket in its place.
    pub fn push_next(&mut self, state: &'s State, head: &Head<'s>) {
        let (priority, job) = head.turn;
        let next = match head.grown {
            None => state.indexes.ready[head.bucket].get_next((priority, job + 1)).map(|turn| (turn, None)),
            Some(ordinal) => {
                let line = &state.indexes.grown[head.bucket];
                line.get_next(&(head.turn, ordinal + 1)).map(|(turn, ordinal)| (*turn, Some(*ordinal)))
            }
        };
        self.heads.extend(next.map(|(turn, grown)| Reverse(Head { turn, grown, bucket: head.bucket })));
    }

    pub fn peek(&self) -> Option<&Head<'s>> {
        self.heads.peek().map(|Reverse(head)| head)
    }
}

/// All queues that have something to grant, in the order in which they are served.
#[derive(Debug)]
pub(super) struct Lanes<'s> {
    order: BinaryHeap<Reverse<(Rank, usize)>>,
    lanes: Vec<Option<Lane<'s>>>,
    /// Those that nothing can be granted of any more.
    closed: Vec<Arc<str>>,
}

/// Lower is served first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    has_its_guarantee: bool,
    share: u128,
}

impl<'s> Lanes<'s> {
    /// Takes out the lane that is to be served, and how many tasks it may have before another is.
    pub fn first(&mut self, planner: &Planner<'s>) -> Option<(Lane<'s>, u64)> {
        let Reverse((rank, at)) = self.order.pop()?;
        let lane = self.lanes[at].take().expect("a lane in the order is there");
        let quota = match (self.order.peek(), lane.peek()) {
            (None, _) | (_, None) => u64::MAX,
            (Some(_), Some(_)) if !rank.has_its_guarantee => 1,
            (Some(Reverse((next, _))), Some(head)) => {
                let each = planner.share_of(head.bucket.ask.shape(), lane.queue).max(1);
                u64::try_from(next.share.saturating_sub(rank.share) / each).unwrap_or(u64::MAX).saturating_add(1)
            }
        };
        Some((lane, quota))
    }

    pub fn put_back(&mut self, lane: Lane<'s>, planner: &Planner<'s>) {
        let rank = planner.rank(&lane.name, lane.queue);
        let free = self.lanes.iter().position(Option::is_none).expect("it was taken out");
        self.lanes[free] = Some(lane);
        self.order.push(Reverse((rank, free)));
    }

    pub fn close(&mut self, lane: Lane<'s>) {
        self.closed.push(lane.name);
        // Its place stays empty: a lane that is put back takes any.
    }

    /// Where a later plan goes on.
    pub fn cursor(self) -> Cursor {
        let open = self.lanes.into_iter().flatten().map(|lane| {
            let turn = lane.peek().map(|head| head.turn);
            (lane.name, turn)
        });
        let closed = self.closed.into_iter().map(|name| (name, None));
        Cursor { at: open.chain(closed).collect() }
    }

    /// All lanes, the one that is to be served first in front.
    pub fn in_order(mut self) -> Vec<Lane<'s>> {
        let mut lanes = Vec::with_capacity(self.lanes.len());
        while let Some(Reverse((_, at))) = self.order.pop() {
            lanes.extend(self.lanes[at].take());
        }
        lanes
    }
}

impl<'s> Planner<'s> {
    /// The queues that have something to grant, from where an earlier plan stopped.
    pub(super) fn lanes(&self, cursor: &Cursor) -> Lanes<'s> {
        let mut by_queue: BTreeMap<&Arc<str>, BinaryHeap<Reverse<Head<'s>>>> = BTreeMap::new();
        let indexes = &self.state.indexes;
        let mut add = |bucket: &'s Bucket, head: Option<(Turn, Option<u32>)>| {
            let head = head.map(|(turn, grown)| Reverse(Head { turn, grown, bucket }));
            by_queue.entry(&bucket.queue).or_default().extend(head);
        };
        let closed = |bucket: &Bucket| !self.open(bucket) || cursor.at.get(&bucket.queue) == Some(&None);
        let from = |bucket: &Bucket| cursor.at.get(&bucket.queue).copied().flatten();
        for (bucket, line) in indexes.ready.iter().filter(|(bucket, _)| !closed(bucket)) {
            let first = from(bucket).map_or_else(|| line.get_min(), |at| line.get_next(at));
            add(bucket, first.map(|turn| (turn, None)));
        }
        for (bucket, line) in indexes.grown.iter().filter(|(bucket, _)| !closed(bucket)) {
            let first = from(bucket).map_or_else(|| line.get_min(), |at| line.get_next(&(at, 0)));
            add(bucket, first.map(|(turn, ordinal)| (*turn, Some(*ordinal))));
        }
        let lanes: Vec<_> = by_queue
            .into_iter()
            .map(|(name, heads)| {
                let queue = self.state.queues.get(name).expect("a bucket's queue exists");
                Some(Lane { name: name.clone(), queue, heads })
            })
            .collect();
        let ranks = lanes.iter().flatten().map(|lane| self.rank(&lane.name, lane.queue));
        let order = ranks.zip(0..).map(Reverse).collect();
        Lanes { order, lanes, closed: Vec::new() }
    }

    fn rank(&self, name: &str, queue: &Queue) -> Rank {
        let (load, usage) = &self.loads[name];
        rank(queue, load, usage, &self.capacity)
    }

    /// What one more task of this shape adds to its queue's share.
    fn share_of(&self, shape: &Shape, queue: &Queue) -> u128 {
        dominant(|resource| u128::from(shape.amount(resource)) * u128::from(PRESENT_MS), queue, &self.capacity)
    }
}

impl State {
    /// Whether a job comes before another in one queue.
    pub(crate) fn stands_before(&self, id: u64, other: u64) -> bool {
        let (Some(one), Some(two)) = (self.jobs.get(id), self.jobs.get(other)) else { return false };
        one.terms.queue == two.terms.queue && turn_of(&one.terms, id) < turn_of(&two.terms, other)
    }
}

/// The rank of a queue as the state has it, for those who explain.
pub(crate) fn rank_of(state: &State, queue: &Queue, capacity: &Shape) -> Rank {
    let usage = queue.usage.until(state.time_ms, &queue.load.used, state.half_life_ms);
    rank(queue, &queue.load, &usage, capacity)
}

fn rank(queue: &Queue, load: &Load, usage: &Usage, capacity: &Shape) -> Rank {
    let used = |resource: Resource| {
        u128::from(usage.amount(resource)) + u128::from(load.used.amount(resource)) * u128::from(PRESENT_MS)
    };
    Rank { has_its_guarantee: !queue.is_short(load), share: dominant(used, queue, capacity) }
}

/// The largest part of any resource that these amounts are, for the queue's weight.
fn dominant(amount: impl Fn(Resource) -> u128, queue: &Queue, capacity: &Shape) -> u128 {
    let part = |resource: Resource| {
        let all = u128::from(capacity.amount(resource)) * u128::from(queue.weight.max(1));
        (all > 0).then(|| amount(resource).saturating_mul(UNIT) / all)
    };
    Resource::ALL.into_iter().filter_map(part).max().unwrap_or_default()
}
