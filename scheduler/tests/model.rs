//! Random commands against a slow and obvious model; after each one every job, task and worker must look the same,
//! every invariant must hold, and a twin that is swapped for decode(encode(state)) must have the same digest.
#![allow(clippy::unwrap_used)]

#[path = "model/grid.rs"]
mod grid;
#[path = "model/operation.rs"]
mod operation;
#[path = "model/pair.rs"]
mod pair;

use operation::Operation;
use pair::Pair;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, max_shrink_iters: 2_000, ..ProptestConfig::default() })]

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
