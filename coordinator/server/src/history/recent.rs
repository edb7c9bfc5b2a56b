//! Decoded segments that were read of late, so that pages of a list and the tasks of a job don't read them anew.

use std::{collections::BTreeMap, sync::Arc};

use scheduler::Archive;

/// The most bytes that are kept.
const BYTES: usize = 64 << 20;

/// Archives by their number; those that were not asked for longest go first.
#[derive(Debug)]
pub struct Recent<T = Archive> {
    kept: BTreeMap<u32, Kept<T>>,
    bytes: usize,
    most_bytes: usize,
    /// Rises with each use.
    now: u64,
}

#[derive(Debug)]
struct Kept<T> {
    archive: Arc<T>,
    bytes: usize,
    used: u64,
}

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Self::of(BYTES)
    }
}

impl<T> Recent<T> {
    fn of(most_bytes: usize) -> Self {
        Self { kept: BTreeMap::new(), bytes: 0, most_bytes, now: 0 }
    }

    /// The archive of this number, if it is here.
    pub fn get(&mut self, number: u32) -> Option<Arc<T>> {
        self.now += 1;
        let kept = self.kept.get_mut(&number)?;
        kept.used = self.now;
        Some(Arc::clone(&kept.archive))
    }

    /// Keeps an archive of so many bytes, in place of older ones. One that is larger than all room isn't kept.
    pub fn put(&mut self, number: u32, archive: Arc<T>, bytes: usize) {
        if bytes > self.most_bytes {
            return;
        }
        self.now += 1;
        if let Some(before) = self.kept.insert(number, Kept { archive, bytes, used: self.now }) {
            self.bytes -= before.bytes;
        }
        self.bytes += bytes;
        while self.bytes > self.most_bytes {
            let oldest = self.kept.iter().min_by_key(|(_, kept)| kept.used).map(|(number, _)| *number);
            let Some(kept) = oldest.and_then(|oldest| self.kept.remove(&oldest)) else { return };
            self.bytes -= kept.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(recent: &Recent<&str>) -> Vec<u32> {
        recent.kept.keys().copied().collect()
    }

    #[test]
    fn what_was_not_asked_for_longest_goes_first() {
        let mut recent = Recent::of(100);
        for number in 1..=3 {
            recent.put(number, Arc::new("archive"), 30);
        }
        assert!(recent.get(1).is_some());
        recent.put(4, Arc::new("archive"), 30);
        assert_eq!(numbers(&recent), [1, 3, 4]);
        assert!(recent.get(2).is_none());
        // Two have to go for this one.
        recent.put(5, Arc::new("archive"), 60);
        assert_eq!(numbers(&recent), [4, 5]);
    }

    #[test]
    fn one_that_is_kept_again_counts_once_and_one_that_is_too_large_not_at_all() {
        let mut recent = Recent::of(100);
        recent.put(1, Arc::new("archive"), 60);
        recent.put(1, Arc::new("archive"), 60);
        recent.put(2, Arc::new("archive"), 40);
        recent.put(3, Arc::new("archive"), 101);
        assert_eq!(numbers(&recent), [1, 2]);
    }
}
