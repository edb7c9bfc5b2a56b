//! What a snapshot keeps of the history: its table of segments, and what is left of the jobs in them.

use bytes::Bytes;
use imbl::OrdMap;
use proto::{
    internal::{StateGone, StateSegments, state_gone, state_header, state_piece::Piece, state_segments},
    v1::JobState,
};

use super::{Malformed, decode::Reader, records::hash_of};
use crate::{
    State,
    history::{Cut, History, Next, Part, Segment},
    job::Gone,
};

/// How many small records make a piece.
const RECORDS_IN_A_PIECE: usize = 16_384;

impl History {
    pub(super) fn header(&self) -> state_header::History {
        let cut = |(job, cut): (&u64, &Cut)| state_header::Cut {
            job_id: *job,
            first_segment: cut.first_segment,
            segments: cut.segments,
        };
        let part = |part: Part| {
            let (outputs, from) = match part.next {
                Next::Chunk(from) => (false, from),
                Next::Output(from) => (true, from),
            };
            state_header::Part { job_id: part.job, first_segment: part.first_segment, outputs, from }
        };
        state_header::History {
            keep_ms: self.keep_ms,
            keep_jobs: self.keep_jobs,
            settled: self.settled,
            cuts: self.cuts.iter().map(cut).collect(),
            part: self.part.map(part),
        }
    }
}

/// The header of a history; its segments follow.
pub(super) fn read_history(header: state_header::History) -> Result<History, Malformed> {
    let cut = |cut: state_header::Cut| {
        let good = cut.first_segment > 0 && cut.segments > 0;
        let read = Cut { first_segment: cut.first_segment, segments: cut.segments };
        if good { Ok((cut.job_id, read)) } else { Err(Malformed("a job in no segment")) }
    };
    Ok(History {
        keep_ms: header.keep_ms,
        keep_jobs: header.keep_jobs,
        settled: header.settled,
        cuts: header.cuts.into_iter().map(cut).collect::<Result<OrdMap<_, _>, Malformed>>()?,
        part: header.part.map(|part| Part {
            job: part.job_id,
            first_segment: part.first_segment,
            next: if part.outputs { Next::Output(part.from) } else { Next::Chunk(part.from) },
        }),
        ..History::default()
    })
}

impl State {
    pub(super) fn segment_pieces(&self) -> impl Iterator<Item = Piece> + '_ {
        let mut segments = self.history.segments.iter();
        std::iter::from_fn(move || {
            let segments: Vec<_> = segments
                .by_ref()
                .take(RECORDS_IN_A_PIECE)
                .map(|segment| state_segments::Segment {
                    index: segment.index,
                    bytes: segment.bytes,
                    checksum: Bytes::copy_from_slice(&segment.checksum),
                    jobs: segment.jobs,
                })
                .collect();
            (!segments.is_empty()).then_some(Piece::Segments(StateSegments { segments }))
        })
    }

    pub(super) fn gone_pieces(&self) -> impl Iterator<Item = Piece> + '_ {
        let mut runs = self.jobs.gone_runs();
        std::iter::from_fn(move || {
            let runs: Vec<_> = runs
                .by_ref()
                .take(RECORDS_IN_A_PIECE)
                .map(|(first, count, gone)| state_gone::Run {
                    first,
                    count,
                    state: gone.state as i32,
                    exit_code: gone.exit_code,
                    first_segment: gone.first_segment,
                    segments: gone.segments,
                })
                .collect();
            (!runs.is_empty()).then_some(Piece::Gone(StateGone { runs }))
        })
    }
}

impl Reader {
    pub(super) fn segments(&mut self, piece: StateSegments) -> Result<(), Malformed> {
        for segment in piece.segments {
            let checksum = hash_of(&segment.checksum)?;
            let read = Segment { index: segment.index, bytes: segment.bytes, checksum, jobs: segment.jobs };
            self.state.history.segments.push_back(read);
        }
        Ok(())
    }

    pub(super) fn gone(&mut self, piece: StateGone) -> Result<(), Malformed> {
        for run in piece.runs {
            let state = JobState::try_from(run.state).unwrap_or_default();
            let ended = [JobState::Succeeded, JobState::Failed, JobState::Cancelled, JobState::Skipped];
            let behind = self.gone.last().map_or(1, |(first, count, _)| first + u64::from(*count));
            let last_segment = run.first_segment.checked_add(run.segments).filter(|end| run.segments > 0 && *end > 1);
            let known = last_segment.is_some_and(|end| end as usize <= self.state.history.segments.len() + 1);
            if !ended.contains(&state) || run.first < behind || run.count == 0 || run.first_segment == 0 || !known {
                return Err(Malformed("jobs that can't have left"));
            }
            let gone =
                Gone { state, exit_code: run.exit_code, first_segment: run.first_segment, segments: run.segments };
            self.gone.push((run.first, run.count, gone));
        }
        Ok(())
    }

    /// Numbers of jobs that have left are not given to others.
    pub(super) fn skip_gone(&mut self) {
        while let Some((first, count, _)) = self.gone.get(self.passed).filter(|(first, ..)| *first == self.next_id) {
            self.next_id = first + u64::from(*count);
            self.passed += 1;
        }
    }
}
