//! The machine is taken back: what is in it has to be out before.
//!
//! From the notice on nothing is started any more, and what wasn't started is returned. What runs goes on for as long
//! as leaves it its grace; then it is asked to stop, then killed, and a margin remains for the ends and the logs.

use proto::v1::{SpotNotice, worker_message};

use crate::{
    Core, Output,
    timing::{RECLAIM_GRACE_MS, RECLAIM_MARGIN_MS, RECLAIM_MARGIN_SHARE},
};

/// How far it has come. A crash of the agent begins it anew from the notice, which the driver keeps: what was ordered
/// already is ordered again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// What runs goes on.
    Noticed,
    /// What runs was asked to stop.
    Stopping,
    /// What ran was killed.
    Killed,
    /// The driver was told to end.
    Left,
}

#[derive(Debug)]
pub(crate) struct Reclaim {
    stage: Stage,
    stop_ms: u64,
    kill_ms: u64,
    ends_ms: u64,
    /// The stream on which the coordinator was told.
    told: Option<u64>,
}

impl Reclaim {
    fn new(now_ms: u64, ends_ms: u64) -> Self {
        let notice_ms = ends_ms.saturating_sub(now_ms);
        let margin_ms = RECLAIM_MARGIN_MS.min(notice_ms / RECLAIM_MARGIN_SHARE);
        let kill_ms = ends_ms - margin_ms;
        let stop_ms = kill_ms.saturating_sub(RECLAIM_GRACE_MS).max(now_ms);
        Self { stage: Stage::Noticed, stop_ms, kill_ms, ends_ms, told: None }
    }

    pub(crate) fn timer_ms(&self) -> Option<u64> {
        match self.stage {
            Stage::Noticed => Some(self.stop_ms),
            Stage::Stopping => Some(self.kill_ms),
            Stage::Killed => Some(self.ends_ms),
            Stage::Left => None,
        }
    }

    /// Another keeper, or another connection to it: it may not have heard what it was told.
    pub(crate) fn order_again(&mut self) {
        self.stage = match self.stage {
            Stage::Left => Stage::Left,
            Stage::Noticed | Stage::Stopping | Stage::Killed => Stage::Noticed,
        };
    }
}

impl Core {
    /// The machine goes at `ends_ms`. A later notice can only shorten the time.
    pub(crate) fn spot_notice(&mut self, ends_ms: u64) {
        if self.reclaim.as_ref().is_none_or(|reclaim| ends_ms < reclaim.ends_ms) {
            self.reclaim = Some(Reclaim::new(self.now_ms, ends_ms));
        }
    }

    /// Does what the notice asks for by now.
    pub(crate) fn tend_reclaim(&mut self) {
        let (open, now_ms) = (self.link.open(), self.now_ms);
        let Some(reclaim) = &mut self.reclaim else { return };
        let before = reclaim.stage;
        // One step after another, so that one that was slept through is made up for.
        for (stage, at_ms) in [(Stage::Stopping, reclaim.stop_ms), (Stage::Killed, reclaim.kill_ms)] {
            if reclaim.stage < stage && at_ms <= now_ms {
                reclaim.stage = stage;
            }
        }
        let (after, untold) = (reclaim.stage, open.is_some() && reclaim.told != open);
        if untold {
            self.tell_of_reclaim();
        }
        // Before anything ends, so that no slot that comes free is taken.
        for key in self.attempts.take_unstarted() {
            self.give_back(key);
        }
        if before < Stage::Stopping && after >= Stage::Stopping {
            self.reclaim_running();
        }
        if before < Stage::Killed && after >= Stage::Killed {
            self.kill_reclaimed();
        }
    }

    /// Goes, once everything else is said that is to be said now.
    pub(crate) fn leave_if_due(&mut self) {
        if let Some(reclaim) = self.reclaim.as_mut().filter(|reclaim| reclaim.ends_ms <= self.now_ms)
            && std::mem::replace(&mut reclaim.stage, Stage::Left) != Stage::Left
        {
            self.outputs.push(Output::Leave);
        }
    }

    /// Says that nothing more should come. The stream that has heard it hears it again with each renewal.
    pub(crate) fn tell_of_reclaim(&mut self) {
        if let (Some(stream), Some(reclaim)) = (self.link.open(), &mut self.reclaim) {
            reclaim.told = Some(stream);
            self.send(stream, worker_message::Message::SpotNotice(SpotNotice {}));
        }
    }
}
