//! The words of a line: `key=value`, or a flag alone.

use proto::{
    internal::OrdinalRange,
    v1::{AttemptKey, IndexRange},
};

pub struct Line<'a> {
    words: Vec<&'a str>,
}

impl<'a> Line<'a> {
    pub fn new(text: &'a str) -> Self {
        Self { words: text.split_whitespace().collect() }
    }

    pub fn verb(&self) -> &'a str {
        self.words[0]
    }

    pub fn flag(&self, name: &str) -> bool {
        self.words.contains(&name)
    }

    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.words.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    }

    pub fn number(&self, name: &str) -> Option<u64> {
        self.get(name).map(|value| value.parse().unwrap_or_else(|_| panic!("{name}={value}: not a number")))
    }

    pub fn numbers(&self, name: &str) -> Vec<u64> {
        self.get(name).map_or_else(Vec::new, |value| value.split(',').map(|one| one.parse().unwrap()).collect())
    }

    /// `task=1/0#2`: attempt 2 of the task at position 0 of job 1.
    pub fn attempt(&self) -> AttemptKey {
        let text = self.get("task").expect("task=JOB/POSITION#ATTEMPT");
        let (job, rest) = text.split_once('/').unwrap();
        let (ordinal, attempt) = rest.split_once('#').unwrap();
        AttemptKey {
            job_id: job.parse().unwrap(),
            ordinal: ordinal.parse().unwrap(),
            attempt: attempt.parse().unwrap(),
        }
    }

    /// `tasks=0-3,7`: positions.
    pub fn positions(&self) -> Vec<OrdinalRange> {
        let spans = self.get("tasks").map_or_else(Vec::new, spans);
        spans
            .into_iter()
            .map(|span| OrdinalRange { first: span.first as u32, count: (span.last - span.first + 1) as u32 })
            .collect()
    }
}

/// `0-9:2,20`.
pub fn spans(text: &str) -> Vec<IndexRange> {
    let span = |part: &str| {
        let (range, step) = part.split_once(':').unwrap_or((part, "1"));
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        IndexRange { first: first.parse().unwrap(), last: last.parse().unwrap(), step: step.parse().unwrap() }
    };
    text.split(',').map(span).collect()
}

/// `250ms`, `3s`, `5m`, `2h`.
pub fn milliseconds(text: &str) -> u64 {
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or_else(|| panic!("no unit: {text}"));
    let (amount, unit) = text.split_at(digits);
    let factor = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => panic!("unknown unit: {text}"),
    };
    amount.parse::<u64>().unwrap() * factor
}
