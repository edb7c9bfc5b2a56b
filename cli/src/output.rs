//! Results on stdout, in the format that was asked for.

use std::io::{self, IsTerminal, Write};

use comfy_table::{ContentArrangement, Table, presets::NOTHING};
use serde::Serialize;
use serde_json::Value;

use crate::{failure::Failure, globals::Format, terminal, view::Row};

/// Where results go, and how.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    format: Option<Format>,
}

impl Output {
    /// With the format that was asked for; none: a table.
    pub fn new(format: Option<Format>) -> Self {
        Self { format }
    }

    /// The format that was asked for, if any.
    pub fn asked(self) -> Option<Format> {
        self.format
    }

    /// The format to write.
    pub fn format(self) -> Format {
        self.format.unwrap_or(Format::Table)
    }

    /// Whether people read stdout.
    pub fn on_terminal(self) -> bool {
        io::stdout().is_terminal()
    }

    /// One thing: its screen for people, itself for programs.
    pub fn one<T: Serialize>(self, thing: &T, id: &str, screen: impl FnOnce() -> String) -> Result<(), Failure> {
        match self.format() {
            Format::Table | Format::Wide => line(&printable(&screen())),
            Format::Json | Format::Jsonl => line(&json(thing)?),
            Format::Csv => line(&json(thing)?),
            Format::Id => line(&terminal::one_line(id)),
        }
    }

    /// One thing that is a row: an object in JSON, a list of one elsewhere.
    pub fn row<T: Row>(self, row: &T, screen: impl FnOnce() -> String) -> Result<(), Failure> {
        match self.format() {
            Format::Csv => self.rows(std::slice::from_ref(row)),
            _ => self.one(row, &row.id(), screen),
        }
    }

    /// A list.
    pub fn rows<T: Row>(self, rows: &[T]) -> Result<(), Failure> {
        match self.format() {
            Format::Json => line(&json(&rows)?),
            Format::Table | Format::Wide => line(&table(rows, self.format() == Format::Wide)),
            Format::Jsonl | Format::Csv | Format::Id => {
                let mut part = Part::new(self);
                part.add(rows)
            }
        }
    }
}

/// A list that comes page by page, in one of the formats that need no end.
pub struct Part {
    output: Output,
    begun: bool,
}

impl Part {
    /// Nothing is written yet.
    pub fn new(output: Output) -> Self {
        Self { output, begun: false }
    }

    /// Writes some more rows.
    pub fn add<T: Row>(&mut self, rows: &[T]) -> Result<(), Failure> {
        let mut out = io::BufWriter::new(io::stdout().lock());
        match self.output.format() {
            Format::Csv => {
                let mut writer = csv::Writer::from_writer(&mut out);
                if !self.begun {
                    writer.write_record(T::columns()).map_err(csv_failure)?;
                }
                for row in rows {
                    let value = serde_json::to_value(row).map_err(|error| Failure::local(error.to_string()))?;
                    writer.write_record(T::columns().iter().map(|column| cell(&value, column))).map_err(csv_failure)?;
                }
                writer.flush()?;
            }
            Format::Id => {
                for row in rows {
                    writeln!(out, "{}", terminal::one_line(&row.id()))?;
                }
            }
            _ => {
                for row in rows {
                    writeln!(out, "{}", json(row)?)?;
                }
            }
        }
        self.begun = true;
        out.flush().map_err(Failure::from)
    }
}

/// Writes a line to stdout.
pub fn line(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush().map_err(Failure::from)
}

fn printable(screen: &str) -> String {
    screen.lines().map(terminal::one_line).collect::<Vec<_>>().join("\n")
}

fn json<T: Serialize>(thing: &T) -> Result<String, Failure> {
    serde_json::to_string(thing).map_err(|error| Failure::local(format!("can't write JSON: {error}")))
}

fn csv_failure(error: csv::Error) -> Failure {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error.into(),
        other => Failure::local(format!("can't write CSV: {other:?}")),
    }
}

/// The value at a path such as `tasks.running`; empty for null.
fn cell(value: &Value, path: &str) -> String {
    let found = path.split('.').try_fold(value, |value, key| value.get(key));
    match found {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

fn table<T: Row>(rows: &[T], wide: bool) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(T::headers(wide));
    for row in rows {
        table.add_row(row.cells(wide).iter().map(|cell| terminal::one_line(cell).into_owned()));
    }
    let text = table.to_string();
    let lines: Vec<&str> = text.lines().map(str::trim_end).map(|line| line.strip_prefix(' ').unwrap_or(line)).collect();
    lines.join("\n")
}
