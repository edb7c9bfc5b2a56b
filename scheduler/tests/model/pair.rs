//! The state and its model side by side, and a twin of the state that lives in snapshots.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use proto::{
    internal::{
        AssignPublications, CancelTasks, Command, CreateQueue, CutSegment, Dependency, DrainWorker, Entry,
        ExpireSession, GrantRun, GrantTasks, JobSubmission, OpenSession, OrdinalRange, RaiseRules, Request, Reserve,
        RetryTasks, SetHistory, SetHold, SetJob, SetLicense, SetQueue, SettleSegments, SubmitJobs, Tick, WorkerReport,
        command::Command as C, dependency::On,
    },
    v1::{
        AttemptKey, Capacity, Cause, DependencyCondition, Ended, IndexRange, JobState, Manifest, ManifestEntry,
        PublicationFailed, Published, QueueSettings, Report, ReportItem, Resources, RetryRule, Returned, Started,
        TaskState, report_item::Item,
    },
};
use scheduler::{Applied, Archive, Cursor, Detail, End, Event, NEWEST_RULES, Outcome, State, plan};

use crate::{
    grid::{At, Grid, Session},
    operation::{Kind, Operation, Submit},
};

pub struct Pair {
    state: State,
    twin: State,
    grid: Grid,
    /// All segments of the history.
    archives: Vec<Arc<Archive>>,
}

impl Pair {
    pub fn new() -> Self {
        let mut pair = Self {
            state: State::new(),
            twin: State::new(),
            grid: Grid { licenses: 3, ..Grid::default() },
            archives: Vec::new(),
        };
        for version in 2..=NEWEST_RULES {
            pair.apply(C::RaiseRules(RaiseRules { version }));
        }
        pair.apply(C::SetHistory(SetHistory { keep_jobs: Some(0), ..SetHistory::default() }));
        let name = "aside".to_owned();
        pair.apply(C::CreateQueue(CreateQueue { name, ..CreateQueue::default() }));
        pair.license(3);
        pair
    }

    fn license(&mut self, total: u64) {
        self.apply(C::SetLicense(SetLicense { name: "x".to_owned(), total, ..SetLicense::default() }));
        self.grid.licenses = total;
    }

    fn queue(&mut self, paused: bool, max_running: u8) {
        let settings =
            QueueSettings { paused: Some(paused), max_running: Some(u64::from(max_running)), ..Default::default() };
        let set = SetQueue { request: None, name: "aside".to_owned(), settings: Some(settings) };
        assert!(self.apply(C::SetQueue(set)).outcomes[0].is_ok());
        (self.grid.paused, self.grid.max_running) = (paused, usize::from(max_running));
    }

    /// New limits for a job.
    fn set(&mut self, job: u8, max_running: u8, total_s: Option<u8>) {
        let Some(id) = self.job(job) else { return };
        let applied = self.apply(C::SetJob(SetJob {
            job_id: id as u64 + 1,
            max_running: Some(u32::from(max_running)),
            total_time_limit_ms: total_s.map(|seconds| 1000 * u64::from(seconds)),
            ..SetJob::default()
        }));
        let now_ms = self.grid.time_ms;
        let job = &mut self.grid.jobs[id];
        assert_eq!(applied.outcomes[0].is_err(), job.ended());
        if job.ended() {
            return;
        }
        job.max_running = usize::from(max_running);
        if let Some(seconds) = total_s.map(u64::from).filter(|seconds| *seconds != job.total_s) {
            // What had no limit of the kind until now counts from now.
            let limited = job.queue_s > 0 || job.total_s > 0;
            job.total_s = seconds;
            if job.released && (job.queue_s > 0 || seconds > 0) {
                (job.queue_is_over, job.total_is_over) = (false, false);
                job.released_ms = if limited || job.was_limited { job.released_ms } else { now_ms };
                job.was_limited = true;
            }
        }
    }

