//! Arrays: which indexes a job has, and which ordinal each one is.
//!
//! A task's *index* is what its submitter wrote (`0-999:10`); its *ordinal* is its position in the array, from 0.
//! Only the public API speaks of indexes; leases, bitmaps and entries speak of ordinals.

use crate::{internal::OrdinalRange, v1::IndexRange};

/// Most tasks an array may have (interfaces, section 2).
pub const MAX_ARRAY_TASKS: u64 = 100_000_000;
/// Most ranges an array may be written with: each is in the state for as long as its job.
pub const MAX_ARRAY_RANGES: usize = 10_000;
/// Highest index: what a JSON number holds exactly.
pub const MAX_INDEX: u64 = (1 << 53) - 1;

/// What is wrong with the ranges of an array.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Malformed {
    /// No task at all.
    Empty,
    /// More than [`MAX_ARRAY_TASKS`].
    TooManyTasks(u64),
    /// More than [`MAX_ARRAY_RANGES`].
    TooManyRanges(usize),
    /// A range whose last index is below its first.
    Backwards { first: u64, last: u64 },
    /// An index above [`MAX_INDEX`].
    IndexTooHigh(u64),
    /// An index that stands in two ranges.
    Repeated(u64),
}

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Empty => write!(f, "the array is empty; give at least one index, e.g. `0-9`"),
            Self::TooManyTasks(count) => {
                write!(f, "the array has {count} tasks, {MAX_ARRAY_TASKS} at most; split it into several jobs")
            }
            Self::TooManyRanges(count) => {
                write!(f, "the array has {count} ranges, {MAX_ARRAY_RANGES} at most; join neighbours, e.g. `0-9`")
            }
            Self::Backwards { first, last } => {
                write!(f, "the range {first}-{last} runs backwards; write `{last}-{first}`")
            }
            Self::IndexTooHigh(index) => write!(f, "the index {index} is above {MAX_INDEX}"),
            Self::Repeated(index) => write!(f, "the index {index} occurs more than once"),
        }
    }
}

impl std::error::Error for Malformed {}

impl IndexRange {
    /// The distance between neighbours, at least 1.
    pub fn stride(&self) -> u64 {
        self.step.max(1)
    }

    /// How many indexes it has; 0 when it runs backwards.
    pub fn count(&self) -> u64 {
        if self.last < self.first { 0 } else { (self.last - self.first) / self.stride() + 1 }
    }

    /// The position of `index` in this range.
    pub fn position(&self, index: u64) -> Option<u64> {
        let offset = index.checked_sub(self.first)?;
        (index <= self.last && offset % self.stride() == 0).then_some(offset / self.stride())
    }

    /// The highest index that it really has, which `last` need not be.
    fn highest(&self) -> u64 {
        self.first + (self.count() - 1) * self.stride()
    }
}

/// The number of tasks, or what is wrong with the ranges.
pub fn validate(ranges: &[IndexRange]) -> Result<u64, Malformed> {
    if ranges.len() > MAX_ARRAY_RANGES {
        return Err(Malformed::TooManyRanges(ranges.len()));
    }
    let mut total = 0u64;
    for range in ranges {
        if range.last < range.first {
            return Err(Malformed::Backwards { first: range.first, last: range.last });
        }
        if range.last > MAX_INDEX {
            return Err(Malformed::IndexTooHigh(range.last));
        }
        total = total.saturating_add(range.count());
    }
    if total == 0 {
        return Err(Malformed::Empty);
    }
    if total > MAX_ARRAY_TASKS {
        return Err(Malformed::TooManyTasks(total));
    }
    match first_repeated(ranges) {
        Some(index) => Err(Malformed::Repeated(index)),
        None => Ok(total),
    }
}

/// Some index that stands in two ranges.
fn first_repeated(ranges: &[IndexRange]) -> Option<u64> {
    let mut sorted: Vec<&IndexRange> = ranges.iter().collect();
    sorted.sort_by_key(|range| range.first);
    // Ranges that may still overlap the next one: those that reach as far as its first index.
    let mut open: Vec<&IndexRange> = Vec::new();
    for range in sorted {
        open.retain(|earlier| earlier.highest() >= range.first);
        if let Some(index) = open.iter().filter_map(|earlier| shared(earlier, range)).min() {
            return Some(index);
        }
        open.push(range);
    }
    None
}

/// The lowest index that two ranges share; `later` begins at or above `earlier`.
fn shared(earlier: &IndexRange, later: &IndexRange) -> Option<u64> {
    // Within one period of `earlier` the residues of `later` repeat, so that many steps decide it.
    let steps = earlier.stride().min(later.count());
    (0..steps)
        .map(|step| later.first + step * later.stride())
        .take_while(|index| *index <= earlier.highest())
        .find(|index| earlier.position(*index).is_some())
}

