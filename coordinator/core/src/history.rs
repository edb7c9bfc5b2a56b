//! The history: who has which segment, when the next is cut and settled, and reads of what has left the state.
//!
//! Every member has its surroundings store the segments that its state cuts, fetches those that it missed, and tells the
//! others how far it has them. The leader lets the jobs in a segment go once a majority has it. A read of a job that
//! has left asks the surroundings for its segments, and goes on when they are there.

mod held;

use std::{collections::BTreeMap, sync::Arc};

use proto::internal::{
    Caller, CutSegment, RaiseRules, Refusal, SettleSegments, call_request::Request as Asked, call_response::Response,
    command::Command,
};
use proto::v1::{self, WatchJobsRequest};
use scheduler::{Archive, Detail, Event, Outcome, Segment, State};

use self::held::Held;
use crate::{CallId, Output, core::Core, limits, proposals::Waiter, queries, refusal};

/// What a member knows of segments, and the reads that wait for some.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// On this member's disk.
    held: Held,
    /// Cut here and not yet on the disk.
    unstored: Held,
    /// The surroundings have been told which segments there are.
    kept: bool,
    last_ticket: u64,
    reads: BTreeMap<u64, Read>,
    /// Jobs that have left, each alone in a state, for the calls that look at them.
    moved: BTreeMap<CallId, BTreeMap<u64, State>>,
    /// The leader's: a command of the upkeep is on its way.
    flying: bool,
    not_before_ms: u64,
    /// Since when something is due and waits for company.
    due_since_ms: Option<u64>,
    /// What the others said: how far they have segments, and which rules they follow.
    others: BTreeMap<u64, Standing>,
}

#[derive(Debug, Clone, Copy)]
struct Standing {
    held: u32,
    newest_rules: u32,
}

#[derive(Debug)]
struct Read {
    call: CallId,
    jobs: Vec<u64>,
    detail: Detail,
    purpose: Purpose,
}

/// What goes on when the segments are there.
#[derive(Debug)]
enum Purpose {
    Query(Caller, Asked),
    List(Caller, v1::ListJobsRequest),
    Write(Waiter, Outcome),
    /// A watch or a log that is open: it is fed anew.
    Feed,
}

impl History {
    /// The state was replaced: what this member has on its disk stays true.
    pub(crate) fn restored(&mut self) {
        self.kept = false;
        self.unstored = Held::default();
    }

    pub(crate) fn take_office(&mut self) {
        self.flying = false;
        self.due_since_ms = None;
    }

    pub(crate) fn remove(&mut self, call: CallId) {
        self.moved.remove(&call);
    }

    /// Whether nothing up to this segment waits to be stored.
    pub(crate) fn has_stored(&self, through: u32) -> bool {
        self.unstored.first().is_none_or(|first| first > through)
    }

    pub(crate) fn held_through(&self) -> u32 {
        self.held.through()
    }

    /// Another member said how it stands.
    pub(crate) fn note(&mut self, member: u64, held: u32, newest_rules: u32) {
        self.others.insert(member, Standing { held, newest_rules });
    }

    /// A job that has left, as it was brought for a call.
    pub(crate) fn moved(&self, call: CallId, job: u64) -> Option<&State> {
        self.moved.get(&call)?.get(&job)
    }

    fn waits(&self, call: CallId) -> bool {
        self.reads.values().any(|read| read.call == call)
    }
}

impl Core {
    /// An entry was applied: what it cut is stored here.
    pub(crate) fn store_segments(&mut self, events: &[Event]) {
        for event in events {
            if let Event::SegmentCut { number, data, .. } = event {
                self.history.unstored.insert(*number, *number);
                self.outputs.push(Output::StoreSegment { number: *number, data: data.clone() });
            }
        }
    }

    /// These are on the disk now.
    pub(crate) fn segments_held(&mut self, first: u32, last: u32) {
        let before = self.history.held.through();
        self.history.held.insert(first, last);
        self.history.unstored.remove(first, last);
        if self.history.held.through() > before {
            self.marks.tell();
        }
    }

    /// Tells the surroundings which segments this member must have.
    pub(crate) fn keep_segments(&mut self) {
        if !std::mem::replace(&mut self.history.kept, true) {
            self.outputs.push(Output::KeepSegments { segments: self.state.segments().clone() });
        }
    }

    /// The leader's: raises the rules, cuts what is due, and settles what a majority has; one thing at a time.
    pub(crate) fn tend_history(&mut self) {
        if self.history.flying || self.now_ms < self.history.not_before_ms {
            return;
        }
        let Some(command) = self.upkeep() else { return };
        self.history.flying = true;
        self.proposals.push_urgent(command, Waiter::Upkeep);
    }