    fn apply(&mut self, command: C) -> Applied {
        self.grid.index += 1;
        let (index, time_ms) = (self.grid.index, self.grid.time_ms);
        let command = Command { command: Some(command) };
        let admitted = self.state.check_command(&command);
        let entry = Entry { proposer: 1, sequence: index, time_ms, wall_ms: time_ms as i64, commands: vec![command] };
        let before = self.state.clone();
        let applied = self.state.apply(index, &entry);
        assert_eq!(before.applied_index() + 1, index, "a clone doesn't change with the original");
        assert_eq!(admitted.err().as_ref(), applied.outcomes[0].as_ref().err());
        assert_eq!(self.twin.apply(index, &entry), applied, "a snapshot changes what happens");
        assert_eq!(self.twin.digest(), self.state.digest());
        let pieces: Vec<Bytes> = self.twin.encode().collect();
        assert_eq!(pieces, self.state.encode().collect::<Vec<_>>(), "encoding is canonical");
        self.twin = State::decode(pieces).unwrap();
        for event in &applied.events {
            if let Event::SegmentCut { number, data, .. } = event {
                self.archives.push(Arc::new(Archive::read(*number, data).unwrap()));
            }
        }
        applied
    }

    pub fn step(&mut self, operation: &Operation) {
        match operation {
            Operation::Submit(asked) => self.submit(asked),
            Operation::Open { worker, cpu } => self.open(*worker, *cpu),
            Operation::Expire { session } => {
                let session = self.session(*session);
                let expire = ExpireSession { session: session as u64, reason: String::new() };
                let applied = self.apply(C::ExpireSession(expire));
                assert_eq!(applied.outcomes[0].is_ok(), self.grid.live(session));
                if self.grid.live(session) {
                    self.grid.end_session(session);
                }
            }
            Operation::Drain { worker } => {
                let name = format!("w{worker}");
                let applied = self.apply(C::DrainWorker(DrainWorker { worker: name, ..DrainWorker::default() }));
                let session = self.grid.sessions.iter_mut().find(|session| session.live && session.worker == *worker);
                assert_eq!(applied.outcomes[0].is_ok(), session.is_some());
                if let Some(session) = session {
                    session.draining = true;
                }
            }
            Operation::Grant { session, job, first, count, ahead } => {
                let run = GrantRun {
                    session: self.session(*session) as u64,
                    job_id: u64::from(*job) % (self.grid.jobs.len() as u64 + 1) + 1,
                    tasks: Some(OrdinalRange { first: u32::from(*first), count: u32::from(*count) }),
                    ahead: *ahead,
                    alternative: 0,
                };
                self.grant(vec![run]);
            }
            Operation::Plan => {
                self.plan();
            }
            Operation::Report { session, nth, kind } => {
                let session = self.session(*session);
                let held = self.grid.held_by(session);
                if let Some((job, ordinal)) = held.get(usize::from(*nth) % held.len().max(1)).copied() {
                    let attempt = self.grid.jobs[job].tasks[ordinal].attempt;
                    self.report(session, (job, ordinal, attempt), *kind);
                }
            }
            Operation::Stray { session, job, ordinal, attempt, kind } => {
                let key = (usize::from(*job), usize::from(*ordinal), u32::from(*attempt));
                self.report(self.session(*session), key, *kind);
            }
            Operation::OutOfTurn { session, back } => self.out_of_turn(self.session(*session), *back),
            Operation::Cancel { job, range, cascade } => self.cancel(*job, *range, *cascade && range.is_none()),
            Operation::Set { job, max_running, total_s } => self.set(*job, *max_running, *total_s),
            Operation::Queue { paused, max_running } => self.queue(*paused, *max_running),
            Operation::License { total } => self.license(u64::from(*total)),
            Operation::Retry { job, failed_only, range, cpu } => self.retry(*job, *failed_only, *range, *cpu),
            Operation::Hold { job, hold } => {
                let Some(id) = self.job(*job) else { return };
                let hold = *hold;
                let applied = self.apply(C::SetHold(SetHold { request: None, job_id: id as u64 + 1, hold }));
                assert_eq!(applied.outcomes[0].is_err(), self.grid.jobs[id].ended());
                if applied.outcomes[0].is_ok() {
                    self.grid.jobs[id].held = hold;
                }
            }
            Operation::Wait { ms } => self.wait(u64::from(*ms)),
            Operation::Cut => {
                self.apply(C::CutSegment(CutSegment {}));
            }
            Operation::Settle => {
                let through = self.archives.len() as u32;
                assert!(self.apply(C::SettleSegments(SettleSegments { through })).outcomes[0].is_ok());
            }
        }
        self.compare();
    }

    /// Any session there was, and one that there was not.
    fn session(&self, number: u8) -> usize {
        usize::from(number) % (self.grid.sessions.len() + 1) + 1
    }

    fn job(&self, number: u8) -> Option<usize> {
        (!self.grid.jobs.is_empty()).then(|| usize::from(number) % self.grid.jobs.len())
    }

