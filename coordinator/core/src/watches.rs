//! Watches: streams of what changed, that go on behind a token after any break.
//!
//! Every replica keeps which jobs and tasks changed at the newest indexes, so that the next leader can go on where the
//! last one stopped. A message shows each changed job and task as it stands at the message's index: what a slow reader
//! missed in between is joined, so that no reader makes memory grow.

mod watcher;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proto::internal::{Refusal, call_response};
use proto::v1::{WatchJobsRequest, WatchJobsResponse};
use scheduler::{Event, State};

use self::watcher::{Change, Wanted, Watcher, split_ranges};
use crate::{
    CallId,
    core::Core,
    history::detail_of,
    limits,
    refusal::{self, invalid},
    submission::duration_ms,
};

/// Who watches by labels: under the first label of each.
type ByLabel = BTreeMap<String, BTreeMap<String, BTreeSet<CallId>>>;

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
    by_label: ByLabel,
}

/// Takes a call off a list, and the list away if it was the last.
fn leave<K: Ord>(lists: &mut BTreeMap<K, BTreeSet<CallId>>, key: &K, call: CallId) {
    if let Some(calls) = lists.get_mut(key) {
        calls.remove(&call);
        if calls.is_empty() {
            lists.remove(key);
        }
    }
}

/// What a watch asks for.
fn wanted(request: &WatchJobsRequest) -> Result<Wanted, Refusal> {
    let (jobs, labels) = (request.job_ids.len(), request.labels.len());
    if labels == 0 {
        if !(1..=limits::WATCHED_JOBS).contains(&jobs) {
            let message = format!("{jobs} jobs in one watch, 1 to {}", limits::WATCHED_JOBS);
            return Err(invalid("job_ids", message, "open several watches, or watch by labels"));
        }
        return Ok(Wanted::Jobs(request.job_ids.iter().copied().collect()));
    }
    if jobs > 0 {
        return Err(invalid("labels", "jobs are watched by their numbers or by labels", "open two watches"));
    }
    if labels > limits::WATCHED_LABELS {
        let message = format!("{labels} labels in one watch, {} at most", limits::WATCHED_LABELS);
        return Err(invalid("labels", message, "leave some out"));
    }
    Ok(Wanted::Labels(request.labels.clone().into_iter().collect()))
}

