//! A measured figure and what it must be.

use serde::Serialize;

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub struct Report {
    /// In the order of measuring.
    pub figures: Vec<Figure>,
}

/// One figure.
#[derive(Debug, Serialize)]
pub struct Figure {
    /// What it is called in the README.
    pub name: &'static str,
    /// What was measured.
    pub value: f64,
    /// Of `value` and `reference`.
    pub unit: &'static str,
    /// The same done without a grid, in the same run.
    pub reference: Option<f64>,
    /// `value` by `reference`.
    pub ratio: Option<f64>,
    /// The bound: of `ratio` where there is one, at least; else of `value`, at most.
    pub must: f64,
    /// Where it should be one day, by the same rule.
    pub aim: f64,
    /// Whether the bound holds.
    pub ok: bool,
}

impl Figure {
    /// One that must stay below a bound.
    pub fn at_most(name: &'static str, value: f64, unit: &'static str, must: f64, aim: f64) -> Self {
        Self { name, value, unit, reference: None, ratio: None, must, aim, ok: value <= must }
    }

    /// One that must reach a part of what the machine can do.
    pub fn part_of(name: &'static str, value: f64, unit: &'static str, reference: f64, must: f64, aim: f64) -> Self {
        let ratio = value / reference;
        Self { name, value, unit, reference: Some(reference), ratio: Some(ratio), must, aim, ok: ratio >= must }
    }
}

impl Report {
    /// Aligned, with a header.
    pub fn table(&self) -> String {
        let number = |value: f64| format!("{value:.*}", if value.abs() < 10.0 { 2 } else { 0 });
        let optional = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), number);
        let header = ["figure", "value", "unit", "reference", "ratio", "must", "aim", ""].map(str::to_owned);
        let rows = self.figures.iter().map(|figure| {
            let sign = if figure.ratio.is_some() { ">=" } else { "<=" };
            [
                figure.name.to_owned(),
                number(figure.value),
                figure.unit.to_owned(),
                optional(figure.reference),
                optional(figure.ratio),
                format!("{sign} {}", number(figure.must)),
                format!("{sign} {}", number(figure.aim)),
                if figure.ok { "ok" } else { "MISSED" }.to_owned(),
            ]
        });
        let rows: Vec<[String; 8]> = std::iter::once(header).chain(rows).collect();
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

    #[test]
    fn bounds_are_of_the_ratio_where_there_is_one() {
        assert!(Figure::part_of("a", 60.0, "tasks/s", 100.0, 0.5, 0.8).ok);
        assert!(!Figure::part_of("a", 40.0, "tasks/s", 100.0, 0.5, 0.8).ok);
        assert!(Figure::at_most("b", 200.0, "ms", 200.0, 100.0).ok);
        assert!(!Figure::at_most("b", 201.0, "ms", 200.0, 100.0).ok);
    }

    #[test]
    fn the_median_is_a_measured_value() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.0);
    }

    #[test]
    fn the_table_says_what_was_missed() {
        let figures = vec![Figure::at_most("start_ms", 1800.0, "ms", 1500.0, 800.0)];
        let table = Report { figures }.table();
        assert!(table.lines().last().is_some_and(|line| line.ends_with("MISSED")), "{table}");
    }
}
