//! Logs: read from the worker that spools them, or from S3 once they lie there; followed through retries.
//!
//! A read is a sequence of questions to one worker, one at a time for each stream, so that a slow reader holds the
//! worker back and not our memory.

use std::collections::{BTreeMap, BTreeSet};

use proto::internal::{StoredLog, call_response::Response};
use proto::v1::{
    AttemptKey, LogData, LogStream, ReadLog, ReadLogsRequest, ReadLogsResponse, TaskState, coordinator_message::Message,
};
use scheduler::{Detail, Event};

use crate::{CallId, core::Core, limits, refusal};

/// All reads of logs that are under way.
#[derive(Debug, Default)]
pub(crate) struct Logs {
    reads: BTreeMap<CallId, Read>,
    by_job: BTreeMap<u64, BTreeSet<CallId>>,
    requests: BTreeMap<u64, (CallId, LogStream)>,
    last_request: u64,
    /// Reads that may be able to go on.
    stirred: BTreeSet<CallId>,
}

#[derive(Debug)]
struct Read {
    job: u64,
    ordinal: u32,
    /// Asked for by number: no other attempt is of interest.
    only: Option<u32>,
    /// The attempt that is being read; 0: none yet.
    attempt: u32,
    follow: bool,
    streams: Vec<StreamRead>,
    untaken: u32,
}

#[derive(Debug)]
struct StreamRead {
    stream: LogStream,
    /// Where to go on; negative: so many bytes before the end.
    offset: i64,
    asked: Option<Asked>,
    ended: bool,
}

#[derive(Debug, Clone, Copy)]
struct Asked {
    request: u64,
    session: u64,
}

impl Logs {
    pub(crate) fn remove(&mut self, call: CallId) {
        let Some(read) = self.reads.remove(&call) else { return };
        for asked in read.streams.iter().filter_map(|stream| stream.asked) {
            self.requests.remove(&asked.request);
        }
        if let Some(calls) = self.by_job.get_mut(&read.job) {
            calls.remove(&call);
            if calls.is_empty() {
                self.by_job.remove(&read.job);
            }
        }
        self.stirred.remove(&call);
    }

    pub(crate) fn taken(&mut self, call: CallId, count: u32) {
        if let Some(read) = self.reads.get_mut(&call) {
            read.untaken = read.untaken.saturating_sub(count);
            self.stirred.insert(call);
        }
    }

    /// What a read waited for is there.
    pub(crate) fn stir(&mut self, call: CallId) {
        if self.reads.contains_key(&call) {
            self.stirred.insert(call);
        }
    }

    /// Something happened to tasks that may be read.
    pub(crate) fn wake(&mut self, events: &[Event]) {
        if self.reads.is_empty() {
            return;
        }
        for event in events {
            if let Event::JobChanged { job, .. } | Event::TasksChanged { job, .. } = event {
                self.stirred.extend(self.by_job.get(job).into_iter().flatten());
            }
        }
    }

    /// A worker is back on a new stream: what it was asked on the old one has to be asked again.
    pub(crate) fn attached(&mut self, session: u64) {
        self.ask_again(session);
    }

    pub(crate) fn session_ended(&mut self, session: u64) {
        self.ask_again(session);
    }

    fn ask_again(&mut self, session: u64) {
        for (call, read) in &mut self.reads {
            for stream in &mut read.streams {
                if let Some(asked) = stream.asked.take_if(|asked| asked.session == session) {
                    self.requests.remove(&asked.request);
                }
            }
            self.stirred.insert(*call);
        }
    }
}

/// What a read does next.
enum Step {
    Wait,
    Ask {
        session: u64,
        ended: bool,
    },
    Stored {
        session: u64,
        bundle: u32,
        stdout_bytes: u64,
        stderr_bytes: u64,
    },
    /// Nothing of this attempt can be read any more.
    Lost,
    NextAttempt(u32),
    Done,
}

