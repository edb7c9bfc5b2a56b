//! Jobs, as the public API shows them.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proto::{
    ranges,
    v1::{self, Cause, IndexRange, JobState, TaskCounts},
};

use super::{JobFilter, JobSubmissionView, Page, timestamp};
use crate::{
    State,
    job::{Failures, Job},
    limits,
};

impl State {
    /// The labels of a job that is in the state.
    pub fn labels(&self, job: u64) -> Option<&BTreeMap<String, String>> {
        Some(&self.jobs.get(job)?.terms.labels)
    }

    /// Whether a job has ended, or is in the state no more.
    pub fn job_has_ended(&self, job: u64) -> bool {
        self.jobs.get(job).is_none_or(Job::ended)
    }

    /// A job without its spec, with its failures grouped by cause.
    pub fn job(&self, id: u64) -> Option<v1::Job> {
        let job = self.jobs.get(id)?;
        Some(v1::Job { failures: failures_of(job), ..view_of(id, job) })
    }

    /// The spec as it was submitted: an encoded `JobSpec` without ranges, dependencies and hold.
    pub fn spec(&self, id: u64) -> Option<Bytes> {
        self.jobs.get(id).map(|job| Bytes::copy_from_slice(job.text.spec()))
    }

    /// What the coordinator needs to rebuild a spec and to grant tasks.
    pub fn submission(&self, id: u64) -> Option<JobSubmissionView> {
        let job = self.jobs.get(id)?;
        let edge = |edge: &crate::job::Edge| v1::Dependency {
            job_id: edge.job,
            condition: edge.condition as i32,
            exit_codes: edge.exit_codes.to_vec(),
        };
        Some(JobSubmissionView {
            id,
            owner: job.terms.owner.to_string(),
            ranges: job.ranges().to_vec(),
            is_array: job.terms.is_array,
            resources: (*job.terms.shape()).into(),
            alternatives: job.terms.ask.shapes[1..].iter().map(|shape| (*shape).into()).collect(),
            time_limit_ms: job.terms.ask.time_limit_ms,
            queue_time_limit_ms: job.terms.queue_time_limit_ms,
            total_time_limit_ms: job.terms.total_time_limit_ms,
            priority: job.terms.priority,
            max_running: job.terms.max_running,
            max_failures: job.terms.max_failures,
            after: job.after().iter().map(edge).collect(),
            held: job.held,
            has_outputs: job.terms.ask.has_outputs,
        })
    }

    /// What one task of a job needs, and how long an attempt may take, in milliseconds; 0: without limit.
    pub fn needs(&self, id: u64) -> Option<(v1::Resources, u64)> {
        let ask = &self.jobs.get(id)?.terms.ask;
        Some(((*ask.shape()).into(), ask.time_limit_ms))
    }

    /// How long an attempt of a job may take, in milliseconds; 0: without limit.
    pub fn time_limit_ms(&self, id: u64) -> Option<u64> {
        self.jobs.get(id).map(|job| job.terms.ask.time_limit_ms)
    }

    /// The sessions that hold leases of a job, by number.
    pub fn sessions_of(&self, id: u64) -> BTreeSet<u64> {
        let records = self.jobs.get(id).into_iter().flat_map(|job| job.records.values());
        records.filter_map(|record| record.lease()).map(|lease| lease.session).collect()
    }

    /// The indexes of a job, for [`proto::ranges`]; a plain job has the index 0 alone.
    pub fn ranges(&self, id: u64) -> Option<&[IndexRange]> {
        self.jobs.get(id).map(Job::ranges)
    }

    /// The newest job of an owner.
    pub fn newest_job_of(&self, owner: &str) -> Option<u64> {
        self.indexes.newest.get(owner).copied()
    }

    /// Jobs below `before`. A page looks at [`limits::LIST_SCAN`] jobs at most, so that it may be short.
    pub fn jobs(&self, filter: &JobFilter, before: Option<u64>, limit: usize) -> Page {
        let below = before.unwrap_or(self.jobs.len() + 1).min(self.jobs.len() + 1);
        if wants_ended(filter) {
            return self.page((1..below).rev(), filter, limit);
        }
        match &filter.owner {
            None => self.page((1..below).rev(), filter, limit),
            Some(owner) => match self.indexes.open.get(owner.as_str()) {
                None => Page::default(),
                Some(jobs) => self.page(jobs.before((0, below)).rev().map(|(_, id)| id), filter, limit),
            },
        }
    }

