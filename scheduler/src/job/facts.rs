//! What is kept of attempts that ended, in about twenty bytes each: varints in one buffer for 256 tasks, every
//! entry pointing back to the one before it of the same task. The history takes this over in time.

use bytes::{Buf, BufMut};
use prost::encoding::{decode_varint, encode_varint};
use proto::v1::Cause;

use super::tasks::Place;
use crate::limits;

/// The end of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fact {
    pub attempt: u32,
    /// 0: it was given back, and cancelled before the next.
    pub session: u64,
    /// Succeeded, failed or cancelled.
    pub place: Place,
    pub cause: Cause,
    pub exit_code: i32,
    pub signal: i32,
    pub granted_wall_ms: i64,
    /// By the worker's clock.
    pub start_ms: Option<i64>,
    pub end_ms: i64,
    pub run_ms: u64,
    pub cpu_ms: u64,
    pub max_memory_kib: u64,
    pub stdout_bytes: u64,
    pub stderr_bytes: u64,
    pub log_bundle: u32,
    pub detail: Box<str>,
}

/// The facts of one chunk of tasks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    /// By position: where the newest entry begins, plus one; 0: none.
    pub newest: Box<[u32]>,
    pub entries: Vec<u8>,
}

/// The head of an entry, which is read alone where the rest isn't needed.
struct Head {
    /// Where the entry before it of the same task begins, plus one; 0: none.
    before: u32,
    /// How many of the same task stand before it.
    depth: u32,
    attempt: u32,
}

impl Facts {
    pub fn new(length: usize) -> Self {
        Self { newest: vec![0; length].into_boxed_slice(), entries: Vec::new() }
    }

    pub fn newest_attempt(&self, position: usize) -> u32 {
        match self.newest[position] {
            0 => 0,
            at => self.head(at).0.attempt,
        }
    }

    pub fn newest(&self, position: usize, base_ms: i64) -> Option<Fact> {
        match self.newest[position] {
            0 => None,
            at => Some(self.read(at, base_ms).0),
        }
    }

    /// All that are kept of one task, oldest first.
    pub fn all(&self, position: usize, base_ms: i64) -> Vec<Fact> {
        let mut facts = Vec::new();
        let mut at = self.newest[position];
        while at != 0 && facts.len() < limits::ATTEMPTS as usize {
            let (fact, before) = self.read(at, base_ms);
            facts.push(fact);
            at = before;
        }
        facts.reverse();
        facts
    }

    pub fn append(&mut self, position: usize, base_ms: i64, fact: &Fact) {
        let mut before = self.newest[position];
        let mut depth = if before == 0 { 0 } else { self.head(before).0.depth + 1 };
        // Twice what is kept, so that rewriting is paid for by as many attempts.
        if depth >= 2 * limits::ATTEMPTS {
            self.rewrite(base_ms);
            before = self.newest[position];
            depth = self.head(before).0.depth + 1;
        }
        self.write(position, before, depth, base_ms, fact);
    }

    /// Drops all but the newest attempts of each task.
    fn rewrite(&mut self, base_ms: i64) {
        let mut kept = Self::new(self.newest.len());
        for position in 0..self.newest.len() {
            for (depth, fact) in self.all(position, base_ms).iter().enumerate() {
                kept.write(position, kept.newest[position], depth as u32, base_ms, fact);
            }
        }
        *self = kept;
    }

    fn write(&mut self, position: usize, before: u32, depth: u32, base_ms: i64, fact: &Fact) {
        let at = self.entries.len() as u32 + 1;
        let out = &mut self.entries;
        if out.capacity() - out.len() < 64 {
            out.reserve_exact((out.len() / 4).max(64));
        }
        encode_varint(if before == 0 { 0 } else { u64::from(at - before) }, out);
        encode_varint(u64::from(depth), out);
        encode_varint(u64::from(fact.attempt), out);
        out.put_u8(fact.place as u8 | (u8::from(fact.start_ms.is_some()) << 3));
        out.put_u8(fact.cause as u8);
        encode_varint(fact.session, out);
        encode_varint(zigzag(i64::from(fact.exit_code)), out);
        encode_varint(zigzag(i64::from(fact.signal)), out);
        encode_varint(zigzag(fact.granted_wall_ms.wrapping_sub(base_ms)), out);
        if let Some(start) = fact.start_ms {
            encode_varint(zigzag(start.wrapping_sub(fact.granted_wall_ms)), out);
        }
        encode_varint(zigzag(fact.end_ms.wrapping_sub(fact.granted_wall_ms)), out);
        for amount in [fact.run_ms, fact.cpu_ms, fact.max_memory_kib, fact.stdout_bytes, fact.stderr_bytes] {
            encode_varint(amount, out);
        }
        encode_varint(u64::from(fact.log_bundle), out);
        encode_varint(fact.detail.len() as u64, out);
        out.put_slice(fact.detail.as_bytes());
        self.newest[position] = at;
    }

    fn head(&self, at: u32) -> (Head, &[u8]) {
        let mut rest = &self.entries[at as usize - 1..];
        let back = varint(&mut rest) as u32;
        let before = if back == 0 { 0 } else { at - back };
        let depth = varint(&mut rest) as u32;
        let attempt = varint(&mut rest) as u32;
        (Head { before, depth, attempt }, rest)
    }