/// The ordinal of an index.
pub fn ordinal_of(ranges: &[IndexRange], index: u64) -> Option<u32> {
    let mut before = 0u64;
    for range in ranges {
        if let Some(position) = range.position(index) {
            return u32::try_from(before + position).ok();
        }
        before += range.count();
    }
    None
}

/// The index of an ordinal.
pub fn index_of(ranges: &[IndexRange], ordinal: u32) -> Option<u64> {
    let mut rest = u64::from(ordinal);
    for range in ranges {
        if rest < range.count() {
            return Some(range.first + rest * range.stride());
        }
        rest -= range.count();
    }
    None
}

/// The ordinals of a selection such as `0-9`: those of its indexes that the array has, as ascending runs.
/// `Err` names an index that was asked for by itself (a range of one) and doesn't exist.
pub fn select(ranges: &[IndexRange], selection: &[IndexRange]) -> Result<Vec<OrdinalRange>, u64> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for wanted in selection {
        if wanted.count() == 1 {
            let ordinal = ordinal_of(ranges, wanted.first).ok_or(wanted.first)?;
            runs.push((u64::from(ordinal), 1));
            continue;
        }
        let mut before = 0u64;
        let mut found = false;
        for range in ranges {
            found |= select_within(range, wanted, before, &mut runs);
            before += range.count();
        }
        if !found {
            return Err(wanted.first);
        }
    }
    runs.sort_unstable();
    let mut merged: Vec<OrdinalRange> = Vec::new();
    for (first, count) in runs {
        match merged.last_mut() {
            Some(last) if first <= u64::from(last.first) + u64::from(last.count) => {
                let end = (first + count).max(u64::from(last.first) + u64::from(last.count));
                last.count = (end - u64::from(last.first)) as u32;
            }
            _ => merged.push(OrdinalRange { first: first as u32, count: count as u32 }),
        }
    }
    Ok(merged)
}

fn select_within(range: &IndexRange, wanted: &IndexRange, before: u64, runs: &mut Vec<(u64, u64)>) -> bool {
    let (low, high) = (range.first.max(wanted.first), range.highest().min(wanted.last));
    if low > high {
        return false;
    }
    if wanted.stride() == 1 {
        // Whole stretches at once: a selection of a long array must not cost its length.
        let first = (low - range.first).div_ceil(range.stride());
        let last = (high - range.first) / range.stride();
        if first > last {
            return false;
        }
        runs.push((before + first, last - first + 1));
        return true;
    }
    let mut found = false;
    let start = wanted.first + (low - wanted.first).div_ceil(wanted.stride()) * wanted.stride();
    for index in (start..=high).step_by(wanted.stride() as usize) {
        if let Some(position) = range.position(index) {
            runs.push((before + position, 1));
            found = true;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: u64, last: u64, step: u64) -> IndexRange {
        IndexRange { first, last, step }
    }

    #[test]
    fn ordinals_and_indexes_are_inverse() {
        let ranges = [range(10, 30, 10), range(0, 3, 0), range(7, 7, 1)];
        assert_eq!(validate(&ranges), Ok(8));
        let indexes: Vec<u64> = (0..8).filter_map(|ordinal| index_of(&ranges, ordinal)).collect();
        assert_eq!(indexes, [10, 20, 30, 0, 1, 2, 3, 7]);
        for (ordinal, index) in indexes.iter().enumerate() {
            assert_eq!(ordinal_of(&ranges, *index), Some(ordinal as u32));
        }
        assert_eq!(ordinal_of(&ranges, 15), None);
        assert_eq!(index_of(&ranges, 8), None);
    }

    #[test]
    fn malformed_ranges_are_named() {
        assert_eq!(validate(&[]), Err(Malformed::Empty));
        assert_eq!(validate(&[range(5, 4, 1)]), Err(Malformed::Backwards { first: 5, last: 4 }));
        assert_eq!(validate(&[range(0, 9, 1), range(9, 9, 1)]), Err(Malformed::Repeated(9)));
        assert_eq!(validate(&[range(0, 90, 10), range(5, 95, 15)]), Err(Malformed::Repeated(20)));
        assert_eq!(validate(&[range(0, 90, 10), range(5, 95, 10)]), Ok(20));
        assert_eq!(validate(&[range(0, MAX_ARRAY_TASKS, 1)]), Err(Malformed::TooManyTasks(MAX_ARRAY_TASKS + 1)));
    }

    #[test]
    fn a_selection_becomes_runs_of_ordinals() {
        let ranges = [range(0, 99, 1), range(200, 300, 50)];
        let runs = select(&ranges, &[range(90, 250, 1), range(5, 5, 1)]).expect("all exist");
        assert_eq!(runs, [OrdinalRange { first: 5, count: 1 }, OrdinalRange { first: 90, count: 12 }]);
        assert_eq!(select(&ranges, &[range(150, 150, 1)]), Err(150));
        assert_eq!(select(&ranges, &[range(400, 500, 1)]), Err(400));
    }
}
