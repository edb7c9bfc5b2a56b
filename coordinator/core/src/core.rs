//! The core itself: what each input does, and in which order a batch of them is answered.

use std::collections::VecDeque;

use bytes::Bytes;
use proto::internal::{Caller, Entry, call_request, call_response, command};
use proto::v1::{StreamJobsRequest, WorkerMessage};
use scheduler::{Applied, Backlog, State};

use crate::{
    CallId, Input, Output, Settings,
    answers::Answers,
    calls::Calls,
    clock::Clock,
    grants::Specs,
    history::History,
    limits,
    logs::Logs,
    marks::Marks,
    planning::Planning,
    proposals::{Proposals, Waiter},
    reads::{Reader, Reads},
    refusal,
    sessions::Sessions,
    streams::Streams,
    watches::Watches,
};

/// Whether this coordinator leads, and since when it may act on it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Leadership {
    Following,
    /// Elected, but the first entry of the term is not applied: older entries may still come in front of it.
    Elected {
        term: u64,
    },
    /// Everything of earlier terms is applied.
    Leading {
        term: u64,
        clock: Clock,
    },
}

/// The core of one coordinator; see the crate's documentation.
#[derive(Debug)]
pub struct Core {
    pub(crate) settings: Settings,
    pub(crate) state: State,
    /// Highest index in the state; entries without commands count.
    applied: u64,
    pub(crate) leadership: Leadership,
    /// Somebody else leads, and this coordinator's replica knows who.
    pub(crate) led: bool,
    pub(crate) calls: Calls,
    /// Calls that wait for a newly elected leader to apply the first entry of its term.
    parked: VecDeque<(CallId, Parked)>,
    pub(crate) proposals: Proposals,
    pub(crate) reads: Reads,
    pub(crate) sessions: Sessions,
    pub(crate) watches: Watches,
    pub(crate) answers: Answers,
    pub(crate) logs: Logs,
    pub(crate) streams: Streams,
    pub(crate) specs: Specs,
    pub(crate) planning: Planning,
    pub(crate) marks: Marks,
    pub(crate) history: History,
    snapshots: Snapshots,
    /// No new work is taken while this coordinator leads.
    pub(crate) disk_is_low: bool,
    tick_flying: bool,
    /// The last one was dropped: none before this local time.
    tick_not_before_ms: u64,
    pub(crate) outputs: Vec<Output>,
    figures: Figures,
    pub(crate) now_ms: u64,
    wall_ms: i64,
}

/// What arrived between the election and the first entry of the term.
#[derive(Debug)]
enum Parked {
    Call(Caller, call_request::Request),
    Worker(WorkerMessage),
    Stream(StreamJobsRequest),
}

/// When the next snapshot is due.
#[derive(Debug, Default)]
struct Snapshots {
    running: bool,
    /// Waits until segments up to this one, which it relies on, are on the disk.
    waiting: Option<(u32, Output)>,
    wanted: bool,
    bytes: u64,
    commands: u64,
    /// Of the last entry in the state; 0: none was applied since the start, and there is nothing to store.
    term: u64,
}

/// Counts since the start of the process, for the metrics.
#[derive(Debug, Clone, Copy, Default)]
pub struct Figures {
    pub applied_index: u64,
    pub applied_entries: u64,
    pub applied_commands: u64,
    pub proposed_entries: u64,
    pub rejected_commands: u64,
    pub read_rounds: u64,
    pub granted_tasks: u64,
    pub snapshots: u64,
    pub open_calls: u64,
    pub attached_sessions: u64,
    pub sessions: u64,
    pub backlog: Backlog,
    pub watches: u64,
    pub waiting_bytes: u64,
    /// 1 while this coordinator leads.
    pub leading: u64,
    /// 1 while replicas differ and nobody knows which of them is right.
    pub split: u64,
}

impl Core {
    /// A core that follows, with everything up to `index` in `state`.
    pub fn new(settings: Settings, index: u64, state: State) -> Self {
        let mut core = Self {
            settings,
            state,
            applied: index,
            leadership: Leadership::Following,
            led: false,
            calls: Calls::default(),
            parked: VecDeque::new(),
            proposals: Proposals::default(),
            reads: Reads::default(),
            sessions: Sessions::default(),
            watches: Watches::beginning(index),
            answers: Answers::default(),
            logs: Logs::default(),
            streams: Streams::default(),
            specs: Specs::default(),
            planning: Planning::default(),
            marks: Marks::default(),
            history: History::default(),
            snapshots: Snapshots::default(),
            disk_is_low: false,
            tick_flying: false,
            tick_not_before_ms: 0,
            outputs: Vec::new(),
            figures: Figures::default(),
            now_ms: 0,
            wall_ms: 0,
        };
        core.check_rules();
        core
    }

