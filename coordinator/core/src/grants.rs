//! What a worker is told: events of an entry, rendered as instructions to the sessions they concern.

use std::collections::{BTreeMap, VecDeque};

use prost::Message;
use proto::v1::{
    AttemptKey, Cause, CoordinatorMessage, Grant, GrantedJob, Instructions, JobSpec, Kill, Manifest, Publish,
    Resources, Rows, TimeLimit, coordinator_message,
};
use scheduler::{Event, Instruction, State};

use crate::{core::Core, limits, rows::RowReader};

/// Decoded specs of jobs that are being granted.
#[derive(Debug, Default)]
pub(crate) struct Specs(BTreeMap<u64, Spec>);

#[derive(Debug)]
struct Spec {
    job: GrantedJob,
    rows: Option<Rows>,
    reader: RowReader,
}

impl Specs {
    fn of(&mut self, state: &State, job: u64) -> Option<&mut Spec> {
        if !self.0.contains_key(&job) {
            if self.0.len() >= limits::CACHED_SPECS {
                // The lowest number is the oldest job: the one that has had its grants.
                self.0.pop_first();
            }
            self.0.insert(job, Spec::read(state, job)?);
        }
        self.0.get_mut(&job)
    }
}

impl Spec {
    fn read(state: &State, job: u64) -> Option<Self> {
        let mut spec = JobSpec::decode(state.spec(job)?).ok()?;
        // The worker gets its own row with each grant; the whole table it has no use for.
        let rows = spec.array.take().and_then(|array| array.rows);
        let owner = state.submission(job)?.owner;
        let job = GrantedJob { job_id: job, spec: Some(spec), resources: None, owner, time_limit_ms: 0 };
        Some(Self { job, rows, reader: RowReader::default() })
    }
}

/// The jobs whose specs a worker's connection has had, the newest ones.
#[derive(Debug, Default)]
pub(crate) struct SentSpecs {
    sent: BTreeMap<u64, (Resources, u64)>,
    order: VecDeque<u64>,
}

impl SentSpecs {
    /// Whether the spec must be sent, again when the resources or the time limit were changed.
    fn must_send(&mut self, job: u64, needs: (Resources, u64)) -> bool {
        match self.sent.insert(job, needs) {
            Some(before) => before != needs,
            None => {
                self.order.push_back(job);
                if self.order.len() > limits::SPECS_PER_CONNECTION
                    && let Some(oldest) = self.order.pop_front()
                {
                    self.sent.remove(&oldest);
                }
                true
            }
        }
    }
}

/// Instructions of one entry, or of everything that stands, for one session.
#[derive(Debug, Default)]
struct Sheet {
    grants: Vec<(AttemptKey, bool, Option<Resources>)>,
    kills: Vec<(AttemptKey, Cause)>,
    publications: Vec<(AttemptKey, Manifest)>,
    /// Jobs of which it may hold attempts, and how long these may take now.
    time_limits: BTreeMap<u64, u64>,
}

impl Core {
    /// Sends what an entry asks of workers, and tells those whose session it ended.
    pub(crate) fn route(&mut self, index: u64, events: &[Event]) {
        let mut sheets: BTreeMap<u64, Sheet> = BTreeMap::new();
        for event in events {
            match event {
                Event::Granted { session, key, ahead, resources } => {
                    sheets.entry(*session).or_default().grants.push((*key, *ahead, *resources));
                }
                Event::TimeLimitChanged { job, time_limit_ms } => {
                    for session in self.state.sessions_of(*job) {
                        sheets.entry(session).or_default().time_limits.insert(*job, *time_limit_ms);
                    }
                }
                Event::KillAsked { session, key, cause } => {
                    sheets.entry(*session).or_default().kills.push((*key, *cause));
                }
                Event::PublicationAssigned { session, key } => {
                    let manifest = manifest(&self.state, *session, key);
                    let sheet = sheets.entry(*session).or_default();
                    sheet.publications.extend(manifest.map(|manifest| (*key, manifest)));
                }
                Event::SessionOpened { session, .. } => self.sessions.opened(*session, self.now_ms),
                Event::SessionEnded { session, reason, .. } => self.session_ended(*session, &reason.to_string()),
                _ => {}
            }
        }
        for (session, sheet) in sheets {
            self.instruct(session, index, &sheet);
        }
        self.logs.wake(events);
    }

