//! Digests: computed at marked indexes, told to the other members, and compared by each of them.
//!
//! A mark is an entry. Every replica notes the digest of its events there; where the mark says so it also has the
//! digest of its whole state computed, in the background. Each member tells the others its own, and each compares: one
//! that a majority contradicts stops by itself, whether it leads or not. When they differ and nobody has a majority,
//! the leader takes no new work until a later mark finds a majority that agrees with it.

mod verdict;

use std::collections::BTreeMap;

use bytes::Bytes;
use proto::internal::{Mark, MarkDigests, MemberReport, Refusal, command::Command};
use scheduler::State;

use self::verdict::{Verdict, compare};
use crate::{Output, core::Core, limits, proposals::Waiter, refusal};

/// The digests of one member at one index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Digests {
    chain: [u8; 32],
    whole: Option<[u8; 32]>,
}

/// What another member said last.
#[derive(Debug, Default)]
struct Other {
    boot: u64,
    marks: BTreeMap<u64, Digests>,
}

/// What this member computed, and what the others said.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    own: BTreeMap<u64, Digests>,
    others: BTreeMap<u64, Other>,
    /// The index whose whole digest is being computed.
    computing: Option<u64>,
    /// The next one; a newer mark takes its place.
    waiting: Option<(u64, Box<State>)>,
    /// Index at which nobody had a majority: of the events, of whole states.
    split: [Option<u64>; 2],
    /// Something of this member's own is to be told.
    untold: bool,
    /// Something is to be compared.
    uncompared: bool,
    told_ms: u64,
    /// The leader's: a mark is on its way into the log.
    flying: bool,
    proposed_ms: u64,
    whole_proposed_ms: u64,
    /// A member has begun anew since.
    whole_wanted: bool,
    /// How long the last computation took here.
    took_ms: u64,
}

impl Marks {
    /// An entry with a mark is applied.
    pub(crate) fn note(&mut self, state: &State, whole: bool) {
        let index = state.applied_index();
        self.own.insert(index, Digests { chain: state.digest(), whole: None });
        keep_newest(&mut self.own);
        (self.untold, self.uncompared) = (true, true);
        if whole {
            self.waiting = Some((index, Box::new(state.clone())));
        }
    }

    /// Something that the others should know has changed.
    pub(crate) fn tell(&mut self) {
        self.untold = true;
    }

    /// The state was replaced: what waits is of one that is gone.
    pub(crate) fn restored(&mut self) {
        self.waiting = None;
    }

    /// An own entry was applied, or will never be.
    pub(crate) fn landed(&mut self) {
        self.flying = false;
    }

    /// This member leads from now on; whoever led before may have seen other members.
    pub(crate) fn take_office(&mut self) {
        self.flying = false;
        self.whole_wanted = true;
    }

    fn newest_whole(&self) -> Option<(u64, [u8; 32])> {
        self.own.iter().rev().find_map(|(index, digests)| Some((*index, digests.whole?)))
    }
}

fn keep_newest(marks: &mut BTreeMap<u64, Digests>) {
    while marks.len() > limits::COMPARED_MARKS {
        // Whole digests come seldom, and late: they outlive the others.
        let stale = marks.iter().find(|(_, digests)| digests.whole.is_none()).or(marks.first_key_value());
        let Some(index) = stale.map(|(index, _)| *index) else { return };
        marks.remove(&index);
    }
}

impl Core {
    /// The newest digest of the whole state: of which index, and what it is.
    pub fn newest_whole_digest(&self) -> Option<(u64, [u8; 32])> {
        self.marks.newest_whole()
    }

    /// Whether replicas differ and nobody knows which of them is right.
    pub fn is_split(&self) -> bool {
        self.marks.split.iter().any(Option::is_some)
    }

    /// Refuses what would add to a log that somebody reads wrongly, or for which there is no room.
    pub(crate) fn check_new_work(&self) -> Result<(), Refusal> {
        let Some(index) = self.marks.split.iter().flatten().max() else { return self.check_disk() };
        let message =
            format!("the replicas differ after entry {index}, and no majority agrees; no new jobs until then");
        let hint = "start the coordinators that are down: the one that differs from the others stops by itself";
        Err(refusal::refusal(refusal::Code::FailedPrecondition, refusal::DIVERGED, message, hint))
    }

    /// The background has computed what [`Output::Digest`] asked for.
    pub(crate) fn digested(&mut self, index: u64, digest: [u8; 32], took_ms: u64) {
        let marks = &mut self.marks;
        marks.computing = None;
        marks.took_ms = took_ms;
        (marks.untold, marks.uncompared) = (true, true);
        if let Some(own) = marks.own.get_mut(&index) {
            own.whole = Some(digest);
        }
    }

