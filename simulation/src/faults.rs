//! What goes wrong, and when.

use bytes::Bytes;
use proto::internal::{Command, NoteSilence, WorkerReport, command};
use proto::v1::{AttemptKey, Report, ReportItem};
use scheduler::{Instruction, State};

use crate::{
    member::Member,
    network::Place,
    plant::Plant,
    workload::Faults,
    world::{Event, World},
};

impl World {
    /// One fault, and when the next comes.
    pub(crate) fn fault(&mut self) {
        let kind = self.random.below(17);
        let of_worker = matches!(kind, 7 | 10..=13);
        let happens = match self.workload.faults() {
            Faults::All => true,
            Faults::OfCoordinators => !of_worker,
            Faults::OfWorkers => of_worker,
            Faults::None => false,
        };
        if !happens {
            let next_us = self.random.skewed(2_000_000);
            return self.after(next_us, Event::Fault);
        }
        let member = self.random.below(3) as usize;
        let worker = self.random.below(self.workers.len() as u64) as usize;
        let brief_us = 100_000 + self.random.skewed(8_000_000);
        match kind {
            0 | 1 => {
                self.count("crash");
                self.crash_member(member, false);
                self.after(brief_us, Event::Restart { member });
            }
            2 => {
                self.count("power of one");
                self.crash_member(member, true);
                self.after(brief_us, Event::Restart { member });
            }
            3 => {
                self.count("power of all");
                // A process that came back moments ago may rely on what was never synced.
                self.crash_member(member, false);
                self.restart(member);
                // With slow disks, so that much is on its way to them when the power goes.
                for member in 0..3 {
                    self.members[member].sync_us = 400_000;
                    self.after(3_000_000, Event::QuickDisk { member });
                }
                let soon_us = self.random.between(100_000, 1_500_000);
                self.after(soon_us, Event::PowerOfAll);
            }
            4 => {
                self.count("pause");
                self.members[member].paused_until_us = self.now_us + brief_us;
            }
            5 | 6 => {
                self.count("partition");
                // A follower that is cut off is no news to anyone.
                let leads = |member: &Member| member.process.as_ref().is_some_and(|process| process.core.leads());
                let leader = self.members.iter().position(leads).filter(|_| self.random.chance(700));
                self.partition(leader.unwrap_or(member));
                // Long enough, as a rule, for the others to elect a leader while the old one still thinks it is one.
                let cut_us = self.random.between(300_000, 6_000_000);
                self.after(cut_us, Event::Heal);
            }
            7 => {
                self.count("cut worker");
                for member in 0..3 {
                    self.network.cut(Place::Worker(worker), Place::Member(member));
                    if self.random.chance(700) {
                        self.network.cut(Place::Member(member), Place::Worker(worker));
                    }
                }
                self.after(brief_us * 6, Event::Heal);
            }
            8 => {
                self.count("slow disk");
                self.members[member].sync_us = self.random.between(50_000, 600_000);
                self.after(brief_us, Event::QuickDisk { member });
            }
            9 => {
                self.count("loss and repetition");
                self.network.loss_permille = self.random.between(10, 200);
                self.network.repeat_permille = self.random.between(10, 200);
                self.network.delay_us = self.random.between(2_000, 200_000);
                self.after(brief_us, Event::Calm);
            }
            10 => {
                self.count("agent killed");
                self.kill_agent(worker);
                self.after(brief_us, Event::RestartAgent { worker });
            }
            11 => {
                self.count("machine lost");
                self.lose_machine(worker);
                self.after(brief_us * 4, Event::RestartMachine { worker });
            }
            12 => {
                self.count("agent paused");
                let pause_us = brief_us * if self.random.chance(300) { 6 } else { 1 };
                self.workers[worker].agent_paused_until_us = self.now_us + pause_us;
            }
            13 => {
                self.count("machine paused");
                let pause_us = brief_us * if self.random.chance(300) { 6 } else { 1 };
                let worker = &mut self.workers[worker];
                worker.agent_paused_until_us = self.now_us + pause_us;
                worker.machine_paused_until_us = self.now_us + pause_us;
            }
            16 => self.upgrade(member),
            14 => {
                self.count("leadership moved");
                self.members[member].tell_replica(replication::Input::TransferLeader { to: None });
                self.drive_member(member);
            }
            _ => {
                self.count("state swapped");
                if !self.members[member].process.as_ref().is_some_and(|process| process.core.leads()) {
                    self.members[member].swap_state(self.plant, self.now_us);
                    self.drive_member(member);
                }
            }
        }
        let next_us = 200_000 + self.random.skewed(12_000_000);
        self.after(next_us, Event::Fault);
    }