    fn wait(&mut self, ms: u64) {
        self.grid.time_ms += ms;
        self.apply(C::Tick(Tick {}));
        self.grid.tick();
    }

    fn submit(&mut self, asked: &Submit) {
        let jobs = self.grid.jobs.len();
        let after: Vec<(usize, u8)> = asked
            .after
            .iter()
            .filter(|(back, _)| usize::from(*back) < jobs)
            .map(|(back, on)| (jobs - 1 - usize::from(*back), *on))
            // Task by task needs arrays of one size.
            .map(|(job, on)| match on {
                4 if self.grid.jobs[job].tasks.len() != usize::from(asked.tasks) => (job, 1),
                // Nor is it known of a job that moved which of its tasks succeeded.
                4 if self.has_moved(job) && self.grid.jobs[job].state() != JobState::Succeeded => (job, 1),
                on => (job, on),
            })
            .collect();
        let asked = &Submit { license: asked.license.min(self.grid.licenses as u8), ..asked.clone() };
        let condition = |on: u8| match on {
            0 => DependencyCondition::Success,
            1 => DependencyCondition::Any,
            2 => DependencyCondition::Failure,
            3 => DependencyCondition::ExitCode,
            _ => DependencyCondition::Element,
        };
        let rule = |cause: Cause| RetryRule { cause: cause as i32, ..RetryRule::default() };
        let mut rules = match asked.picky {
            true => vec![RetryRule { exit_codes: vec![3], ..rule(Cause::ExitCode) }],
            false => Vec::new(),
        };
        if asked.grows {
            let all = [Cause::ExitCode, Cause::Signal, Cause::TimeLimit].map(rule);
            rules.extend(all.into_iter().filter(|_| !asked.picky));
            rules.push(RetryRule { memory_factor_milli: 2000, max_memory_mib: 4, ..rule(Cause::OutOfMemory) });
        }
        let job = JobSubmission {
            resources: Some(Resources {
                cpu_milli: u64::from(asked.cpu) * 1000,
                memory_mib: u64::from(asked.memory),
                ..Resources::default()
            }),
            queue: if asked.aside { "aside".to_owned() } else { String::new() },
            licenses: (asked.license > 0).then(|| ("x".to_owned(), u32::from(asked.license))).into_iter().collect(),
            retry_rules: rules,
            queue_time_limit_ms: 1000 * u64::from(asked.queue_s),
            total_time_limit_ms: 1000 * u64::from(asked.total_s),
            ranges: vec![IndexRange { first: 10, last: 9 + u64::from(asked.tasks), step: 1 }],
            is_array: true,
            priority: i32::from(asked.priority),
            retries: u32::from(asked.retries),
            max_running: u32::from(asked.max_running),
            max_failures: u32::from(asked.max_failures),
            at_most_once: asked.at_most_once,
            has_outputs: asked.outputs,
            hold: asked.hold,
            after: after
                .iter()
                .map(|(job, on)| Dependency {
                    on: Some(On::JobId(*job as u64 + 1)),
                    condition: condition(*on) as i32,
                    exit_codes: if *on == 3 { vec![0, 3] } else { Vec::new() },
                })
                .collect(),
            ..JobSubmission::default()
        };
        let id = format!("r{jobs}");
        let request = Some(Request { owner: "ann".to_owned(), id, payload_hash: Bytes::from_static(&[1; 32]) });
        let submit = SubmitJobs { request, jobs: vec![job], parts: Vec::new() };
        let applied = self.apply(C::SubmitJobs(submit.clone()));
        let first = jobs as u64 + 1;
        assert_eq!(applied.outcomes[0], Ok(Outcome::Jobs { first, count: 1, duplicate: false }));
        // One request, one job.
        let again = self.apply(C::SubmitJobs(submit));
        assert_eq!(again.outcomes[0], Ok(Outcome::Jobs { first, count: 1, duplicate: true }));
        self.grid.submit(asked, after);
    }

    fn open(&mut self, worker: u8, cpu: u8) {
        let capacity = Some(Capacity { cpu_milli: u64::from(cpu) * 1000, memory_mib: 5, ..Capacity::default() });
        let open = OpenSession { worker: format!("w{worker}"), capacity, ..OpenSession::default() };
        let applied = self.apply(C::OpenSession(open));
        if let Some(old) = self.grid.sessions.iter().position(|session| session.live && session.worker == worker) {
            self.grid.end_session(old + 1);
        }
        let session = Session { worker, cpu: u64::from(cpu), memory: 5, live: true, draining: false, sequence: 0 };
        self.grid.sessions.push(session);
        assert_eq!(applied.outcomes[0], Ok(Outcome::Session(self.grid.sessions.len() as u64)));
    }