    fn read(&self, at: u32, base_ms: i64) -> (Fact, u32) {
        let (head, mut rest) = self.head(at);
        let flags = rest.get_u8();
        let cause = Cause::try_from(i32::from(rest.get_u8())).unwrap_or_default();
        let session = varint(&mut rest);
        let exit_code = unzigzag(varint(&mut rest)) as i32;
        let signal = unzigzag(varint(&mut rest)) as i32;
        let granted_wall_ms = base_ms.wrapping_add(unzigzag(varint(&mut rest)));
        let start_ms = (flags & 8 != 0).then(|| granted_wall_ms.wrapping_add(unzigzag(varint(&mut rest))));
        let end_ms = granted_wall_ms.wrapping_add(unzigzag(varint(&mut rest)));
        let [run_ms, cpu_ms, max_memory_kib, stdout_bytes, stderr_bytes] = [(); 5].map(|()| varint(&mut rest));
        let log_bundle = varint(&mut rest) as u32;
        let length = varint(&mut rest) as usize;
        let fact = Fact {
            attempt: head.attempt,
            session,
            place: Place::from_code(flags & 7),
            cause,
            exit_code,
            signal,
            granted_wall_ms,
            start_ms,
            end_ms,
            run_ms,
            cpu_ms,
            max_memory_kib,
            stdout_bytes,
            stderr_bytes,
            log_bundle,
            detail: String::from_utf8_lossy(&rest[..length]).into(),
        };
        (fact, head.before)
    }

    /// Whether bytes from a snapshot can be read without harm.
    pub fn readable(&self) -> bool {
        self.newest.iter().all(|at| {
            let mut at = *at;
            while at != 0 {
                let Some(before) = self.skim(at) else { return false };
                at = before;
            }
            true
        })
    }

    /// Walks over one entry without trusting it; where the one before begins.
    fn skim(&self, at: u32) -> Option<u32> {
        let mut rest = self.entries.get(at as usize - 1..)?;
        let next = |rest: &mut &[u8]| decode_varint(rest).ok();
        let back = next(&mut rest)?;
        next(&mut rest)?;
        next(&mut rest)?;
        if rest.len() < 2 || rest[0] & 7 > 5 {
            return None;
        }
        let numbers = if rest[0] & 8 != 0 { 12 } else { 11 };
        rest.advance(2);
        for _ in 0..numbers {
            next(&mut rest)?;
        }
        let length = next(&mut rest)?;
        if length > rest.len() as u64 || back >= u64::from(at) {
            return None;
        }
        Some(if back == 0 { 0 } else { at - back as u32 })
    }
}

fn varint(rest: &mut &[u8]) -> u64 {
    decode_varint(rest).expect("facts were written by this module, or were looked through when they were decoded")
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fact(attempt: u32) -> Fact {
        Fact {
            attempt,
            session: 3,
            place: Place::Failed,
            cause: Cause::ExitCode,
            exit_code: -1,
            signal: 9,
            granted_wall_ms: 1_700_000_000_123,
            start_ms: attempt.is_multiple_of(2).then_some(1_700_000_000_050),
            end_ms: 1_700_000_009_000,
            run_ms: 8_900,
            cpu_ms: 17_000,
            max_memory_kib: 1 << 40,
            stdout_bytes: 0,
            stderr_bytes: u64::MAX,
            log_bundle: 7,
            detail: format!("attempt {attempt} é").into(),
        }
    }

    #[test]
    fn what_is_written_is_read_in_order_and_the_oldest_are_dropped() {
        let mut facts = Facts::new(2);
        for attempt in 1..=1_000 {
            facts.append(1, 1_700_000_000_000, &fact(attempt));
            assert_eq!(facts.newest(1, 1_700_000_000_000), Some(fact(attempt)));
        }
        facts.append(0, 1_700_000_000_000, &fact(5));
        assert_eq!(facts.all(0, 1_700_000_000_000), [fact(5)]);
        let kept: Vec<u32> = facts.all(1, 1_700_000_000_000).iter().map(|fact| fact.attempt).collect();
        assert_eq!(kept, (1_000 - limits::ATTEMPTS + 1..=1_000).collect::<Vec<_>>());
        assert_eq!(facts.newest_attempt(1), 1_000);
        assert!(facts.entries.len() < 100 * 2 * limits::ATTEMPTS as usize, "{} bytes", facts.entries.len());
        assert!(facts.readable());
    }

    #[test]
    fn an_ordinary_end_takes_about_twenty_bytes() {
        let ordinary = Fact {
            attempt: 1,
            session: 2_000,
            place: Place::Succeeded,
            exit_code: 0,
            signal: 0,
            start_ms: Some(1_700_000_000_125),
            end_ms: 1_700_000_000_130,
            run_ms: 5,
            cpu_ms: 2,
            max_memory_kib: 1_800,
            stderr_bytes: 0,
            stdout_bytes: 120,
            detail: "".into(),
            ..fact(1)
        };
        let mut facts = Facts::new(1);
        facts.append(0, 1_700_000_000_000, &ordinary);
        assert!(facts.entries.len() <= 24, "{} bytes", facts.entries.len());
    }

    #[test]
    fn damaged_facts_are_not_readable() {
        let mut facts = Facts::new(1);
        facts.append(0, 0, &fact(2));
        for length in 0..facts.entries.len() {
            let cut = Facts { newest: facts.newest.clone(), entries: facts.entries[..length].to_vec() };
            assert!(!cut.readable(), "cut to {length} bytes");
        }
        assert!(!Facts { newest: vec![1_000].into_boxed_slice(), ..facts }.readable());
    }
}
