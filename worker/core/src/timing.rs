//! Every span of time and every bound that the core uses and that a coordinator doesn't dictate.

/// A stream on which something has been unanswered for so long is given up (design, section 6).
pub const UNANSWERED_MS: u64 = 7_000;
/// A task granted ahead that found no room for so long is returned.
pub const AHEAD_PATIENCE_MS: u64 = 500;
/// Starts older than this are reported; shorter tasks carry their start in their end.
pub const STARTED_AFTER_MS: u64 = 500;
/// Unacknowledged items are sent again when no acknowledgement came for so long: a change of leader behind the
/// same stream can swallow a report.
pub const RESEND_AFTER_MS: u64 = 2_000;
/// While this many reports are unacknowledged, further items wait for company; so do all while there is more to
/// start than there is room for...
pub const REPORTS_IN_FLIGHT: usize = 2;
/// ...but not longer than this: well below the 100 ms of work that are granted ahead, so that more comes in time.
pub const REPORT_DELAY_MS: u64 = 40;
/// Most items of one report.
pub const REPORT_ITEMS: usize = 1_000;
/// Most bytes of one report, roughly: it becomes a part of a log entry of at most 1 MiB.
pub const REPORT_BYTES: usize = 256 << 10;
/// First delay before another connection is tried; it doubles up to [`RECONNECT_MOST_MS`].
pub const RECONNECT_LEAST_MS: u64 = 50;
/// Small against the 25 s of lost contact that running tasks survive.
pub const RECONNECT_MOST_MS: u64 = 1_000;
/// First delay before a publication that failed for a passing reason is tried again; it doubles up to
/// [`PUBLISH_AGAIN_MOST_MS`].
pub const PUBLISH_AGAIN_LEAST_MS: u64 = 1_000;
/// Longest delay between two tries of one publication.
pub const PUBLISH_AGAIN_MOST_MS: u64 = 30_000;
/// Specs of jobs kept for grants to come. A grant whose spec is gone costs a new connection, no more.
pub const SPECS: usize = 16_384;
/// Ended attempts remembered, so that a repeated grant of one starts nothing.
pub const ENDED_REMEMBERED: usize = 16_384;
/// Most bytes of an end's detail.
pub const DETAIL_BYTES: usize = 1_024;
/// Between SIGTERM and SIGKILL before the machine is taken back (interfaces, section 2); less where the notice is short.
pub const RECLAIM_GRACE_MS: u64 = 30_000;
/// Before the machine is taken back so much time remains for ends and logs...
pub const RECLAIM_MARGIN_MS: u64 = 5_000;
/// ...or this part of a short notice.
pub const RECLAIM_MARGIN_SHARE: u64 = 5;
/// A session that was ended younger than this makes the next one wait: two workers of one name would otherwise end
/// each other's sessions as fast as they can.
pub const SHORT_SESSION_MS: u64 = 10_000;
