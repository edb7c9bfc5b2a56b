//! Uploads of accepted attempts that this session has to complete.

use std::collections::{BTreeMap, BTreeSet};

use proto::v1::{Manifest, PublicationFailed, Publish, Published, ReportItem, report_item::Item};

use crate::{
    Core, Key, Output, PublishFailure,
    timing::{PUBLISH_AGAIN_LEAST_MS, PUBLISH_AGAIN_MOST_MS},
};

/// Entered by an instruction; left when the report of its end is acknowledged, or with the session. After a crash of
/// the agent the coordinator asks again, and completing again changes nothing.
#[derive(Debug)]
enum Stage {
    /// The driver completes them.
    Working,
    /// S3 asked for patience.
    Waiting,
    /// Its end is in the upstream.
    Reported,
}

#[derive(Debug)]
struct Publication {
    stage: Stage,
    tries: u32,
    manifest: Manifest,
    index: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Publications {
    all: BTreeMap<Key, Publication>,
    /// Those at [`Stage::Waiting`], by the time of their next try.
    again: BTreeSet<(u64, Key)>,
}

impl Publications {
    pub(crate) fn keys(&self) -> impl Iterator<Item = Key> {
        self.all.keys().copied()
    }

    pub(crate) fn remove(&mut self, key: Key) {
        self.all.remove(&key);
    }

    pub(crate) fn timer_ms(&self) -> Option<u64> {
        self.again.first().map(|(at_ms, _)| *at_ms)
    }
}

impl Core {
    pub(crate) fn publish(&mut self, publish: Publish) {
        let (Some(key), Some(manifest)) = (publish.attempt.map(Key::from), publish.manifest) else { return };
        if self.publications.all.contains_key(&key) {
            return;
        }
        // An agent that was restarted doesn't know that this end was accepted, and may be uploading once more.
        self.end_was_accepted(key);
        let publication =
            Publication { stage: Stage::Working, tries: 0, manifest: manifest.clone(), index: publish.task_index };
        self.publications.all.insert(key, publication);
        self.outputs.push(Output::Publish { key, manifest, index: publish.task_index });
    }

    pub(crate) fn publish_ended(&mut self, key: Key, result: Result<Vec<String>, PublishFailure>) {
        let Some(publication) = self.publications.all.get_mut(&key) else { return };
        if !matches!(publication.stage, Stage::Working) {
            return;
        }
        let item = match result {
            Ok(etags) => Item::Published(Published { etags }),
            Err(PublishFailure::Final { detail, retryable }) => {
                Item::PublicationFailed(PublicationFailed { detail: crate::attempts::clip(detail), retryable })
            }
            Err(PublishFailure::Passing { .. }) => {
                let delay_ms = (PUBLISH_AGAIN_LEAST_MS << publication.tries.min(20)).min(PUBLISH_AGAIN_MOST_MS);
                publication.tries += 1;
                publication.stage = Stage::Waiting;
                self.publications.again.insert((self.now_ms + delay_ms, key));
                return;
            }
        };
        publication.stage = Stage::Reported;
        self.upstream.push(ReportItem { attempt: Some(key.into()), item: Some(item) }, self.now_ms);
    }

    pub(crate) fn publish_again(&mut self) {
        while let Some((at_ms, key)) =
            self.publications.again.first().copied().filter(|(at_ms, _)| *at_ms <= self.now_ms)
        {
            self.publications.again.remove(&(at_ms, key));
            let Some(publication) = self.publications.all.get_mut(&key) else { continue };
            if matches!(publication.stage, Stage::Waiting) {
                publication.stage = Stage::Working;
                let manifest = publication.manifest.clone();
                self.outputs.push(Output::Publish { key, manifest, index: publication.index });
            }
        }
    }

    pub(crate) fn drop_publication(&mut self, key: Key) {
        if let Some(publication) = self.publications.all.remove(&key)
            && matches!(publication.stage, Stage::Working)
        {
            self.outputs.push(Output::BreakOffPublish { key });
        }
    }
}
