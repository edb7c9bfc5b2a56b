//! What short tasks wrote, told with their ends.
//!
//! A worker sends it along with the end of an attempt. It doesn't go into the log: the leader keeps the newest of them in
//! memory, for the watches that will tell of these ends. Who misses one reads it from the task's log.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use proto::v1::{AttemptKey, Report, Task, report_item::Item};

use crate::limits;

/// The newest, within [`limits::ANSWERS_BYTES`].
#[derive(Debug, Default)]
pub(crate) struct Answers {
    held: BTreeMap<(u64, u64, u32), Bytes>,
    order: VecDeque<(u64, u64, u32)>,
    bytes: usize,
}

impl Answers {
    /// Takes the answers out of a report.
    pub(crate) fn take(&mut self, report: &mut Report) {
        for item in &mut report.items {
            if let (Some(attempt), Some(Item::Ended(ended))) = (&item.attempt, &mut item.item)
                && let Some(answer) = ended.answer.take()
                && answer.len() <= limits::ANSWER_BYTES
            {
                self.keep(attempt, answer);
            }
        }
    }

    fn keep(&mut self, attempt: &AttemptKey, answer: Bytes) {
        let key = (attempt.job_id, attempt.ordinal.into(), attempt.attempt);
        self.bytes += weight(&answer);
        match self.held.insert(key, answer) {
            // A report that was sent again.
            Some(before) => self.bytes -= weight(&before),
            None => self.order.push_back(key),
        }
        while self.bytes > limits::ANSWERS_BYTES
            && let Some(oldest) = self.order.pop_front()
        {
            self.bytes -= self.held.remove(&oldest).map_or(0, |answer| weight(&answer));
        }
    }

    /// Adds what is held to tasks of a job that have ended, `room` bytes at most; `ordinals` are theirs.
    pub(crate) fn tell(&self, tasks: &mut [(u32, Task)], mut room: usize) {
        for (ordinal, task) in tasks {
            let ended = task.end_time.is_some();
            if let Some(answer) = self.held.get(&(task.job_id, (*ordinal).into(), task.attempt))
                && ended
                && answer.len() <= room
            {
                room -= answer.len();
                task.answer = Some(answer.clone());
            }
        }
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}

/// What an empty one takes counts too.
fn weight(answer: &Bytes) -> usize {
    answer.len() + 128
}

#[cfg(test)]
mod tests {
    use proto::v1::{Ended, ReportItem};

    use super::*;

    fn report(ordinal: u32, answer: Vec<u8>) -> Report {
        let attempt = Some(AttemptKey { job_id: 7, ordinal, attempt: 1 });
        let ended = Ended { answer: Some(answer.into()), ..Default::default() };
        Report { first_sequence: 1, items: vec![ReportItem { attempt, item: Some(Item::Ended(ended)) }] }
    }

    fn told(answers: &Answers, ordinal: u32, attempt: u32, room: usize) -> Option<Bytes> {
        let task = Task { job_id: 7, attempt, end_time: Some(Default::default()), ..Default::default() };
        let mut tasks = [(ordinal, task)];
        answers.tell(&mut tasks, room);
        let [(_, task)] = tasks;
        task.answer
    }

    #[test]
    fn an_answer_leaves_the_report_and_is_told_with_its_attempt_alone() {
        let mut answers = Answers::default();
        let mut sent = report(3, b"42".to_vec());
        answers.take(&mut sent);
        assert_eq!(sent, Report { items: report(3, Vec::new()).items, first_sequence: 1 }.without_answers());
        assert_eq!(told(&answers, 3, 1, 100).as_deref(), Some(&b"42"[..]));
        assert_eq!(told(&answers, 3, 2, 100), None);
        assert_eq!(told(&answers, 2, 1, 100), None);
        assert_eq!(told(&answers, 3, 1, 1), None);
    }

    #[test]
    fn only_the_newest_are_held() {
        let mut answers = Answers::default();
        let count = 2 * limits::ANSWERS_BYTES / limits::ANSWER_BYTES;
        for ordinal in 0..count as u32 {
            answers.take(&mut report(ordinal, vec![0; limits::ANSWER_BYTES]));
            answers.take(&mut report(ordinal, vec![0; limits::ANSWER_BYTES]));
        }
        answers.take(&mut report(count as u32, vec![0; limits::ANSWER_BYTES + 1]));
        assert!(answers.bytes <= limits::ANSWERS_BYTES && answers.held.len() == answers.order.len());
        assert!(told(&answers, count as u32 - 1, 1, limits::ANSWER_BYTES).is_some());
        assert!(told(&answers, count as u32, 1, limits::ANSWERS_BYTES).is_none());
        assert!(told(&answers, 0, 1, limits::ANSWER_BYTES).is_none());
    }

    trait WithoutAnswers {
        fn without_answers(self) -> Self;
    }

    impl WithoutAnswers for Report {
        fn without_answers(mut self) -> Self {
            for item in &mut self.items {
                if let Some(Item::Ended(ended)) = &mut item.item {
                    ended.answer = None;
                }
            }
            self
        }
    }
}
