//! Fewer, larger messages: an append that goes on where the one before it to the same follower ends becomes part of
//! it.
//!
//! The library has a setting for that, but takes any empty append for a beginning, though it may be of another
//! place in the log: the follower would acknowledge entries that it doesn't have.

use proto::internal::PeerMessage;

const APPEND: u32 = 3;

/// Adds a message to those that are to be sent; a batch stays under `bytes`.
pub(super) fn push(messages: &mut Vec<PeerMessage>, mut message: PeerMessage, bytes: u64) {
    if let Some(before) = messages.iter_mut().rfind(|before| before.to == message.to)
        && goes_on(before, &message)
        && (message.entries.is_empty() || data_bytes(before) + data_bytes(&message) <= bytes)
    {
        before.entries.append(&mut message.entries);
        before.commit = before.commit.max(message.commit);
    } else {
        messages.push(message);
    }
}

fn goes_on(before: &PeerMessage, message: &PeerMessage) -> bool {
    let appends = before.kind == APPEND && message.kind == APPEND && before.term == message.term;
    let (end, end_term) = before.entries.last().map_or((before.index, before.log_term), |last| (last.index, last.term));
    appends && (end, end_term) == (message.index, message.log_term)
}

fn data_bytes(message: &PeerMessage) -> u64 {
    message.entries.iter().map(|entry| entry.data.len() as u64).sum()
}

#[cfg(test)]
mod tests {
    use proto::internal::LogEntry;

    use super::*;

    fn append(index: u64, entries: u64, commit: u64) -> PeerMessage {
        let entries = (index + 1..=index + entries).map(|index| LogEntry { index, term: 2, ..LogEntry::default() });
        PeerMessage {
            kind: APPEND,
            to: 2,
            term: 2,
            log_term: 2,
            index,
            entries: entries.collect(),
            commit,
            ..Default::default()
        }
    }

    fn check(messages: [PeerMessage; 2], expected: &[(u64, usize, u64)]) {
        let mut batched = Vec::new();
        messages.into_iter().for_each(|message| push(&mut batched, message, 100));
        let found: Vec<_> =
            batched.iter().map(|message| (message.index, message.entries.len(), message.commit)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn an_append_that_goes_on_joins_the_one_before() {
        check([append(5, 2, 4), append(7, 3, 6)], &[(5, 5, 6)]);
        check([append(5, 2, 4), append(7, 0, 6)], &[(5, 2, 6)]);
    }

    #[test]
    fn an_append_of_another_place_goes_alone() {
        check([append(9, 0, 4), append(5, 3, 4)], &[(9, 0, 4), (5, 3, 4)]);
        check([append(5, 2, 4), append(6, 1, 4)], &[(5, 2, 4), (6, 1, 4)]);
    }
}
