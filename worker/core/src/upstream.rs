//! The numbered stream of reports: what was said and not yet acknowledged is said again.

use std::collections::VecDeque;

use prost::Message;
use proto::v1::{Report, ReportItem};

use crate::timing::{REPORT_BYTES, REPORT_DELAY_MS, REPORT_ITEMS, REPORTS_IN_FLIGHT, RESEND_AFTER_MS};

/// Items get their numbers from their position behind what was acknowledged, so that a restarted agent can collect
/// items before it learns where the session's numbers stand.
#[derive(Debug, Default)]
pub(crate) struct Upstream {
    acknowledged: u64,
    items: VecDeque<ReportItem>,
    /// How many of `items` were sent on the present stream.
    sent: usize,
    /// The last number of each report that is on its way.
    in_flight: VecDeque<u64>,
    /// When the oldest unsent item was added.
    waiting_since_ms: u64,
    /// When something was last sent or acknowledged.
    progress_ms: u64,
}

impl Upstream {
    pub(crate) fn push(&mut self, item: ReportItem, now_ms: u64) {
        if self.sent == self.items.len() {
            self.waiting_since_ms = now_ms;
        }
        self.items.push_back(item);
    }

    /// Everything up to `sequence` was applied: those items, with their numbers.
    pub(crate) fn acknowledge(&mut self, sequence: u64, now_ms: u64) -> Vec<(u64, ReportItem)> {
        let first = self.acknowledged + 1;
        let count = sequence.saturating_sub(self.acknowledged).min(self.items.len() as u64) as usize;
        self.acknowledged += count as u64;
        self.sent = self.sent.saturating_sub(count);
        while self.in_flight.front().is_some_and(|last| *last <= self.acknowledged) {
            self.in_flight.pop_front();
        }
        if count > 0 {
            self.progress_ms = now_ms;
        }
        (first..).zip(self.items.drain(..count)).collect()
    }

    /// A stream begins, and nothing of before is on its way any more: all in flight was decided, up to `applied`.
    /// Call [`Self::acknowledge`] first.
    pub(crate) fn restart(&mut self, applied: u64, now_ms: u64) {
        self.acknowledged = applied;
        self.send_again(now_ms);
    }

    /// Everything unacknowledged is to be sent again.
    pub(crate) fn send_again(&mut self, now_ms: u64) {
        self.sent = 0;
        self.in_flight.clear();
        self.waiting_since_ms = now_ms.saturating_sub(REPORT_DELAY_MS);
        self.progress_ms = now_ms;
    }

    /// Drops items that are nobody's concern any more. Only right after [`Self::restart`]: it renumbers.
    pub(crate) fn retain(&mut self, keep: impl FnMut(&ReportItem) -> bool) {
        debug_assert_eq!(self.sent, 0, "numbers that were sent may not change");
        self.items.retain(keep);
    }

    /// The session is over, and its numbers with it.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Sends again what wasn't acknowledged for long, then the next report that may go now. With `patient` nobody
    /// waits for it, because this worker has more to start: then a few share a report, and an entry of the log.
    pub(crate) fn next_report(&mut self, now_ms: u64, patient: bool) -> Option<Report> {
        if self.sent > 0 && self.progress_ms + RESEND_AFTER_MS <= now_ms {
            self.send_again(now_ms);
        }
        let unsent = self.items.len() - self.sent;
        let ready = (!patient && self.in_flight.len() < REPORTS_IN_FLIGHT)
            || unsent >= REPORT_ITEMS
            || self.waiting_since_ms + REPORT_DELAY_MS <= now_ms;
        if unsent == 0 || !ready {
            return None;
        }
        let mut bytes = 0;
        let items: Vec<ReportItem> = self
            .items
            .range(self.sent..)
            .take(REPORT_ITEMS)
            .take_while(|item| {
                let fits = bytes < REPORT_BYTES;
                bytes += item.encoded_len();
                fits
            })
            .cloned()
            .collect();
        let first_sequence = self.acknowledged + self.sent as u64 + 1;
        if self.sent == 0 {
            self.progress_ms = now_ms;
        }
        self.sent += items.len();
        self.in_flight.push_back(self.acknowledged + self.sent as u64);
        Some(Report { first_sequence, items })
    }