    /// Sends everything that stands for a session that has just come back, less what it says it has.
    pub(crate) fn instruct_anew(&mut self, session: u64, held: &[AttemptKey], publishing: &[AttemptKey]) {
        let mut sheet = Sheet::default();
        for instruction in self.state.instructions_of(session) {
            match instruction {
                Instruction::Grant { key, ahead, resources, .. } if !held.contains(&key) => {
                    sheet.grants.push((key, ahead, resources));
                }
                // It may have been changed while the worker was away.
                Instruction::Grant { key, .. } => {
                    let time_limit_ms = self.state.time_limit_ms(key.job_id);
                    sheet.time_limits.insert(key.job_id, time_limit_ms.unwrap_or_default());
                }
                Instruction::Kill { key, cause, .. } => sheet.kills.push((key, cause)),
                Instruction::Publish { key, manifest, .. } if !publishing.contains(&key) => {
                    sheet.publications.push((key, manifest));
                }
                Instruction::Publish { .. } => {}
            }
        }
        self.instruct(session, self.state.applied_index(), &sheet);
    }

    fn instruct(&mut self, session: u64, index: u64, sheet: &Sheet) {
        let Some((call, sent)) = self.sessions.attachment(session) else { return };
        let mut instructions = Instructions { index, ..Instructions::default() };
        for (key, ahead, resources) in &sheet.grants {
            let Some(spec) = self.specs.of(&self.state, key.job_id) else { continue };
            let Some(needs) = self.state.needs(key.job_id) else { continue };
            if sent.must_send(key.job_id, needs) {
                let (resources, time_limit_ms) = needs;
                instructions.jobs.push(GrantedJob { resources: Some(resources), time_limit_ms, ..spec.job.clone() });
            }
            let row = spec.rows.as_ref().and_then(|rows| spec.reader.row(&self.state, rows, key.ordinal));
            let Some(task_index) = index_of(&self.state, key) else { continue };
            let row = row.unwrap_or_default();
            let (attempt, ahead, resources) = (Some(*key), *ahead, *resources);
            instructions.grants.push(Grant { attempt, task_index, row, ahead, resources });
        }
        let limit = |(job, limit): (&u64, &u64)| TimeLimit { job_id: *job, time_limit_ms: *limit };
        instructions.time_limits.extend(sheet.time_limits.iter().map(limit));
        for (key, cause) in &sheet.kills {
            instructions.kills.push(Kill { attempt: Some(*key), cause: *cause as i32 });
        }
        for (key, manifest) in &sheet.publications {
            let Some(task_index) = index_of(&self.state, key) else { continue };
            let manifest = Some(manifest.clone());
            instructions.publications.push(Publish { attempt: Some(*key), manifest, task_index });
        }
        let empty = instructions.grants.is_empty()
            && instructions.kills.is_empty()
            && instructions.publications.is_empty()
            && instructions.time_limits.is_empty();
        if empty {
            return;
        }
        self.send_worker(call, coordinator_message::Message::Instructions(instructions));
    }

    pub(crate) fn send_worker(&mut self, call: crate::CallId, message: coordinator_message::Message) {
        let message = CoordinatorMessage { message: Some(message) };
        self.respond(call, proto::internal::call_response::Response::Coordinator(message));
    }
}

/// What is to be published, as the state has it for this session.
fn manifest(state: &State, session: u64, key: &AttemptKey) -> Option<Manifest> {
    state.instructions_of(session).into_iter().find_map(|instruction| match instruction {
        Instruction::Publish { key: of, manifest, .. } if of == *key => Some(manifest),
        _ => None,
    })
}

fn index_of(state: &State, key: &AttemptKey) -> Option<u64> {
    proto::ranges::index_of(state.ranges(key.job_id)?, key.ordinal)
}
