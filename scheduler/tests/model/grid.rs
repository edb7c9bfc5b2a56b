//! The model: every task is a record of its own, and whatever can be counted is counted anew.

use proto::v1::{JobState, TaskState};

use crate::operation::{Kind, Submit};

const INFRASTRUCTURE_ATTEMPTS: u32 = 10;

#[derive(Debug, Clone, Default)]
pub struct Grid {
    pub jobs: Vec<Job>,
    /// By number, from 1; ended ones too.
    pub sessions: Vec<Session>,
    pub time_ms: u64,
    pub index: u64,
    /// The second queue.
    pub paused: bool,
    pub max_running: usize,
    pub licenses: u64,
}

#[derive(Debug, Clone)]
pub struct Job {
    pub asked: Submit,
    pub cpu: u64,
    pub tasks: Vec<Task>,
    pub after: Vec<(usize, u8, bool)>,
    pub held: bool,
    pub released: bool,
    pub released_ms: u64,
    /// Seconds; 0: none, or over.
    pub queue_s: u64,
    pub total_s: u64,
    pub queue_is_over: bool,
    pub total_is_over: bool,
    pub max_running: usize,
    /// It had a limit that counts from its release.
    pub was_limited: bool,
}

#[derive(Debug, Clone, Default)]
pub struct Task {
    pub at: At,
    pub attempt: u32,
    pub failures: u32,
    pub lost: u32,
    /// Of the next attempt, where it grew.
    pub memory: u64,
    /// It was granted since the submit or the last retry.
    pub tried: bool,
    /// How its last ended attempt failed, and which that was.
    pub why: Why,
    pub ended_attempt: u32,
    /// An attempt may have run.
    pub started: bool,
}

/// In the order in which failures decide about a job: whether it is to blame itself, and the code a shell would say.
pub type Why = (bool, u32, Option<u32>);

const OUT_OF_TIME: Why = (true, 124, None);
const GRID: Why = (false, 125, None);

