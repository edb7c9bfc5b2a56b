//! Comparing the replicas of a grid.

use std::{
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::output::Output;

/// By then replicas that can reach each other have applied the same.
const AGREE: Duration = Duration::from_secs(15);

/// Waits until all three replicas are reachable and have the same digest at one index; `status` calls
/// `millgrid cluster status` with these arguments more.
#[track_caller]
pub fn agree(status: impl Fn(&[&str]) -> Output) {
    let start = Instant::now();
    loop {
        let output = status(&["-o", "json", "--timeout", "5s"]);
        if output.code == 0 {
            let status = output.json();
            let members = status["members"].as_array().cloned().unwrap_or_default();
            let digest = |member: &Value| (member["digest_index"].clone(), member["digest"].clone());
            let all: Vec<_> = members.iter().filter(|member| member["digest"].is_string()).map(digest).collect();
            // Digests of one index that differ never become equal: no second look.
            assert!(all.iter().all(|one| *one == all[0]), "replicas differ: {status}");
            if members.len() == 3 && all.len() == 3 {
                return;
            }
        }
        let last = output.stdout + &output.stderr;
        assert!(start.elapsed() < AGREE, "not within {AGREE:?}: three replicas with one digest\n{last}");
        thread::sleep(Duration::from_millis(100));
    }
}
