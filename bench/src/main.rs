//! The figures of the README, measured on a grid of real processes on this machine.

mod figure;
mod figures;
mod load;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
};

use clap::Parser;

use crate::figure::{Figure, Report};

/// Of the load program; it shares the machine with the grid that is measured.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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
    let chosen = |name: &str| options.name.as_ref().is_none_or(|wanted| wanted == name);
    let known: Vec<&str> = figures::MEASUREMENTS.iter().flat_map(|one| one.bars).map(|bar| bar.name).collect();
    if let Some(name) = options.name.as_deref().filter(|name| !known.contains(name)) {
        eprintln!("error: there is no figure `{name}`; there are: {}", known.join(", "));
        return Ok(ExitCode::from(2));
    }
    let mut figures: Vec<Figure> = Vec::new();
    for measurement in &figures::MEASUREMENTS {
        if measurement.bars.iter().any(|bar| chosen(bar.name)) {
            figures.extend(measure(measurement).into_iter().filter(|figure| chosen(figure.name)));
        }
    }
    let report = Report { figures };
    match options.output {
        Format::Table => print!("{}", report.table()),
        Format::Json => println!("{}", serde_json::to_string_pretty(&report)?),
    }
    Ok(if report.figures.iter().all(|figure| figure.ok) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The figures of one measurement, each of them: those that could not be measured have no value, and the reason goes
/// to stderr. What the other measurements find is told all the same.
fn measure(measurement: &figures::Measurement) -> Vec<Figure> {
    let names: Vec<&str> = measurement.bars.iter().map(|bar| bar.name).collect();
    eprintln!("measuring {}", names.join(", "));
    let measured = match catch_unwind(AssertUnwindSafe(measurement.measure)) {
        Ok(Ok(figures)) => figures,
        Ok(Err(error)) => {
            eprintln!("error: {error:#}: no value for {}", names.join(", "));
            Vec::new()
        }
        // It has said why.
        Err(_) => {
            eprintln!("error: no value for {}", names.join(", "));
            Vec::new()
        }
    };
    let found = |name: &str| measured.iter().find(|figure| figure.name == name).cloned();
    measurement.bars.iter().map(|bar| found(bar.name).unwrap_or_else(|| bar.measured(&[]))).collect()
}