    fn grant(&mut self, runs: Vec<GrantRun>) -> u32 {
        let applied = self.apply(C::GrantTasks(GrantTasks { runs: runs.clone() }));
        let mut granted = 0;
        for run in runs {
            let tasks = run.tasks.unwrap();
            let (first, count) = (tasks.first as usize, tasks.count as usize);
            granted += self.grid.grant(run.session as usize, run.job_id as usize - 1, first, count, run.ahead);
        }
        assert_eq!(applied.outcomes[0], Ok(Outcome::Count(granted)));
        granted
    }

    /// What the planner proposes is all in order, and leaves nothing that could start.
    fn plan(&mut self) -> bool {
        let live = (1..=self.grid.sessions.len()).filter(|session| self.grid.live(*session));
        let heard: BTreeSet<u64> = live.map(|session| session as u64).collect();
        let planned = plan(&self.state, &heard, &Cursor::default(), 100_000);
        assert!(planned.finished);
        let progress = !planned.grants.is_empty() || !planned.publications.is_empty();
        if !planned.publications.is_empty() {
            for assignment in &planned.publications {
                let key = assignment.attempt.unwrap();
                let task = &mut self.grid.jobs[key.job_id as usize - 1].tasks[key.ordinal as usize];
                assert_eq!(task.at, At::Publishing { session: None });
                task.at = At::Publishing { session: Some(assignment.session as usize) };
            }
            let assignments = planned.publications;
            self.apply(C::AssignPublications(AssignPublications { assignments }));
        }
        // Room that is kept for a job stays free.
        let of_plan = planned.reservations.iter().map(|kept| kept.session);
        let of_state = self.state.queues().into_iter().filter_map(|queue| self.state.worker(&queue.reserved_on));
        let kept: BTreeSet<u64> = of_plan.chain(of_state.map(|worker| worker.session)).collect();
        if !planned.reservations.is_empty() {
            self.apply(C::Reserve(Reserve { reservations: planned.reservations }));
        }
        let asked: u32 = planned.grants.iter().map(|run| run.tasks.unwrap().count).sum();
        let proposed = planned.grants.clone();
        let granted = self.grant(planned.grants);
        assert_eq!(granted, asked, "a plan that is applied at once is not stale: {proposed:?}");
        for session in 1..=self.grid.sessions.len() {
            let accepts = self.grid.live(session) && !self.grid.sessions[session - 1].draining;
            for (id, job) in self.grid.jobs.iter().enumerate().filter(|(_, job)| accepts && job.released && !job.held) {
                let room = (job.max_running == 0 || job.active() < job.max_running)
                    && self.grid.queue_room(id)
                    && self.grid.free_licenses() >= u64::from(job.asked.license);
                let fits = |ordinal: usize| {
                    job.tasks[ordinal].at == At::Pending
                        && job.cpu <= self.grid.free(session)
                        && job.memory_of(ordinal) <= self.grid.free_memory(session)
                };
                let waits = room && (0..job.tasks.len()).any(fits) && !kept.contains(&(session as u64));
                assert!(!waits, "session {session} idles while a task waits: {job:?}");
            }
        }
        progress
    }

