//! Explanations are the planner's own: what is said not to fit never starts, and what nothing is said against does.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proto::{
    internal::{
        Command, CreateQueue, Entry, JobSubmission, OpenSession, SetCordon, SetLicense, SubmitJobs,
        command::Command as C,
    },
    v1::{Capacity, Constraint, IndexRange, QueueSettings, Resources},
};
use scheduler::{Cursor, Pool, State, plan};

/// The largest worker that there may be.
const LARGEST: Capacity = Capacity { cpu_milli: 4_000, memory_mib: 4, gpus: 1, scratch_gib: 4 };

fn apply(state: &mut State, command: C) -> bool {
    let index = state.applied_index() + 1;
    let commands = vec![Command { command: Some(command) }];
    let entry = Entry { proposer: 1, sequence: index, time_ms: index, wall_ms: index as i64, commands };
    state.apply(index, &entry).outcomes[0].is_ok()
}

/// What is granted when everybody is heard.
fn granted(state: &State) -> BTreeMap<u64, u32> {
    let heard: BTreeSet<u64> = state.sessions().map(|session| session.id).collect();
    let mut granted = BTreeMap::new();
    for run in plan(state, &heard, &Cursor::default(), usize::MAX).grants {
        *granted.entry(run.job_id).or_default() += run.tasks.unwrap().count;
    }
    granted
}

type Amounts = (u64, u64, u32, u64);

fn amounts(most: u64) -> impl Strategy<Value = Amounts> {
    (1..=most, 0..=most, 0..2u32, 0..=most)
}

fn resources((cpus, memory_mib, gpus, scratch_gib): Amounts) -> Resources {
    Resources { cpu_milli: cpus * 1000, memory_mib, gpus, scratch_gib }
}

/// A worker: what it has, its zone, what is taken of it, and whether it is cordoned.
fn worker() -> impl Strategy<Value = (Amounts, u8, Amounts, bool)> {
    (amounts(4), 0..3u8, amounts(3), prop::bool::weighted(0.2))
}

#[derive(Debug, Clone)]
struct Asked {
    first: Amounts,
    other: Option<Amounts>,
    zone: Option<(u8, bool)>,
    licenses: u32,
    limited_queue: bool,
}

fn asked() -> impl Strategy<Value = Asked> {
    let zone = prop::option::weighted(0.4, (0..4u8, any::<bool>()));
    let limited = prop::bool::weighted(0.2);
    (amounts(5), prop::option::weighted(0.3, amounts(3)), zone, 0..3u32, limited)
        .prop_map(|(first, other, zone, licenses, limited_queue)| Asked { first, other, zone, licenses, limited_queue })
}

fn submission(asked: &Asked) -> JobSubmission {
    let constraint = |(zone, negated): (u8, bool)| Constraint {
        label: "zone".to_owned(),
        values: vec![zone.to_string()],
        negated,
        preferred: false,
    };
    JobSubmission {
        queue: if asked.limited_queue { "limited".to_owned() } else { String::new() },
        resources: Some(resources(asked.first)),
        alternatives: asked.other.map(resources).into_iter().collect(),
        constraints: asked.zone.map(constraint).into_iter().collect(),
        licenses: (asked.licenses > 0).then(|| ("x".to_owned(), asked.licenses)).into_iter().collect(),
        ranges: vec![IndexRange { first: 0, last: 0, step: 1 }],
        ..JobSubmission::default()
    }
}

fn submit(state: &mut State, job: JobSubmission) -> bool {
    apply(state, C::SubmitJobs(SubmitJobs { jobs: vec![job], ..SubmitJobs::default() }))
}

/// Workers with something running on them, a license of which one may be in use, and a queue for one task.
fn grid(workers: &[(Amounts, u8, Amounts, bool)], license_in_use: bool) -> State {
    let mut state = State::new();
    let settings = QueueSettings { max_running: Some(1), ..QueueSettings::default() };
    let name = "limited".to_owned();
    apply(&mut state, C::CreateQueue(CreateQueue { name, settings: Some(settings), ..CreateQueue::default() }));
    apply(&mut state, C::SetLicense(SetLicense { name: "x".to_owned(), total: 2, ..SetLicense::default() }));
    for (number, (has, zone, taken, cordoned)) in workers.iter().enumerate() {
        let has = resources(*has);
        let Resources { cpu_milli, memory_mib, gpus, scratch_gib } = has;
        let worker = format!("w{number}");
        apply(
            &mut state,
            C::OpenSession(OpenSession {
                worker: worker.clone(),
                labels: [("zone".to_owned(), zone.to_string()), ("name".to_owned(), worker.clone())].into(),
                capacity: Some(Capacity { cpu_milli, memory_mib, gpus, scratch_gib }),
                ..OpenSession::default()
            }),
        );
        // Something that runs there, if it fits, and nowhere else.
        let there = Constraint { label: "name".to_owned(), values: vec![worker.clone()], ..Constraint::default() };
        let licenses = u32::from(license_in_use && number == 0);
        let busy = Asked { first: *taken, other: None, zone: None, licenses, limited_queue: number == 1 };
        submit(&mut state, JobSubmission { constraints: vec![there], ..submission(&busy) });
        let heard: BTreeSet<u64> = state.sessions().map(|session| session.id).collect();
        let runs = plan(&state, &heard, &Cursor::default(), usize::MAX).grants;
        apply(&mut state, C::GrantTasks(proto::internal::GrantTasks { runs }));
        // What found no room is of no use here.
        let last = state.newest_job_of("").unwrap();
        if state.job(last).unwrap().tasks.unwrap().queued > 0 {
            apply(&mut state, C::CancelTasks(proto::internal::CancelTasks { job_id: last, ..Default::default() }));
        }
        if *cordoned {
            apply(&mut state, C::SetCordon(SetCordon { worker, cordoned: true, ..SetCordon::default() }));
        }
    }
    state
}

proptest! {
    #[test]
    fn a_job_starts_exactly_when_nothing_is_said_against_it(
        workers in prop::collection::vec(worker(), 0..5),
        license_in_use in any::<bool>(),
        asked in asked(),
    ) {
        let mut state = grid(&workers, license_in_use);
        if !submit(&mut state, submission(&asked)) {
            return Ok(());
        }
        let id = state.newest_job_of("").unwrap();
        let pools = [Pool { name: "local".to_owned(), largest: LARGEST }];
        let explained = state.explain(id, None, &pools).unwrap();
        let starts = granted(&state).contains_key(&id);
        prop_assert_eq!(starts, explained.reasons.is_empty(), "{:?}", explained);
        for reason in &explained.reasons {
            prop_assert!(!reason.detail.is_empty(), "{:?}", explained);
        }
        // What no pool could ever hold never starts: no worker is larger than the largest.
        let alternatives: Vec<Resources> = asked.other.map(resources).into_iter().collect();
        if Pool::feasible(&pools, &resources(asked.first), &alternatives).is_err() {
            prop_assert!(!starts);
        }
        // What is said before the submit is what is said after it.
        let before = state.plan_job(&submission(&asked), &pools);
        if before.tasks_startable_now > 0 && !asked.limited_queue {
            prop_assert!(starts, "{:?} but {:?}", before, explained);
        }
    }
}