fn patience_ms(request: &WatchJobsRequest) -> Result<u64, Refusal> {
    let patience = duration_ms(request.patience.as_ref(), "patience")?.unwrap_or(0);
    if patience > limits::WATCH_PATIENCE_MS {
        let message = format!("news may wait {patience} ms, {} at most", limits::WATCH_PATIENCE_MS);
        return Err(invalid("patience", message, "give e.g. `20ms`"));
    }
    Ok(patience)
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
            by_label: ByLabel::new(),
        }
    }

    /// Notes what an entry changed; `state` has it applied.
    pub(crate) fn note(&mut self, index: u64, events: &[Event], state: &State, now_ms: u64) {
        self.noted = index;
        for event in events {
            let change = match event {
                Event::JobChanged { job, .. } => Change::Job(*job),
                Event::TasksChanged { job, tasks, .. } => Change::Tasks(*job, *tasks),
                _ => continue,
            };
            self.recent.push_back((index, change));
            for call in self.by_job.get(&change.job()).into_iter().flatten() {
                if let Some(watcher) = self.watchers.get_mut(call) {
                    watcher.note(change, state, now_ms);
                }
            }
            if !self.by_label.is_empty() {
                self.note_by_label(change, state, now_ms);
            }
        }
        while self.recent.len() > limits::RECENT_CHANGES
            && let Some((index, _)) = self.recent.pop_front()
        {
            self.complete_above = index;
        }
    }

    fn note_by_label(&mut self, change: Change, state: &State, now_ms: u64) {
        let Some(labels) = state.labels(change.job()) else {
            // It moved to the history in the very entry that changed it: nobody can tell any more whose it was.
            let all = self.by_label.values().flat_map(BTreeMap::values).flatten();
            all.for_each(|call| _ = self.watchers.get_mut(call).map(|watcher| watcher.begin_anew(now_ms)));
            return;
        };
        for (name, value) in labels {
            for call in self.by_label.get(name).and_then(|values| values.get(value)).into_iter().flatten() {
                if let Some(watcher) = self.watchers.get_mut(call)
                    && watcher.wanted.includes(change.job(), state)
                {
                    watcher.note(change, state, now_ms);
                }
            }
        }
    }

    fn add(&mut self, call: CallId, watcher: Watcher) {
        match &watcher.wanted {
            Wanted::Jobs(jobs) => jobs.iter().for_each(|job| _ = self.by_job.entry(*job).or_default().insert(call)),
            Wanted::Labels(labels) => {
                if let Some((name, value)) = labels.first_key_value() {
                    let calls = self.by_label.entry(name.clone()).or_default().entry(value.clone()).or_default();
                    calls.insert(call);
                }
            }
        }
        self.watchers.insert(call, watcher);
    }

    pub(crate) fn len(&self) -> usize {
        self.watchers.len()
    }

    pub(crate) fn remove(&mut self, call: CallId) {
        let Some(watcher) = self.watchers.remove(&call) else { return };
        match watcher.wanted {
            Wanted::Jobs(jobs) => jobs.iter().for_each(|job| leave(&mut self.by_job, job, call)),
            Wanted::Labels(labels) => {
                let Some((name, value)) = labels.first_key_value() else { return };
                let Some(values) = self.by_label.get_mut(name) else { return };
                leave(values, value, call);
                if values.is_empty() {
                    self.by_label.remove(name);
                }
            }
        }
    }

    pub(crate) fn forget_watchers(&mut self) {
        self.watchers.clear();
        self.by_job.clear();
        self.by_label.clear();
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
        if let Err(refused) = self.try_watch(call, &request) {
            self.finish(call, Err(refused));
        }
    }

    fn try_watch(&mut self, call: CallId, request: &WatchJobsRequest) -> Result<(), Refusal> {
        let (wanted, patience_ms) = (wanted(request)?, patience_ms(request)?);
        let known = self.resume_index(&request.resume_token).map_err(|()| {
            invalid("resume_token", "the token is not one of this grid's", "begin again without a token")
        })?;
        if let Some(missing) = request.job_ids.iter().find(|job| self.state_for(call, **job).job(**job).is_none()) {
            return Err(refusal::job_not_found(*missing));
        }
        let mut watcher = Watcher::new(wanted, request.tasks, patience_ms);
        match known.and_then(|index| self.missed(&watcher.wanted, index)) {
            Some(missed) => missed.into_iter().for_each(|change| watcher.note(change, &self.state, self.now_ms)),
            None => {
                watcher.untaken = 1;
                self.send_reset(call, &watcher.wanted);
            }
        }
        self.watches.add(call, watcher);
        Ok(())
    }

    /// What changed above an index; none: that isn't known any more.
    fn missed(&self, wanted: &Wanted, index: u64) -> Option<Vec<Change>> {
        if index < self.watches.complete_above {
            return None;
        }
        let all = || self.watches.recent.iter().filter(|(at, _)| *at > index).map(|(_, change)| *change);
        // The labels of a job in the history aren't known.
        let by_label = matches!(wanted, Wanted::Labels(_));
        if by_label && all().any(|change| self.state.labels(change.job()).is_none()) {
            return None;
        }
        Some(all().filter(|change| wanted.includes(change.job(), &self.state)).collect())
    }

    /// Tells a watch that what it knew is void, and how its jobs stand.
    fn send_reset(&mut self, call: CallId, wanted: &Wanted) {
        let jobs = match wanted {
            Wanted::Jobs(jobs) => jobs.iter().filter_map(|job| self.state_for(call, *job).job(*job)).collect(),
            Wanted::Labels(_) => Vec::new(),
        };
        let index = self.watches.noted;
        let resume_token = self.resume_token(index);
        let reset = WatchJobsResponse { resume_token, index, reset: true, jobs, tasks: Vec::new() };
        self.respond(call, call_response::Response::WatchJobs(reset));
    }

    /// Sends each watch what it has not seen yet, when its caller has room.
    pub(crate) fn feed_watches(&mut self) {
        let (index, now_ms) = (self.watches.noted, self.now_ms);
        let due = self.watches.watchers.iter().filter(|(_, watcher)| watcher.is_due(now_ms));
        let calls: Vec<CallId> = due.map(|(call, _)| *call).collect();
        for call in calls {
            let Some(watcher) = self.watches.watchers.get_mut(&call) else { continue };
            if std::mem::take(&mut watcher.anew) {
                watcher.untaken += 1;
                let wanted = watcher.wanted.clone();
                self.send_reset(call, &wanted);
            }
            let Some(watcher) = self.watches.watchers.get_mut(&call) else { continue };
            if !watcher.has_news() {
                watcher.due_ms = None;
                continue;
            }
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
                watcher.due_ms = None;
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
