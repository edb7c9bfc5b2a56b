//! Reads at a coordinator that follows: its replica asks the leader from which index on they may be answered, one
//! question for all that wait, and they are answered from the state here, once it has got that far.
//!
//! Nothing here waits for long: whoever can't be answered is refused as if there were no leader, which their server
//! takes for a reason to try again for a while.

use proto::internal::{Caller, call_request::Request};

use crate::{
    CallId,
    core::{Core, Leadership},
    limits,
    reads::Reader,
    refusal,
};

/// Whether any coordinator may answer: a read of the replicated state alone, without what only a leader has (sessions'
/// streams, watches, logs).
pub fn answered_anywhere(request: &Request) -> bool {
    match request {
        Request::GetJob(_)
        | Request::ListJobs(_)
        | Request::ListTasks(_)
        | Request::ListOutputs(_)
        | Request::ExplainJob(_)
        | Request::PlanJobs(_)
        | Request::GetQueue(_)
        | Request::ListQueues(_)
        | Request::GetFairShare(_)
        | Request::ListLicenses(_)
        | Request::GetHistory(_)
        | Request::GetWorker(_)
        | Request::ListWorkers(_) => true,
        Request::SubmitJob(_)
        | Request::SubmitJobs(_)
        | Request::UploadBlob(_)
        | Request::CancelJob(_)
        | Request::RetryJob(_)
        | Request::HoldJob(_)
        | Request::ReleaseJob(_)
        | Request::SetJob(_)
        | Request::CreateQueue(_)
        | Request::SetQueue(_)
        | Request::DeleteQueue(_)
        | Request::SetFairShare(_)
        | Request::SetLicense(_)
        | Request::SetHistory(_)
        | Request::DrainWorker(_)
        | Request::CordonWorker(_)
        | Request::UncordonWorker(_)
        | Request::WatchJobs(_)
        | Request::ReadLogs(_)
        | Request::FetchBlob(_)
        | Request::WorkerConnect(_)
        | Request::StreamConnect(_)
        | Request::Mark(_)
        | Request::TransferLeader(_) => false,
    }
}

impl Core {
    /// Somebody else leads, as this coordinator's replica knows it, or nobody does.
    pub(crate) fn led(&mut self, led: bool) {
        self.led = led;
        if !led && matches!(self.leadership, Leadership::Following) {
            let readers = self.reads.abandon();
            self.turn_away(readers);
        }
    }

    /// A call arrives where somebody else leads.
    pub(crate) fn arrived_at_follower(&mut self, call: CallId, caller: Caller, request: Request) {
        if !self.is_allowed(call, &caller, &request) {
            return;
        }
        if self.led && answered_anywhere(&request) {
            self.reads.push(Reader::Query { call, caller, request });
        } else {
            self.finish(call, Err(refusal::not_leader()));
        }
    }

    /// Asks the leader for those that wait, and gives up what has waited for too long: the leader answers, but its log
    /// doesn't get through to here.
    pub(crate) fn tend_followers_reads(&mut self) {
        if self.led {
            self.begin_round();
        }
        let late = self.reads.late(self.now_ms.saturating_sub(limits::FOLLOWER_WAIT_MS));
        self.turn_away(late);
    }

    /// A round will not be confirmed. A leader begins another one; whoever follows may have lost its leader.
    pub(crate) fn read_lost(&mut self, context: u64) {
        if matches!(self.leadership, Leadership::Following) {
            let readers = self.reads.give_up(context);
            self.turn_away(readers);
        } else {
            self.reads.lost(context, self.now_ms);
        }
    }

    fn turn_away(&mut self, readers: Vec<Reader>) {
        for reader in readers {
            if let Reader::Query { call, .. } = reader {
                self.finish(call, Err(refusal::not_leader()));
            }
        }
    }
}
