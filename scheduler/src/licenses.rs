//! Licenses: things that the grid has a number of, wherever their users run.

use std::{collections::BTreeMap, sync::Arc};

use imbl::OrdMap;

#[derive(Debug, Clone, Default)]
pub(crate) struct Licenses {
    pub by_name: OrdMap<Arc<str>, License>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct License {
    pub total: u64,
    /// Derived from the leases.
    pub used: u64,
}

impl License {
    pub fn free(&self) -> u64 {
        self.total.saturating_sub(self.used)
    }
}

impl Licenses {
    /// How many more tasks that need these can have them.
    pub fn room(&self, needed: &BTreeMap<Box<str>, u32>) -> u64 {
        let each = needed.iter().filter(|(_, count)| **count > 0);
        each.map(|(name, count)| self.free(name) / u64::from(*count)).min().unwrap_or(u64::MAX)
    }

    pub fn free(&self, name: &str) -> u64 {
        self.by_name.get(name).map_or(0, License::free)
    }

    pub fn take(&mut self, needed: &BTreeMap<Box<str>, u32>) {
        for (name, count) in needed {
            self.by_name.entry((&**name).into()).or_default().used += u64::from(*count);
        }
    }

    pub fn give_back(&mut self, needed: &BTreeMap<Box<str>, u32>) {
        for (name, count) in needed {
            let license = self.by_name.get_mut(&**name).expect("a license in use is known");
            license.used -= u64::from(*count);
            if *license == License::default() {
                self.by_name.remove(&**name);
            }
        }
    }
}
