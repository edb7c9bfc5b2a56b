//! Watches: streams of what changed, that go on behind a token after any break.
//!
//! Every replica keeps which jobs and tasks changed at the newest indexes, so that the next leader can go on where the
//! last one stopped. A message shows each changed job and task as it stands at the message's index: what a slow reader
//! missed in between is joined, so that no reader makes memory grow.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proto::internal::{OrdinalRange, call_response};
use proto::v1::{WatchJobsRequest, WatchJobsResponse};
use scheduler::Event;

use crate::{
    CallId,
    core::Core,
    history::detail_of,
    limits,
    refusal::{self, invalid},
};

/// A change that a watch may show.
#[derive(Debug, Clone, Copy)]
enum Change {
    Job(u64),
    Tasks(u64, OrdinalRange),
}

/// The recent changes, and the watches that are fed from them.
#[derive(Debug)]
pub(crate) struct Watches {
    recent: VecDeque<(u64, Change)>,
    /// Everything above this index is in `recent`.
    complete_above: u64,
    /// Highest index that was noted.
    noted: u64,
    watchers: BTreeMap<CallId, Watcher>,
    by_job: BTreeMap<u64, BTreeSet<CallId>>,
}

#[derive(Debug)]
struct Watcher {
    jobs: BTreeSet<u64>,
    tasks: bool,
    /// Messages that its caller has not taken yet.
    untaken: u32,
    changed_jobs: BTreeSet<u64>,
    changed_tasks: BTreeMap<u64, Vec<OrdinalRange>>,
}

impl Watcher {
    fn note(&mut self, change: Change) {
        match change {
            Change::Job(job) => {
                self.changed_jobs.insert(job);
            }
            Change::Tasks(job, range) if self.tasks => add_range(self.changed_tasks.entry(job).or_default(), range),
            Change::Tasks(..) => {}
        }
    }

    fn has_news(&self) -> bool {
        !self.changed_jobs.is_empty() || !self.changed_tasks.is_empty()
    }
}

/// Adds a range to ascending ones that don't touch.
fn add_range(ranges: &mut Vec<OrdinalRange>, range: OrdinalRange) {
    let (mut first, mut end) = (range.first, range.first + range.count);
    let from = ranges.partition_point(|known| known.first + known.count < first);
    let to = ranges.partition_point(|known| known.first <= end);
    if let Some(touching) = ranges.get(from..to).filter(|touching| !touching.is_empty()) {
        first = first.min(touching[0].first);
        end = end.max(touching[touching.len() - 1].first + touching[touching.len() - 1].count);
    }
    ranges.splice(from..to, [OrdinalRange { first, count: end - first }]);
}

impl Watches {
    /// Nothing is known of what happened up to `index`.
    pub(crate) fn beginning(index: u64) -> Self {
        Self {
            recent: VecDeque::new(),
            complete_above: index,
            noted: index,
            watchers: BTreeMap::new(),
            by_job: BTreeMap::new(),
        }
    }

    /// Notes what an entry changed.
    pub(crate) fn note(&mut self, index: u64, events: &[Event]) {
        self.noted = index;
        for event in events {
            let change = match event {
                Event::JobChanged { job, .. } => Change::Job(*job),
                Event::TasksChanged { job, tasks, .. } => Change::Tasks(*job, *tasks),
                _ => continue,
            };
            self.recent.push_back((index, change));
            let (Change::Job(job) | Change::Tasks(job, _)) = change;
            for call in self.by_job.get(&job).into_iter().flatten() {
                if let Some(watcher) = self.watchers.get_mut(call) {
                    watcher.note(change);
                }
            }
        }
        while self.recent.len() > limits::RECENT_CHANGES
            && let Some((index, _)) = self.recent.pop_front()
        {
            self.complete_above = index;
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.watchers.len()
    }

    pub(crate) fn remove(&mut self, call: CallId) {
        if let Some(watcher) = self.watchers.remove(&call) {
            for job in watcher.jobs {
                if let Some(calls) = self.by_job.get_mut(&job) {
                    calls.remove(&call);
                    if calls.is_empty() {
                        self.by_job.remove(&job);
                    }
                }
            }
        }
    }

    pub(crate) fn forget_watchers(&mut self) {
        self.watchers.clear();
        self.by_job.clear();
    }

    pub(crate) fn taken(&mut self, call: CallId, count: u32) {
        if let Some(watcher) = self.watchers.get_mut(&call) {
            watcher.untaken = watcher.untaken.saturating_sub(count);
        }
    }
}

impl Core {
    /// Begins a watch from its token, or from the present state.
    pub(crate) fn watch(&mut self, call: CallId, request: WatchJobsRequest) {
        let known = match self.resume_index(&request.resume_token) {
            Ok(index) => index,
            Err(()) => {
                let hint = "begin again without a token";
                let refused = invalid("resume_token", "the token is not one of this grid's", hint);
                return self.finish(call, Err(refused));
            }
        };
        if let Some(missing) = request.job_ids.iter().find(|job| self.state_for(call, **job).job(**job).is_none()) {
            return self.finish(call, Err(refusal::job_not_found(*missing)));
        }
        let mut watcher = Watcher {
            jobs: request.job_ids.iter().copied().collect(),
            tasks: request.tasks,
            untaken: 0,
            changed_jobs: BTreeSet::new(),
            changed_tasks: BTreeMap::new(),
        };
        match known {
            Some(index) if index >= self.watches.complete_above => {
                let missed = self.watches.recent.iter().filter(|(at, _)| *at > index);
                for (_, change) in missed {
                    let (Change::Job(job) | Change::Tasks(job, _)) = change;
                    if watcher.jobs.contains(job) {
                        watcher.note(*change);
                    }
                }
            }
            _ => {
                let jobs = watcher.jobs.iter().filter_map(|job| self.state_for(call, *job).job(*job)).collect();
                let index = self.watches.noted;
                let resume_token = self.resume_token(index);
                watcher.untaken = 1;
                let reset = WatchJobsResponse { resume_token, index, reset: true, jobs, tasks: Vec::new() };
                self.respond(call, call_response::Response::WatchJobs(reset));
            }
        }
        for job in &watcher.jobs {
            self.watches.by_job.entry(*job).or_default().insert(call);
        }
        self.watches.watchers.insert(call, watcher);
    }

