//! What a core is told once, at its making.

use scheduler::Pool;

/// The settings of one coordinator's core. Times are milliseconds.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Of the grid; part of resume tokens.
    pub cluster_id: String,
    /// Drawn anew at each start of the process: marks this coordinator's own proposals in the log.
    pub proposer: u64,
    /// This member's id.
    pub member: u64,
    /// The ids of all members, this one among them. Fewer than two have nobody to compare with.
    pub members: Vec<u64>,
    /// The largest workers that could ever be launched; jobs that fit none are refused. Empty: nothing is refused.
    pub pools: Vec<Pool>,
    /// Bucket and prefix of the grid's own objects, e.g. `s3://dev/.millgrid/`.
    pub grid_prefix: String,
    /// The place that this coordinator's log is on, for people who are told that it is almost full.
    pub disk: String,
    /// A worker renews its session so often.
    pub renew_interval_ms: u64,
    /// A worker kills what runs so long after its last good renewal was sent.
    pub session_lifetime_ms: u64,
    /// The leader notes a session as silent after so long.
    pub silent_after_ms: u64,
    /// The leader ends a session after so long without a renewal. Above the lifetime, so that the old process is dead.
    pub session_expiry_ms: u64,
    /// A new leader waits so long, from the first entry of its term, for sessions that it hasn't heard of yet.
    pub failover_expiry_ms: u64,
    /// The newest version of the rules that this member follows, 1 to [`scheduler::NEWEST_RULES`]. Below the newest, the
    /// grid's rules aren't raised, so that an older release can take over again.
    pub newest_rules: u32,
    /// Ended jobs that are due wait so long for company before they move to the history together.
    pub cut_pause_ms: u64,
    /// Applied bytes between two snapshots.
    pub snapshot_bytes: u64,
    /// Applied commands between two snapshots, so that a restart is bounded.
    pub snapshot_commands: u64,
}

impl Settings {
    /// What `design.md` 6 has.
    pub fn new(cluster_id: String, proposer: u64) -> Self {
        Self {
            cluster_id,
            proposer,
            member: 0,
            members: Vec::new(),
            pools: Vec::new(),
            grid_prefix: String::new(),
            disk: String::new(),
            renew_interval_ms: 3_000,
            session_lifetime_ms: 30_000,
            silent_after_ms: 15_000,
            session_expiry_ms: 35_000,
            failover_expiry_ms: 60_000,
            newest_rules: scheduler::NEWEST_RULES,
            cut_pause_ms: 60_000,
            snapshot_bytes: 64 << 20,
            snapshot_commands: 500_000,
        }
    }
}
