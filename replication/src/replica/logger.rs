//! The library's own log lines, for whoever wants them.

use std::{fmt, panic::AssertUnwindSafe};

use slog::{Discard, Drain, KV, Key, Level, Logger, Never, OwnedKVList, Record, Serializer, o};

use crate::{LogLevel, LogSink};

pub(super) fn logger(sink: Option<LogSink>) -> Logger {
    match sink {
        None => Logger::root(Discard, o!()),
        Some(sink) => Logger::root(Forward(AssertUnwindSafe(sink)), o!()),
    }
}

struct Forward(AssertUnwindSafe<LogSink>);

impl Drain for Forward {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> Result<(), Never> {
        let level = match record.level() {
            Level::Critical | Level::Error => LogLevel::Error,
            Level::Warning => LogLevel::Warning,
            Level::Info | Level::Debug | Level::Trace => LogLevel::Info,
        };
        let mut line = Line(record.msg().to_string());
        // A line without some of its values is better than none.
        let _ = record.kv().serialize(record, &mut line);
        let _ = values.serialize(record, &mut line);
        (self.0)(level, &line.0);
        Ok(())
    }
}

struct Line(String);

impl Serializer for Line {
    fn emit_arguments(&mut self, key: Key, value: &fmt::Arguments<'_>) -> slog::Result {
        fmt::Write::write_fmt(&mut self.0, format_args!(" {key}={value}"))?;
        Ok(())
    }
}
