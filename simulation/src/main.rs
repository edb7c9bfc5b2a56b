//! `simulation`: seeds, one after the other, until one breaks an invariant.

use std::process::ExitCode;

use clap::Parser;
use simulation::{Figures, Plant};

/// Runs a whole grid on one thread, from a seed, with faults.
#[derive(Debug, Parser)]
#[command(name = "simulation", after_help = "Exit codes: 0 no invariant broke, 1 one did, 2 usage.")]
struct Arguments {
    /// Run this seed alone.
    #[arg(long, conflicts_with_all = ["seeds", "minutes"])]
    seed: Option<u64>,
    /// Run so many seeds, from 0.
    #[arg(long, conflicts_with = "minutes")]
    seeds: Option<u64>,
    /// Run seeds until so many minutes were simulated.
    #[arg(long)]
    minutes: Option<u64>,
    /// Plant a bug, which must be found; `list` prints their names.
    #[arg(long, value_name = "BUG")]
    plant: Option<String>,
    /// Run each seed twice and compare the histories.
    #[arg(long)]
    twice: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.plant.as_deref() == Some("list") {
        Plant::ALL.iter().for_each(|plant| println!("{}", plant.name()));
        return ExitCode::SUCCESS;
    }
    let plant = match arguments.plant.as_deref().map(|name| Plant::named(name).ok_or(name)) {
        None => None,
        Some(Ok(plant)) => Some(plant),
        Some(Err(name)) => {
            eprintln!("error: --plant {name}: no such bug\nhint: `--plant list` prints their names");
            return ExitCode::from(2);
        }
    };
    let mut figures = Figures::default();
    for seed in arguments.seed.unwrap_or(0).. {
        let run = simulation::run(seed, plant);
        let broken = run.violation.clone().or_else(|| {
            let again = arguments.twice.then(|| simulation::run(seed, plant))?;
            (again.history != run.history).then(|| simulation::Violation {
                invariant: "determinism",
                detail: "the same seed had two histories".to_owned(),
            })
        });
        figures += run.figures;
        if let Some(violation) = broken {
            println!("violated {violation}");
            let planted = plant.map(|plant| format!(" --plant {}", plant.name())).unwrap_or_default();
            println!("repeat with: cargo xtask simulate --seed {seed}{planted}");
            println!("{figures}");
            return ExitCode::from(1);
        }
        let enough = match (arguments.seed, arguments.seeds, arguments.minutes) {
            (Some(_), _, _) => true,
            (_, Some(seeds), _) => seed + 1 >= seeds,
            (_, _, Some(minutes)) => figures.simulated_ms >= minutes * 60_000,
            (None, None, None) => seed + 1 >= 10,
        };
        if enough {
            break;
        }
    }
    println!("{figures}");
    ExitCode::SUCCESS
}