    fn report(&mut self, session: usize, key: (usize, usize, u32), kind: Kind) {
        let attempt = AttemptKey { job_id: key.0 as u64 + 1, ordinal: key.1 as u32, attempt: key.2 };
        let outputs = self.grid.jobs.get(key.0).is_some_and(|job| job.asked.outputs);
        let entry = ManifestEntry { key: "k".to_owned(), ..ManifestEntry::default() };
        let manifest = (outputs && kind == Kind::Succeeded).then(|| Manifest {
            entries: vec![entry],
            entry_count: 1,
            ..Manifest::default()
        });
        let ended = |cause: Cause, exit_code: i32, retryable: bool| {
            let cause = cause as i32;
            Item::Ended(Ended {
                cause,
                exit_code,
                retryable,
                run_ms: 5,
                manifest: manifest.clone(),
                ..Ended::default()
            })
        };
        let item = match kind {
            Kind::Started => Item::Started(Started { start_time_ms: 1 }),
            Kind::Returned => Item::Returned(Returned {}),
            Kind::Succeeded => ended(Cause::ExitCode, 0, true),
            Kind::Failed => ended(Cause::ExitCode, 3, true),
            Kind::FailedOtherwise => ended(Cause::ExitCode, 5, true),
            Kind::OutOfMemory => ended(Cause::OutOfMemory, 0, true),
            Kind::FailedForGood => ended(Cause::ExitCode, 4, false),
            Kind::NotFound => ended(Cause::CommandNotFound, 0, true),
            Kind::StagingFailed => ended(Cause::StageIn, 0, true),
            Kind::Published => Item::Published(Published::default()),
            Kind::PublicationFailed => {
                Item::PublicationFailed(PublicationFailed { retryable: true, ..Default::default() })
            }
        };
        let sequence = self.grid.sessions.get(session - 1).map_or(1, |session| session.sequence + 1);
        let items = vec![ReportItem { attempt: Some(attempt), item: Some(item) }];
        let report = Some(Report { first_sequence: sequence, items });
        let applied = self.apply(C::WorkerReport(WorkerReport { session: session as u64, report }));
        if !self.grid.live(session) {
            assert!(applied.outcomes[0].is_err());
            return;
        }
        self.grid.sessions[session - 1].sequence = sequence;
        let not_before = applied.events.iter().find_map(|event| match event {
            Event::AttemptEnded { end: End::Retried { not_before_ms }, .. } => Some(*not_before_ms),
            _ => None,
        });
        if let Some(not_before) = not_before {
            let wait = not_before - self.grid.time_ms;
            assert!((500..=300_000).contains(&wait), "a back-off of {wait} ms");
        }
        let mine = self.grid.report(session, key, kind, not_before);
        self.grid.promote(session);
        self.grid.weigh();
        let Ok(Outcome::Reported { applied_sequence, gap: false, verdicts }) = &applied.outcomes[0] else {
            panic!("{:?}", applied.outcomes)
        };
        assert_eq!(*applied_sequence, sequence);
        assert_eq!(verdicts.is_empty(), mine, "{verdicts:?}");
    }

    fn out_of_turn(&mut self, session: usize, back: bool) {
        if !self.grid.live(session) {
            return;
        }
        let sequence = self.grid.sessions[session - 1].sequence;
        let first_sequence = if back { sequence.max(1) } else { sequence + 2 };
        if back && sequence == 0 {
            return;
        }
        let items = vec![ReportItem { attempt: Some(AttemptKey::default()), item: Some(Item::Returned(Returned {})) }];
        let report = Some(Report { first_sequence, items });
        let applied = self.apply(C::WorkerReport(WorkerReport { session: session as u64, report }));
        let Ok(Outcome::Reported { applied_sequence, gap, .. }) = applied.outcomes[0] else { panic!() };
        assert_eq!((applied_sequence, gap), (sequence, !back));
        if back {
            self.grid.promote(session);
        }
    }

    fn range(&self, id: usize, range: Option<(u8, u8)>) -> Option<(usize, usize)> {
        let (first, count) = range?;
        let tasks = self.grid.jobs[id].tasks.len();
        let first = usize::from(first) % tasks;
        Some((first, usize::from(count).min(tasks - first)))
    }

    fn cancel(&mut self, job: u8, range: Option<(u8, u8)>, cascade: bool) {
        let Some(id) = self.job(job) else { return };
        let range = self.range(id, range);
        let tasks = range.map(|(first, count)| OrdinalRange { first: first as u32, count: count as u32 });
        let cancel = CancelTasks {
            job_id: id as u64 + 1,
            tasks: tasks.into_iter().collect(),
            cascade,
            ..CancelTasks::default()
        };
        let applied = self.apply(C::CancelTasks(cancel));
        let (first, many) = range.unwrap_or((0, self.grid.jobs[id].tasks.len()));
        let ended = self.grid.jobs[id].ended();
        let stopped = self.grid.stop(id, first, many);
        if cascade && !ended {
            self.grid.stop_dependents(id);
        }
        self.grid.weigh();
        let Ok(Outcome::Cancelled { count, note, .. }) = &applied.outcomes[0] else { panic!() };
        assert_eq!(*count, stopped);
        assert!(*count > 0 || !note.is_empty(), "who stops nothing is told why");
    }

