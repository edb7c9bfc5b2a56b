//! Reading segments, and looking at what is in them.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::Arc,
};

use bytes::Bytes;
use imbl::OrdMap;
use prost::Message;
use proto::internal::{HistoryPiece, StateTasks, history_piece::Piece, state_tasks};

use crate::{
    Malformed, State,
    job::{Chunk, Gone, Job, Jobs, Published},
    limits,
    snapshot::{read_chunk, read_job, read_published, read_terms},
};

/// What of jobs in the history is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// What there is to say of the job as a whole.
    Record,
    /// All of it.
    Tasks,
}

/// A segment that was read.
#[derive(Debug, Clone)]
pub struct Archive {
    number: u32,
    bytes: usize,
    /// Jobs that begin in it, whole or in part.
    jobs: BTreeMap<u64, Arc<Job>>,
    /// More of the job that an earlier segment began.
    more: Option<(u64, More)>,
}

#[derive(Debug, Clone, Default)]
struct More {
    chunks: Vec<state_tasks::Chunk>,
    outputs: OrdMap<u32, Arc<Published>>,
}

impl Archive {
    /// Reads the bytes of a segment, of which the checksum was compared.
    pub fn read(number: u32, data: &Bytes) -> Result<Self, Malformed> {
        let mut archive = Self { number, bytes: data.len(), jobs: BTreeMap::new(), more: None };
        let mut rest = data.clone();
        let mut headed = false;
        while !rest.is_empty() {
            let piece = HistoryPiece::decode_length_delimited(&mut rest).map_err(|_| Malformed("not a segment"))?;
            match piece.piece.ok_or(Malformed("an empty piece"))? {
                Piece::Header(header) if header.number == number => headed = true,
                Piece::Header(_) => return Err(Malformed("another segment")),
                Piece::Jobs(_) | Piece::Tasks(_) if !headed => {
                    return Err(Malformed("the header isn't the first piece"));
                }
                Piece::Jobs(piece) => {
                    let jobs = piece.jobs.unwrap_or_default();
                    let terms = jobs.terms.into_iter().map(|terms| Ok(Arc::new(read_terms(terms)?)));
                    let terms = terms.collect::<Result<Vec<_>, Malformed>>()?;
                    for (id, job) in piece.ids.into_iter().zip(jobs.jobs) {
                        let terms = terms.get(job.terms as usize).ok_or(Malformed("a job without terms"))?.clone();
                        archive.jobs.insert(id, Arc::new(read_job(job, terms)?));
                    }
                }
                Piece::Tasks(tasks) => archive.tasks(tasks)?,
            }
        }
        if headed { Ok(archive) } else { Err(Malformed("not a segment")) }
    }

    fn tasks(&mut self, piece: StateTasks) -> Result<(), Malformed> {
        let outputs = piece.outputs.into_iter().map(read_published).collect::<Result<OrdMap<_, _>, Malformed>>()?;
        match self.jobs.get_mut(&piece.job) {
            Some(job) => {
                let job = Arc::make_mut(job);
                extend(job, piece.chunks, outputs)
            }
            None if self.more.is_none() => {
                self.more = Some((piece.job, More { chunks: piece.chunks, outputs }));
                Ok(())
            }
            None => Err(Malformed("tasks without a job")),
        }
    }

    /// Its number, from 1.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// About how much memory it takes.
    pub fn bytes(&self) -> usize {
        4 * self.bytes
    }
}

fn extend(
    job: &mut Job,
    chunks: Vec<state_tasks::Chunk>,
    outputs: OrdMap<u32, Arc<Published>>,
) -> Result<(), Malformed> {
    let count = job.tasks.count();
    let chunks = chunks.into_iter().map(|chunk| Ok((chunk.number, Arc::new(read_chunk(chunk, count)?))));
    job.tasks.extend(chunks.collect::<Result<OrdMap<u32, Arc<Chunk>>, Malformed>>()?);
    if !outputs.is_empty() {
        job.extra_mut().outputs.extend(outputs);
    }
    Ok(())
}

impl State {
    /// What is left of a job that is in the history.
    pub fn gone(&self, job: u64) -> Option<Gone> {
        self.jobs.gone(job)
    }

    /// The segments that hold a job that has left: all of it, or its record without its tasks.
    pub fn segments_of(&self, job: u64, detail: Detail) -> Range<u32> {
        let Some(gone) = self.jobs.gone(job) else { return 0..0 };
        let count = if detail == Detail::Tasks { gone.segments } else { 1 };
        gone.first_segment..gone.first_segment + count
    }

    /// The segments with the records of jobs that have left, from this number down: so many at most.
    pub fn segments_below(&self, from: u64, most: usize) -> BTreeSet<u32> {
        let mut segments = BTreeSet::new();
        for id in (1..=from).rev().take(limits::LIST_SCAN) {
            let Some(gone) = self.jobs.gone(id) else { continue };
            if segments.len() == most && !segments.contains(&gone.first_segment) {
                break;
            }
            segments.insert(gone.first_segment);
        }
        segments
    }

    /// A job alone in a state of its own, to be looked at for as long as somebody likes: a clone of the whole state would
    /// keep all of it.
    pub fn alone(&self, job: u64) -> Option<Self> {
        let record = self.jobs.shared(job)?.clone();
        // Sessions keep their numbers for ever, and workers their names.
        let session_workers = self.session_workers.clone();
        Some(Self { session_workers, jobs: Jobs::alone(job, record), ..Self::new() })
    }

    /// This state with all jobs of these segments that have left it put back, to be looked at alone: its indexes don't
    /// know them. With their tasks, a job that is in several segments is put back only when all of them are there.
    pub fn with_archives(&self, archives: &[Arc<Archive>], detail: Detail) -> Result<Self, Malformed> {
        let mut state = self.clone();
        for archive in archives {
            for (id, job) in &archive.jobs {
                // What a segment holds of a job that was opened again isn't true.
                let Some(gone) = self.jobs.gone(*id).filter(|gone| gone.first_segment == archive.number) else {
                    continue;
                };
                if gone.segments == 1 || detail == Detail::Record {
                    state.jobs.put_back(*id, job.clone());
                    continue;
                }
                let mut whole = Job::clone(job);
                let numbers = archive.number + 1..archive.number + gone.segments;
                let mut found = 0;
                for more in archives.iter().filter(|more| numbers.contains(&more.number)) {
                    let Some((_, more)) = more.more.as_ref().filter(|(of, _)| of == id) else { continue };
                    extend(&mut whole, more.chunks.clone(), more.outputs.clone())?;
                    found += 1;
                }
                if found == gone.segments - 1 {
                    state.jobs.put_back(*id, Arc::new(whole));
                }
            }
        }
        Ok(state)
    }
}
