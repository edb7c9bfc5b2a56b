//! Messages that answer for something on the disk, until it is there.

use std::collections::VecDeque;

use raft::eraftpb::Message;

/// Steps of the library that aren't known to be persisted, oldest first.
#[derive(Default)]
pub(super) struct Held {
    steps: VecDeque<Step>,
}

struct Step {
    number: u64,
    /// Whether it has a write that must be synced; absent without a write.
    write: Option<bool>,
    messages: Vec<Message>,
}

impl Held {
    pub(super) fn push(&mut self, number: u64, write: Option<bool>, messages: Vec<Message>) {
        self.steps.push_back(Step { number, write, messages });
    }

    /// Whether some write has to be synced still.
    pub(super) fn must_sync(&self) -> bool {
        self.steps.iter().any(|step| step.write == Some(true))
    }

    /// All up to this write are persisted: the highest number that is, and what may be sent.
    pub(super) fn persisted(&mut self, number: u64) -> Option<(u64, Vec<Message>)> {
        for step in self.steps.iter_mut().take_while(|step| step.number <= number) {
            step.write = None;
        }
        self.released()
    }

    /// Steps with nothing to write are persisted as soon as those before them are.
    pub(super) fn released(&mut self) -> Option<(u64, Vec<Message>)> {
        let mut released: Option<(u64, Vec<Message>)> = None;
        while let Some(step) = self.steps.pop_front_if(|step| step.write.is_none()) {
            let (number, messages) = released.get_or_insert_default();
            *number = step.number;
            messages.extend(step.messages);
        }
        released
    }
}