    /// Sends each watch what it has not seen yet, when its caller has room.
    pub(crate) fn feed_watches(&mut self) {
        let index = self.watches.noted;
        let ready = |watcher: &Watcher| watcher.has_news() && watcher.untaken < limits::UNTAKEN_MESSAGES;
        let calls: Vec<CallId> =
            self.watches.watchers.iter().filter(|(_, watcher)| ready(watcher)).map(|(call, _)| *call).collect();
        for call in calls {
            let Some(watcher) = self.watches.watchers.get(&call) else { continue };
            if self.state.moved_jobs() > 0 {
                // What ended may have left before its reader had room.
                let changed = watcher.changed_jobs.iter().chain(watcher.changed_tasks.keys()).copied();
                let (changed, detail): (Vec<u64>, _) = (changed.collect(), detail_of(watcher.tasks));
                if !self.has_or_fetches(call, changed, detail) {
                    continue;
                }
            }
            let Some(watcher) = self.watches.watchers.get_mut(&call) else { continue };
            let changed_jobs = std::mem::take(&mut watcher.changed_jobs);
            let mut tasks = Vec::new();
            while tasks.len() < limits::PAGE_SIZE
                && let Some((job, ranges)) = watcher.changed_tasks.pop_first()
            {
                let room = limits::PAGE_SIZE - tasks.len();
                let (now, later) = split_ranges(ranges, room);
                if !later.is_empty() {
                    watcher.changed_tasks.insert(job, later);
                }
                let ordinals = now.iter().flat_map(|range| range.first..range.first + range.count);
                let state = self.history.moved(call, job).unwrap_or(&self.state);
                tasks.extend(ordinals.filter_map(|ordinal| Some((ordinal, state.task(job, ordinal, false)?))));
            }
            self.answers.tell(&mut tasks, limits::TOLD_ANSWERS_BYTES);
            let tasks = tasks.into_iter().map(|(_, task)| task).collect();
            // A job's end is told last: whoever sees it has seen its tasks.
            let jobs = if watcher.changed_tasks.is_empty() {
                let state = |job| self.history.moved(call, job).unwrap_or(&self.state);
                changed_jobs.iter().filter_map(|job| state(*job).job(*job)).collect()
            } else {
                watcher.changed_jobs = changed_jobs;
                Vec::new()
            };
            // A token in the middle of an index would lose its rest.
            let whole = watcher.changed_tasks.is_empty();
            if whole {
                // What has left was shown to its end: it can't change any more.
                self.history.remove(call);
            }
            watcher.untaken += 1;
            let resume_token = if whole { self.resume_token(index) } else { String::new() };
            let response = WatchJobsResponse { resume_token, index, reset: false, jobs, tasks };
            self.respond(call, call_response::Response::WatchJobs(response));
        }
    }

    fn resume_token(&self, index: u64) -> String {
        format!("{}:{index}", self.settings.cluster_id)
    }

    fn resume_index(&self, token: &str) -> Result<Option<u64>, ()> {
        if token.is_empty() {
            return Ok(None);
        }
        let (cluster, index) = token.rsplit_once(':').ok_or(())?;
        if cluster != self.settings.cluster_id {
            return Err(());
        }
        index.parse().map(Some).map_err(|_| ())
    }
}

/// The first `room` ordinals, and the rest.
fn split_ranges(ranges: Vec<OrdinalRange>, room: usize) -> (Vec<OrdinalRange>, Vec<OrdinalRange>) {
    let (mut now, mut later, mut left) = (Vec::new(), Vec::new(), u32::try_from(room).unwrap_or(u32::MAX));
    for range in ranges {
        let count = range.count.min(left);
        left -= count;
        if count > 0 {
            now.push(OrdinalRange { first: range.first, count });
        }
        if count < range.count {
            later.push(OrdinalRange { first: range.first + count, count: range.count - count });
        }
    }
    (now, later)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: u32, count: u32) -> OrdinalRange {
        OrdinalRange { first, count }
    }

    #[test]
    fn ranges_that_touch_are_joined() {
        let mut ranges = Vec::new();
        for added in [range(5, 2), range(0, 1), range(1, 2), range(10, 1), range(4, 3)] {
            add_range(&mut ranges, added);
        }
        assert_eq!(ranges, [range(0, 3), range(4, 3), range(10, 1)]);
        add_range(&mut ranges, range(0, 20));
        assert_eq!(ranges, [range(0, 20)]);
    }

    #[test]
    fn a_message_takes_what_fits_and_leaves_the_rest() {
        let split = split_ranges(vec![range(0, 3), range(10, 5)], 5);
        assert_eq!(split, (vec![range(0, 3), range(10, 2)], vec![range(12, 3)]));
    }
}