    /// The replicated state as far as it is applied here.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Highest index that is applied.
    pub fn applied_index(&self) -> u64 {
        self.applied
    }

    /// Whether this coordinator leads and has applied the first entry of its term.
    pub fn leads(&self) -> bool {
        matches!(self.leadership, Leadership::Leading { .. })
    }

    /// Counts for the metrics.
    pub fn figures(&self) -> Figures {
        Figures {
            applied_index: self.applied,
            open_calls: self.calls.len() as u64,
            attached_sessions: self.sessions.attached() as u64,
            sessions: self.state.sessions().count() as u64,
            backlog: self.state.backlog(),
            watches: self.watches.len() as u64,
            waiting_bytes: self.proposals.waiting_bytes() as u64,
            leading: u64::from(self.leads()),
            split: u64::from(self.is_split()),
            ..self.figures
        }
    }

    /// Calls that wait for one answer; not streams, which wait for whatever comes.
    pub fn waiting_callers(&self) -> usize {
        self.calls.len().saturating_sub(self.sessions.streams() + self.streams.len() + self.watches.len())
    }

    /// Takes one input in. `now_ms` is CLOCK_BOOTTIME, `wall_ms` the wall clock, for people alone.
    pub fn step(&mut self, input: Input, now_ms: u64, wall_ms: i64) {
        self.set_time(now_ms, wall_ms);
        match input {
            Input::Committed { index, term, data } => self.committed(index, term, &data),
            Input::Restored { index, state } => self.restored(index, *state),
            Input::Role { term, leading } => self.role(term, leading),
            Input::Led(led) => self.led(led),
            Input::ReadReady { context, index } => self.reads.confirm(context, index, self.now_ms),
            Input::ReadLost { context } => self.read_lost(context),
            Input::Dropped { sequence } => self.dropped(sequence),
            Input::Open { call, caller, request } => self.arrived(call, caller, request),
            Input::Worker { call, message } => self.worker_said(call, message),
            Input::Stream { call, message } => self.stream_said(call, message),
            Input::Taken { call, count } => self.taken(call, count),
            Input::Hangup { call } => self.hang_up(call),
            Input::SnapshotEnded { stored, .. } => {
                self.snapshots.running = false;
                self.figures.snapshots += u64::from(stored);
            }
            Input::SnapshotWanted => self.snapshots.wanted = true,
            Input::DiskLow(low) => self.disk_is_low = low,
            Input::Digested { index, digest, took_ms } => self.digested(index, digest, took_ms),
            Input::SegmentsHeld { first, last } => self.segments_held(first, last),
            Input::HistoryRead { ticket, archives } => self.history_read(ticket, archives),
            Input::Reported(report) => self.reported(&report),
            Input::Tick => {}
        }
    }

    /// Ends a batch of inputs: everything that waits together goes out together.
    pub fn flush(&mut self, now_ms: u64, wall_ms: i64) -> Vec<Output> {
        self.set_time(now_ms, wall_ms);
        self.answer_ready();
        if let Leadership::Leading { clock, .. } = self.leadership {
            self.tend_sessions(clock);
            self.tend_logs();
            self.plan();
            self.fire_timers(clock);
            self.propose_mark();
            self.tend_history();
            self.propose(clock);
            self.begin_round();
            self.feed_watches();
        } else {
            self.tend_followers_reads();
        }
        self.tend_marks();
        self.keep_segments();
        self.take_snapshot();
        std::mem::take(&mut self.outputs)
    }

    pub(crate) fn wall_ms(&self) -> i64 {
        self.wall_ms.max(self.state.wall_ms())
    }

    /// A member that doesn't follow the rules of the grid stops, before it takes them for others.
    fn check_rules(&mut self) -> bool {
        let (rules, newest) = (self.state.rules_version(), self.settings.newest_rules);
        if rules > newest {
            let reason =
                format!("the grid follows rules {rules}, this coordinator no more than {newest}: run a newer release");
            self.outputs.push(Output::Halt { reason });
        }
        rules <= newest
    }

    fn set_time(&mut self, now_ms: u64, wall_ms: i64) {
        self.now_ms = self.now_ms.max(now_ms);
        self.wall_ms = self.wall_ms.max(wall_ms);
    }

    fn committed(&mut self, index: u64, term: u64, data: &Bytes) {
        if index <= self.applied {
            return;
        }
        if data.is_empty() {
            self.applied = index;
        } else {
            match proto::entry::decode(data) {
                Ok(entry) => {
                    self.apply(index, term, &entry, data.len());
                    if !self.check_rules() {
                        return;
                    }
                }
                Err(unreadable) => {
                    self.outputs.push(Output::Halt { reason: format!("index {index}: {unreadable}") });
                    return;
                }
            }
        }
        self.outputs.push(Output::Applied { index });
        if matches!(self.leadership, Leadership::Elected { term: elected } if elected == term) {
            self.take_office(term);
        }
    }