    pub(crate) fn timer_ms(&self) -> Option<u64> {
        let unsent = (self.sent < self.items.len()).then_some(self.waiting_since_ms + REPORT_DELAY_MS);
        let again = (self.sent > 0).then_some(self.progress_ms + RESEND_AFTER_MS);
        unsent.into_iter().chain(again).min()
    }
}

#[cfg(test)]
mod tests {
    use proto::v1::{AttemptKey, Returned, report_item};

    use super::*;

    fn item(ordinal: u32) -> ReportItem {
        let attempt = Some(AttemptKey { job_id: 1, ordinal, attempt: 1 });
        ReportItem { attempt, item: Some(report_item::Item::Returned(Returned {})) }
    }

    fn span(report: Option<Report>) -> Option<(u64, usize)> {
        report.map(|report| (report.first_sequence, report.items.len()))
    }

    #[test]
    fn an_idle_stream_reports_at_once_and_a_busy_one_in_batches() {
        let mut upstream = Upstream::default();
        for ordinal in 0..2 {
            upstream.push(item(ordinal), 0);
            assert_eq!(span(upstream.next_report(0, false)), Some((u64::from(ordinal) + 1, 1)));
        }
        upstream.push(item(2), 1);
        upstream.push(item(3), 5);
        assert_eq!(span(upstream.next_report(5, false)), None, "two are on their way");
        assert_eq!(upstream.timer_ms(), Some(1 + REPORT_DELAY_MS));
        assert_eq!(upstream.acknowledge(1, 6).len(), 1);
        assert_eq!(span(upstream.next_report(6, false)), Some((3, 2)));
        upstream.push(item(4), 7);
        assert_eq!(span(upstream.next_report(6 + REPORT_DELAY_MS, false)), None);
        assert_eq!(
            span(upstream.next_report(7 + REPORT_DELAY_MS, false)),
            Some((5, 1)),
            "none waits longer than the delay"
        );
    }

    #[test]
    fn nobody_waits_for_the_report_of_a_worker_that_has_more_to_start() {
        let mut upstream = Upstream::default();
        upstream.push(item(0), 100);
        assert_eq!(span(upstream.next_report(100, true)), None);
        upstream.push(item(1), 110);
        assert_eq!(span(upstream.next_report(99 + REPORT_DELAY_MS, true)), None);
        assert_eq!(span(upstream.next_report(100 + REPORT_DELAY_MS, true)), Some((1, 2)), "but not for ever");
        upstream.push(item(2), 200);
        assert_eq!(span(upstream.next_report(200, false)), Some((3, 1)), "nor when it has run dry");
    }

    #[test]
    fn what_was_not_acknowledged_is_sent_again_with_its_numbers() {
        let mut upstream = Upstream::default();
        (0..3).for_each(|ordinal| upstream.push(item(ordinal), 0));
        assert_eq!(span(upstream.next_report(0, false)), Some((1, 3)));
        assert_eq!(upstream.acknowledge(1, 10).iter().map(|(number, _)| *number).collect::<Vec<_>>(), [1]);
        assert_eq!(upstream.timer_ms(), Some(10 + RESEND_AFTER_MS));
        assert_eq!(span(upstream.next_report(10 + RESEND_AFTER_MS, true)), Some((2, 2)));
        upstream.acknowledge(2, 3000);
        upstream.restart(2, 3000);
        assert_eq!(span(upstream.next_report(3000, false)), Some((3, 1)));
        assert!(upstream.acknowledge(1, 3001).is_empty(), "an old acknowledgement changes nothing");
    }

    #[test]
    fn a_restarted_agent_numbers_from_what_was_applied() {
        let mut upstream = Upstream::default();
        upstream.push(item(8), 0);
        upstream.push(item(9), 0);
        upstream.restart(41, 0);
        upstream.retain(|item| item.attempt.is_some_and(|key| key.ordinal == 9));
        assert_eq!(span(upstream.next_report(0, false)), Some((42, 1)));
    }

    #[test]
    fn reports_are_bounded() {
        let mut upstream = Upstream::default();
        (0..2500).for_each(|ordinal| upstream.push(item(ordinal), 0));
        let sizes: Vec<usize> =
            std::iter::from_fn(|| span(upstream.next_report(0, false))).map(|(_, size)| size).collect();
        assert_eq!(sizes, [1000, 1000]);
        assert_eq!(span(upstream.next_report(REPORT_DELAY_MS, false)), Some((2001, 500)));
    }
}
