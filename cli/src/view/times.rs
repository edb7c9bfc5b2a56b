//! Times: RFC 3339 in UTC for programs, ages and local time for people.

use std::time::Duration;

use jiff::{Timestamp, tz::TimeZone};

use crate::grammar::duration;

/// A moment, null when the API has none.
pub type Moment = Option<Timestamp>;

/// Reads a moment; one that can't be is none.
pub fn moment(time: Option<prost_types::Timestamp>) -> Moment {
    time.and_then(|time| Timestamp::new(time.seconds, time.nanos).ok())
}

/// How long ago, e.g. `3m12s`.
pub fn age(moment: Moment) -> String {
    moment.map_or("-".to_owned(), |moment| duration::short(between(moment, Timestamp::now())))
}

/// How far ahead, e.g. `3m12s`; `0s` for what is past.
pub fn from_now(moment: Moment) -> String {
    moment.map_or("-".to_owned(), |moment| duration::short(between(Timestamp::now(), moment)))
}

/// Local time with its offset.
pub fn local(moment: Moment) -> String {
    let zoned = moment.map(|moment| moment.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S%:z").to_string());
    zoned.unwrap_or_else(|| "-".to_owned())
}

/// A span of the API in seconds; none when there is none.
pub fn seconds(span: Option<&prost_types::Duration>) -> Option<f64> {
    span.map(|span| span.seconds as f64 + f64::from(span.nanos) / 1e9)
}

/// From one moment to a later one; zero when it isn't later.
pub fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_utc_and_tables_have_ages() {
        let time = moment(Some(prost_types::Timestamp { seconds: 1_795_000_000, nanos: 250_000_000 }));
        assert_eq!(serde_json::to_string(&time).unwrap(), "\"2026-11-18T11:06:40.25Z\"");
        assert_eq!(serde_json::to_string(&moment(None)).unwrap(), "null");
        assert_eq!((age(None), local(None)), ("-".to_owned(), "-".to_owned()));
    }
}
