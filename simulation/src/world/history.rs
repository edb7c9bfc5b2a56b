//! Segments of the history on the members' disks: stored, fetched from one another, and read.

use std::sync::Arc;

use bytes::Bytes;
use coordinator_core::Input;
use scheduler::{Archive, Segment, Segments};

use super::{Event, World};
use crate::{member::Member, network::Place, plant::Plant};

/// What becomes of segments.
#[derive(Debug)]
pub(crate) enum Segmental {
    /// It is on the disk.
    Stored { member: usize, boot: u64, number: u32, data: Bytes },
    /// One that a member misses is fetched from another.
    Fetch { member: usize, boot: u64, number: u32, segment: Segment },
    /// A read of some.
    Read { member: usize, boot: u64, ticket: u64, segments: Vec<(u32, Segment)> },
}

impl Segmental {
    pub(super) fn member(&self) -> usize {
        match self {
            Self::Stored { member, .. } | Self::Fetch { member, .. } | Self::Read { member, .. } => *member,
        }
    }
}

impl World {
    pub(super) fn store_segment(&mut self, member: usize, number: u32, data: Bytes) {
        let boot = self.members[member].boot;
        if self.plant == Some(Plant::SegmentsUnstored) {
            self.hold(member, number, number);
        }
        // With that bug the disk takes its time, since nobody waits for it.
        let slow = if self.plant == Some(Plant::SegmentsUnstored) { 20 } else { 1 };
        let delay_us = slow * (100 + self.random.skewed(4 * self.members[member].sync_us));
        self.after(delay_us, Event::Segmental(Segmental::Stored { member, boot, number, data }));
    }

    /// Says which of them are there, and fetches the others.
    pub(super) fn keep_segments(&mut self, member: usize, segments: &Segments) {
        let boot = self.members[member].boot;
        for (number, segment) in (1..).zip(segments) {
            if self.members[member].segments.contains_key(&number) {
                self.hold(member, number, number);
            } else {
                let fetch = Segmental::Fetch { member, boot, number, segment: segment.clone() };
                let delay_us = self.random.skewed(500_000);
                self.after(delay_us, Event::Segmental(fetch));
            }
        }
    }

    pub(super) fn read_history(&mut self, member: usize, ticket: u64, segments: Vec<(u32, Segment)>) {
        let boot = self.members[member].boot;
        let delay_us = self.random.skewed(20_000);
        self.after(delay_us, Event::Segmental(Segmental::Read { member, boot, ticket, segments }));
    }

    pub(super) fn segmental(&mut self, event: Segmental) {
        match event {
            Segmental::Stored { member, boot, number, data } => {
                if self.runs(member, boot) {
                    self.members[member].segments.insert(number, data);
                    self.hold(member, number, number);
                    self.drive_member(member);
                }
            }
            Segmental::Fetch { member, boot, number, segment } => {
                if !self.runs(member, boot) || self.members[member].segments.contains_key(&number) {
                    return;
                }
                match self.of_another(member, number) {
                    Some(data) => {
                        self.compare(member, number, &segment, &data);
                        self.figures.fetched += 1;
                        self.members[member].segments.insert(number, data);
                        self.hold(member, number, number);
                        self.drive_member(member);
                    }
                    None => {
                        let fetch = Segmental::Fetch { member, boot, number, segment };
                        self.after(300_000, Event::Segmental(fetch));
                    }
                }
            }
            Segmental::Read { member, boot, ticket, segments } => {
                if !self.runs(member, boot) {
                    return;
                }
                let read = |(number, segment): &(u32, Segment)| {
                    let own = self.members[member].segments.get(number).cloned();
                    let data = own.or_else(|| self.of_another(member, *number))?;
                    let sound = *blake3::hash(&data).as_bytes() == segment.checksum;
                    sound.then(|| Arc::new(Archive::read(*number, &data).expect("what was cut can be read")))
                };
                let archives: Option<Vec<_>> = segments.iter().map(read).collect();
                self.figures.history_reads += u64::from(archives.is_some());
                self.members[member].tell_core(Input::HistoryRead { ticket, archives }, self.now_us);
                self.drive_member(member);
            }
        }
    }

    fn hold(&mut self, member: usize, first: u32, last: u32) {
        self.members[member].tell_core(Input::SegmentsHeld { first, last }, self.now_us);
    }

    /// A segment, as another member that can be reached has it.
    fn of_another(&self, member: usize, number: u32) -> Option<Bytes> {
        (0..3).filter(|other| *other != member).find_map(|other| {
            let (here, there) = (Place::Member(member), Place::Member(other));
            let reached = self.network.reaches(here, there) && self.network.reaches(there, here);
            let runs = self.members[other].process.is_some() && self.members[other].paused_until_us <= self.now_us;
            (reached && runs).then(|| self.members[other].segments.get(&number).cloned())?
        })
    }

    fn compare(&mut self, member: usize, number: u32, segment: &Segment, data: &Bytes) {
        if *blake3::hash(data).as_bytes() != segment.checksum {
            let detail = format!("segment {number} that member {member} fetched isn't the one that was cut");
            self.oracle.violated("I8", detail);
        }
    }

    /// Whether every member has every segment of its state on its disk.
    pub(super) fn segments_are_everywhere(&self) -> bool {
        let count = self.oracle.state.segments().len() as u32;
        let has_all = |member: &Member| (1..=count).all(|number| member.segments.contains_key(&number));
        self.members.iter().all(has_all)
    }

    /// Whether what has left the state is on most disks, as it was cut.
    pub(super) fn check_segments(&mut self) {
        let settled = self.oracle.state.settled_segments();
        for (number, segment) in (1..=settled).zip(self.oracle.state.segments().clone()) {
            let sound = |member: &&Member| {
                let data = member.segments.get(&number);
                data.is_some_and(|data| *blake3::hash(data).as_bytes() == segment.checksum)
            };
            let holders = self.members.iter().filter(sound).count();
            if holders < 2 {
                let detail = format!("segment {number} is settled, but {holders} of 3 members have it");
                self.oracle.violated("I1", detail);
            }
        }
    }
}
