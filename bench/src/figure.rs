//! A measured figure and what it must be.

use serde::Serialize;

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub struct Report {
    /// In the order of measuring.
    pub figures: Vec<Figure>,
}

/// One figure.
#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    /// What it is called in the README.
    pub name: &'static str,
    /// What was measured; absent when it could not be.
    pub value: Option<f64>,
    /// Of `value`, `reference` and `spread`.
    pub unit: &'static str,
    /// What the value was chosen from.
    pub spread: Option<Spread>,
    /// What the machine can do, measured in the same run.
    pub reference: Option<f64>,
    /// `value` by `reference`.
    pub ratio: Option<f64>,
    /// Which side of `must` and `aim` is good.
    pub bound: Bound,
    /// The bound: of `ratio` where there is a reference, else of `value`.
    pub must: f64,
    /// Where it should be one day, by the same rule.
    pub aim: f64,
    /// Whether the bound holds.
    pub ok: bool,
}

/// Which side of a bound is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// More is better.
    AtLeast,
    /// Less is better.
    AtMost,
}

/// The samples behind a value.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// The lowest.
    pub low: f64,
    /// The highest.
    pub high: f64,
    /// The one that 99 of 100 don't exceed; of fewer samples than 100 the highest.
    pub p99: f64,
    /// How many there are.
    pub samples: usize,
}

impl Spread {
    /// Of at least one sample.
    fn of(samples: &[f64]) -> Option<Self> {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (low, high) = (*sorted.first()?, *sorted.last()?);
        let p99 = sorted[(sorted.len() * 99).div_ceil(100) - 1];
        Some(Self { low, high, p99, samples: sorted.len() })
    }
}

/// What a figure must be, before it is measured.
#[derive(Debug, Clone, Copy)]
pub struct Bar {
    /// The figure's name.
    pub name: &'static str,
    unit: &'static str,
    bound: Bound,
    must: f64,
    aim: f64,
}

impl Bar {
    /// More is better.
    pub const fn at_least(name: &'static str, unit: &'static str, must: f64, aim: f64) -> Self {
        Self { name, unit, bound: Bound::AtLeast, must, aim }
    }

    /// Less is better.
    pub const fn at_most(name: &'static str, unit: &'static str, must: f64, aim: f64) -> Self {
        Self { name, unit, bound: Bound::AtMost, must, aim }
    }

    /// The middle of these samples; without any it could not be measured.
    pub fn measured(self, samples: &[f64]) -> Figure {
        self.figure(samples, None)
    }

    /// The same, where the bound is of the ratio to a reference.
    pub fn against(self, samples: &[f64], reference: f64) -> Figure {
        self.figure(samples, Some(reference))
    }

    fn figure(self, samples: &[f64], reference: Option<f64>) -> Figure {
        let value = (!samples.is_empty()).then(|| median(samples.to_vec()));
        let ratio = value.zip(reference).map(|(value, reference)| value / reference);
        let judged = if reference.is_some() { ratio } else { value };
        let ok = judged.is_some_and(|judged| match self.bound {
            Bound::AtLeast => judged >= self.must,
            Bound::AtMost => judged <= self.must,
        });
        let Self { name, unit, bound, must, aim } = self;
        Figure { name, value, unit, spread: Spread::of(samples), reference, ratio, bound, must, aim, ok }
    }
}

impl Figure {
    /// Adds a condition without which the figure isn't met, whatever its value.
    pub fn only_if(mut self, condition: bool) -> Self {
        self.ok &= condition;
        self
    }
}

impl Report {
    /// Aligned, with a header.
    pub fn table(&self) -> String {
        let number = |value: f64| match value.abs() {
            tiny if tiny < 0.095 && tiny > 0.0 => format!("{value:.4}"),
            small if small < 10.0 => format!("{value:.2}"),
            _ => format!("{value:.0}"),
        };
        let optional = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), number);
        let header = ["figure", "value", "unit", "spread", "reference", "ratio", "must", "aim", ""].map(str::to_owned);
        let rows = self.figures.iter().map(|figure| {
            let sign = match figure.bound {
                Bound::AtLeast => ">=",
                Bound::AtMost => "<=",
            };
            let spread = figure.spread.map(|spread| match spread.samples {
                100.. => format!("{}..{} p99 {}", number(spread.low), number(spread.high), number(spread.p99)),
                _ => format!("{}..{}", number(spread.low), number(spread.high)),
            });
            [
                figure.name.to_owned(),
                optional(figure.value),
                figure.unit.to_owned(),
                spread.unwrap_or_else(|| "-".to_owned()),
                optional(figure.reference),
                optional(figure.ratio),
                format!("{sign} {}", number(figure.must)),
                format!("{sign} {}", number(figure.aim)),
                if figure.ok { "ok" } else { "MISSED" }.to_owned(),
            ]
        });
        let rows: Vec<[String; 9]> = std::iter::once(header).chain(rows).collect();
        let mut table = String::new();
        for row in &rows {
            let cells = row.iter().enumerate().map(|(column, cell)| {
                let width = rows.iter().map(|row| row[column].len()).max().unwrap_or_default();
                if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
            });
            table += cells.collect::<Vec<_>>().join("  ").trim_end();
            table.push('\n');
        }
        table
    }
}

/// The one in the middle; of an even number the lower of the two.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(values.len() - 1) / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Bar = Bar::at_most("b", "ms", 200.0, 100.0);

    #[test]
    fn bounds_are_of_the_ratio_where_there_is_a_reference() {
        let part = Bar::at_least("a", "tasks/s", 0.5, 0.8);
        assert!(part.against(&[60.0], 100.0).ok);
        assert!(!part.against(&[40.0], 100.0).ok);
        assert!(Bar::at_most("a", "ms", 2.0, 1.2).against(&[150.0], 100.0).ok);
        assert!(MOST.measured(&[200.0]).ok);
        assert!(!MOST.measured(&[201.0]).ok);
        assert!(Bar::at_least("c", "1/s", 200.0, 1000.0).measured(&[201.0]).ok);
    }

    #[test]
    fn what_was_not_measured_has_no_value_and_is_missed() {
        let figure = MOST.measured(&[]);
        assert_eq!((figure.value, figure.spread, figure.ok), (None, None, false));
        let json = serde_json::to_value(&figure).expect("it has no odd keys");
        assert!(json["value"].is_null() && json["must"] == 200.0);
    }

    #[test]
    fn a_figure_with_a_condition_needs_both() {
        assert!(!MOST.measured(&[1.0]).only_if(false).ok);
        assert!(!MOST.measured(&[300.0]).only_if(true).ok);
    }

    #[test]
    fn the_median_is_a_measured_value() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.0);
    }

    #[test]
    fn the_spread_is_of_all_samples() {
        let samples: Vec<f64> = (1..=200).map(f64::from).collect();
        assert_eq!(Spread::of(&samples), Some(Spread { low: 1.0, high: 200.0, p99: 198.0, samples: 200 }));
    }

    #[test]
    fn the_table_says_what_was_missed() {
        let figures = vec![MOST.measured(&[1800.0])];
        let table = Report { figures }.table();
        assert!(table.lines().last().is_some_and(|line| line.ends_with("MISSED")), "{table}");
    }
}
