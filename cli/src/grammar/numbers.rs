//! Whole numbers, lists of exit codes, and limits that `none` lifts.

use std::{str::FromStr, time::Duration};

use super::{Malformed, duration, resources, selector::JobRef};

/// Exit codes that one rule or one dependency names.
pub const MAX_EXIT_CODES: usize = 64;

/// A number of digits alone: no sign, no blank.
pub fn whole<T: FromStr>(text: &str) -> Option<T> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// A job and exit codes: the value of `--after-exit`, `41=3,4`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AfterExit {
    /// The job to wait for.
    pub job: JobRef,
    /// Any of these, 0 to 255; 0 is its success.
    pub codes: Vec<u32>,
}

/// The value of `--after-exit`.
pub fn after_exit(text: &str) -> Result<AfterExit, Malformed> {
    let (job, codes) =
        text.split_once('=').ok_or_else(|| Malformed::new("it names a job and its exit codes; write e.g. `41=3,4`"))?;
    let code = |word: &str| {
        whole(word).filter(|code| *code <= 255).ok_or_else(|| {
            Malformed::new(format!("`{word}` is no exit code; they are 0 to 255, in a list such as `41=3,4`"))
        })
    };
    let codes = codes.split(',').map(code).collect::<Result<Vec<u32>, _>>()?;
    if codes.len() > MAX_EXIT_CODES {
        return Err(Malformed::new(format!("more than {MAX_EXIT_CODES} exit codes")));
    }
    Ok(AfterExit { job: job.parse()?, codes })
}

fn lifts(text: &str) -> bool {
    text == "none" || text == "0"
}

/// How many at most; 0: no limit.
pub fn limit<T: FromStr + Default>(text: &str) -> Result<T, Malformed> {
    if lifts(text) {
        return Ok(T::default());
    }
    whole(text).ok_or_else(|| Malformed::new("not a number that can be counted to; write e.g. `50`, or `none`"))
}

/// Cpus in thousandths; 0: no limit.
pub fn cpu_limit(text: &str) -> Result<u64, Malformed> {
    if lifts(text) { Ok(0) } else { resources::cpu_milli(text) }
}

/// Memory in MiB; 0: no limit.
pub fn memory_limit(text: &str) -> Result<u64, Malformed> {
    if lifts(text) { Ok(0) } else { resources::mib(text) }
}

/// A span of time; zero: no limit.
pub fn time_limit(text: &str) -> Result<Duration, Malformed> {
    if lifts(text) { Ok(Duration::ZERO) } else { duration::parse(text) }
}

/// A span of time that may be zero, with or without a unit then.
pub fn span(text: &str) -> Result<Duration, Malformed> {
    if text == "0" { Ok(Duration::ZERO) } else { duration::or_zero(text) }
}

/// A number from 0.
pub fn count(text: &str) -> Result<u64, Malformed> {
    whole(text).ok_or_else(|| Malformed::new("not a number that can be counted to; write e.g. `50`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_of_a_job_are_a_list() {
        let codes = |codes: &[u32]| Some((JobRef::Id(41), codes.to_vec()));
        for (text, expected) in [
            ("41=3,4", codes(&[3, 4])),
            ("41=0", codes(&[0])),
            ("last=7", Some((JobRef::Last, vec![7]))),
            ("41", None),
            ("41=", None),
            ("41=256", None),
            ("41=-1", None),
            ("41=3,", None),
            ("fit=3", None),
            ("=3", None),
            ("", None),
        ] {
            assert_eq!(after_exit(text).ok().map(|after| (after.job, after.codes)), expected, "{text:?}");
        }
        assert!(after_exit(&format!("41={}", vec!["1"; 65].join(","))).is_err());
    }

    #[test]
    fn none_and_zero_lift_a_limit() {
        for text in ["none", "0"] {
            assert_eq!(limit::<u32>(text), Ok(0));
            assert_eq!((cpu_limit(text), memory_limit(text)), (Ok(0), Ok(0)));
            assert_eq!(time_limit(text), Ok(Duration::ZERO));
        }
        assert_eq!(limit::<u32>("50"), Ok(50));
        assert_eq!((cpu_limit("0.5"), memory_limit("8G")), (Ok(500), Ok(8192)));
        assert_eq!(time_limit("2h"), Ok(Duration::from_secs(7200)));
        for text in ["", "None", "-1", "+1", "1.5", "4294967296", "many"] {
            assert!(limit::<u32>(text).is_err(), "{text:?}");
        }
        for text in ["0", "0s", "00:00:00"] {
            assert_eq!(span(text), Ok(Duration::ZERO), "{text:?}");
        }
        assert_eq!(span("7d"), Ok(Duration::from_secs(7 * 86_400)));
        assert!(span("none").is_err() && span("7").is_err());
        assert_eq!((count("0"), count("1000000")), (Ok(0), Ok(1_000_000)));
        assert!(count("none").is_err() && count("-1").is_err());
        assert!(time_limit("2").is_err() && memory_limit("8").is_err() && cpu_limit("-1").is_err());
    }
}