    fn apply(&mut self, index: u64, term: u64, entry: &Entry, bytes: usize) {
        let applied = self.state.apply(index, entry);
        self.applied = index;
        self.snapshots.bytes += bytes as u64;
        self.snapshots.commands += entry.commands.len() as u64;
        self.snapshots.term = term;
        self.figures.applied_entries += 1;
        self.figures.applied_commands += entry.commands.len() as u64;
        self.figures.rejected_commands += applied.outcomes.iter().filter(|outcome| outcome.is_err()).count() as u64;
        self.store_segments(&applied.events);
        self.watches.note(index, &applied.events, &self.state, self.now_ms);
        if self.leads() {
            self.route(index, &applied.events);
            self.planning.state_changed();
        }
        let marks = entry.commands.iter().filter_map(|command| match &command.command {
            Some(command::Command::Mark(mark)) => Some(mark.whole),
            _ => None,
        });
        if let Some(whole) = marks.reduce(|one, other| one | other) {
            self.marks.note(&self.state, whole);
        }
        if entry.proposer == self.settings.proposer {
            self.tick_flying = false;
            self.marks.landed();
        }
        if entry.proposer == self.settings.proposer {
            self.settle(entry.sequence, applied);
        }
    }

    /// Answers those who waited for this entry, and those whose entry it passed over.
    fn settle(&mut self, sequence: u64, applied: Applied) {
        let (waiters, lost) = self.proposals.settle(sequence);
        for waiter in lost {
            self.abandon(waiter);
        }
        for (waiter, outcome) in waiters.into_iter().zip(applied.outcomes) {
            self.decided(waiter, outcome);
        }
    }

    fn dropped(&mut self, sequence: u64) {
        self.tick_flying = false;
        self.marks.landed();
        self.tick_not_before_ms = self.now_ms + limits::DROPPED_PAUSE_MS;
        for waiter in self.proposals.dropped(sequence) {
            self.abandon(waiter);
        }
    }

    fn restored(&mut self, index: u64, state: State) {
        self.state = state;
        self.applied = index;
        self.watches = Watches::beginning(index);
        self.specs = Specs::default();
        self.marks.restored();
        self.history.restored();
        // One that waits was never asked for.
        let running = self.snapshots.running && self.snapshots.waiting.is_none();
        self.snapshots = Snapshots { running, ..Snapshots::default() };
        self.check_rules();
        self.outputs.push(Output::Applied { index });
    }

    fn role(&mut self, term: u64, leading: bool) {
        match (leading, self.leadership) {
            (true, Leadership::Leading { term: before, .. }) if before == term => {}
            // Leadership was lost and won again between two looks: nothing of the earlier term holds.
            (true, Leadership::Leading { .. }) => {
                self.resign();
                self.leadership = Leadership::Elected { term };
            }
            (true, Leadership::Following | Leadership::Elected { .. }) => {
                self.leadership = Leadership::Elected { term };
            }
            (false, Leadership::Following) => {}
            (false, Leadership::Elected { .. } | Leadership::Leading { .. }) => self.resign(),
        }
    }

    /// The first entry of the term is applied: from here on log time goes on, and everyone is served.
    fn take_office(&mut self, term: u64) {
        self.leadership = Leadership::Leading { term, clock: Clock::starting(self.state.time_ms(), self.now_ms) };
        self.sessions = Sessions::of_new_leader(&self.state, self.now_ms, &self.settings);
        self.planning = Planning::default();
        self.tick_flying = false;
        self.marks.take_office();
        self.history.take_office();
        for (call, parked) in std::mem::take(&mut self.parked) {
            match parked {
                Parked::Call(caller, request) => self.open(call, caller, request),
                Parked::Worker(message) => self.worker_message(call, message),
                Parked::Stream(message) => self.stream_message(call, message),
            }
        }
    }

    /// Leadership is gone. What was proposed may still be committed; nobody here will learn of it.
    fn resign(&mut self) {
        self.leadership = Leadership::Following;
        for waiter in self.proposals.abandon() {
            self.abandon(waiter);
        }
        for reader in self.reads.abandon() {
            if let Reader::Query { call, .. } = reader {
                self.finish(call, Err(refusal::not_leader()));
            }
        }
        for (call, _) in std::mem::take(&mut self.parked) {
            self.finish(call, Err(refusal::not_leader()));
        }
        for call in self.calls.all() {
            self.finish(call, Err(refusal::leader_changed()));
        }
        self.sessions = Sessions::default();
        self.watches.forget_watchers();
        self.answers.clear();
        self.logs = Logs::default();
        self.planning = Planning::default();
    }

