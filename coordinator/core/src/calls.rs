//! Calls that are open, whatever they wait for.

use std::collections::BTreeSet;

use crate::CallId;

/// The set of open calls: what is not in it gets no message any more.
#[derive(Debug, Default)]
pub(crate) struct Calls(BTreeSet<CallId>);

impl Calls {
    pub(crate) fn add(&mut self, call: CallId) {
        self.0.insert(call);
    }

    pub(crate) fn contains(&self, call: CallId) -> bool {
        self.0.contains(&call)
    }

    pub(crate) fn remove(&mut self, call: CallId) -> bool {
        self.0.remove(&call)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn all(&self) -> Vec<CallId> {
        self.0.iter().copied().collect()
    }
}
