//! Spans of time: `90s`, `1h30m`, `2d`, `[D-]HH:MM:SS`.

use std::time::Duration;

use super::Malformed;

/// Longest span that is well-formed: a hundred years.
const MAX: Duration = Duration::from_secs(100 * 366 * 86_400);

/// A span above zero.
pub fn parse(text: &str) -> Result<Duration, Malformed> {
    match or_zero(text)? {
        Duration::ZERO => Err(malformed("a time must be above zero")),
        span => Ok(span),
    }
}

/// A span that may be zero.
pub fn or_zero(text: &str) -> Result<Duration, Malformed> {
    let duration = if text.contains(':') {
        clock(text).ok_or_else(|| malformed("not [D-]HH:MM:SS"))?
    } else {
        humantime::parse_duration(text).map_err(|error| match error {
            humantime::DurationError::UnknownUnit { unit, .. } if unit.is_empty() => malformed("a time needs a unit"),
            _ => malformed("not a time"),
        })?
    };
    if duration > MAX { Err(malformed("longer than a hundred years")) } else { Ok(duration) }
}

fn malformed(what: &str) -> Malformed {
    Malformed::new(format!("{what}; write a time such as `90s`, `1h30m`, `2d` or `1-12:00:00`"))
}

fn clock(text: &str) -> Option<Duration> {
    let (days, rest) = text.split_once('-').unwrap_or(("0", text));
    let fields: Vec<&str> = rest.split(':').collect();
    let [hours, minutes, seconds] = fields.as_slice() else { return None };
    let number = |field: &str| {
        let digits = !field.is_empty() && field.len() <= 6 && field.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| field.parse::<u64>().ok()).flatten()
    };
    let (days, hours, minutes, seconds) = (number(days)?, number(hours)?, number(minutes)?, number(seconds)?);
    (minutes < 60 && seconds < 60).then(|| Duration::from_secs(((days * 24 + hours) * 60 + minutes) * 60 + seconds))
}

/// A span as people say it, to two units: `3m12s`, `2d4h`.
pub fn short(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes, seconds % 60) {
        (0, 0, 0, seconds) => format!("{seconds}s"),
        (0, 0, minutes, seconds) => format!("{minutes}m{seconds}s"),
        (0, hours, minutes, _) => format!("{hours}h{minutes}m"),
        (days, hours, _, _) => format!("{days}d{hours}h"),
    }
}

/// A span as it would be written, to the millisecond: `1h30m`, `200ms`.
pub fn exact(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let parts = [
        (seconds / 86_400, "d"),
        (seconds / 3600 % 24, "h"),
        (seconds / 60 % 60, "m"),
        (seconds % 60, "s"),
        (u64::from(duration.subsec_millis()), "ms"),
    ];
    let written: String =
        parts.iter().filter(|(count, _)| *count > 0).map(|(count, unit)| format!("{count}{unit}")).collect();
    if written.is_empty() { "0s".to_owned() } else { written }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_need_a_unit_or_a_clock() {
        let table = [
            ("90s", Some(90)),
            ("1h30m", Some(5400)),
            ("2d", Some(172_800)),
            ("00:01:30", Some(90)),
            ("1-00:00:01", Some(86_401)),
            ("30:00:00", Some(108_000)),
            ("90", None),
            ("0s", None),
            ("00:00:00", None),
            ("-1s", None),
            ("1:30", None),
            ("00:61:00", None),
            ("1h-30m", None),
            ("soon", None),
            ("", None),
            ("9999999d", None),
        ];
        for (text, expected) in table {
            assert_eq!(parse(text).ok(), expected.map(Duration::from_secs), "{text:?}");
        }
    }

    #[test]
    fn what_is_written_exactly_is_read_as_the_same() {
        let table =
            [(200, "200ms"), (90_000, "1m30s"), (7_200_000, "2h"), (172_800_001, "2d1ms"), (5_400_000, "1h30m")];
        for (milliseconds, expected) in table {
            let duration = Duration::from_millis(milliseconds);
            assert_eq!(exact(duration), expected);
            assert_eq!(parse(expected), Ok(duration));
        }
        assert_eq!(exact(Duration::ZERO), "0s");
    }

    #[test]
    fn ages_have_two_units() {
        let table = [(0, "0s"), (59, "59s"), (192, "3m12s"), (7260, "2h1m"), (187_200, "2d4h")];
        for (seconds, expected) in table {
            assert_eq!(short(Duration::from_secs(seconds)), expected);
        }
    }
}