impl Core {
    pub(crate) fn read_logs(&mut self, call: CallId, request: &ReadLogsRequest) {
        let state = self.state_for(call, request.job_id);
        let Some(ranges) = state.ranges(request.job_id) else {
            return self.finish(call, Err(refusal::job_not_found(request.job_id)));
        };
        let Some(ordinal) = proto::ranges::ordinal_of(ranges, request.index) else {
            return self.finish(call, Err(task_not_found(request.job_id, request.index)));
        };
        let latest = state.task(request.job_id, ordinal, false).map_or(0, |task| task.attempt);
        if request.attempt > latest {
            let message = format!("task {}.{} has no attempt {}", request.job_id, request.index, request.attempt);
            let hint = "see its attempts with `millgrid show --tasks --attempts`";
            return self.finish(call, Err(refusal::not_found("attempt", message, hint)));
        }
        let wanted = |stream: LogStream| request.stream() == LogStream::Unspecified || request.stream() == stream;
        let streams = [(LogStream::Stdout, request.stdout_offset), (LogStream::Stderr, request.stderr_offset)]
            .into_iter()
            .filter(|(stream, _)| wanted(*stream))
            .map(|(stream, offset)| StreamRead { stream, offset, asked: None, ended: false })
            .collect();
        let only = (request.attempt > 0).then_some(request.attempt);
        let read = Read {
            job: request.job_id,
            ordinal,
            only,
            attempt: only.unwrap_or(latest),
            follow: request.follow,
            streams,
            untaken: 0,
        };
        self.logs.by_job.entry(request.job_id).or_default().insert(call);
        self.logs.reads.insert(call, read);
        self.logs.stirred.insert(call);
    }

    /// Lets every read go on that may.
    pub(crate) fn tend_logs(&mut self) {
        while let Some(call) = self.logs.stirred.pop_first() {
            self.go_on(call);
        }
    }

    fn go_on(&mut self, call: CallId) {
        loop {
            // The job may have ended and left since the read began.
            let Some(job) = self.logs.reads.get(&call).map(|read| read.job) else { return };
            if !self.has_or_fetches(call, [job], Detail::Tasks) {
                return;
            }
            let Some(read) = self.logs.reads.get(&call) else { return };
            match self.next_step(call, read) {
                Step::Wait => return,
                Step::Ask { session, ended } => return self.ask(call, session, ended),
                Step::Stored { session, bundle, stdout_bytes, stderr_bytes } => {
                    self.refer_to_store(call, session, bundle, stdout_bytes, stderr_bytes);
                }
                Step::Lost => self.end_streams(call),
                Step::NextAttempt(attempt) => {
                    if let Some(read) = self.logs.reads.get_mut(&call) {
                        read.attempt = attempt;
                        for stream in &mut read.streams {
                            (stream.offset, stream.ended) = (0, false);
                        }
                    }
                }
                Step::Done => return self.finish(call, Ok(())),
            }
        }
    }

    fn next_step(&self, call: CallId, read: &Read) -> Step {
        if read.streams.iter().all(|stream| stream.ended) || read.attempt == 0 {
            return self.behind_attempt(call, read);
        }
        let location = self.state_for(call, read.job).logs(read.job, read.ordinal, read.attempt);
        let Some(location) = location else { return Step::Lost };
        if self.sessions.stream_of(location.session).is_some() {
            Step::Ask { session: location.session, ended: location.ended }
        } else if !location.ended && self.state.session(location.session).is_some() {
            Step::Wait
        } else if location.stdout_bytes + location.stderr_bytes == 0 {
            Step::Lost
        } else {
            Step::Stored {
                session: location.session,
                bundle: location.bundle,
                stdout_bytes: location.stdout_bytes,
                stderr_bytes: location.stderr_bytes,
            }
        }
    }

    /// What comes when an attempt was read to its end, or there is none yet.
    fn behind_attempt(&self, call: CallId, read: &Read) -> Step {
        let task = self.state_for(call, read.job).task(read.job, read.ordinal, false);
        let Some(task) = task.filter(|_| read.follow && read.only.is_none()) else {
            return Step::Done;
        };
        let over = matches!(
            task.state(),
            TaskState::Succeeded | TaskState::Failed | TaskState::Cancelled | TaskState::Skipped
        );
        if task.attempt > read.attempt {
            Step::NextAttempt(task.attempt)
        } else if over {
            Step::Done
        } else {
            Step::Wait
        }
    }

    fn ask(&mut self, call: CallId, session: u64, ended: bool) {
        let Some(worker) = self.sessions.stream_of(session) else { return };
        let Some(read) = self.logs.reads.get_mut(&call) else { return };
        let mut questions = Vec::new();
        for stream in &mut read.streams {
            if stream.ended || stream.asked.is_some() || read.untaken >= limits::UNTAKEN_MESSAGES {
                continue;
            }
            self.logs.last_request += 1;
            let request = self.logs.last_request;
            stream.asked = Some(Asked { request, session });
            self.logs.requests.insert(request, (call, stream.stream));
            questions.push(ReadLog {
                request,
                attempt: Some(AttemptKey { job_id: read.job, ordinal: read.ordinal, attempt: read.attempt }),
                stream: stream.stream as i32,
                offset: stream.offset,
                max_bytes: limits::LOG_PIECE_BYTES,
                follow: read.follow && !ended,
            });
        }
        for question in questions {
            self.send_worker(worker, Message::ReadLog(question));
        }
    }

