//! Three replicas driven from a seed, with their real logs and snapshots on disks that crash.

#![allow(clippy::unwrap_used)]

mod member;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use self::{
    member::Plant,
    world::{Figures, World},
};

const SECONDS: u64 = 30;

fn run(seed: u64, plant: Plant) -> Figures {
    let mut world = World::new(seed, plant);
    world.run(SECONDS * 1_000);
    world.heal_and_check();
    world.figures
}

#[test]
fn what_was_acknowledged_survives_whatever_happens() {
    let mut total = Figures::default();
    for seed in 0..20 {
        let figures = catch_unwind(AssertUnwindSafe(|| run(seed, Plant::None)))
            .unwrap_or_else(|panic| panic!("seed {seed}: {}", reason(&*panic)));
        total.acked += figures.acked;
        total.crashes += figures.crashes;
        total.installs += figures.installs;
        total.reads += figures.reads;
        total.terms += figures.terms;
    }
    println!("{total:?}");
    assert!(total.acked > 1_000 && total.crashes > 50 && total.installs > 10 && total.reads > 100 && total.terms > 60);
}

#[test]
fn the_same_seed_gives_the_same_history() {
    assert_eq!(run(7, Plant::None), run(7, Plant::None));
}

#[test]
fn an_acknowledgement_before_the_sync_is_found() {
    assert!(found(Plant::AckBeforeSync), "no seed finds it");
}

#[test]
fn a_start_without_sync_is_found() {
    assert!(found(Plant::NoSyncAtStart), "no seed finds it");
}

/// Whether some seed fails with this bug.
fn found(plant: Plant) -> bool {
    (0..60).any(|seed| catch_unwind(AssertUnwindSafe(|| run(seed, plant))).is_err())
}

fn reason(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}
