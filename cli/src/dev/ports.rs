use std::net::{Ipv4Addr, TcpListener};

use serde::{Deserialize, Serialize};

use super::{failure::Failure, record::COORDINATORS};

/// Where the ports begin when nothing is said.
pub const DEFAULT_BASE: u16 = 7070;
/// Busy ports are passed over in steps of this, so that three neighbours stay together.
const STEP: u16 = 10;
/// How often.
const STEPS: u16 = 200;
const PEER: u16 = 100;
const HTTP: u16 = 1000;
const S3: u16 = 2000;

/// The ten ports of a grid, all at fixed distances from the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ports {
    base: u16,
    /// What was asked for when they were found; 0 in the record of an older release.
    #[serde(default)]
    asked: u16,
}

impl Ports {
    /// The first ports at or above `base` that are free now.
    pub fn find(base: u16) -> Result<Self, Failure> {
        let last = base.saturating_add(STEP * STEPS).min(u16::MAX - S3);
        let mut candidates = (base..=last).step_by(STEP.into()).map(|found| Self { base: found, asked: base });
        candidates
            .find(|ports| ports.busy().is_none())
            .ok_or(Failure::NoPorts { from: base, to: last.saturating_add(S3) })
    }

    /// Whether they are what somebody gets who asks for `base`.
    pub fn answer_to(&self, base: u16) -> bool {
        [self.base, self.asked].contains(&base)
    }

    /// One that can't be bound now.
    pub fn busy(&self) -> Option<u16> {
        // All at once, so that two grids that look at the same time don't both find them free.
        let mut bound = Vec::new();
        for port in self.all() {
            match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
                Ok(listener) => bound.push(listener),
                Err(_) => return Some(port),
            }
        }
        None
    }

    pub fn base(&self) -> u16 {
        self.base
    }

    pub fn grpc(&self, coordinator: &str) -> u16 {
        self.base + place(coordinator)
    }

    pub fn peer(&self, coordinator: &str) -> u16 {
        self.base + PEER + place(coordinator)
    }

    pub fn http(&self, coordinator: &str) -> u16 {
        self.base + HTTP + place(coordinator)
    }

    pub fn s3(&self) -> u16 {
        self.base + S3
    }

    fn all(&self) -> impl Iterator<Item = u16> {
        let of = |name| [self.grpc(name), self.peer(name), self.http(name)];
        COORDINATORS.into_iter().flat_map(of).chain([self.s3()])
    }
}

fn place(coordinator: &str) -> u16 {
    COORDINATORS.iter().position(|name| *name == coordinator).unwrap_or(0) as u16
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn all_ports_shift_together_past_a_busy_one() {
        // Another program may take the port between the two calls; then the next ones are as good.
        let found = (23_000..24_000).step_by(STEP.into()).find_map(|base| {
            let first = Ports::find(base).unwrap();
            let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, first.http("c2"))).ok()?;
            Some((first, taken))
        });
        let (first, taken) = found.unwrap();
        assert!(first.busy().is_some());
        let second = Ports::find(first.base()).unwrap();
        assert!(second.base() > first.base());
        assert!(second.answer_to(first.base()) && second.answer_to(second.base()));
        assert!(!second.answer_to(first.base() - 1));
        assert_eq!(second.s3() - second.grpc("c1"), 2000);
        assert_eq!(second.peer("c3") - second.grpc("c1"), 102);
        drop(taken);
    }
}
