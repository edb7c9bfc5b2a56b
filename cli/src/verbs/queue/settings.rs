//! What can be set of a queue.

use proto::v1::{Placement, QueueSettings};

use crate::grammar::numbers;

/// Options of create and set; what isn't named stays as it is.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Settings {
    /// Its part where queues compete, 1 to 10000 [new queues: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000), allow_hyphen_values = true)]
    weight: Option<u32>,
    /// Tasks that may run at once; none: no limit
    #[arg(long, value_name = "N", value_parser = numbers::limit::<u64>, allow_hyphen_values = true)]
    max_running: Option<u64>,
    /// Cpus that its tasks may use at once; none: no limit
    #[arg(long, value_name = "N", value_parser = numbers::cpu_limit, allow_hyphen_values = true)]
    max_cpus: Option<u64>,
    /// Memory that its tasks may use at once, e.g. 64G; none: no limit
    #[arg(long, value_name = "SIZE", value_parser = numbers::memory_limit, allow_hyphen_values = true)]
    max_mem: Option<u64>,
    /// Tasks that may wait; further submits are refused; none: no limit
    #[arg(long, value_name = "N", value_parser = numbers::limit::<u64>, allow_hyphen_values = true)]
    max_queued: Option<u64>,
    /// Below so many running tasks it comes before queues that have theirs; none: nothing is guaranteed
    #[arg(long, value_name = "N", value_parser = numbers::limit::<u64>, allow_hyphen_values = true)]
    guarantee_running: Option<u64>,
    /// The same in cpus
    #[arg(long, value_name = "N", value_parser = numbers::cpu_limit, allow_hyphen_values = true)]
    guarantee_cpus: Option<u64>,
    /// The same in memory
    #[arg(long, value_name = "SIZE", value_parser = numbers::memory_limit, allow_hyphen_values = true)]
    guarantee_mem: Option<u64>,
    /// Which worker gets the next task: spread, the one with the most left, or pack, the one with the least [new queues: spread]
    #[arg(long, value_enum, value_name = "WHERE")]
    placement: Option<Where>,
}

/// The placements, as words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Where {
    /// Load is even.
    Spread,
    /// Whole workers come free.
    Pack,
}

impl Settings {
    /// What was named.
    pub fn message(&self) -> QueueSettings {
        let placement = self.placement.map(|placement| match placement {
            Where::Spread => Placement::Spread,
            Where::Pack => Placement::Pack,
        });
        QueueSettings {
            weight: self.weight,
            max_running: self.max_running,
            max_cpu_milli: self.max_cpus,
            max_memory_mib: self.max_mem,
            max_queued: self.max_queued,
            guaranteed_running: self.guarantee_running,
            guaranteed_cpu_milli: self.guarantee_cpus,
            guaranteed_memory_mib: self.guarantee_mem,
            placement: placement.map(i32::from),
            ..QueueSettings::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::{Args, FromArgMatches};

    use super::*;

    fn parse(words: &str) -> Option<QueueSettings> {
        let parser = Settings::augment_args(clap::Command::new("x").no_binary_name(true));
        let matches = parser.try_get_matches_from(words.split_whitespace()).ok()?;
        Some(Settings::from_arg_matches(&matches).unwrap().message())
    }

    #[test]
    fn what_is_named_is_set_and_none_lifts() {
        assert_eq!(parse(""), Some(QueueSettings::default()));
        let all = "--weight 3 --max-running 5 --max-cpus 2.5 --max-mem 8G --max-queued 100 --guarantee-running 1 \
                   --guarantee-cpus 0.5 --guarantee-mem 1G --placement pack";
        let expected = QueueSettings {
            weight: Some(3),
            max_running: Some(5),
            max_cpu_milli: Some(2500),
            max_memory_mib: Some(8192),
            max_queued: Some(100),
            guaranteed_running: Some(1),
            guaranteed_cpu_milli: Some(500),
            guaranteed_memory_mib: Some(1024),
            placement: Some(Placement::Pack.into()),
            ..QueueSettings::default()
        };
        assert_eq!(parse(all), Some(expected));
        let lifted = QueueSettings { max_running: Some(0), max_cpu_milli: Some(0), ..QueueSettings::default() };
        assert_eq!(parse("--max-running none --max-cpus 0"), Some(lifted));
        for wrong in ["--weight 0", "--weight 10001", "--max-running -1", "--max-mem 8", "--placement even"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
