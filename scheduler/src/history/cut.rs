//! Writing segments.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use prost::Message;
use proto::internal::{HistoryHeader, HistoryJobs, HistoryPiece, StateTasks, history_piece::Piece};

use super::{Cut, Next, Part, Segment};
use crate::{
    Code, Event, Outcome, Rejection, State,
    apply::Step,
    job::{Job, Terms},
    limits,
    snapshot::{chunk_of, job_of, published_of, terms_of},
};

impl State {
    pub(crate) fn admit_cut(&self) -> Result<(), Rejection> {
        let history = &self.history;
        if history.segments.len() as u64 - u64::from(history.settled) >= u64::from(limits::UNSETTLED_SEGMENTS) {
            let message = format!("{} segments wait for a majority to hold them", limits::UNSETTLED_SEGMENTS);
            return Err(Rejection::new(Code::ResourceExhausted, "UNSETTLED_SEGMENTS", "", message));
        }
        Ok(())
    }
}

impl Step<'_> {
    /// Writes what is due into the next segment; how many jobs begin in it.
    pub fn cut_segment(&mut self) -> Outcome {
        let State { rules, index, .. } = *self.state;
        let number = self.state.history.segments.len() as u32 + 1;
        let mut writer = Writer::new(rules, number);
        while writer.has_room() {
            let Some(mut part) = self.state.history.part.or_else(|| self.begin(number, &mut writer)) else { break };
            let job = self.state.jobs.get(part.job).expect("a job that is being written is there");
            let whole = writer.tasks(job, &mut part);
            let history = &mut self.state.history;
            if whole {
                let Part { job, first_segment, .. } = part;
                history.cuts.insert(job, Cut { first_segment, segments: number - first_segment + 1 });
            }
            history.part = (!whole).then_some(part);
        }
        let Some((data, jobs)) = writer.finish() else { return Outcome::Count(0) };
        let checksum = *blake3::hash(&data).as_bytes();
        self.state.history.segments.push_back(Segment { index, bytes: data.len() as u32, checksum, jobs });
        self.events.push(Event::SegmentCut { number, checksum, data });
        Outcome::Count(jobs)
    }

    /// Writes the record of the next job that is due.
    fn begin(&mut self, number: u32, writer: &mut Writer) -> Option<Part> {
        let next = self.state.next_to_write(self.state.wall_ms)?;
        self.state.history.free.remove(&next);
        let (_, id) = next;
        writer.job(id, self.state.jobs.get(id).expect("what is due is there"));
        Some(Part { job: id, first_segment: number, next: Next::Chunk(0) })
    }
}

/// A segment on its way.
struct Writer {
    header: HistoryHeader,
    jobs: HistoryJobs,
    /// Positions of terms in `jobs`.
    terms: BTreeMap<Arc<Terms>, u32>,
    tasks: Vec<StateTasks>,
    /// About how long it is.
    bytes: usize,
}

impl Writer {
    fn new(rules_version: u32, number: u32) -> Self {
        Self {
            header: HistoryHeader { rules_version, number },
            jobs: HistoryJobs::default(),
            terms: BTreeMap::new(),
            tasks: Vec::new(),
            bytes: 0,
        }
    }

    fn has_room(&self) -> bool {
        self.bytes < limits::SEGMENT_BYTES && self.jobs.ids.len() < limits::SEGMENT_JOBS
    }

    fn job(&mut self, id: u64, job: &Job) {
        let jobs = self.jobs.jobs.get_or_insert_default();
        let terms = *self.terms.entry(job.terms.clone()).or_insert_with(|| {
            let terms = terms_of(&job.terms);
            self.bytes += terms.encoded_len();
            jobs.terms.push(terms);
            jobs.terms.len() as u32 - 1
        });
        let record = job_of(job, terms);
        self.bytes += record.encoded_len() + 12;
        jobs.jobs.push(record);
        self.jobs.ids.push(id);
    }

    /// Writes on until there is no room; whether the job is whole.
    fn tasks(&mut self, job: &Job, part: &mut Part) -> bool {
        let mut piece = StateTasks { job: part.job, ..StateTasks::default() };
        if let Next::Chunk(from) = part.next {
            part.next = Next::Output(0);
            for (number, chunk) in job.tasks.chunks_from(from) {
                if self.bytes >= limits::SEGMENT_BYTES {
                    part.next = Next::Chunk(number);
                    break;
                }
                let chunk = chunk_of(number, chunk);
                self.bytes += chunk.encoded_len() + 4;
                piece.chunks.push(chunk);
            }
        }
        let mut whole = false;
        if let Next::Output(from) = part.next {
            whole = true;
            let outputs = job.extra.as_deref().into_iter().flat_map(|extra| extra.outputs.range(from..));
            for (ordinal, published) in outputs {
                if self.bytes >= limits::SEGMENT_BYTES {
                    part.next = Next::Output(*ordinal);
                    whole = false;
                    break;
                }
                let output = published_of(*ordinal, published);
                self.bytes += output.encoded_len() + 4;
                piece.outputs.push(output);
            }
        }
        if !(piece.chunks.is_empty() && piece.outputs.is_empty()) {
            self.tasks.push(piece);
        }
        whole
    }

    /// The bytes, and how many jobs begin in them; nothing when nothing was written.
    fn finish(self) -> Option<(Bytes, u32)> {
        let count = self.jobs.ids.len() as u32;
        if count == 0 && self.tasks.is_empty() {
            return None;
        }
        let jobs = (count > 0).then_some(Piece::Jobs(self.jobs));
        let pieces =
            [Piece::Header(self.header)].into_iter().chain(jobs).chain(self.tasks.into_iter().map(Piece::Tasks));
        let mut data = Vec::with_capacity(self.bytes + self.bytes / 8 + 64);
        for piece in pieces {
            HistoryPiece { piece: Some(piece) }.encode_length_delimited(&mut data).expect("a vector grows");
        }
        Some((data.into(), count))
    }
}