    /// Cuts a member off from the others, perhaps in one direction, perhaps from everyone.
    fn partition(&mut self, member: usize) {
        let style = self.random.below(4);
        for other in (0..3).filter(|other| *other != member) {
            if style != 1 {
                self.network.cut(Place::Member(member), Place::Member(other));
            }
            if style != 2 {
                self.network.cut(Place::Member(other), Place::Member(member));
            }
        }
        if style == 3 {
            for worker in 0..self.workers.len() {
                self.network.cut(Place::Member(member), Place::Worker(worker));
                self.network.cut(Place::Worker(worker), Place::Member(member));
            }
            for client in 0..self.clients.len() {
                self.network.cut(Place::Member(member), Place::Client(client));
                self.network.cut(Place::Client(client), Place::Member(member));
            }
        }
    }
}

/// Changes what a leader proposes, as a planted bug would.
pub(crate) fn tamper(plant: Option<Plant>, data: &Bytes, state: &State) -> Option<Bytes> {
    let plant = plant.filter(|plant| plant.tampers())?;
    let mut entry = proto::entry::decode(data).ok()?;
    for command in &mut entry.commands {
        match &mut command.command {
            Some(command::Command::SubmitJobs(submit)) if plant == Plant::RequestIdsIgnored => {
                if let Some(request) = &mut submit.request {
                    request.id.clear();
                }
            }
            Some(command::Command::CreateQueue(create)) if plant == Plant::WeightsIgnored => create.settings = None,
            Some(command::Command::GrantTasks(grant)) if plant == Plant::GrantsLost => {
                let favoured = state.sessions().map(|session| session.id).next();
                grant.runs.retain(|run| Some(run.session) == favoured);
            }
            // It goes into the log as the note that came before it, which changes nothing.
            Some(command::Command::ExpireSession(expire)) if plant == Plant::SessionsOutlive => {
                let note = NoteSilence { session: expire.session, silent: true };
                *command = Command { command: Some(command::Command::NoteSilence(note)) };
            }
            Some(command::Command::WorkerReport(report)) if plant == Plant::NoFence => {
                if let Some(mistaken) = without_fence(report, state) {
                    *command = Command { command: Some(command::Command::WorkerReport(mistaken)) };
                }
            }
            _ => {}
        }
    }
    Some(proto::entry::encode(&entry))
}

/// The report of an attempt that isn't its reporter's any more, as if whoever has the task now had made it.
fn without_fence(report: &WorkerReport, state: &State) -> Option<WorkerReport> {
    let item = report.report.as_ref()?.items.first()?;
    let key = item.attempt?;
    if state.holds(report.session, &key) {
        return None;
    }
    for session in state.sessions() {
        let present = state.instructions_of(session.id).into_iter().find_map(|instruction| match instruction {
            Instruction::Grant { key: now, .. } if same_task(&now, &key) => Some(now),
            _ => None,
        });
        if let Some(now) = present {
            let items = vec![ReportItem { attempt: Some(now), item: item.item.clone() }];
            let report = Report { first_sequence: session.applied_sequence + 1, items };
            return Some(WorkerReport { session: session.id, report: Some(report) });
        }
    }
    None
}

fn same_task(left: &AttemptKey, right: &AttemptKey) -> bool {
    (left.job_id, left.ordinal) == (right.job_id, right.ordinal)
}