    fn retry(&mut self, job: u8, failed_only: bool, range: Option<(u8, u8)>, cpu: u8) {
        let Some(id) = self.job(job) else { return };
        let range = self.range(id, range);
        let tasks = range.map(|(first, count)| OrdinalRange { first: first as u32, count: count as u32 });
        let applied = self.apply(C::RetryTasks(RetryTasks {
            request: None,
            job_id: id as u64 + 1,
            tasks: tasks.into_iter().collect(),
            failed_only,
            resources: (cpu > 0).then(|| Resources { cpu_milli: u64::from(cpu) * 1000, ..Resources::default() }),
        }));
        if self.has_moved(id) {
            assert!(applied.outcomes[0].as_ref().is_err_and(|refused| refused.reason == "JOB_MOVED"));
            return;
        }
        let (first, count) = range.unwrap_or((0, self.grid.jobs[id].tasks.len()));
        let allowed = self.grid.retry(id, failed_only, first, count, u64::from(cpu));
        assert_eq!(applied.outcomes[0].is_ok(), allowed, "{:?}", applied.outcomes);
    }

    /// Whether a job has left for the history; only those that ended do.
    fn has_moved(&self, job: usize) -> bool {
        let moved = self.state.gone(job as u64 + 1).is_some();
        assert!(!moved || self.grid.jobs[job].ended());
        moved
    }

    /// Everything that people see, wherever it is.
    fn compare(&self) {
        self.state.check().unwrap();
        self.twin.check().unwrap();
        let state = self.state.with_archives(&self.archives, Detail::Tasks).unwrap();
        for (position, job) in self.grid.jobs.iter().enumerate() {
            let id = position as u64 + 1;
            let shown = state.job(id).unwrap();
            assert_eq!(JobState::try_from(shown.state).unwrap(), job.state(), "job {id}: {job:?}");
            let counts = shown.tasks.unwrap();
            let shown_by_state = [counts.queued + counts.waiting, counts.leased, counts.running, counts.failed];
            let by_state = |states: &[TaskState]| {
                (0..job.tasks.len()).filter(|ordinal| states.contains(&job.task_state(*ordinal))).count() as u64
            };
            let expected = [
                by_state(&[TaskState::Queued, TaskState::Waiting]),
                by_state(&[TaskState::Leased]),
                by_state(&[TaskState::Running]),
                by_state(&[TaskState::Failed]),
            ];
            assert_eq!(shown_by_state, expected, "job {id}: {job:?}");
            for ordinal in 0..job.tasks.len() {
                let task = state.task(id, ordinal as u32, true).unwrap();
                assert_eq!(TaskState::try_from(task.state).unwrap(), job.task_state(ordinal), "task {id}/{ordinal}");
                assert_eq!(task.attempt, job.tasks[ordinal].attempt, "task {id}/{ordinal}");
                let numbers: Vec<u32> = task.attempts.iter().map(|attempt| attempt.number).collect();
                assert!(numbers.is_sorted_by(|one, next| one < next), "attempt numbers rise: {numbers:?}");
            }
        }
        for (position, session) in self.grid.sessions.iter().enumerate().filter(|(_, session)| session.live) {
            let worker = self.state.worker(&format!("w{}", session.worker)).unwrap();
            assert_eq!(worker.session, position as u64 + 1);
            assert_eq!(worker.free.unwrap().cpu_milli, self.grid.free(position + 1) * 1000);
            for (job, ordinal) in self.grid.held_by(position + 1) {
                let attempt = self.grid.jobs[job].tasks[ordinal].attempt;
                let key = AttemptKey { job_id: job as u64 + 1, ordinal: ordinal as u32, attempt };
                assert!(self.state.holds(position as u64 + 1, &key));
            }
        }
    }

    /// With a healthy worker and no further trouble every job ends.
    pub fn drain(&mut self) {
        self.open(9, 8);
        self.queue(false, 0);
        self.license(9);
        for id in 0..self.grid.jobs.len() {
            self.step(&Operation::Hold { job: id as u8, hold: false });
        }
        for _ in 0..1_000 {
            if self.grid.jobs.iter().all(|job| job.ended()) {
                return;
            }
            let progress = self.plan();
            let mut reported = false;
            for session in 1..=self.grid.sessions.len() {
                for (job, ordinal) in self.grid.held_by(session) {
                    let task = &self.grid.jobs[job].tasks[ordinal];
                    let kind = if matches!(task.at, At::Publishing { .. }) { Kind::Published } else { Kind::Succeeded };
                    self.report(session, (job, ordinal, task.attempt), kind);
                    reported = true;
                }
            }
            if !progress && !reported {
                self.wait(600_000);
            }
            self.compare();
        }
        panic!("jobs don't end: {:?}", self.grid.jobs);
    }
}