    fn arrived(&mut self, call: CallId, caller: Caller, request: call_request::Request) {
        if self.calls.len() >= limits::OPEN_CALLS {
            self.outputs.push(Output::Finish { call, result: Err(refusal::overloaded("calls")) });
            return;
        }
        self.calls.add(call);
        match self.leadership {
            Leadership::Following => self.arrived_at_follower(call, caller, request),
            Leadership::Leading { .. } => self.open(call, caller, request),
            Leadership::Elected { .. } => self.park(call, Parked::Call(caller, request)),
        }
    }

    fn worker_said(&mut self, call: CallId, message: WorkerMessage) {
        match self.leadership {
            // Its call is over, or about to be.
            Leadership::Following => {}
            Leadership::Leading { .. } => self.worker_message(call, message),
            Leadership::Elected { .. } => self.park(call, Parked::Worker(message)),
        }
    }

    fn stream_said(&mut self, call: CallId, message: StreamJobsRequest) {
        match self.leadership {
            // Its call is over, or about to be.
            Leadership::Following => {}
            Leadership::Leading { .. } => self.stream_message(call, message),
            Leadership::Elected { .. } => self.park(call, Parked::Stream(message)),
        }
    }

    fn park(&mut self, call: CallId, parked: Parked) {
        if self.parked.len() < limits::PARKED_CALLS {
            self.parked.push_back((call, parked));
        } else {
            self.parked.retain(|(parked, _)| *parked != call);
            self.finish(call, Err(refusal::overloaded("calls")));
        }
    }

    fn answer_ready(&mut self) {
        for reader in self.reads.ready(self.applied) {
            match reader {
                Reader::Query { call, caller, request } => self.answer(call, &caller, request),
                Reader::Renewal { call, session, nonce } => self.answer_renewal(call, session, nonce),
            }
        }
    }

    fn fire_timers(&mut self, clock: Clock) {
        let due = self.state.next_timer_ms().is_some_and(|timer| timer <= clock.at(self.now_ms));
        if due && !self.tick_flying && self.now_ms >= self.tick_not_before_ms {
            self.tick_flying = true;
            let tick = command::Command::Tick(proto::internal::Tick {});
            self.proposals.push_urgent(tick, Waiter::Nobody);
        }
    }

    fn propose(&mut self, clock: Clock) {
        let time_ms = clock.at(self.now_ms).max(self.state.time_ms());
        self.plan_with_submits(time_ms);
        while let Some((sequence, entry)) = self.proposals.next_entry(self.settings.proposer, time_ms, self.wall_ms) {
            self.figures.proposed_entries += 1;
            self.outputs.push(Output::Propose { sequence, data: proto::entry::encode(&entry) });
        }
    }

    pub(crate) fn begin_round(&mut self) {
        if let Some(context) = self.reads.next_round(self.now_ms) {
            self.figures.read_rounds += 1;
            self.outputs.push(Output::Read { context });
        }
    }

    fn take_snapshot(&mut self) {
        let due = self.snapshots.bytes >= self.settings.snapshot_bytes
            || self.snapshots.commands >= self.settings.snapshot_commands
            || self.snapshots.wanted;
        if due && !self.snapshots.running && self.snapshots.term > 0 {
            let (index, term) = (self.state.applied_index(), self.snapshots.term);
            let snapshot = Output::Snapshot { index, term, state: Box::new(self.state.clone()) };
            let waiting = Some((self.state.segments().len() as u32, snapshot));
            self.snapshots = Snapshots { running: true, waiting, term, ..Snapshots::default() };
        }
        // The log that cut them is dropped behind it.
        let history = &self.history;
        if let Some((_, snapshot)) = self.snapshots.waiting.take_if(|(through, _)| history.has_stored(*through)) {
            self.outputs.push(snapshot);
        }
    }

    pub(crate) fn respond(&mut self, call: CallId, response: call_response::Response) {
        if self.calls.contains(call) {
            self.outputs.push(Output::Respond { call, response });
        }
    }

    /// Answers a unary call.
    pub(crate) fn reply(&mut self, call: CallId, response: call_response::Response) {
        self.respond(call, response);
        self.finish(call, Ok(()));
    }

    pub(crate) fn finish(&mut self, call: CallId, result: Result<(), proto::internal::Refusal>) {
        if self.calls.remove(call) {
            self.forget(call);
            self.outputs.push(Output::Finish { call, result });
        }
    }

    fn hang_up(&mut self, call: CallId) {
        if self.calls.remove(call) {
            self.forget(call);
        }
        self.parked.retain(|(parked, _)| *parked != call);
    }

    fn forget(&mut self, call: CallId) {
        self.sessions.detach(call);
        self.watches.remove(call);
        self.logs.remove(call);
        self.streams.remove(call);
        self.history.remove(call);
    }

    pub(crate) fn count_grants(&mut self, tasks: u64) {
        self.figures.granted_tasks += tasks;
    }
}
