//! All jobs, by number, in shards that snapshots share. Of a job that has left for the history its outcome stays, and
//! where it is found.

use std::sync::Arc;

use proto::v1::JobState;

use super::Job;

/// Jobs in a shard: what the first change after a snapshot copies the pointers of.
pub(crate) const SHARD: usize = 512;

#[derive(Debug, Clone, Default)]
pub(crate) struct Jobs {
    shards: Vec<Arc<Shard>>,
    /// Shards that are not there in front of them: only where one job was taken out, to be looked at.
    base: usize,
    len: u64,
    /// Derived: how many have not left.
    here: u64,
}

/// What is left of a job that is in the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone {
    /// How it ended.
    pub state: JobState,
    /// The code that those who wait for it look at, if it failed with one.
    pub exit_code: Option<i32>,
    /// The segment that its record is in.
    pub first_segment: u32,
    /// How many segments, that one included, hold it.
    pub segments: u32,
}

impl Gone {
    /// The exit code that those who wait for it look at.
    pub(crate) fn end_code(&self) -> Option<i32> {
        if self.state == JobState::Succeeded { Some(0) } else { self.exit_code }
    }
}

#[derive(Debug, Clone, Default)]
struct Shard {
    /// Absent where a job has left; empty when all have.
    jobs: Vec<Option<Arc<Job>>>,
    /// Those that have left, ascending.
    gone: Vec<Run>,
}

/// Neighbours that left alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    first: u16,
    count: u16,
    gone: Gone,
}

impl Shard {
    fn gone(&self, position: usize) -> Option<Gone> {
        let behind = self.gone.partition_point(|run| usize::from(run.first) <= position);
        let run = self.gone.get(behind.checked_sub(1)?)?;
        (position < usize::from(run.first + run.count)).then_some(run.gone)
    }

    fn note_gone(&mut self, position: usize, gone: Gone) {
        let position = position as u16;
        let at = self.gone.partition_point(|run| run.first < position);
        self.gone.insert(at, Run { first: position, count: 1, gone });
        for at in [at + 1, at] {
            if let Some([before, after]) = at.checked_sub(1).and_then(|before| self.gone.get(before..=at))
                && before.first + before.count == after.first
                && before.gone == after.gone
            {
                self.gone[at - 1].count += self.gone[at].count;
                self.gone.remove(at);
            }
        }
        let left: usize = self.gone.iter().map(|run| usize::from(run.count)).sum();
        if left == SHARD {
            self.jobs = Vec::new();
        }
    }
}

impl Jobs {
    fn place_of(&self, id: u64) -> Option<(usize, usize)> {
        let position = usize::try_from(id.checked_sub(1)?).ok()?;
        Some(((position / SHARD).checked_sub(self.base)?, position % SHARD))
    }

    /// One job alone, under its number.
    pub fn alone(id: u64, job: Arc<Job>) -> Self {
        let base = (id.saturating_sub(1) / SHARD as u64) as usize;
        let mut jobs = Self { shards: vec![Arc::default()], base, len: id, here: 1 };
        jobs.put_back(id, job);
        jobs
    }

    /// How many there ever were: also the number of the newest.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// How many have not left.
    pub fn here(&self) -> u64 {
        self.here
    }

    /// One that has not left, with what it shares.
    pub fn shared(&self, id: u64) -> Option<&Arc<Job>> {
        let (shard, position) = self.place_of(id)?;
        self.shards.get(shard)?.jobs.get(position)?.as_ref()
    }

    /// One that has not left.
    pub fn get(&self, id: u64) -> Option<&Job> {
        let (shard, position) = self.place_of(id)?;
        self.shards.get(shard)?.jobs.get(position)?.as_deref()
    }

    pub fn get_mut(&mut self, id: u64) -> Option<&mut Job> {
        let (shard, position) = self.place_of(id)?;
        let shard = Arc::make_mut(self.shards.get_mut(shard)?);
        shard.jobs.get_mut(position)?.as_mut().map(Arc::make_mut)
    }

    /// What is left of one that has left.
    pub fn gone(&self, id: u64) -> Option<Gone> {
        let (shard, position) = self.place_of(id)?;
        self.shards.get(shard)?.gone(position)
    }

    /// Adds the next one; its number.
    pub fn push(&mut self, job: Job) -> u64 {
        self.next_shard().jobs.push(Some(Arc::new(job)));
        self.len += 1;
        self.here += 1;
        self.len
    }

