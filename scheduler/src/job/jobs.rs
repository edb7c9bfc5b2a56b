//! All jobs, by number, in shards that snapshots share.

use std::sync::Arc;

use super::Job;

/// Jobs in a shard: what the first change after a snapshot copies the pointers of.
pub(crate) const SHARD: usize = 512;

#[derive(Debug, Clone, Default)]
pub(crate) struct Jobs {
    shards: Vec<Arc<Vec<Arc<Job>>>>,
}

impl Jobs {
    /// How many there are: also the number of the newest.
    pub fn len(&self) -> u64 {
        match self.shards.last() {
            None => 0,
            Some(last) => ((self.shards.len() - 1) * SHARD + last.len()) as u64,
        }
    }

    pub fn get(&self, id: u64) -> Option<&Job> {
        let position = usize::try_from(id.checked_sub(1)?).ok()?;
        self.shards.get(position / SHARD)?.get(position % SHARD).map(Arc::as_ref)
    }

    pub fn get_mut(&mut self, id: u64) -> Option<&mut Job> {
        let position = usize::try_from(id.checked_sub(1)?).ok()?;
        let shard = Arc::make_mut(self.shards.get_mut(position / SHARD)?);
        shard.get_mut(position % SHARD).map(Arc::make_mut)
    }

    /// Adds the next one; its number.
    pub fn push(&mut self, job: Job) -> u64 {
        match self.shards.last_mut() {
            Some(last) if last.len() < SHARD => Arc::make_mut(last).push(Arc::new(job)),
            _ => {
                let mut shard = Vec::with_capacity(SHARD);
                shard.push(Arc::new(job));
                self.shards.push(Arc::new(shard));
            }
        }
        self.len()
    }

    pub fn shards(&self) -> &[Arc<Vec<Arc<Job>>>] {
        &self.shards
    }

    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (u64, &Job)> {
        let shards = self.shards.iter().enumerate();
        shards.flat_map(|(number, shard)| {
            shard.iter().enumerate().map(move |(at, job)| ((number * SHARD + at) as u64 + 1, job.as_ref()))
        })
    }
}