fn why(kind: Kind) -> Why {
    match kind {
        Kind::Failed => (true, 3, Some(3)),
        Kind::FailedForGood => (true, 4, Some(4)),
        Kind::FailedOtherwise => (true, 5, Some(5)),
        Kind::OutOfMemory => (true, 137, None),
        Kind::NotFound => (true, 127, None),
        _ => GRID,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum At {
    #[default]
    Pending,
    /// Waits for its twins.
    Blocked,
    Backoff(u64),
    Leased {
        session: usize,
        index: u64,
        ahead: bool,
        runs: bool,
        killed: bool,
        /// Asked to stop since the time of its job is over.
        overdue: bool,
        cpu: u64,
        memory: u64,
    },
    Publishing {
        session: Option<usize>,
    },
    Ended(TaskState),
}

#[derive(Debug, Clone)]
pub struct Session {
    pub worker: u8,
    pub cpu: u64,
    pub memory: u64,
    pub live: bool,
    pub draining: bool,
    pub sequence: u64,
}

impl Job {
    pub fn count(&self, test: impl Fn(&At) -> bool) -> usize {
        self.tasks.iter().filter(|task| test(&task.at)).count()
    }

    pub fn active(&self) -> usize {
        self.count(|at| matches!(at, At::Leased { .. } | At::Publishing { .. }))
    }

    pub fn ended(&self) -> bool {
        self.count(|at| matches!(at, At::Ended(_))) == self.tasks.len()
    }

    pub fn state(&self) -> JobState {
        let ended_as = |state| self.count(|at| *at == At::Ended(state)) > 0;
        match () {
            () if self.active() > 0 => JobState::Running,
            () if !self.ended()
                && self.released
                && self.count(|at| *at != At::Blocked && !matches!(at, At::Ended(_))) > 0 =>
            {
                JobState::Queued
            }
            () if !self.ended() => JobState::Waiting,
            () if ended_as(TaskState::Failed) => JobState::Failed,
            () if ended_as(TaskState::Cancelled) => JobState::Cancelled,
            () if ended_as(TaskState::Skipped) => JobState::Skipped,
            () => JobState::Succeeded,
        }
    }

    pub fn task_state(&self, ordinal: usize) -> TaskState {
        match self.tasks[ordinal].at {
            At::Pending if self.released => TaskState::Queued,
            At::Pending | At::Blocked => TaskState::Waiting,
            At::Backoff(_) => TaskState::Queued,
            At::Leased { runs: false, .. } => TaskState::Leased,
            At::Leased { .. } | At::Publishing { .. } => TaskState::Running,
            At::Ended(state) => state,
        }
    }

    fn room(&self) -> bool {
        self.max_running == 0 || self.active() < self.max_running
    }

    /// What a task takes of its worker's memory.
    pub fn memory_of(&self, ordinal: usize) -> u64 {
        u64::from(self.asked.memory).max(self.tasks[ordinal].memory)
    }

    fn by_task(&self) -> bool {
        self.after.iter().any(|(_, on, _)| *on == 4)
    }

    /// The exit code by which it ended, as those see it that wait for it.
    fn exit_code(&self) -> Option<u32> {
        match self.state() {
            JobState::Succeeded => Some(0),
            JobState::Failed => {
                let failed = self.tasks.iter().filter(|task| task.at == At::Ended(TaskState::Failed));
                failed.map(|task| task.why).max_by_key(|(own, code, _)| (*own, *code)).and_then(|(_, _, code)| code)
            }
            _ => None,
        }
    }
}

impl Grid {
    pub fn used(&self, session: usize) -> u64 {
        let of = |at: &At| match at {
            At::Leased { session: by, ahead: false, cpu, .. } if *by == session => *cpu,
            _ => 0,
        };
        self.jobs.iter().flat_map(|job| &job.tasks).map(|task| of(&task.at)).sum()
    }

    pub fn free(&self, session: usize) -> u64 {
        self.sessions[session - 1].cpu - self.used(session)
    }

    pub fn free_memory(&self, session: usize) -> u64 {
        let of = |at: &At| match at {
            At::Leased { session: by, ahead: false, memory, .. } if *by == session => *memory,
            _ => 0,
        };
        let used: u64 = self.jobs.iter().flat_map(|job| &job.tasks).map(|task| of(&task.at)).sum();
        self.sessions[session - 1].memory - used
    }

    pub fn free_licenses(&self) -> u64 {
        let leased = |job: &Job| job.count(|at| matches!(at, At::Leased { .. })) as u64 * u64::from(job.asked.license);
        self.licenses.saturating_sub(self.jobs.iter().map(leased).sum())
    }

    /// Whether the job's queue lets one more of its tasks start.
    pub fn queue_room(&self, id: usize) -> bool {
        let leased = |job: &Job| job.count(|at| matches!(at, At::Leased { .. }));
        let running: usize = self.jobs.iter().filter(|job| job.asked.aside).map(leased).sum();
        !self.jobs[id].asked.aside || (!self.paused && (self.max_running == 0 || running < self.max_running))
    }

    pub fn live(&self, session: usize) -> bool {
        session >= 1 && self.sessions.get(session - 1).is_some_and(|session| session.live)
    }

    /// All attempts that a session holds or is to publish: (job, ordinal), from 0.
    pub fn held_by(&self, session: usize) -> Vec<(usize, usize)> {
        let mine = |at: &At| match at {
            At::Leased { session: by, .. } => *by == session,
            At::Publishing { session: by } => *by == Some(session),
            _ => false,
        };
        let tasks = self.jobs.iter().enumerate();
        tasks
            .flat_map(|(job, record)| record.tasks.iter().enumerate().map(move |(ordinal, task)| (job, ordinal, task)))
            .filter(|(_, _, task)| mine(&task.at))
            .map(|(job, ordinal, _)| (job, ordinal))
            .collect()
    }

    pub fn submit(&mut self, asked: &Submit, after: Vec<(usize, u8)>) {
        let after: Vec<_> = after.into_iter().map(|(job, on)| (job, on, false)).collect();
        let mut job = Job {
            asked: asked.clone(),
            cpu: u64::from(asked.cpu),
            tasks: vec![Task::default(); usize::from(asked.tasks)],
            held: asked.hold,
            released: after.is_empty(),
            released_ms: self.time_ms,
            queue_s: u64::from(asked.queue_s),
            total_s: u64::from(asked.total_s),
            queue_is_over: false,
            total_is_over: false,
            max_running: usize::from(asked.max_running),
            was_limited: asked.queue_s > 0 || asked.total_s > 0,
            after,
        };
        if job.by_task() {
            job.tasks.iter_mut().for_each(|task| task.at = At::Blocked);
        }
        self.jobs.push(job);
        self.weigh();
    }

    /// Releases and skips until nothing changes any more.
    pub fn weigh(&mut self) {
        loop {
            let mut changed = false;
            for id in 0..self.jobs.len() {
                changed |= self.weigh_tasks(id);
                if self.jobs[id].released || self.jobs[id].ended() {
                    continue;
                }
                let states: Vec<(JobState, Option<u32>)> = self.jobs[id]
                    .after
                    .iter()
                    .map(|(job, ..)| (self.jobs[*job].state(), self.jobs[*job].exit_code()))
                    .collect();
                let now_ms = self.time_ms;
                let job = &mut self.jobs[id];
                let mut impossible = false;
                for ((_, on, met), (state, code)) in job.after.iter_mut().zip(states).filter(|((_, on, _), _)| *on != 4)
                {
                    let ended = !matches!(state, JobState::Waiting | JobState::Queued | JobState::Running);
                    let good = match on {
                        0 => state == JobState::Succeeded,
                        1 => true,
                        2 => state == JobState::Failed,
                        _ => matches!(code, Some(0 | 3)),
                    };
                    *met |= ended && good;
                    impossible |= ended && !*met;
                }
                if impossible {
                    job.tasks.iter_mut().for_each(|task| {
                        if matches!(task.at, At::Pending | At::Blocked) {
                            task.at = At::Ended(TaskState::Skipped)
                        }
                    });
                    changed = true;
                } else if job.after.iter().all(|(_, on, met)| *met || *on == 4) {
                    (job.released, job.released_ms) = (true, now_ms);
                    changed = true;
                }
            }
            if !changed {
                return;
            }
        }
    }

    /// Looks at the twins of all tasks that wait for them.
    fn weigh_tasks(&mut self, id: usize) -> bool {
        let mut changed = false;
        for ordinal in 0..self.jobs[id].tasks.len() {
            if self.jobs[id].tasks[ordinal].at != At::Blocked {
                continue;
            }
            let twins = self.jobs[id].after.iter().filter(|(_, on, _)| *on == 4);
            let states: Vec<At> = twins.map(|(job, ..)| self.jobs[*job].tasks[ordinal].at).collect();
            let good = At::Ended(TaskState::Succeeded);
            let to = if states.iter().any(|at| matches!(at, At::Ended(_)) && *at != good) {
                At::Ended(TaskState::Skipped)
            } else if states.iter().all(|at| *at == good) {
                At::Pending
            } else {
                continue;
            };
            self.jobs[id].tasks[ordinal].at = to;
            changed = true;
        }
        changed
    }

    /// How many tasks were granted.
    pub fn grant(&mut self, session: usize, id: usize, first: usize, count: usize, ahead: bool) -> u32 {
        if !self.live(session) || self.sessions[session - 1].draining || id >= self.jobs.len() {
            return 0;
        }
        let mut granted = 0;
        for ordinal in first..(first + count).min(self.jobs[id].tasks.len()) {
            let job = &self.jobs[id];
            if job.tasks[ordinal].at != At::Pending {
                continue;
            }
            let memory = job.memory_of(ordinal);
            // Such a task stands for itself: it is granted when it is named first, and alone.
            let grown = job.tasks[ordinal].memory > 0;
            if grown && ordinal != first {
                continue;
            }
            let fits = job.cpu <= self.free(session) && memory <= self.free_memory(session);
            let may_wait = ahead && !job.asked.at_most_once && job.asked.license == 0;
            let licensed = self.free_licenses() >= u64::from(job.asked.license);
            let open = job.released && !job.held && job.room() && self.queue_room(id) && licensed;
            if !open || !(fits || may_wait) {
                break;
            }
            let (index, cpu) = (self.index, job.cpu);
            let task = &mut self.jobs[id].tasks[ordinal];
            task.attempt += 1;
            task.tried = true;
            task.at =
                At::Leased { session, index, ahead: !fits, runs: false, killed: false, overdue: false, cpu, memory };
            granted += 1;
            if grown {
                break;
            }
        }
        granted
    }

    /// Whether the session may say so; `not_before` is what the rules drew for a back-off.
    pub fn report(&mut self, session: usize, key: (usize, usize, u32), kind: Kind, not_before: Option<u64>) -> bool {
        let (id, ordinal, attempt) = key;
        let Some(task) = self.jobs.get(id).and_then(|job| job.tasks.get(ordinal)) else { return false };
        if task.attempt != attempt {
            return false;
        }
        match (task.at, kind) {
            (At::Leased { session: by, runs, .. }, Kind::Started) if by == session => {
                if !runs {
                    self.start(session, id, ordinal);
                }
                true
            }
            (At::Leased { session: by, killed, .. }, Kind::Returned) if by == session => {
                let task = &mut self.jobs[id].tasks[ordinal];
                task.at = match task.at {
                    _ if killed => At::Ended(TaskState::Cancelled),
                    At::Leased { overdue: true, .. } => At::Ended(TaskState::Failed),
                    _ => At::Pending,
                };
                task.started |= matches!(task.at, At::Ended(_));
                (task.why, task.ended_attempt) = (OUT_OF_TIME, if task.started { attempt } else { task.ended_attempt });
                if task.at == At::Ended(TaskState::Failed) {
                    self.count_failures(id, ordinal);
                }
                true
            }
            (At::Leased { session: by, .. }, _) if by == session => {
                if matches!(kind, Kind::Published | Kind::PublicationFailed) {
                    return false;
                }
                self.end(id, ordinal, kind, Some(session), not_before);
                true
            }
            (At::Publishing { session: Some(by) }, Kind::Published) if by == session => {
                self.jobs[id].tasks[ordinal].at = At::Ended(TaskState::Succeeded);
                true
            }
            (At::Publishing { session: Some(by) }, Kind::PublicationFailed) if by == session => {
                self.end(id, ordinal, kind, None, not_before);
                true
            }
            _ => false,
        }
    }

    fn start(&mut self, session: usize, id: usize, ordinal: usize) {
        if let At::Leased { runs, .. } = &mut self.jobs[id].tasks[ordinal].at {
            *runs = true;
        }
        if !matches!(self.jobs[id].tasks[ordinal].at, At::Leased { ahead: true, .. }) {
            return;
        }
        self.promote(session);
        let At::Leased { ahead: true, cpu: mine, memory: its, .. } = self.jobs[id].tasks[ordinal].at else { return };
        let overtaken = self.held_by(session).into_iter().find(|(job, at)| {
            !self.jobs[*job].asked.at_most_once
                && matches!(self.jobs[*job].tasks[*at].at,
                    At::Leased { ahead: false, runs: false, cpu, memory, .. } if cpu == mine && memory == its)
        });
        let Some((other, at)) = overtaken else { return };
        for (job, at, becomes) in [(id, ordinal, false), (other, at, true)] {
            if let At::Leased { ahead, .. } = &mut self.jobs[job].tasks[at].at {
                *ahead = becomes;
            }
        }
    }

    /// What is held ahead takes the place that is free, in the order of its grant.
    pub fn promote(&mut self, session: usize) {
        loop {
            let waiting =
                self.held_by(session).into_iter().filter_map(|(job, ordinal)| match self.jobs[job].tasks[ordinal].at {
                    At::Leased { ahead: true, index, cpu, memory, .. } => Some((index, job, ordinal, cpu, memory)),
                    _ => None,
                });
            let Some((_, job, ordinal, cpu, memory)) = waiting.min() else { return };
            if cpu > self.free(session) || memory > self.free_memory(session) {
                return;
            }
            if let At::Leased { ahead, .. } = &mut self.jobs[job].tasks[ordinal].at {
                *ahead = false;
            }
        }
    }

    fn end(&mut self, id: usize, ordinal: usize, kind: Kind, session: Option<usize>, not_before: Option<u64>) {
        let (retries, once, outputs) =
            (u32::from(self.jobs[id].asked.retries), self.jobs[id].asked.at_most_once, self.jobs[id].asked.outputs);
        let (picky, grows, memory) =
            (self.jobs[id].asked.picky, self.jobs[id].asked.grows, self.jobs[id].memory_of(ordinal));
        let task = &mut self.jobs[id].tasks[ordinal];
        task.started = true;
        (task.why, task.ended_attempt) = (why(kind), task.attempt);
        let killed = matches!(task.at, At::Leased { killed: true, .. });
        let overdue = matches!(task.at, At::Leased { overdue: true, .. });
        // With a rule of its own for what ran out of memory the others must be named, too.
        let named = |kind: Kind| match kind {
            Kind::Failed => true,
            Kind::OutOfMemory => !picky || grows,
            _ => !picky,
        };
        let again = |budget: &mut u32, most: u32| {
            if once || *budget >= most {
                return At::Ended(TaskState::Failed);
            }
            *budget += 1;
            At::Backoff(not_before.expect("the rules try it again too"))
        };
        task.at = match kind {
            _ if killed => At::Ended(TaskState::Cancelled),
            Kind::Succeeded if outputs => At::Publishing { session },
            Kind::Succeeded => At::Ended(TaskState::Succeeded),
            _ if overdue => At::Ended(TaskState::Failed),
            Kind::Failed | Kind::FailedOtherwise | Kind::OutOfMemory if named(kind) => {
                let next = again(&mut task.failures, retries);
                if kind == Kind::OutOfMemory && grows && matches!(next, At::Backoff(_)) {
                    let grown = (memory * 2).min(4).max(memory);
                    task.memory = if grown > memory { grown } else { task.memory };
                }
                next
            }
            Kind::StagingFailed | Kind::PublicationFailed => again(&mut task.lost, INFRASTRUCTURE_ATTEMPTS),
            _ => At::Ended(TaskState::Failed),
        };
        if overdue {
            self.jobs[id].tasks[ordinal].why = OUT_OF_TIME;
        }
        self.count_failures(id, ordinal);
    }

    fn count_failures(&mut self, id: usize, ordinal: usize) {
        let job = &self.jobs[id];
        let failed = job.count(|at| *at == At::Ended(TaskState::Failed));
        let most = usize::from(job.asked.max_failures);
        if job.tasks[ordinal].at == At::Ended(TaskState::Failed) && most > 0 && failed >= most {
            self.stop(id, 0, self.jobs[id].tasks.len());
        }
    }

    /// Stops everything that waits for a job, whatever for.
    pub fn stop_dependents(&mut self, id: usize) {
        for other in id + 1..self.jobs.len() {
            let behind = self.jobs[other].after.iter().any(|(job, ..)| *job == id);
            if behind {
                if !self.jobs[other].ended() {
                    self.stop(other, 0, self.jobs[other].tasks.len());
                }
                self.stop_dependents(other);
            }
        }
    }

    /// How many tasks were stopped.
    pub fn stop(&mut self, id: usize, first: usize, count: usize) -> u64 {
        let mut stopped = 0;
        for task in &mut self.jobs[id].tasks[first..first + count] {
            match &mut task.at {
                At::Pending | At::Blocked | At::Backoff(_) => task.at = At::Ended(TaskState::Cancelled),
                At::Leased { killed, overdue: false, .. } if !*killed => *killed = true,
                _ => continue,
            }
            stopped += 1;
        }
        stopped
    }

    pub fn end_session(&mut self, session: usize) {
        self.sessions[session - 1].live = false;
        for (id, ordinal) in self.held_by(session) {
            let once = self.jobs[id].asked.at_most_once;
            let task = &mut self.jobs[id].tasks[ordinal];
            task.started = true;
            if matches!(task.at, At::Leased { .. }) {
                (task.why, task.ended_attempt) = (GRID, task.attempt);
            }
            match task.at {
                At::Publishing { .. } => task.at = At::Publishing { session: None },
                At::Leased { killed: true, .. } => task.at = At::Ended(TaskState::Cancelled),
                At::Leased { overdue: true, .. } => {
                    (task.at, task.why) = (At::Ended(TaskState::Failed), OUT_OF_TIME);
                    self.count_failures(id, ordinal);
                }
                _ if !once && task.lost < INFRASTRUCTURE_ATTEMPTS => {
                    task.lost += 1;
                    task.at = At::Pending;
                }
                _ => {
                    task.at = At::Ended(TaskState::Failed);
                    self.count_failures(id, ordinal);
                }
            }
        }
        self.weigh();
    }

    /// Whether the rules allow it.
    pub fn retry(&mut self, id: usize, failed_only: bool, first: usize, count: usize, cpu: u64) -> bool {
        let tasks = first..first + count;
        let job = &self.jobs[id];
        let selected = |task: &Task| match task.at {
            At::Ended(state) => !failed_only || state == TaskState::Failed,
            _ => false,
        };
        let publishing = job.tasks[tasks.clone()].iter().any(|task| matches!(task.at, At::Publishing { .. }));
        let any = job.tasks[tasks.clone()].iter().any(selected);
        let twice =
            job.asked.at_most_once && job.tasks[tasks.clone()].iter().any(|task| selected(task) && task.started);
        let ended_badly = |(other, on, met): &(usize, u8, bool)| {
            let state = self.jobs[*other].state();
            let ended = self.jobs[*other].ended();
            !*met
                && *on != 4
                && ended
                && !(*on == 1
                    || (*on == 3 && matches!(self.jobs[*other].exit_code(), Some(0 | 3)))
                    || (*on == 0 && state == JobState::Succeeded)
                    || (*on == 2 && state == JobState::Failed))
        };
        if publishing || !any || twice || (!job.released && job.after.iter().any(ended_badly)) {
            return false;
        }
        let now_ms = self.time_ms;
        let job = &mut self.jobs[id];
        let to = if job.by_task() { At::Blocked } else { At::Pending };
        for task in &mut job.tasks[tasks] {
            if selected(task) {
                (task.at, task.failures, task.lost, task.memory, task.tried) = (to, 0, 0, 0, false);
            }
        }
        if job.released && (job.queue_s > 0 || job.total_s > 0) {
            (job.released_ms, job.queue_is_over, job.total_is_over) = (now_ms, false, false);
        }
        if cpu > 0 {
            job.cpu = cpu;
        }
        self.weigh();
        true
    }

    pub fn tick(&mut self) {
        let now = self.time_ms;
        for task in self.jobs.iter_mut().flat_map(|job| &mut job.tasks) {
            if matches!(task.at, At::Backoff(until) if until <= now) {
                task.at = At::Pending;
            }
        }
        while let Some((_, id, of_queue)) = self.overdue() {
            self.end_limit(id, of_queue);
            self.weigh();
        }
    }

    /// The limit that was over first: when, whose, and whether it is the one on queueing.
    fn overdue(&self) -> Option<(u64, usize, bool)> {
        let of = |(id, job): (usize, &Job)| {
            let due = |seconds: u64| job.released_ms + 1000 * seconds;
            let open = job.released && !job.ended();
            let queue = (open && job.queue_s > 0 && !job.queue_is_over).then(|| (due(job.queue_s), id, true));
            let total = (open && job.total_s > 0 && !job.total_is_over).then(|| (due(job.total_s), id, false));
            [queue, total]
        };
        let all = self.jobs.iter().enumerate().flat_map(of).flatten();
        all.filter(|(due, ..)| *due <= self.time_ms).min_by_key(|(due, id, of_queue)| (*due, *id, !of_queue))
    }

    fn end_limit(&mut self, id: usize, queue: bool) {
        let total = !queue;
        let job = &mut self.jobs[id];
        (job.queue_is_over, job.total_is_over) = (job.queue_is_over || queue, job.total_is_over || total);
        for task in &mut job.tasks {
            match &mut task.at {
                at @ (At::Pending | At::Blocked) if queue && !task.tried => {
                    (*at, task.why) = (At::Ended(TaskState::Failed), GRID);
                }
                at @ (At::Pending | At::Blocked | At::Backoff(_)) if total => {
                    *at = At::Ended(TaskState::Failed);
                    if !task.tried || task.ended_attempt < task.attempt {
                        task.why = OUT_OF_TIME;
                    }
                }
                At::Leased { overdue, killed: false, .. } if total => *overdue = true,
                _ => {}
            }
        }
    }
}