    pub(crate) fn log_data(&mut self, _worker: CallId, data: LogData) {
        let Some((call, stream)) = self.logs.requests.remove(&data.request) else { return };
        let Some(read) = self.logs.reads.get_mut(&call) else { return };
        let Some(position) = read.streams.iter().position(|one| one.stream == stream) else { return };
        let one = &mut read.streams[position];
        one.asked = None;
        self.logs.stirred.insert(call);
        if data.gone {
            let (job, ordinal, attempt) = (read.job, read.ordinal, read.attempt);
            let state = self.history.moved(call, job).unwrap_or(&self.state);
            match state.logs(job, ordinal, attempt).filter(|location| location.ended) {
                Some(location) => {
                    let (session, bundle) = (location.session, location.bundle);
                    self.refer_to_store(call, session, bundle, location.stdout_bytes, location.stderr_bytes);
                }
                // It has left: what there is to know of it is fetched first.
                None if self.state.gone(job).is_some() => {}
                // Its end is on the way: the event of it stirs this read again.
                None => {
                    self.logs.stirred.remove(&call);
                }
            }
            return;
        }
        one.offset = (data.offset + data.data.len() as u64) as i64;
        // Without `follow`, nothing new means that this is all there is so far.
        one.ended = data.end || (!read.follow && data.data.is_empty());
        if data.data.is_empty() && !data.end {
            return;
        }
        read.untaken += 1;
        let response = ReadLogsResponse {
            stream: stream as i32,
            attempt: read.attempt,
            offset: data.offset,
            data: data.data,
            lost_bytes: 0,
            end: data.end,
        };
        self.respond(call, Response::ReadLogs(response));
    }

    /// The front reads the rest of this attempt from S3.
    fn refer_to_store(&mut self, call: CallId, session: u64, bundle: u32, stdout_bytes: u64, stderr_bytes: u64) {
        let Some(read) = self.logs.reads.get_mut(&call) else { return };
        let open: Vec<&mut StreamRead> = read.streams.iter_mut().filter(|stream| !stream.ended).collect();
        let stream = match &open[..] {
            [] => return,
            [one] => one.stream,
            _ => LogStream::Unspecified,
        };
        let (mut stdout_offset, mut stderr_offset) = (0, 0);
        for stream in open {
            match stream.stream {
                LogStream::Stderr => stderr_offset = stream.offset,
                LogStream::Stdout | LogStream::Unspecified => stdout_offset = stream.offset,
            }
            stream.ended = true;
            if let Some(asked) = stream.asked.take() {
                self.logs.requests.remove(&asked.request);
            }
        }
        let attempt = Some(AttemptKey { job_id: read.job, ordinal: read.ordinal, attempt: read.attempt });
        let stored = StoredLog {
            attempt,
            session,
            bundle,
            stdout_bytes,
            stderr_bytes,
            stdout_offset,
            stderr_offset,
            stream: stream as i32,
        };
        read.untaken += 1;
        self.respond(call, Response::StoredLog(stored));
    }

    fn end_streams(&mut self, call: CallId) {
        let Some(read) = self.logs.reads.get_mut(&call) else { return };
        let attempt = read.attempt;
        let mut ends = Vec::new();
        for stream in read.streams.iter_mut().filter(|stream| !stream.ended) {
            stream.ended = true;
            ends.push(ReadLogsResponse {
                stream: stream.stream as i32,
                attempt,
                offset: stream.offset.max(0) as u64,
                end: true,
                ..ReadLogsResponse::default()
            });
        }
        for end in ends {
            self.respond(call, Response::ReadLogs(end));
        }
    }

    pub(crate) fn taken(&mut self, call: CallId, count: u32) {
        self.watches.taken(call, count);
        self.logs.taken(call, count);
    }
}

pub(crate) fn task_not_found(job: u64, index: u64) -> proto::internal::Refusal {
    refusal::not_found("index", format!("job {job} has no task {index}"), "see its tasks with `millgrid show --tasks`")
}
