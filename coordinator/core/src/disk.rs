//! What is refused while this coordinator's disk is almost full: new work, and nothing else.
//!
//! What workers report, renewals and cancels go on: they are what makes room again, and the surroundings keep a reserve
//! for them.

use proto::internal::Refusal;

use crate::{core::Core, refusal};

impl Core {
    /// Refuses what would add to the log without end.
    pub(crate) fn check_disk(&self) -> Result<(), Refusal> {
        if !self.disk_is_low {
            return Ok(());
        }
        let message =
            format!("the disk of the leader is almost full: {}; no new jobs until there is room", self.settings.disk);
        let hint = "free or add space there, or move leadership to a coordinator with room: `millgrid cluster \
                    transfer-leader NAME`";
        Err(refusal::refusal(refusal::Code::ResourceExhausted, refusal::DISK_LOW, message, hint))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use bytes::Bytes;
    use proto::internal::{Caller, call_request::Request};
    use proto::v1::{self, Role};
    use scheduler::State;

    use crate::{CallId, Core, Input, Output, Settings, refusal};

    /// The first entry of its term is applied.
    fn leader() -> Core {
        let settings = Settings { disk: "/data of `c1`".to_owned(), ..Settings::new("grid".to_owned(), 7) };
        let mut core = Core::new(settings, 0, State::new());
        core.step(Input::Role { term: 1, leading: true }, 0, 0);
        core.step(Input::Committed { index: 1, term: 1, data: Bytes::new() }, 0, 0);
        core.flush(0, 0);
        core
    }

    fn job() -> v1::JobSpec {
        v1::JobSpec { command: vec!["true".to_owned()], ..Default::default() }
    }

    /// What the core does with one call: the refusal's code, reason and message, or whether it proposes something.
    fn ask(core: &mut Core, call: u64, request: Request) -> Result<bool, (i32, String, String)> {
        let caller = Caller { role: Role::Client as i32, name: "ada".to_owned() };
        core.step(Input::Open { call: CallId(call), caller, request }, 0, 0);
        let mut proposed = false;
        for output in core.flush(0, 0) {
            match output {
                Output::Propose { .. } => proposed = true,
                Output::Finish { result: Err(refused), .. } => {
                    return Err((refused.code, refused.reason, refused.message));
                }
                _ => {}
            }
        }
        Ok(proposed)
    }

    #[test]
    fn a_leader_with_a_full_disk_refuses_new_jobs_and_nothing_else() {
        let full = || {
            let mut core = leader();
            core.step(Input::DiskLow(true), 0, 0);
            core
        };
        let submit = || Request::SubmitJob(v1::SubmitJobRequest { request_id: "a".to_owned(), spec: Some(job()) });
        let flow = || {
            let request_id = "b".to_owned();
            Request::SubmitJobs(v1::SubmitJobsRequest { request_id, specs: vec![job()], edges: Vec::new() })
        };
        let blob = || Request::UploadBlob(v1::UploadBlobRequest { data: vec![1].into() });
        for (call, request) in [submit(), flow(), blob()].into_iter().enumerate() {
            let (code, reason, message) = ask(&mut full(), call as u64, request).unwrap_err();
            assert_eq!((code, &*reason), (refusal::Code::ResourceExhausted as i32, "DISK_LOW"));
            assert!(message.contains("/data of `c1`"), "{message}");
        }
        let cancel = v1::CancelJobRequest { request_id: "c".to_owned(), job_id: 1, ..Default::default() };
        assert_eq!(ask(&mut full(), 10, Request::CancelJob(cancel)), Ok(true));
        let hold = v1::HoldJobRequest { request_id: "d".to_owned(), job_id: 1 };
        assert_eq!(ask(&mut full(), 11, Request::HoldJob(hold)), Ok(true));
        let drain = v1::DrainWorkerRequest { request_id: "e".to_owned(), name: "w".to_owned(), ..Default::default() };
        assert_eq!(ask(&mut full(), 12, Request::DrainWorker(drain)), Ok(true));
    }

    #[test]
    fn it_takes_them_again_when_there_is_room_and_whoever_leads() {
        let mut core = leader();
        let submit = || Request::SubmitJob(v1::SubmitJobRequest { request_id: "a".to_owned(), spec: Some(job()) });
        core.step(Input::DiskLow(true), 0, 0);
        // The disk is this coordinator's, in whatever term it leads.
        core.step(Input::Role { term: 2, leading: false }, 0, 0);
        core.step(Input::Role { term: 3, leading: true }, 0, 0);
        core.step(Input::Committed { index: 2, term: 3, data: Bytes::new() }, 0, 0);
        core.flush(0, 0);
        assert!(ask(&mut core, 1, submit()).is_err());
        core.step(Input::DiskLow(false), 0, 0);
        assert_eq!(ask(&mut core, 2, submit()), Ok(true));
    }

    #[test]
    fn whoever_repeats_an_accepted_submit_is_answered_on_a_full_disk_too() {
        let mut core = leader();
        let submit = || Request::SubmitJob(v1::SubmitJobRequest { request_id: "a".to_owned(), spec: Some(job()) });
        let caller = Caller { role: Role::Client as i32, name: "ada".to_owned() };
        core.step(Input::Open { call: CallId(1), caller, request: submit() }, 0, 0);
        let proposed = core.flush(0, 0).into_iter().find_map(|output| match output {
            Output::Propose { data, .. } => Some(data),
            _ => None,
        });
        core.step(Input::Committed { index: 2, term: 1, data: proposed.unwrap() }, 0, 0);
        core.flush(0, 0);
        core.step(Input::DiskLow(true), 0, 0);
        assert_eq!(ask(&mut core, 2, submit()), Ok(true));
        assert_eq!(core.state().newest_job_of("ada"), Some(1));
    }
}
