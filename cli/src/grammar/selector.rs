//! Which jobs, and which of their tasks: `42`, `42.7`, `42.0-9`, `last`.

use std::{fmt, str::FromStr};

use proto::v1::IndexRange;

use super::{Malformed, array};

/// A job by number, or the caller's newest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobRef {
    /// By its number.
    Id(u64),
    /// The caller's newest.
    Last,
}

/// A job, and the indexes of some of its tasks; none: all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector {
    /// The job.
    pub job: JobRef,
    /// Its tasks; empty: the job as a whole.
    pub tasks: Vec<IndexRange>,
}

impl Selector {
    /// The index, when exactly one task is selected.
    pub fn single(&self) -> Option<u64> {
        match self.tasks.as_slice() {
            [range] if range.first == range.last => Some(range.first),
            _ => None,
        }
    }
}

impl FromStr for JobRef {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        if text == "last" {
            return Ok(Self::Last);
        }
        let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let id = plain.then(|| text.parse().ok()).flatten().filter(|id| *id > 0);
        id.map(Self::Id).ok_or_else(|| Malformed::new("not a job; give its number, e.g. `42`, or `last`"))
    }
}

impl FromStr for Selector {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let (job, tasks) = text.split_once('.').map_or((text, None), |(job, tasks)| (job, Some(tasks)));
        let tasks = tasks.map(array::index_ranges).transpose()?.unwrap_or_default();
        Ok(Self { job: job.parse()?, tasks })
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.job {
            JobRef::Id(id) => write!(f, "{id}")?,
            JobRef::Last => write!(f, "last")?,
        }
        for (position, range) in self.tasks.iter().enumerate() {
            write!(f, "{}{}", if position == 0 { '.' } else { ',' }, range.first)?;
            if range.last != range.first {
                write!(f, "-{}", range.last)?;
            }
            if range.step > 1 {
                write!(f, ":{}", range.step)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_read_and_written_alike() {
        for text in ["42", "42.7", "42.0-9", "last", "last.3", "42.0-9,12", "42.0-8:2"] {
            let selector: Selector = text.parse().unwrap();
            assert_eq!(selector.to_string(), text);
        }
        for text in ["", "0", "-1", "fit", "42.", "42.x", ".7", "42.9-0", "4 2", "Last"] {
            assert!(text.parse::<Selector>().is_err(), "{text:?}");
        }
        assert_eq!("42.7".parse::<Selector>().unwrap().single(), Some(7));
        assert_eq!("42.7-8".parse::<Selector>().unwrap().single(), None);
    }
}
