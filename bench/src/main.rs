//! The figures of the README, measured on a grid of real processes on this machine.

mod figure;
mod figures;

use std::process::ExitCode;

use clap::Parser;

use crate::figure::{Figure, Report};

/// Measures the figures of the README on this machine
#[derive(Parser)]
#[command(name = "bench", bin_name = "cargo xtask bench")]
struct Options {
    /// One figure's name; all if left out
    name: Option<String>,
    /// How to write the result
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For people.
    Table,
    /// One document.
    Json,
}

fn main() -> anyhow::Result<ExitCode> {
    let options = Options::parse();
    let chosen = |names: &[&str]| options.name.as_ref().is_none_or(|name| names.contains(&name.as_str()));
    let known: Vec<&str> = figures::MEASUREMENTS.iter().flat_map(|measurement| measurement.names).copied().collect();
    if let Some(name) = options.name.as_deref().filter(|name| !known.contains(name)) {
        eprintln!("error: there is no figure `{name}`; there are: {}", known.join(", "));
        return Ok(ExitCode::from(2));
    }
    let mut figures: Vec<Figure> = Vec::new();
    for measurement in figures::MEASUREMENTS.iter().filter(|measurement| chosen(measurement.names)) {
        eprintln!("measuring {}", measurement.names.join(", "));
        figures.extend((measurement.measure)()?.into_iter().filter(|figure| chosen(&[figure.name])));
    }
    let report = Report { figures };
    match options.output {
        Format::Table => print!("{}", report.table()),
        Format::Json => println!("{}", serde_json::to_string_pretty(&report)?),
    }
    Ok(if report.figures.iter().all(|figure| figure.ok) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