    /// Another member says how it stands.
    pub(crate) fn reported(&mut self, report: &MemberReport) {
        if report.cluster_id != self.settings.cluster_id || !self.settings.members.contains(&report.from) {
            return;
        }
        self.history.note(report.from, report.held_segments, report.newest_rules);
        let other = self.marks.others.entry(report.from).or_default();
        if other.boot != report.boot {
            // What it read back from its disk has not been compared with anybody's.
            *other = Other { boot: report.boot, ..Other::default() };
            self.marks.whole_wanted = true;
        }
        for said in &report.marks {
            let digest = |bytes: &Bytes| <[u8; 32]>::try_from(&bytes[..]).ok();
            let Some(chain) = digest(&said.chain) else { continue };
            other.marks.insert(said.index, Digests { chain, whole: digest(&said.whole) });
        }
        keep_newest(&mut other.marks);
        // Not told on: else two members would never stop telling each other.
        self.marks.uncompared = true;
    }

    /// Has what is marked computed, compares, and tells the others.
    pub(crate) fn tend_marks(&mut self) {
        if self.marks.computing.is_none()
            && let Some((index, state)) = self.marks.waiting.take()
        {
            self.marks.computing = Some(index);
            self.outputs.push(Output::Digest { index, state });
        }
        if self.settings.members.len() < 2 {
            return;
        }
        if std::mem::take(&mut self.marks.uncompared) {
            self.compare();
        }
        if std::mem::take(&mut self.marks.untold) || self.now_ms >= self.marks.told_ms + limits::REPORT_MS {
            self.marks.told_ms = self.now_ms;
            let report = self.report();
            self.outputs.push(Output::Report(report));
        }
    }

    fn report(&self) -> MemberReport {
        let bytes = |digest: &[u8; 32]| Bytes::copy_from_slice(digest);
        let said = |(index, digests): (&u64, &Digests)| MarkDigests {
            index: *index,
            chain: bytes(&digests.chain),
            whole: digests.whole.as_ref().map(bytes).unwrap_or_default(),
        };
        MemberReport {
            cluster_id: self.settings.cluster_id.clone(),
            from: self.settings.member,
            boot: self.settings.proposer,
            marks: self.marks.own.iter().map(said).collect(),
            held_segments: self.history.held_through(),
            newest_rules: self.settings.newest_rules,
        }
    }

    fn compare(&mut self) {
        let was_split = self.is_split();
        let members = self.settings.members.len();
        for (index, own) in &self.marks.own {
            let of_others = || self.marks.others.values().filter_map(|other| other.marks.get(index));
            let chains: Vec<[u8; 32]> = of_others().map(|digests| digests.chain).collect();
            let wholes: Vec<[u8; 32]> = of_others().filter_map(|digests| digests.whole).collect();
            let verdicts = [
                (compare(&own.chain, &chains, members), "the digest of its events"),
                (own.whole.map_or(Verdict::Open, |whole| compare(&whole, &wholes, members)), "its state"),
            ];
            for (split, (verdict, what)) in self.marks.split.iter_mut().zip(verdicts) {
                match verdict {
                    Verdict::Open => {}
                    Verdict::Agreed if split.is_some_and(|since| since > *index) => {}
                    Verdict::Agreed => *split = None,
                    Verdict::Split => *split = (*split).max(Some(*index)),
                    Verdict::Alone => {
                        let reason = format!("{what} after entry {index} isn't that of a majority of the members");
                        return self.outputs.push(Output::Halt { reason });
                    }
                }
            }
        }
        if was_split != self.is_split() {
            let index = self.marks.split.iter().flatten().max().copied();
            self.outputs.push(Output::Split { index });
        }
    }

    /// The leader's: proposes a mark when there is something to compare.
    pub(crate) fn propose_mark(&mut self) {
        let marks = &self.marks;
        if self.settings.members.len() < 2 || marks.flying || self.now_ms < marks.proposed_ms + limits::MARK_MS {
            return;
        }
        let (applied, split) = (self.state.applied_index(), self.is_split());
        let idle = self.state.last_mark().map_or(0, |(index, _)| index) >= applied;
        let seldom_ms = limits::WHOLE_MARK_MS.max(limits::DIGEST_PAUSE * marks.took_ms);
        let since_ms = self.now_ms - marks.whole_proposed_ms.min(self.now_ms);
        let free = marks.computing.is_none() && marks.waiting.is_none();
        let due = (!idle && since_ms >= seldom_ms) || ((marks.whole_wanted || split) && since_ms >= seldom_ms / 5);
        let whole = free && due;
        if idle && !whole && !split {
            return;
        }
        self.marks.flying = true;
        self.marks.proposed_ms = self.now_ms;
        if whole {
            self.marks.whole_proposed_ms = self.now_ms;
            self.marks.whole_wanted = false;
        }
        self.proposals.push_urgent(Command::Mark(Mark { whole }), Waiter::Nobody);
    }
}
