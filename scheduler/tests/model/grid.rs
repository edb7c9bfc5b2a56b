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
}

#[derive(Debug, Clone)]
pub struct Job {
    pub asked: Submit,
    pub cpu: u64,
    pub tasks: Vec<Task>,
    pub after: Vec<(usize, u8, bool)>,
    pub held: bool,
    pub released: bool,
}

#[derive(Debug, Clone, Default)]
pub struct Task {
    pub at: At,
    pub attempt: u32,
    pub failures: u32,
    pub lost: u32,
    /// An attempt may have run.
    pub started: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum At {
    #[default]
    Pending,
    Backoff(u64),
    Leased {
        session: usize,
        index: u64,
        ahead: bool,
        runs: bool,
        killed: bool,
        cpu: u64,
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
            () if !self.ended() && self.released => JobState::Queued,
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
            At::Pending => TaskState::Waiting,
            At::Backoff(_) => TaskState::Queued,
            At::Leased { runs: false, .. } => TaskState::Leased,
            At::Leased { .. } | At::Publishing { .. } => TaskState::Running,
            At::Ended(state) => state,
        }
    }

    fn room(&self) -> bool {
        self.asked.max_running == 0 || self.active() < usize::from(self.asked.max_running)
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
        self.jobs.push(Job {
            asked: asked.clone(),
            cpu: u64::from(asked.cpu),
            tasks: vec![Task::default(); usize::from(asked.tasks)],
            held: asked.hold,
            released: after.is_empty(),
            after,
        });
        self.weigh();
    }

    /// Releases and skips until nothing changes any more.
    pub fn weigh(&mut self) {
        loop {
            let mut changed = false;
            for id in 0..self.jobs.len() {
                if self.jobs[id].released || self.jobs[id].ended() {
                    continue;
                }
                let states: Vec<JobState> =
                    self.jobs[id].after.iter().map(|(job, ..)| self.jobs[*job].state()).collect();
                let job = &mut self.jobs[id];
                let mut impossible = false;
                for ((_, on, met), state) in job.after.iter_mut().zip(states) {
                    let ended = !matches!(state, JobState::Waiting | JobState::Queued | JobState::Running);
                    let good = match on {
                        0 => state == JobState::Succeeded,
                        1 => true,
                        _ => state == JobState::Failed,
                    };
                    *met |= ended && good;
                    impossible |= ended && !*met;
                }
                if impossible {
                    job.tasks.iter_mut().for_each(|task| {
                        if task.at == At::Pending {
                            task.at = At::Ended(TaskState::Skipped)
                        }
                    });
                    changed = true;
                } else if job.after.iter().all(|(_, _, met)| *met) {
                    job.released = true;
                    changed = true;
                }
            }
            if !changed {
                return;
            }
        }
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
            let fits = job.cpu <= self.free(session);
            if !job.released || job.held || !job.room() || !(fits || (ahead && !job.asked.at_most_once)) {
                break;
            }
            let (index, cpu) = (self.index, job.cpu);
            let task = &mut self.jobs[id].tasks[ordinal];
            task.attempt += 1;
            task.at = At::Leased { session, index, ahead: !fits, runs: false, killed: false, cpu };
            granted += 1;
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
                task.at = if killed { At::Ended(TaskState::Cancelled) } else { At::Pending };
                task.started |= killed;
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
        let At::Leased { ahead: true, cpu: mine, .. } = self.jobs[id].tasks[ordinal].at else { return };
        let overtaken = self.held_by(session).into_iter().find(|(job, at)| {
            !self.jobs[*job].asked.at_most_once
                && matches!(self.jobs[*job].tasks[*at].at,
                    At::Leased { ahead: false, runs: false, cpu, .. } if cpu == mine)
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
                    At::Leased { ahead: true, index, cpu, .. } => Some((index, job, ordinal, cpu)),
                    _ => None,
                });
            let Some((_, job, ordinal, cpu)) = waiting.min() else { return };
            if cpu > self.free(session) {
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
        let task = &mut self.jobs[id].tasks[ordinal];
        task.started = true;
        let killed = matches!(task.at, At::Leased { killed: true, .. });
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
            Kind::Failed => again(&mut task.failures, retries),
            Kind::StagingFailed | Kind::PublicationFailed => again(&mut task.lost, INFRASTRUCTURE_ATTEMPTS),
            _ => At::Ended(TaskState::Failed),
        };
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

    /// How many tasks were stopped.
    pub fn stop(&mut self, id: usize, first: usize, count: usize) -> u64 {
        let mut stopped = 0;
        for task in &mut self.jobs[id].tasks[first..first + count] {
            match &mut task.at {
                At::Pending | At::Backoff(_) => task.at = At::Ended(TaskState::Cancelled),
                At::Leased { killed, .. } if !*killed => *killed = true,
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
            match task.at {
                At::Publishing { .. } => task.at = At::Publishing { session: None },
                At::Leased { killed: true, .. } => task.at = At::Ended(TaskState::Cancelled),
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
                && ended
                && !(*on == 1 || (*on == 0 && state == JobState::Succeeded) || (*on == 2 && state == JobState::Failed))
        };
        if publishing || !any || twice || (!job.released && job.after.iter().any(ended_badly)) {
            return false;
        }
        let job = &mut self.jobs[id];
        for task in &mut job.tasks[tasks] {
            if selected(task) {
                (task.at, task.failures, task.lost) = (At::Pending, 0, 0);
            }
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
    }
}
