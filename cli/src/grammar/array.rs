//! `A-B[:STEP]`, lists of these, and one `%N` at the end.

use proto::{ranges, v1::IndexRange};

use super::Malformed;

/// An array as its submitter wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Array {
    /// In the order they were written; no index twice.
    pub ranges: Vec<IndexRange>,
    /// Tasks that may run at once, from `%N`.
    pub max_running: Option<u32>,
}

/// The value of `--array`.
pub fn parse(text: &str) -> Result<Array, Malformed> {
    let (list, max_running) = match text.split_once('%') {
        None => (text, None),
        Some((list, limit)) => {
            let limit = limit.parse().ok().filter(|limit| *limit > 0);
            let limit = limit.ok_or_else(|| {
                Malformed::new("after `%` stands how many tasks may run at once, at the end, e.g. `0-999%50`")
            })?;
            (list, Some(limit))
        }
    };
    Ok(Array { ranges: index_ranges(list)?, max_running })
}

/// Ranges of indexes, checked: not empty, none twice, within the limits.
pub fn index_ranges(list: &str) -> Result<Vec<IndexRange>, Malformed> {
    if list.is_empty() {
        return Err(Malformed::new(ranges::Malformed::Empty.to_string()));
    }
    let ranges = list.split(',').map(range).collect::<Result<Vec<_>, _>>()?;
    ranges::validate(&ranges).map_err(|problem| Malformed::new(problem.to_string()))?;
    Ok(ranges)
}

fn range(part: &str) -> Result<IndexRange, Malformed> {
    let malformed = || Malformed::new(format!("`{part}` is not a range; write `0-9`, `0-100:10` or `7`"));
    let number = |digits: &str| {
        let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| digits.parse::<u64>().ok()).flatten().ok_or_else(malformed)
    };
    let Some((first, rest)) = part.split_once('-') else {
        let only = number(part)?;
        return Ok(IndexRange { first: only, last: only, step: 1 });
    };
    let (last, step) = rest.split_once(':').map_or((rest, 1), |(last, step)| (last, number(step).unwrap_or(0)));
    if step == 0 {
        return Err(malformed());
    }
    Ok(IndexRange { first: number(first)?, last: number(last)?, step })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_are_ranges_steps_and_lists() {
        let range = |first, last, step| IndexRange { first, last, step };
        let table = [
            ("0-9", Some((vec![range(0, 9, 1)], None))),
            ("10", Some((vec![range(10, 10, 1)], None))),
            ("0-100:10,7%4", Some((vec![range(0, 100, 10), range(7, 7, 1)], Some(4)))),
            ("0-99999999", Some((vec![range(0, 99_999_999, 1)], None))),
            ("0-100000000", None),
            ("", None),
            ("%5", None),
            ("0-9%0", None),
            ("0-9%", None),
            ("0-9%2%3", None),
            ("0-9%2,10", None),
            ("9-0", None),
            ("0-9,5", None),
            ("0-9:0", None),
            ("0-9:", None),
            ("-1", None),
            ("1-", None),
            ("a-b", None),
            ("1,,2", None),
            ("0--5", None),
            ("+1", None),
            ("99999999999999999999", None),
        ];
        for (text, expected) in table {
            let parsed = parse(text).ok().map(|array| (array.ranges, array.max_running));
            assert_eq!(parsed, expected, "{text:?}");
        }
        assert!(parse("0-9,5").unwrap_err().to_string().contains('5'));
    }
}