    fn page(&self, ids: impl Iterator<Item = u64>, filter: &JobFilter, limit: usize) -> Page {
        let mut page = Page::default();
        let mut last = None;
        for (looked_at, id) in ids.enumerate() {
            if page.jobs.len() >= limit || looked_at >= limits::LIST_SCAN {
                return Page { next: last, ..page };
            }
            let Some(job) = self.jobs.get(id) else {
                if self.jobs.gone(id).is_some_and(|gone| may_match(filter, gone.state)) {
                    return Page { next: Some(id + 1), missing: Some(id), ..page };
                }
                last = Some(id);
                continue;
            };
            last = Some(id);
            if filter.created_after_ms.is_some_and(|after| job.created_ms < after) {
                // Older ones were created no later.
                return page;
            }
            if matches(filter, job) {
                page.jobs.push(view_of(id, job));
            }
        }
        page
    }
}

fn wants_ended(filter: &JobFilter) -> bool {
    let ended = [JobState::Succeeded, JobState::Failed, JobState::Cancelled, JobState::Skipped];
    filter.ended || filter.states.iter().any(|state| ended.contains(state))
}

/// Whether a job that ended like this may be one that the filter shows.
fn may_match(filter: &JobFilter, state: JobState) -> bool {
    wants_ended(filter) && (filter.states.is_empty() || filter.states.contains(&state))
}

fn matches(filter: &JobFilter, job: &Job) -> bool {
    let terms = &job.terms;
    if job.ended() && !wants_ended(filter) {
        return false;
    }
    filter.owner.as_deref().is_none_or(|owner| *owner == *terms.owner)
        && (filter.states.is_empty() || filter.states.contains(&job.state()))
        && (filter.queue.is_empty() || *filter.queue == *terms.queue)
        && filter.labels.iter().all(|(name, value)| terms.labels.get(name) == Some(value))
}

fn view_of(id: u64, job: &Job) -> v1::Job {
    let (terms, counts) = (&job.terms, &job.counts);
    let (cause, exit_code, signal) = job.verdict();
    let waits = if job.released { 0 } else { counts.pending };
    let tasks = TaskCounts {
        waiting: u64::from(waits + counts.blocked),
        queued: u64::from(counts.pending - waits + counts.backoff + counts.grown),
        leased: u64::from(counts.leased),
        running: u64::from(counts.running + counts.publishing),
        succeeded: u64::from(counts.succeeded),
        failed: u64::from(counts.failed),
        cancelled: u64::from(counts.cancelled),
        skipped: u64::from(counts.skipped),
    };
    v1::Job {
        id,
        name: job.text.name().to_owned(),
        state: job.state() as i32,
        held: job.held && !job.ended(),
        queue: terms.queue.to_string(),
        owner: terms.owner.to_string(),
        labels: terms.labels.clone(),
        priority: terms.priority,
        task_count: u64::from(job.tasks.count()),
        tasks: Some(tasks),
        exit_code,
        cause: cause as i32,
        signal,
        create_time: Some(timestamp(job.created_ms)),
        start_time: job.started_ms.get().map(timestamp),
        end_time: job.ended_ms.get().map(timestamp),
        spec: None,
        reason: job.extra.as_deref().and_then(|extra| extra.reason.as_deref()).unwrap_or_default().to_owned(),
        failures: Vec::new(),
        grid_failures: job.failures().map_or(0, Failures::by_the_grid),
        duplicate: false,
        publishing: u64::from(counts.publishing),
    }
}

fn failures_of(job: &Job) -> Vec<v1::FailureGroup> {
    let Some(failures) = job.failures() else { return Vec::new() };
    let group = |(kind, group): (&(i32, i32, i32), &crate::job::Group)| {
        let (cause, exit_code, signal) = *kind;
        v1::FailureGroup {
            cause,
            exit_code: (cause == Cause::ExitCode as i32).then_some(exit_code),
            signal,
            count: u64::from(group.count),
            indexes: group.ordinals.iter().filter_map(|ordinal| ranges::index_of(job.ranges(), *ordinal)).collect(),
            detail: group.detail.to_string(),
        }
    };
    failures.groups.iter().map(group).collect()
}
