//! Random commands against a slow and obvious model; after each one every job, task and worker must look the same,
//! every invariant must hold, and a twin that is swapped for decode(encode(state)) must have the same digest.
#![allow(clippy::unwrap_used)]

#[path = "model/grid.rs"]
mod grid;
#[path = "model/operation.rs"]
mod operation;
#[path = "model/pair.rs"]
mod pair;

use operation::{Kind, Operation};
use pair::Pair;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn the_rules_do_what_the_model_does(operations in prop::collection::vec(operation::any(), 1..120)) {
        let mut pair = Pair::new();
        for operation in &operations {
            pair.step(operation);
        }
        pair.drain();
    }
}

/// What once went wrong stays here.
#[test]
fn a_plan_on_an_empty_grid_proposes_nothing() {
    let mut pair = Pair::new();
    pair.step(&Operation::Plan);
    pair.drain();
}

/// Success of a job in one life of it, failure in another.
#[test]
fn an_edge_stays_met_though_its_job_was_skipped_for_another_one() {
    let submit = |after| Operation::Submit(operation::Submit::plain(after));
    let retry = |job| Operation::Retry { job, failed_only: false, range: None, cpu: 0 };
    let end = |kind| Operation::Report { session: 0, nth: 0, kind };
    let mut pair = Pair::new();
    for operation in [
        Operation::Open { worker: 0, cpu: 1 },
        submit(vec![]),
        submit(vec![(0, 0), (0, 2)]),
        Operation::Plan,
        end(Kind::FailedForGood),
        retry(0),
        retry(1),
        Operation::Plan,
        end(Kind::Succeeded),
    ] {
        pair.step(&operation);
    }
    pair.drain();
}
