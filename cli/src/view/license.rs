//! A license.

use proto::v1;
use serde::Serialize;

use super::Row;

/// A license as JSON has it.
#[derive(Debug, Serialize)]
pub struct License {
    name: String,
    total: u64,
    used: u64,
}

impl From<&v1::License> for License {
    fn from(license: &v1::License) -> Self {
        Self { name: license.name.clone(), total: license.total, used: license.used }
    }
}

impl Row for License {
    fn headers(_wide: bool) -> Vec<&'static str> {
        vec!["NAME", "TOTAL", "USED", "FREE"]
    }

    fn cells(&self, _wide: bool) -> Vec<String> {
        // What runs keeps what it has when there are fewer than before.
        let free = self.total.saturating_sub(self.used);
        vec![self.name.clone(), self.total.to_string(), self.used.to_string(), free.to_string()]
    }

    fn columns() -> &'static [&'static str] {
        &["name", "total", "used"]
    }

    fn id(&self) -> String {
        self.name.clone()
    }
}
