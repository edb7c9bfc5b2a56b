//! What JSON, tables and CSV show: hand-written views of the API's messages, with the names and the order of
//! interfaces.md, section 2. Every field is always there; what isn't known is null.

use serde::Serialize;

pub mod cluster;
pub mod explanation;
pub mod history;
pub mod job;
pub mod license;
pub mod plan;
pub mod queue;
pub mod spec;
pub mod task;
pub mod times;
pub mod worker;

#[cfg(test)]
mod tests;

/// Something that stands in a list.
pub trait Row: Serialize {
    /// Headers of the table, and of the wide one, which begins with the same.
    fn headers(wide: bool) -> Vec<&'static str>;
    /// One cell for each header.
    fn cells(&self, wide: bool) -> Vec<String>;
    /// Columns of CSV: paths into the JSON, e.g. `tasks.running`.
    fn columns() -> &'static [&'static str];
    /// What selects it.
    fn id(&self) -> String;
}

/// None for what the API leaves empty.
pub fn text(value: &str) -> Option<String> {
    (!value.is_empty()).then(|| value.to_owned())
}

/// `a=1,b=2`.
pub fn pairs(labels: &std::collections::BTreeMap<String, String>) -> String {
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

/// A dash for what isn't known.
pub fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or("-".to_owned(), |value| value.to_string())
}