    fn upkeep(&mut self) -> Option<Command> {
        let version = self.state.rules_version() + 1;
        if version <= scheduler::NEWEST_RULES && self.all_follow(version) {
            return Some(Command::RaiseRules(RaiseRules { version }));
        }
        let settled = self.state.settled_segments();
        let through = self.held_by_majority().min(self.state.segments().len() as u32);
        if through > settled {
            return Some(Command::SettleSegments(SettleSegments { through }));
        }
        let cut = || proto::internal::Command { command: Some(Command::CutSegment(CutSegment {})) };
        let unsettled = self.state.segments().len() as u32 - settled;
        if unsettled >= limits::UNSETTLED_SEGMENTS
            || !self.state.is_history_due(self.wall_ms())
            // Older rules know no history.
            || self.state.check_command(&cut()).is_err()
        {
            self.history.due_since_ms = None;
            return None;
        }
        let since = *self.history.due_since_ms.get_or_insert(self.now_ms);
        let waited = self.now_ms - since.min(self.now_ms);
        (waited >= self.settings.cut_pause_ms || self.state.is_history_full())
            .then_some(Command::CutSegment(CutSegment {}))
    }

    /// What the upkeep proposed was applied, or never will be.
    pub(crate) fn upkeep_ended(&mut self, dropped: bool) {
        self.history.flying = false;
        if dropped {
            self.history.not_before_ms = self.now_ms + limits::DROPPED_PAUSE_MS;
        } else {
            self.history.due_since_ms = None;
        }
    }

    fn others(&self) -> impl Iterator<Item = Option<&Standing>> {
        let mine = self.settings.member;
        self.settings
            .members
            .iter()
            .filter(move |member| **member != mine)
            .map(|member| self.history.others.get(member))
    }

    /// Whether every member is known to follow this version of the rules.
    fn all_follow(&self, version: u32) -> bool {
        self.settings.newest_rules >= version
            && self.others().all(|other| other.is_some_and(|standing| standing.newest_rules >= version))
    }

    /// The highest segment up to which a majority has all.
    fn held_by_majority(&self) -> u32 {
        let others = self.others().map(|other| other.map_or(0, |standing| standing.held));
        let mut held: Vec<u32> = others.chain([self.history.held.through()]).collect();
        held.sort_unstable_by(|one, other| other.cmp(one));
        held[held.len() / 2]
    }

    /// A job as this call sees it: in the state, or as it was brought from the history.
    pub(crate) fn state_for(&self, call: CallId, job: u64) -> &State {
        self.history.moved(call, job).unwrap_or(&self.state)
    }

    /// Those of these jobs that have left and are not at hand for the call.
    fn away(&self, call: CallId, jobs: impl IntoIterator<Item = u64>) -> Vec<u64> {
        let is_away = |job: &u64| self.state.gone(*job).is_some() && self.history.moved(call, *job).is_none();
        jobs.into_iter().filter(is_away).collect()
    }

    /// Gives a read back that can be answered at once; the others go on when what they ask for is there.
    pub(crate) fn fetch_first(&mut self, call: CallId, caller: Caller, request: Asked) -> Option<(Caller, Asked)> {
        let (jobs, detail) = match &request {
            Asked::GetJob(v1::GetJobRequest { job_id, last: false, .. }) => (vec![*job_id], Detail::Record),
            Asked::ListTasks(v1::ListTasksRequest { job_id, .. })
            | Asked::ListOutputs(v1::ListOutputsRequest { job_id, .. })
            | Asked::ExplainJob(v1::ExplainJobRequest { job_id, .. })
            | Asked::ReadLogs(v1::ReadLogsRequest { job_id, .. }) => (vec![*job_id], Detail::Tasks),
            Asked::WatchJobs(WatchJobsRequest { job_ids, tasks, .. }) => (job_ids.clone(), detail_of(*tasks)),
            _ => return Some((caller, request)),
        };
        let away = self.away(call, jobs);
        if away.is_empty() {
            return Some((caller, request));
        }
        self.fetch(call, away, detail, Purpose::Query(caller, request));
        None
    }

    /// Answers a write whose jobs have left; gives it back when none has.
    pub(crate) fn fetch_for_write(
        &mut self,
        call: CallId,
        waiter: Waiter,
        outcome: Outcome,
    ) -> Option<(Waiter, Outcome)> {
        let jobs = match &outcome {
            Outcome::Jobs { first, count, .. } => *first..*first + u64::from(*count),
            Outcome::Job(job) | Outcome::Cancelled { job, .. } => *job..*job + 1,
            _ => return Some((waiter, outcome)),
        };
        let away = self.away(call, jobs);
        if away.is_empty() {
            return Some((waiter, outcome));
        }
        self.fetch(call, away, Detail::Record, Purpose::Write(waiter, outcome));
        None
    }