    /// Adds the next ones as such that have left.
    pub fn push_gone(&mut self, count: u32, gone: Gone) {
        for _ in 0..count {
            let position = self.len as usize % SHARD;
            let shard = self.next_shard();
            shard.jobs.push(None);
            shard.note_gone(position, gone);
            self.len += 1;
        }
    }

    fn next_shard(&mut self) -> &mut Shard {
        if self.len.is_multiple_of(SHARD as u64) {
            self.shards.push(Arc::new(Shard { jobs: Vec::with_capacity(SHARD), gone: Vec::new() }));
        }
        Arc::make_mut(self.shards.last_mut().expect("there is one"))
    }

    /// Lets a job go.
    pub fn leave(&mut self, id: u64, gone: Gone) -> Option<Arc<Job>> {
        let (shard, position) = self.place_of(id)?;
        let shard = Arc::make_mut(self.shards.get_mut(shard)?);
        let job = shard.jobs.get_mut(position)?.take()?;
        shard.note_gone(position, gone);
        self.here -= 1;
        Some(job)
    }

    /// Puts a job that has left back in its place, to be looked at.
    pub fn put_back(&mut self, id: u64, job: Arc<Job>) {
        let Some((shard, position)) = self.place_of(id) else { return };
        let Some(shard) = self.shards.get_mut(shard).map(Arc::make_mut) else { return };
        if shard.jobs.is_empty() {
            shard.jobs.resize(SHARD, None);
        }
        shard.jobs[position] = Some(job);
    }

    /// Those that have not left, shard by shard.
    pub fn by_shard(&self) -> impl Iterator<Item = Vec<(u64, &Arc<Job>)>> {
        self.shards.iter().enumerate().map(|(number, shard)| {
            let jobs = shard.jobs.iter().zip((number * SHARD) as u64 + 1..);
            jobs.filter_map(|(job, id)| Some((id, job.as_ref()?))).collect()
        })
    }

    /// Those that have not left.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &Job)> {
        self.by_shard().flatten().map(|(id, job)| (id, job.as_ref()))
    }

    /// Those that have left: number of the first, how many alike, and what is left of each.
    pub fn gone_runs(&self) -> impl Iterator<Item = (u64, u32, Gone)> + '_ {
        let runs = self.shards.iter().enumerate().flat_map(|(number, shard)| {
            let first = (number * SHARD) as u64 + 1;
            shard.gone.iter().map(move |run| (first + u64::from(run.first), u32::from(run.count), run.gone))
        });
        let mut runs = runs.peekable();
        std::iter::from_fn(move || {
            let (first, mut count, gone) = runs.next()?;
            while let Some((_, more, _)) =
                runs.next_if(|(next, _, alike)| *next == first + u64::from(count) && *alike == gone)
            {
                count += more;
            }
            Some((first, count, gone))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gone(first_segment: u32) -> Gone {
        Gone { state: JobState::Succeeded, exit_code: None, first_segment, segments: 1 }
    }

    #[test]
    fn those_that_left_alike_are_one_run_across_shards() {
        let mut jobs = Jobs::default();
        jobs.push_gone(1_500, gone(1));
        assert_eq!((jobs.len(), jobs.here()), (1_500, 0));
        assert_eq!(jobs.gone_runs().collect::<Vec<_>>(), [(1, 1_500, gone(1))]);
        assert!(jobs.shards[..2].iter().all(|shard| shard.jobs.is_empty() && shard.gone.len() == 1));
        assert_eq!(
            (jobs.gone(1), jobs.gone(1_500), jobs.gone(1_501), jobs.gone(0)),
            (Some(gone(1)), Some(gone(1)), None, None)
        );
    }

    #[test]
    fn runs_are_the_same_in_whatever_order_jobs_leave() {
        let leave = |order: &[usize]| {
            let mut shard = Shard { jobs: vec![None; SHARD], gone: Vec::new() };
            for position in order {
                shard.note_gone(*position, gone(if *position < 4 { 1 } else { 2 }));
            }
            shard.gone
        };
        let expected = [Run { first: 1, count: 3, gone: gone(1) }, Run { first: 4, count: 2, gone: gone(2) }];
        for order in [[1, 2, 3, 4, 5], [5, 3, 1, 2, 4], [2, 4, 5, 1, 3]] {
            assert_eq!(leave(&order), expected);
        }
    }
}
