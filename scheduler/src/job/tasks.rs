//! Where each task of a job is: nothing for tasks that nothing happened to, three bits for the others.
//!
//! Tasks come in chunks of 256. A chunk that isn't there has all its tasks in one place, the same for all such
//! chunks: so an array of any length costs nothing until it is touched, and is cancelled at once.

use std::sync::Arc;

use imbl::OrdMap;

use super::facts::{Fact, Facts};

/// Tasks in a chunk.
pub(crate) const CHUNK: u32 = 256;
const WORDS: usize = CHUNK as usize / 64;

/// Where a task is. The number is its three bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// May be granted, as soon as its job is ready.
    Pending = 0,
    /// Has a record, and may not be granted: leased, running, publishing, waiting for its back-off.
    Active = 1,
    Succeeded = 2,
    Failed = 3,
    Cancelled = 4,
    Skipped = 5,
    /// Waits for the task at its place in another array.
    Blocked = 6,
}

impl Place {
    pub const ENDS: [Self; 4] = [Self::Succeeded, Self::Failed, Self::Cancelled, Self::Skipped];

    /// Unknown codes can't come from a snapshot that was looked through.
    pub fn from_code(code: u8) -> Self {
        match code {
            0 => Self::Pending,
            1 => Self::Active,
            2 => Self::Succeeded,
            3 => Self::Failed,
            4 => Self::Cancelled,
            5 => Self::Skipped,
            6 => Self::Blocked,
            _ => unreachable!("not a place: {code}"),
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Tasks {
    count: u32,
    /// Of all tasks whose chunk isn't there.
    rest: Place,
    chunks: OrdMap<u32, Arc<Chunk>>,
    /// Derived: no task below it is pending.
    low: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chunk {
    pub planes: [[u64; WORDS]; 3],
    pub facts: Option<Box<Facts>>,
}

impl Chunk {
    fn uniform(place: Place) -> Self {
        let code = place as u8;
        let plane = |bit: u8| if code >> bit & 1 == 1 { [u64::MAX; WORDS] } else { [0; WORDS] };
        Self { planes: [plane(0), plane(1), plane(2)], facts: None }
    }

    fn place(&self, position: u32) -> Place {
        let (word, bit) = (position as usize / 64, position % 64);
        let code = (0..3).fold(0, |code, plane| code | ((self.planes[plane][word] >> bit & 1) as u8) << plane);
        Place::from_code(code)
    }

    /// The tasks of one word that are in a place.
    fn word(&self, word: usize, place: Place) -> u64 {
        let code = place as u8;
        (0..3).fold(u64::MAX, |bits, plane| {
            let plane_bits = self.planes[plane][word];
            bits & if code >> plane & 1 == 1 { plane_bits } else { !plane_bits }
        })
    }

    fn write(&mut self, word: usize, mask: u64, place: Place) {
        let code = place as u8;
        for (plane, bits) in self.planes.iter_mut().enumerate() {
            if code >> plane & 1 == 1 {
                bits[word] |= mask;
            } else {
                bits[word] &= !mask;
            }
        }
    }

    /// The first run of tasks in a place at or above `from`, below `end`: (first, count).
    fn next(&self, from: u32, end: u32, place: Place) -> Option<(u32, u32)> {
        let mut at = from;
        let first = loop {
            if at >= end {
                return None;
            }
            let bits = self.word(at as usize / 64, place) >> (at % 64);
            if bits != 0 {
                break at + bits.trailing_zeros();
            }
            at = (at / 64 + 1) * 64;
        };
        if first >= end {
            return None;
        }
        let mut last = first;
        loop {
            let bits = self.word(last as usize / 64, place) >> (last % 64);
            let ones = bits.trailing_ones().min(64 - last % 64);
            last += ones;
            if last >= end || ones == 0 || last % 64 != 0 {
                break;
            }
        }
        Some((first, last.min(end) - first))
    }
}

/// The words of a chunk that positions `from..end` touch, with the bits of each.
fn masks(from: u32, end: u32) -> impl Iterator<Item = (usize, u64)> {
    (from / 64..end.div_ceil(64)).map(move |word| {
        let low = from.saturating_sub(word * 64).min(64);
        let high = (end - word * 64).min(64);
        let mask = if high == 64 { u64::MAX } else { (1 << high) - 1 };
        (word as usize, mask & (u64::MAX << low))
    })
}

impl Tasks {
    pub fn new(count: u32, place: Place) -> Self {
        Self { count, rest: place, chunks: OrdMap::new(), low: 0 }
    }

    pub fn count(&self) -> u32 {
        self.count
    }

    pub fn rest(&self) -> Place {
        self.rest
    }

    /// The chunks from this number on.
    pub fn chunks_from(&self, from: u32) -> impl Iterator<Item = (u32, &Arc<Chunk>)> {
        self.chunks.range(from..).map(|(number, chunk)| (*number, chunk))
    }

    /// From a snapshot; its chunks follow.
    pub fn restore(count: u32, rest: Place) -> Self {
        Self { count, rest, chunks: OrdMap::new(), low: 0 }
    }

    /// More chunks from a snapshot.
    pub fn extend(&mut self, chunks: OrdMap<u32, Arc<Chunk>>) {
        self.chunks.extend(chunks);
    }

    pub fn place(&self, ordinal: u32) -> Place {
        self.chunks.get(&(ordinal / CHUNK)).map_or(self.rest, |chunk| chunk.place(ordinal % CHUNK))
    }

    /// Where a chunk's tasks end, counted within it.
    pub fn length_of(&self, number: u32) -> u32 {
        (self.count - number * CHUNK).min(CHUNK)
    }

    /// The first run of tasks in a place at or above `from`. It may be a part of a longer one.
    pub fn next(&self, from: u32, place: Place) -> Option<(u32, u32)> {
        let mut at = if place == Place::Pending { from.max(self.low) } else { from };
        if at >= self.count {
            return None;
        }
        // Most often it is in the very chunk.
        if let Some(chunk) = self.chunks.get(&(at / CHUNK)) {
            let number = at / CHUNK;
            if let Some((first, count)) = chunk.next(at % CHUNK, self.length_of(number), place) {
                return Some((number * CHUNK + first, count));
            }
            at = (number + 1).saturating_mul(CHUNK);
        }
        for (number, chunk) in self.chunks.range(at / CHUNK..) {
            let start = number * CHUNK;
            if at < start && self.rest == place {
                return Some((at, start - at));
            }
            let from = at.max(start) - start;
            if let Some((first, count)) = chunk.next(from, self.length_of(*number), place) {
                return Some((start + first, count));
            }
            at = start + CHUNK;
        }
        (at < self.count && self.rest == place).then(|| (at, self.count - at))
    }

    /// Where a task is, and how many from it on are there too; it may be a part of a longer run.
    pub fn run_at(&self, ordinal: u32) -> (Place, u32) {
        let place = self.place(ordinal);
        (place, self.next(ordinal, place).map_or(1, |(_, count)| count))
    }

    /// How many of `first..end` are in a place.
    pub fn count_in(&self, first: u32, end: u32, place: Place) -> u32 {
        let mut total = 0;
        let mut at = first;
        while let Some((run, count)) = self.next(at, place) {
            if run >= end {
                break;
            }
            total += count.min(end - run);
            at = run + count;
        }
        total
    }

    /// Puts one task into a place.
    pub fn set(&mut self, ordinal: u32, place: Place) {
        self.fill(ordinal, ordinal + 1, place);
    }

    /// Puts all of `first..end` into a place.
    pub fn fill(&mut self, first: u32, end: u32, place: Place) {
        let mut at = first;
        while at < end {
            let number = at / CHUNK;
            let stop = end.min((number + 1) * CHUNK);
            let (from, to) = (at % CHUNK, stop - number * CHUNK);
            let chunk = self.chunk_mut(number);
            for (word, mask) in masks(from, to) {
                chunk.write(word, mask, place);
            }
            at = stop;
        }
        self.moved(first, end, place);
    }

    /// Moves all of `first..end` that are in `from` to `to`; how many these were.
    pub fn shift(&mut self, first: u32, end: u32, from: Place, to: Place) -> u32 {
        let whole = first == 0 && end == self.count;
        let mut moved = 0;
        if whole {
            if self.rest == from {
                let present: u32 = self.chunks.keys().map(|number| self.length_of(*number)).sum();
                moved += self.count - present;
                self.rest = to;
            }
            let numbers: Vec<u32> = self.chunks.keys().copied().collect();
            for number in numbers {
                let length = self.length_of(number);
                moved += self.shift_within(number, 0, length, from, to);
            }
        } else {
            let untouched = Arc::new(Chunk::uniform(to));
            let mut at = first;
            while at < end {
                let number = at / CHUNK;
                let stop = end.min((number + 1) * CHUNK);
                let all = at.is_multiple_of(CHUNK) && stop - at == self.length_of(number);
                if self.chunks.contains_key(&number) || (self.rest == from && !all) {
                    moved += self.shift_within(number, at % CHUNK, stop - number * CHUNK, from, to);
                } else if self.rest == from {
                    // A whole chunk that nothing had happened to: all such share one.
                    self.chunks.insert(number, untouched.clone());
                    moved += stop - at;
                }
                at = stop;
            }
        }
        if from == Place::Pending || to == Place::Pending {
            self.moved(first, end, to);
        }
        moved
    }

    fn shift_within(&mut self, number: u32, from_position: u32, to_position: u32, from: Place, to: Place) -> u32 {
        let chunk = self.chunk_mut(number);
        let mut moved = 0;
        for (word, mask) in masks(from_position, to_position) {
            let hit = chunk.word(word, from) & mask;
            if hit != 0 {
                chunk.write(word, hit, to);
                moved += hit.count_ones();
            }
        }
        moved
    }

    /// Keeps `low` true.
    fn moved(&mut self, first: u32, end: u32, place: Place) {
        if place == Place::Pending {
            self.low = self.low.min(first);
        } else if first <= self.low {
            self.low = self.low.max(end.min(self.count));
        }
    }

    /// Raises `low` over what was found not to be pending.
    pub fn raise_low(&mut self) {
        self.low = self.next(self.low, Place::Pending).map_or(self.count, |(first, _)| first);
    }

    fn chunk_mut(&mut self, number: u32) -> &mut Chunk {
        let rest = self.rest;
        Arc::make_mut(self.chunks.entry(number).or_insert_with(|| Arc::new(Chunk::uniform(rest))))
    }

    pub fn append_fact(&mut self, ordinal: u32, base_ms: i64, fact: &Fact) {
        let length = self.length_of(ordinal / CHUNK) as usize;
        let facts = self.chunk_mut(ordinal / CHUNK).facts.get_or_insert_with(|| Box::new(Facts::new(length)));
        facts.append((ordinal % CHUNK) as usize, base_ms, fact);
    }

    fn facts_at(&self, ordinal: u32) -> Option<&Facts> {
        self.chunks.get(&(ordinal / CHUNK))?.facts.as_deref()
    }

    pub fn newest_attempt(&self, ordinal: u32) -> u32 {
        self.facts_at(ordinal).map_or(0, |facts| facts.newest_attempt((ordinal % CHUNK) as usize))
    }

    pub fn newest_fact(&self, ordinal: u32, base_ms: i64) -> Option<Fact> {
        self.facts_at(ordinal)?.newest((ordinal % CHUNK) as usize, base_ms)
    }

    pub fn facts(&self, ordinal: u32, base_ms: i64) -> Vec<Fact> {
        self.facts_at(ordinal).map_or_else(Vec::new, |facts| facts.all((ordinal % CHUNK) as usize, base_ms))
    }

    /// Counts by place, slowly; for checks.
    pub fn census(&self) -> [u32; 7] {
        let mut counts = [0; 7];
        let mut present = 0;
        for (number, chunk) in &self.chunks {
            let length = self.length_of(*number);
            present += length;
            for position in 0..length {
                counts[chunk.place(position) as usize] += 1;
            }
        }
        counts[self.rest as usize] += self.count - present;
        counts
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PLACES: [Place; 7] = [
        Place::Pending,
        Place::Active,
        Place::Succeeded,
        Place::Failed,
        Place::Cancelled,
        Place::Skipped,
        Place::Blocked,
    ];

    /// Fill or shift: first, end, from (absent: fill), to.
    type Operation = (u32, u32, Option<Place>, Place);

    fn operation(count: u32) -> impl Strategy<Value = Operation> {
        let place = || prop::sample::select(&PLACES[..]);
        let span = prop_oneof![
            1 => Just((0, count)),
            4 => (0..count, 1..count + 1).prop_map(move |(first, length)| (first, (first + length).min(count))),
        ];
        (span, prop::option::of(place()), place()).prop_map(|((first, end), from, to)| (first, end, from, to))
    }

    fn scenario() -> impl Strategy<Value = (u32, Vec<Operation>)> {
        (1..1_500u32).prop_flat_map(|count| (Just(count), prop::collection::vec(operation(count), 0..20)))
    }

    proptest! {
        #[test]
        fn chunks_are_where_a_plain_list_says((count, operations) in scenario()) {
            let mut tasks = Tasks::new(count, Place::Pending);
            let mut plain = vec![Place::Pending; count as usize];
            for (first, end, from, to) in operations {
                let mut moved = 0;
                for place in &mut plain[first as usize..end as usize] {
                    if from.is_none_or(|from| *place == from) {
                        *place = to;
                        moved += 1;
                    }
                }
                match from {
                    None => tasks.fill(first, end, to),
                    Some(from) => prop_assert_eq!(tasks.shift(first, end, from, to), moved),
                }
                for place in PLACES {
                    let mut runs = Vec::new();
                    let mut at = 0;
                    while let Some((run, length)) = tasks.next(at, place) {
                        runs.extend(run..run + length);
                        at = run + length;
                    }
                    let expected: Vec<u32> = (0..count).filter(|at| plain[*at as usize] == place).collect();
                    prop_assert_eq!(runs, expected);
                    let half = count / 2;
                    let in_half = plain[..half as usize].iter().filter(|one| **one == place).count() as u32;
                    prop_assert_eq!(tasks.count_in(0, half, place), in_half);
                }
            }
            for (at, place) in plain.iter().enumerate() {
                prop_assert_eq!(tasks.place(at as u32), *place);
            }
        }
    }

    #[test]
    fn an_untouched_array_has_no_chunk_and_its_end_makes_none() {
        let mut tasks = Tasks::new(1_000_000, Place::Pending);
        assert_eq!(tasks.shift(0, 1_000_000, Place::Pending, Place::Cancelled), 1_000_000);
        assert_eq!(tasks.shift(0, 1_000_000, Place::Cancelled, Place::Pending), 1_000_000);
        assert!(tasks.chunks.is_empty());
    }

    #[test]
    fn whole_chunks_of_one_kind_share_one() {
        let mut tasks = Tasks::new(1_000_000, Place::Pending);
        assert_eq!(tasks.shift(100, 900_000, Place::Pending, Place::Cancelled), 899_900);
        let whole: Vec<_> = tasks.chunks.iter().filter(|(number, _)| (1..3_515).contains(*number)).collect();
        assert!(whole.windows(2).all(|pair| Arc::ptr_eq(pair[0].1, pair[1].1)));
    }
}