    /// Whether all of these jobs are at hand for an open watch or log; else it is fed when they are.
    pub(crate) fn has_or_fetches(&mut self, call: CallId, jobs: impl IntoIterator<Item = u64>, detail: Detail) -> bool {
        if self.history.waits(call) {
            return false;
        }
        let away = self.away(call, jobs);
        if away.is_empty() {
            return true;
        }
        self.fetch(call, away, detail, Purpose::Feed);
        false
    }

    fn fetch(&mut self, call: CallId, jobs: Vec<u64>, detail: Detail, purpose: Purpose) {
        let mut segments: Vec<u32> = jobs.iter().flat_map(|job| self.state.segments_of(*job, detail)).collect();
        segments.sort_unstable();
        segments.dedup();
        self.ask_for(segments, Read { call, jobs, detail, purpose });
    }

    fn ask_for(&mut self, segments: Vec<u32>, read: Read) {
        let known = self.state.segments();
        let segment = |number: u32| Some((number, known.get(number as usize - 1)?.clone()));
        let segments: Vec<(u32, Segment)> = segments.into_iter().filter_map(segment).collect();
        self.history.last_ticket += 1;
        let ticket = self.history.last_ticket;
        self.history.reads.insert(ticket, read);
        self.outputs.push(Output::ReadHistory { ticket, segments });
    }

    /// The segments of a read are there, or can't be had now.
    pub(crate) fn history_read(&mut self, ticket: u64, archives: Option<Vec<Arc<Archive>>>) {
        let Some(read) = self.history.reads.remove(&ticket).filter(|read| self.calls.contains(read.call)) else {
            return;
        };
        let call = read.call;
        let result = match archives {
            Some(archives) => self.go_on_with(read, &archives),
            None => Err(unavailable("no member that can be reached has the segment of the history that holds it")),
        };
        if let Err(refused) = result {
            self.finish(call, Err(refused));
        }
    }

    fn go_on_with(&mut self, read: Read, archives: &[Arc<Archive>]) -> Result<(), Refusal> {
        let Read { call, jobs, detail, purpose } = read;
        let unreadable = |error: scheduler::Malformed| unavailable(&error.to_string());
        // Once for all: thousands may be asked for together.
        let state = self.state.with_archives(archives, detail).map_err(unreadable)?;
        for job in jobs {
            // One that was asked for can't come back into the state.
            let moved = state.alone(job);
            let moved = moved.ok_or_else(|| unavailable("a segment of the history doesn't hold what it should"))?;
            self.history.moved.entry(call).or_default().insert(job, moved);
        }
        match purpose {
            Purpose::Query(caller, request) => self.answer(call, &caller, request),
            Purpose::Write(waiter, outcome) => self.answer_write(call, waiter, outcome),
            Purpose::Feed => self.logs.stir(call),
            Purpose::List(caller, request) => {
                let (response, _) = queries::list_jobs(&state, &caller, &request)?;
                self.reply(call, Response::ListJobs(response));
            }
        }
        Ok(())
    }

    /// A page of jobs; where it comes to such as have left, the segments of the next ones are read first.
    pub(crate) fn answer_list(
        &mut self,
        call: CallId,
        caller: Caller,
        request: v1::ListJobsRequest,
    ) -> Result<(), Refusal> {
        let (response, missing) = queries::list_jobs(&self.state, &caller, &request)?;
        let Some(missing) = missing else {
            self.reply(call, Response::ListJobs(response));
            return Ok(());
        };
        let segments = self.state.segments_below(missing, limits::SEGMENTS_PER_PAGE);
        let purpose = Purpose::List(caller, request);
        self.ask_for(segments.into_iter().collect(), Read { call, jobs: Vec::new(), detail: Detail::Record, purpose });
        Ok(())
    }

    /// How the history stands, as the API has it.
    pub(crate) fn history_view(&self) -> v1::History {
        let (keep_ms, keep_jobs) = self.state.kept_jobs();
        let (seconds, nanos) = ((keep_ms / 1_000) as i64, (keep_ms % 1_000) as i32 * 1_000_000);
        v1::History {
            keep: Some(proto::Duration { seconds, nanos }),
            keep_jobs,
            moved_jobs: self.state.moved_jobs(),
            segments: self.state.segments().len() as u64,
            settled_segments: u64::from(self.state.settled_segments()),
            rules_version: self.state.rules_version(),
        }
    }
}

pub(crate) fn detail_of(tasks: bool) -> Detail {
    if tasks { Detail::Tasks } else { Detail::Record }
}

fn unavailable(why: &str) -> Refusal {
    let message = format!("the job has moved to the history, and can't be read now: {why}");
    refusal::refusal(refusal::Code::Unavailable, "HISTORY_UNAVAILABLE", message, "start the coordinators that are down")
}
